"""The worked example of docs/fine-tune.md is run as it stands, in order, and prints what the page shows."""

import contextlib
import dataclasses
import io
import re
import shlex
from pathlib import Path

from click.testing import CliRunner

import keras_musictag as kmt
from keras_musictag.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "fine-tune.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def told(text):
    """The lines without what may differ elsewhere: numbers, bars, which stage was kept, which clips are the worst."""
    text = re.sub(r"-?[\d.]*\d|(?<= )\.(?=\s)", "#", re.sub(r"kept: (head|full)|[█-▏]+", "", text))
    return {" ".join(line.split()) for line in text.splitlines() if ", but " not in line}


def printed_by(commands):
    """What the lines of a bash block print, all of it."""
    printed = ""
    for line in commands.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "keras-musictag"
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        printed += result.output
    return printed


def test_the_worked_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, printed, compared = {"__name__": "example"}, None, 0
    for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "bash":
            printed = printed_by(text)
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, PAGE.name, "exec"), names)
            printed = None
            assert "Traceback" not in out.getvalue()
        elif printed is not None:  # what the command before it prints, or the last part of it
            missing = told(text) - told(printed)
            assert not missing, f"{sorted(missing)} are not in\n{printed}"
            printed, compared = None, compared + 1
    assert compared == 5
    assert names["tagger"].tags == ("bowed", "plucked", "struck") and names["quick"].report.kept == "head"
    assert names["result"].tagger.tags == ("struck",) and (tmp_path / "mine" / "report.png").exists()


def test_the_table_of_settings():
    section = PAGE.read_text(encoding="utf-8").split("## Settings")[1].split("## ")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", section, re.MULTILINE))
    assert shown == {
        field.name: format(field.default, "g") if type(field.default) is float else str(field.default)
        for field in dataclasses.fields(kmt.FineTuneSpec)
    }


def test_every_option_that_is_named_exists():
    options = {
        name for parameter in main.commands["finetune"].params for name in (*parameter.opts, *parameter.secondary_opts)
    }
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE.read_text(encoding="utf-8"))) - {"--split"}
    assert named <= options | {"--model"}, named - options
