"""docs/add-a-runtime-or-command.md: its runtime and its command, as they stand there."""

import click
import pytest
from doc_pages import blocks, commands, invoke, run_python
from library_files import sound

import keras_musictag as kmt
from keras_musictag.cli import main
from keras_musictag.errors import AudioError
from keras_musictag.tagging import runtimes

PAGE = "add-a-runtime-or-command.md"
RUNTIME, TAGGER, COMMAND = (text for language, text in blocks(PAGE) if language == "python")
(SHELL,) = (text for language, text in blocks(PAGE) if language == "bash")


def test_the_runtime():
    pytest.importorskip("onnx")
    before, names = dict(runtimes.FILE_RUNTIMES), {}
    try:
        run_python(RUNTIME, PAGE, names)
        run_python(TAGGER, PAGE, names)
        assert runtimes.runtimes()[-1] == names["tagger"].runtime == "onnx-reference"
        tags = names["tagger"].tag(kmt.demo_clip())
    finally:
        runtimes.FILE_RUNTIMES.clear()
        runtimes.FILE_RUNTIMES.update(before)
    assert tags == pytest.approx(kmt.load("tiny").tag(kmt.demo_clip()), abs=1e-5)


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sound(tmp_path / "song.mp3", 2.5)
    try:
        run_python(COMMAND, PAGE, {})
        ((program, *words),) = commands(SHELL)
        assert program == "keras-musictag" and invoke(words).stdout == "2.5 s  song.mp3\n"
        assert "Print how long audio files are." in invoke(["--help"]).stdout
        with pytest.raises(click.ClickException, match="does not exist") as error:
            main.main(["duration", "missing.wav"], standalone_mode=False)
        assert isinstance(error.value.__cause__, AudioError)
    finally:
        main.commands.pop("duration", None)  # alone: commands that were imported meanwhile are not imported again
