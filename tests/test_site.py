"""The documentation site builds, its generated page is current, the quickstart and the page on musicnn run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from doc_pages import DOCS, ROOT, blocks, commands, invoke, run_command, run_python, text_of

import keras_musictag as kmt


def python_of(page):
    """Run the Python of a page in order; returns its names."""
    names = {"__name__": "example"}
    for language, text in blocks(page):
        if language == "python":
            run_python(text, page, names)
    return names


def shell_of(page):
    """The commands of a page."""
    return [words for language, text in blocks(page) if language == "bash" for words in commands(text)]


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """The bundled clip, as song.mp3 in the working folder."""
    import soundfile

    monkeypatch.chdir(tmp_path)
    y, sr = soundfile.read(kmt.demo_clip())
    soundfile.write("song.mp3", y, sr)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    loaded = r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(?:https?:)?//|<link[^>]*stylesheet[^>]*href=[\"']?(?:https?:)?//"
    for page in pages:
        assert not re.search(loaded, page.read_text(encoding="utf-8")), f"{page.name} loads from another server"
    reference = (tmp_path / "site" / "reference" / "taggers.html").read_text(encoding="utf-8")
    assert "keras_musictag.Tagger.fine_tune" in reference and "&gt;&gt;&gt;" in reference


def test_every_page_is_in_the_navigation():
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert named == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


@pytest.mark.parametrize("script", ["models_page", "choose_page"])
def test_pages_on_models_are_current(script):
    check = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--check"], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stderr


def test_the_quickstart(clip):
    pytest.importorskip("matplotlib")
    names = python_of("index.md")
    assert names["tagger"].tags == kmt.model_info("musicnet_crnn").tags
    install, demo, *others = shell_of("index.md")
    run_command(install, "index.md")
    shown = next(text for language, text in blocks("index.md") if not language)
    assert shown.split("\n", 1)[1] == invoke(demo[1:]).stdout.split("\n", 1)[1]
    serve = ["keras-musictag", "serve", "--open"]  # never ends; test_serving.py
    others.remove(serve)
    for words in others:
        run_command(words, "index.md")
    assert Path("tags.png").is_file()


def test_coming_from_musicnn(clip, published_weights, reference_clips):
    joram = next(clip for clip in reference_clips if clip.name.startswith("joram"))
    shutil.copy(joram, "song.mp3")
    names = python_of("migrate-from-musicnn.md")
    assert names["taggram"].shape == (9, 50) and names["tags"] == names["tagger"].tags
    assert next(iter(names["tagger"].tag(joram).items()))[0] == "techno"
    assert f'"techno": {names["tagger"].tag(joram)["techno"]:.2f}' in text_of("migrate-from-musicnn.md")
    shapes = {key: value.shape[1:] for key, value in names["features"].items()}
    assert shapes == {
        "cnn1": (187, 64),
        "cnn2": (187, 64),
        "cnn3": (187, 64),
        "max_pool": (753,),
        "mean_pool": (753,),
        "penultimate": (200,),
    }
    # Within 1e-4: log-mels of the layer, in one batch of another size; measured 3e-6.
    np.testing.assert_allclose(names["features"]["penultimate"].mean(axis=0), names["penultimate"], atol=1e-4)
    assert names["tagger"].core.get_layer("frontend").output.shape[1:] == (187, 408 + 153)
    for words in shell_of("migrate-from-musicnn.md"):
        run_command(words, "migrate-from-musicnn.md")
