"""The page that tags: answers of the service; the server, its limits and privacy; the page in headless Chromium."""

import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import requests
import soundfile
from click.testing import CliRunner

import keras_musictag as kmt
from keras_musictag.apps.serving import Limits, ServeError, TaggingService, serving
from keras_musictag.cli import main
from keras_musictag.errors import MissingExtraError, UnknownModelError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Ten seconds of a tone, and what is no sound."""
    folder = tmp_path_factory.mktemp("sounds")
    t = np.arange(160_000) / 16_000
    soundfile.write(folder / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * t), 16_000)
    (folder / "broken.mp3").write_text("not music\n" * 100)
    return folder


# === The service ===


def test_the_answer_is_what_tag_and_taggram_say(sounds):
    answer = TaggingService(["tiny"]).answer(sounds / "tone.wav", ["tiny"])
    assert (answer["file"], answer["seconds"], answer["note"]) == ("tone.wav", 10.0, "")
    [result] = json.loads(json.dumps(answer))["results"]
    tagger = kmt.load("tiny")
    assert result["tags"] == pytest.approx(tagger.tag(sounds / "tone.wav"), abs=1e-6)  # rounded to six decimals
    assert next(iter(result["tags"])) == "tone"
    assert result["taggram"] == tagger.taggram(sounds / "tone.wav").to_dict()


def test_long_sounds_are_cut_and_it_is_said(sounds):
    answer = TaggingService(["tiny"], limits=Limits(minutes=0.1)).answer(sounds / "tone.wav", ["tiny"])
    assert answer["seconds"] == 6.0 and answer["note"] == "Only the first 0.1 minutes were used."
    assert len(answer["results"][0]["taggram"]["times"]) == 6


def test_long_taggrams_have_few_windows(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 200 * 8_000), 8_000)
    [result] = TaggingService(["tiny"]).answer(tmp_path / "long.wav", ["tiny"])["results"]
    assert 55 <= len(result["taggram"]["times"]) <= 61


def test_what_is_wrong_is_said_without_paths_of_the_server(sounds, tmp_path):
    service = TaggingService(["tiny"], limits=Limits(megabytes=0.3))
    error = service.answer(sounds / "broken.mp3", ["tiny"])["error"]
    assert error.startswith("'broken.mp3' is not a sound file") and str(sounds) not in error
    assert service.answer(sounds / "tone.wav", ["tiny"])["error"] == "tone.wav is larger than 0.3 MB. Cut it."
    assert service.answer(tmp_path / "gone.wav", ["tiny"])["error"] == "gone.wav was deleted. Upload it again."


def test_a_model_that_fails_leaves_the_other_one(sounds, monkeypatch):
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    service = TaggingService(["tiny", "musicnn_mtt"])
    good, bad = service.answer(sounds / "tone.wav", ["tiny", "musicnn_mtt", "tiny"])["results"]
    assert "tags" in good and "offline" in bad["error"].lower()


def test_models():
    assert TaggingService().models[0] == "musicnet_crnn" and "tiny" not in TaggingService().models
    with pytest.raises(UnknownModelError, match=r"This server has no model '/etc'. It has: tiny\."):
        TaggingService(["tiny"]).tagger("/etc")


def test_all_models_are_offered_by_vocabulary_and_loaded_when_first_used(sounds, monkeypatch):
    loaded, tiny = [], kmt.load("tiny")
    monkeypatch.setattr("keras_musictag.loading.load", lambda name, **_: loaded.append(name) or tiny)
    service = TaggingService()
    groups = service.groups
    assert list(groups) == ["MagnaTagATune", "Million Song Dataset", "AudioSet", "MTG-Jamendo"]
    assert groups["MagnaTagATune"][0] == "musicnet_crnn" and groups["AudioSet"] == ("mn04_audioset",)
    assert sorted(sum(groups.values(), ())) == sorted(set(kmt.list_models(pretrained=True)) & set(service.models))
    assert loaded == []
    for _ in range(2):
        service.answer(sounds / "tone.wav", ["won_fcn_msd"])
    assert loaded == ["won_fcn_msd"]


def test_own_tags_come_last(tmp_path):
    kmt.load("tiny").save(tmp_path / "mine")
    service = TaggingService(["tiny", "no_such_model", "vgg_mtt", str(tmp_path / "mine")])
    assert service.groups == {
        "MagnaTagATune": ("vgg_mtt",), "own tags": ("tiny", "no_such_model", str(tmp_path / "mine")),
    }  # fmt: skip


def test_kinds_and_notes_are_in_the_answer(tmp_path):
    soundfile.write(tmp_path / "phone.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 8_000), 5_000)
    with_kinds, without = TaggingService(["musicnet_crnn", "tiny"]).answer(
        tmp_path / "phone.wav", ["musicnet_crnn", "tiny"]
    )["results"]
    assert with_kinds["kinds"]["guitar"] == "instrument" and set(with_kinds["kinds"]) == set(with_kinds["tags"])
    assert without["kinds"] == {}
    [note] = with_kinds["notes"]
    assert note.startswith("The sample rate is 5000 Hz") and "up to 6000 Hz" in note


def test_limits():
    with pytest.raises(ValueError, match="minutes must be a positive number; got 0"):
        Limits(minutes=0)
    with pytest.raises(ValueError, match="megabytes must be a positive number; got nan"):
        Limits(megabytes=float("nan"))


def test_where_it_cannot_listen():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=rf"Cannot listen on port {port} of '127\.0\.0\.1'.*Choose another"):
            serving(TaggingService(["tiny"]), port=port).__enter__()
    with pytest.raises(ServeError, match=r"any port from 7860 to 7959 of '192\.0\.2\.1'"):
        serving(TaggingService(["tiny"]), host="192.0.2.1").__enter__()


def test_without_gradio(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r"keras_musictag\[demo\]"):
        serving(TaggingService(["tiny"])).__enter__()
    result = CliRunner().invoke(main, ["serve", "-m", "tiny"])
    assert result.exit_code == 2 and "keras_musictag[demo]" in result.stderr


# === The server ===


class Server:
    """`keras-musictag serve` in a process of its own."""

    def __init__(self, temporary, *options, models=("tiny", "musicnet_crnn")):
        pytest.importorskip("gradio")
        self.temporary = temporary
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keras_musictag.cli", "serve", *(f"--model={name}" for name in models), *options],
            env={**os.environ, "TMPDIR": str(temporary), "GRADIO_TEMP_DIR": str(temporary / "not here")},
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stderr.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+/)  \(Ctrl-C stops it\)", line)
        assert found, line + self.process.stderr.read()
        self.url = found[1]
        self.api = self.url + "gradio_api/"

    def files(self):
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def upload(self, path):
        with open(path, "rb") as file:
            return requests.post(self.api + "upload", files={"files": (path.name, file)}, timeout=60)

    def ask(self, uploaded, *models):
        """What /tag answers, and whether it did."""
        sound = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}
        asked = requests.post(self.api + "call/tag", json={"data": [sound, *models]}, timeout=60)
        told = requests.get(f"{self.api}call/tag/{asked.json()['event_id']}", timeout=60).text
        event, data = re.findall(r"event: (\w+)\ndata: (.*)", told)[-1]
        return json.loads(data)[0] if event == "complete" else f"{event}: {data}"

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.process.stderr.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("temporary"), "--max-mb", "1")
    yield server
    server.stop()


def test_ten_uploads_at_once(served, tmp_path):
    def tag(number):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * (1 + number / 10) * np.arange(32_000) / 16_000), 16_000)
        return served.ask(served.upload(path).json()[0], "tiny", "none")

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(tag, range(10)))
    assert [answer["file"] for answer in answers] == [f"{number}.wav" for number in range(10)]
    for answer in answers:  # each got its own
        [result] = answer["results"]
        assert result["tags"] == pytest.approx(kmt.load("tiny").tag(tmp_path / answer["file"]), abs=2e-6)


def test_what_the_server_refuses(served, sounds, tmp_path):
    soundfile.write(tmp_path / "large.wav", np.zeros(600_000), 16_000)
    large = served.upload(tmp_path / "large.wav")
    assert large.status_code == 413 and "exceeded" in large.text
    for path in (str(sounds / "tone.wav"), "/etc/passwd"):  # files that were not uploaded
        assert served.ask(path, "tiny", "none").startswith("error")
        assert requests.get(f"{served.api}file={path}", timeout=60).status_code == 403
    uploaded = served.upload(sounds / "tone.wav").json()[0]
    assert served.ask(uploaded, "hf://org/repo", "none").startswith("error")
    assert served.ask(uploaded, "tiny", "none")["file"] == "tone.wav"


def test_the_page_asks_nobody_else(served):
    config = requests.get(served.url + "config", timeout=60).json()
    assert config["analytics_enabled"] is False and not config.get("run_history") and not config["footer_links"]
    assert "googleapis" not in requests.get(served.url + "theme.css", timeout=60).text
    policy = requests.get(served.url, timeout=60).headers["content-security-policy"]
    assert policy == "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_nothing_is_left_when_it_stops(tmp_path, sounds):
    server = Server(tmp_path)
    assert server.upload(sounds / "tone.wav").ok
    [file] = server.files()
    assert file.name == "tone.wav" and (tmp_path / file.relative_to(tmp_path).parts[0]).stat().st_mode & 0o077 == 0
    server.stop()
    assert server.process.returncode == 0 and not server.files()


# === The page ===


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not here")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, served):
    """The page, which must load everything from its own server and have no error of its own."""
    page = browser.new_page(viewport={"width": 1240, "height": 720})
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(served.url)
    page.wait_for_selector("#sound input[type=file]", state="attached")
    yield page
    assert not [url for url in asked if not url.startswith((served.url, "data:", "blob:"))]
    assert not errors
    page.close()


def drop(page, path):
    page.set_input_files("#sound input[type=file]", path)


def choose(page, box, model):
    page.click(f"#{box} input")
    page.get_by_role("option", name=model).click()


def test_a_song_is_dropped_compared_heard_and_downloaded(page, served, tmp_path):
    drop(page, kmt.demo_clip())
    page.wait_for_selector("#answer .result .fill")
    choose(page, "second", "musicnet_crnn")
    page.wait_for_selector("#answer .result:nth-child(2) .fill")
    assert page.locator("#answer h3").all_inner_texts() == ["tiny", "musicnet_crnn"]
    tags = page.locator("#answer .result:nth-child(2) .tag").all_inner_texts()
    expected = kmt.load("musicnet_crnn").tag(kmt.demo_clip(), top=10)
    assert tags == list(expected)
    # A click in the middle of the taggram moves the player there, and the cursors follow it.
    page.locator("#answer .kinds button", has_text="mood").click()
    page.wait_for_selector("#answer .kinds .chosen >> text=mood")
    tags = page.locator("#answer .result:nth-child(2) .tag").all_inner_texts()
    assert tags == list(kmt.load("musicnet_crnn").tag(kmt.demo_clip(), kinds={"mood"}))
    assert page.locator("#answer .result:nth-child(1) .tag").count() == 5, "its tags have no kinds: all of them"
    page.locator("#answer .kinds button", has_text="all").click()
    page.wait_for_selector("#answer .kinds .chosen >> text=all")
    strip = page.locator("#answer .strip").first
    strip.click(position={"x": strip.bounding_box()["width"] / 2, "y": 5})
    page.wait_for_function("parseFloat(document.querySelector('#answer .cursor').style.left) > 49")
    seconds = page.evaluate("document.querySelector('#sound audio').currentTime")
    assert seconds == pytest.approx(10.4, abs=0.5)
    page.evaluate("document.querySelector('#sound audio').play()")
    page.wait_for_function("parseFloat(document.querySelector('#answer .cursor').style.left) > 52")
    with page.expect_download() as download:
        page.click("#answer a[download='clip.json']")
    answer = json.loads(download.value.path().read_text())
    assert answer["results"][1]["tags"] == pytest.approx(kmt.load("musicnet_crnn").tag(kmt.demo_clip()), abs=2e-6)
    with page.expect_download() as download:
        page.click("#answer a[download='clip.csv']")
    lines = download.value.path().read_text().splitlines()
    assert lines[0] == "file,model,tag,probability" and lines[1].startswith('"clip.ogg","tiny",')
    assert len(lines) == 1 + 5 + 50


def test_a_broken_file_is_explained(page, sounds):
    drop(page, sounds / "broken.mp3")
    problem = page.wait_for_selector("#answer .problem")
    assert problem.inner_text().startswith("'broken.mp3' is not a sound file")
    page.get_by_label("Clear").first.click()
    page.wait_for_selector("#answer .problem", state="detached")


def test_names_of_files_are_no_html(page, sounds, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>=.wav"
    shutil.copy(sounds / "broken.mp3", path)
    drop(page, path)
    page.wait_for_selector("#answer .problem")
    assert page.locator("#answer img").count() == 0


def test_a_recording(page):
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    time.sleep(1.5)
    page.get_by_role("button", name="Stop").first.click()
    page.wait_for_selector("#answer .result .fill")


def test_live_tags_while_the_microphone_records(page, served):
    """Chromium's own microphone beeps once a second."""
    before, uploads = set(served.files()), []
    page.on("request", lambda request: uploads.append(request.url) if "/upload" in request.url else None)
    page.get_by_text("Live: tags while the microphone records").click()
    microphone = page.locator("#microphone")
    microphone.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_selector("#live .result .fill", timeout=60_000)
    first = page.inner_text("#live h3")
    assert first.startswith("tiny, ")
    page.wait_for_function(f"document.querySelector('#live h3').innerText != {first!r}", timeout=60_000)
    assert set(page.locator("#live .tag").all_inner_texts()) == set(kmt.load("tiny").names)
    if shown := os.environ.get("KERAS_MUSICTAG_SCREENSHOTS"):
        page.screenshot(path=f"{shown}/live.png", full_page=True)
    microphone.get_by_role("button", name="Stop").first.click()
    time.sleep(1.5)
    # Pieces are deleted as they are tagged: three at least, two of half a second before the first row and one after it.
    # Gradio does not pass on those that come while it is busy, nor the last one; they are swept with old files.
    assert len(set(served.files()) - before) <= len(uploads) - 3


def test_live_waits_for_a_slow_connection(page, served):
    """Record is pressed before the page has loaded what encodes the sound."""
    page.route("**/assets/module-*.js", lambda route: (time.sleep(1), route.continue_()))
    page.get_by_text("Live: tags while the microphone records").click()
    page.locator("#microphone").get_by_role("button", name="Record", exact=True).click()
    page.wait_for_selector("#live .result .fill", timeout=60_000)


def test_live_waits_for_an_encoder_that_is_loaded_and_not_yet_registered(page, served):
    """Its registration is a message to a worker, here half a second late."""
    page.evaluate("""() => {
        const post = Worker.prototype.postMessage;
        Worker.prototype.postMessage = function (message, ...rest) {
            const late = message.method === "register";
            window.registered = late ? "late" : window.registered;
            setTimeout(() => post.call(this, message, ...rest), late ? 500 : 0);
        };
    }""")
    page.get_by_text("Live: tags while the microphone records").click()
    page.wait_for_function("window.registered === 'late'")
    page.locator("#microphone").get_by_role("button", name="Record", exact=True).click()
    page.wait_for_selector("#live .result .fill", timeout=60_000)


def test_a_file_is_deleted_when_its_page_is_closed(browser, served, tmp_path):
    path = tmp_path / "mine.wav"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, 16_000), 16_000)
    pages = [browser.new_page(), browser.new_page()]
    for page in pages:
        page.goto(served.url)
        page.wait_for_selector("#sound input[type=file]", state="attached")
        drop(page, path)
        page.wait_for_selector("#answer .result .fill")
    mine = [file for file in served.files() if file.name == "mine.wav"]
    assert len(mine) == 1  # the same sound, twice
    pages[0].close()
    time.sleep(1)
    assert mine[0].exists()
    pages[1].close()
    for _ in range(100):
        if not mine[0].exists():
            return
        time.sleep(0.1)
    raise AssertionError("the file is still there ten seconds after the page was closed")


@pytest.mark.speed
def test_a_clip_of_30_s_takes_less_than_2_s(browser, tmp_path):
    path = tmp_path / "clip.mp3"
    y = np.resize(kmt.audio.load(kmt.demo_clip(), target_sr=22_050), 30 * 22_050)
    soundfile.write(path, y, 22_050, format="MP3")
    server, spent = Server(tmp_path, models=["musicnet_crnn"]), []
    try:
        for _ in range(6):  # the first loads the model, and the browser may still read its files from disk
            page = browser.new_page()
            begun = time.monotonic()
            page.goto(server.url)
            page.wait_for_selector("#sound input[type=file]", state="attached")
            loaded = time.monotonic()
            drop(page, path)
            page.wait_for_selector("#answer .result .fill")
            spent.append((loaded - begun, time.monotonic() - loaded))
            page.close()
    finally:
        server.stop()
    assert min(tagging for _, tagging in spent[1:]) < 2, spent
    assert min(loading for loading, _ in spent[1:]) < 2, spent
