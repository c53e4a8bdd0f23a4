"""The page that tags in the browser: in Chromium, without a network once it is loaded, beside Python."""

import contextlib
import functools
import http.server
import importlib.util
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import keras_musictag as kmt
from keras_musictag.models import windows

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FFMPEG = shutil.which("ffmpeg")
BROWSER = Path(__file__).parents[1] / "docs" / "browser"
MODEL = "musicnet_crnn"
# Measured with Chromium 156 and onnxruntime-web 1.30.0, beside Keras: 2e-5 for WAV files at the model's rate, whose
# samples are the same; up to 4e-4 with the page's resampler: WAV at 8 to 96 kHz, FLAC, Vorbis, Opus, MP3. With
# Chromium's own resampler, 0.013.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def build():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("build_browser_page", BROWSER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(build, tmp_path_factory):
    """What the script writes."""
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("browser")
    try:
        tarball = build.fetch(out)
    except build.BuildError as error:
        pytest.skip(str(error))
    build.build(out / "site", MODEL, tarball)
    return out / "site"


@contextlib.contextmanager
def served(folder):
    """The address at which a plain file server offers a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not here")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser, folder):
    """The loaded page, after which it is offline."""
    with served(folder) as address:
        context = browser.new_context(viewport={"width": 900, "height": 820})
        page = context.new_page()
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.locator("#status", has_text="Ready.").wait_for(timeout=60_000)
        page.evaluate("async () => { window.tagger = await (await import('./tagger.js')).loadTagger(); }")
        context.set_offline(True)
        loaded = len(asked)
        yield page
        assert all(url.startswith((address, "data:")) for url in asked)
        assert asked[loaded:] == [] and errors == []
        context.close()


@pytest.fixture(scope="module")
def tagger():
    return kmt.load(MODEL)


@pytest.fixture(scope="module")
def music():
    """40 s of stereo music at 44.1 kHz: two windows of the model, of which the last one overlaps."""
    y, sr = soundfile.read(kmt.demo_clip(), dtype="float32")
    y = y if y.ndim == 1 else y.mean(axis=1)
    y = soxr.resample(np.concatenate([y, y[::-1]])[: 40 * sr], sr, 44_100, "VHQ")
    return np.stack([y, np.roll(y, 300)], axis=1)


def choose(page, path):
    """Drop a file; return name -> probability of the shown tags."""
    page.set_input_files("input", path)
    page.locator("#status", has_text=re.compile(f"^{re.escape(path.name)}$")).wait_for(timeout=60_000)
    page.locator("#tags section").first.wait_for(timeout=60_000)
    rows = page.eval_on_selector_all("#tags li", "rows => rows.map(row => row.innerText.split('\\n'))")
    return {name: float(p) for name, p in rows}


def probabilities(page, path):
    """The probabilities of a file in the browser, in the order of the tags."""
    page.set_input_files("input", path)
    return np.array(page.evaluate("tagger.tagFile(document.querySelector('input').files[0])"))


def difference(page, tagger, path):
    expected = tagger.tag(path)
    found = probabilities(page, path)
    return max(abs(found - [expected[name] for name in tagger.names]))


@pytest.mark.parametrize("seconds", [40, 5])
def test_the_same_samples(page, tagger, music, tmp_path, seconds):
    """At the model's rate nothing is resampled: the samples of the page are those of Python."""
    rate = tagger.spec.audio.sr
    y = soxr.resample(music.mean(axis=1), 44_100, rate, "VHQ")[: seconds * rate]
    soundfile.write(tmp_path / "song.wav", y, rate, subtype="PCM_16")
    assert difference(page, tagger, tmp_path / "song.wav") < TOLERANCE


@pytest.mark.parametrize("name", ["44100.wav", "48000.flac", "44100.mp3", "44100.m4a"])
def test_other_rates_and_formats(page, tagger, music, tmp_path, name):
    rate = int(name.partition(".")[0])
    source = tmp_path / "source.wav"
    soundfile.write(source, soxr.resample(music, 44_100, rate, "VHQ"), rate)
    if name.endswith("wav"):
        source.rename(tmp_path / name)
    elif FFMPEG is None:
        pytest.skip("ffmpeg is not here")
    else:
        subprocess.run([FFMPEG, "-v", "error", "-i", source, tmp_path / name], check=True)
    assert difference(page, tagger, tmp_path / name) < TOLERANCE


@pytest.mark.parametrize("model", [MODEL, "musicnn_mtt", "won_fcn_mtt"])
def test_windows_are_cut_as_in_python(page, build, model):
    """Of tracks below, at and above one window; the rest is aligned or dropped, tracks are padded or not."""
    spec = kmt.model_info(model)
    for length in (0.4, 1.0, 2.3):
        count = round(length * spec.window_step)
        track = (np.arange(count) * 7919 % 1009 / 1024).astype("float32")  # exact, so that the page can make the same
        expected = np.concatenate([batch.samples for batch in windows.cut([track], spec)])
        places = np.linspace(0, spec.window_samples - 1, 999).astype(int)
        found = page.evaluate(
            """async ([length, model, places]) => (await import("./tagger.js"))
            .cut(Float32Array.from({length}, (_, i) => i * 7919 % 1009 / 1024), model)
            .map(w => [w.length, ...places.map(i => w[i])])""",
            [count, build.describe(spec), places.tolist()],
        )
        assert {row[0] for row in found} == {spec.window_samples}
        np.testing.assert_array_equal(np.float32(found)[:, 1:], expected[:, places])


def test_the_page_shows_the_most_probable_tags_of_each_kind(page, tagger, music, tmp_path):
    soundfile.write(tmp_path / "a.wav", music[: 10 * 44_100], 44_100)
    shown = choose(page, tmp_path / "a.wav")
    expected = tagger.tag(tmp_path / "a.wav")
    assert set(list(expected)[:5]) <= set(shown)
    assert shown == pytest.approx({name: expected[name] for name in shown}, abs=0.006)  # two digits are shown
    headings = [text.lower() for text in page.locator("#tags h2").all_inner_texts()]
    assert set(headings) <= set(tagger.spec.vocabulary.kinds) and "genre" in headings


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("text.mp3", lambda path: path.write_text("no sound"), "text.mp3: this browser cannot decode it."),
        ("zeros.wav", lambda path: soundfile.write(path, np.zeros(44_100), 44_100), "zeros.wav: The sound is silent."),
        ("short.wav", lambda path: soundfile.write(path, np.ones(9), 44_100), "short.wav: The sound is too short."),
    ],
)
def test_files_that_cannot_be_tagged(page, tmp_path, name, make, message):
    make(tmp_path / name)
    page.set_input_files("input", tmp_path / name)
    page.locator("#status.wrong", has_text=message).wait_for(timeout=30_000)


def test_a_tarball_with_another_checksum_is_refused(build, tmp_path):
    (tmp_path / "other.tgz").write_bytes(b"other")
    with pytest.raises(build.BuildError, match=r"other.tgz is not onnxruntime-web@.*: its sha512 is .*, expected "):
        build.build(tmp_path / "out", "tiny", tmp_path / "other.tgz")
    assert not (tmp_path / "out").exists()


def test_without_npm(build, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match="npm is needed to fetch onnxruntime-web@"):
        build.fetch(tmp_path)


def test_a_checkout_without_a_model_says_what_to_do(browser):
    with served(BROWSER) as address:
        page = browser.new_page()
        page.goto(address)
        page.locator("#status.wrong", has_text="docs/browser/build.py").wait_for(timeout=30_000)
