"""What the command line prints: tables here and there, JSON alone where it is asked for, and what to call next."""

import dataclasses
import importlib
import io
import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from command_line import run
from labelled_sounds import labelled_sounds
from library_files import sounds
from own_tags import own_tags
from rich.console import Console
from two_tags import two_tags

import keras_musictag as kmt
from keras_musictag.apps.benchmarking import BenchmarkRun
from keras_musictag.cli import main
from keras_musictag.utils.tables import Table, plain

if sys.platform != "win32":
    import fcntl
    import pty
    import struct
    import termios

NUMBERS = Table(
    ("model", "runtime", "parameters", "log-mel ms", "peak MB"),
    (("a_model_with_a_name", "keras", "1,234,567", "10.0 [9.0, 11.1]", "980"), ("b", "[b]x[/b]", "1", "2.5", "")),
    "<<>",
    keys=2,
)


def shown(table, width):
    """Lines on a terminal, without colours; one list per table."""
    parts = []
    for part in table.fitted(width):
        text = io.StringIO()
        Console(file=text, width=width, highlight=False, markup=False).print(part)
        parts.append(text.getvalue().splitlines())
    return parts


# === Tables ===


def test_plain_text():
    assert str(NUMBERS).splitlines() == [
        "model                runtime   parameters        log-mel ms  peak MB",
        "a_model_with_a_name  keras      1,234,567  10.0 [9.0, 11.1]      980",
        "b                    [b]x[/b]           1               2.5",
    ]
    assert str(dataclasses.replace(NUMBERS, header=False)).splitlines()[0].startswith("a_model")
    assert str(Table(("tag", "n"), (("日本", 1), ("a", 22), ("e\u0301", 3)), "<>")) == (
        "tag    n\n日本   1\na     22\ne\u0301      3"
    )
    assert str(Table(("a", "b"), (("two\nlines", "\x1b[2Jclears"),), header=False)) == "two lines   [2Jclears"
    assert str(Table(("a",), ())) == "a" and str(Table(("a",), (), header=False)) == ""
    assert plain(["title", NUMBERS, "note"]).splitlines()[::4] == ["title", "note"]


def test_markdown():
    lines = Table(("tag", "n"), (("a|b\n c", 1),), "<>").markdown().splitlines()
    assert lines == ["| tag | n |", "| --- | ---: |", "| a\\|b c | 1 |"]


@pytest.mark.parametrize("width", [200, 79, 60, 48, 30, 12])
def test_a_terminal_gets_what_fits(width):
    parts = shown(NUMBERS, width)
    assert all(len(line.rstrip()) <= width for part in parts for line in part)
    text = "\n".join(line for part in parts for line in part)
    assert "\u2026" not in text  # nothing is cut off
    if width >= 48:
        assert "1,234,567" in text and "10.0 [9.0, 11.1]" in text and "[b]x[/b]" in text
        assert all("model" in part[0] and "runtime" in part[0] for part in parts)
    assert (len(parts) == 1) == (width >= 70) or width == 60


def test_long_words_of_text_are_folded_and_wide_columns_give_way_first():
    table = Table(("path", "n"), (("/music/" + "x" * 90, 7),), "<>")
    (lines,) = shown(table, 40)
    assert lines[2].endswith("  7") and "".join(line[:37].strip() for line in lines[2:]) == "/music/" + "x" * 90


# === On a terminal, and not ===


def on_a_terminal(*args, width=60, **environment):
    """What a terminal shows: standard output and error together."""
    first, second = pty.openpty()
    fcntl.ioctl(first, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    # `bytes`, since a terminal may cut a character in two.
    names = {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment}
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    command = [sys.executable, "-m", "keras_musictag.cli", *args]
    with subprocess.Popen(command, stdin=second, stdout=second, stderr=second, env={**kept, **names}) as process:
        os.close(second)
        seen = b""
        while True:
            try:
                part = os.read(first, 65536)
            except OSError:  # how Linux says that nobody writes any more
                part = b""
            if not part:
                break
            seen += part
    os.close(first)
    assert process.returncode == 0, seen
    return seen.decode().replace("\r\n", "\n")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_terminal_and_a_pipe():
    piped = run("models", "music*").stdout  # not all: other tests register models in this process
    rich = on_a_terminal("models")
    assert "\x1b[" in rich and "parameters" in rich and "\u2500" * 20 in rich and "Details: keras-musictag info" in rich
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert on_a_terminal("models", "music*", **environment).startswith(piped)
    assert "\x1b[" not in piped and max(map(len, piped.splitlines())) > 60
    card = on_a_terminal("info", "tiny")
    assert "## " not in card and "| --- |" not in card and "next: keras-musictag tag SONG --model tiny" in card


def test_rich_is_imported_for_terminals_only():
    code = (
        "import sys\nfrom keras_musictag.cli import main\nmain(['models'], standalone_mode=False)\n"
        "assert not {'rich', 'keras'} & set(sys.modules)"  # NumPy: which weights are converted is listed, too
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_defaults_in_help_texts_are_those_of_the_package():
    from keras_musictag.apps.library import local_engine as run_module
    from keras_musictag.apps.library import ray_engine

    module = importlib.import_module("keras_musictag.cli.library")
    assert (module._TIMEOUT, module._RAY_WORKERS) == (run_module.TIMEOUT, ray_engine.WORKERS)


# === JSON ===


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_MUSICTAG_CACHE", str(tmp_path / "cache"))
    return tmp_path


def printed(*args, exit_code=0):
    """The one object on standard output."""
    result = run(*args)
    assert result.exit_code == exit_code, result.stderr
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def test_json_of_evaluate_and_probe(work):
    labelled_sounds(work / "sounds", count=12)
    data = ("--data", "sounds/manifest.csv", "--bootstrap", 0)
    one = printed("evaluate", "tiny", *data, "--json")
    assert {"dataset", "split", "n_clips", "model", "roc_auc", "pr_auc", "per_tag", "failed"} <= set(one)
    assert run("evaluate", "tiny", *data, "--json", "one.json").stdout.startswith("tiny on ")
    assert json.loads((work / "one.json").read_text()) == one and not (work / "-").exists()
    probed = printed("probe", "tiny", *data, "--folds", 2, "--json")
    assert probed["models"][0]["model"] == "tiny" and {"metric", "chance", "n_clips"} <= set(probed)
    wrong = run("evaluate", "--json", "tiny", *data)  # the model is taken for a file
    assert wrong.exit_code == 2 and "--json tiny: the name must end in .json" in wrong.stderr


def test_json_of_a_library(work):
    sounds(work / "music", 2)
    (work / "music" / "broken.mp3").write_bytes(b"no sound")
    summary = printed("library", "music", "--out", "tags.csv", "-m", "tiny", "--workers", 1, "--json", exit_code=1)
    assert summary["out"].endswith("tags.csv") and (summary["files"], summary["tagged"]) == (3, 2)
    assert summary["failed"] == 1 and summary["failures"] == {"unsupported": 1} and summary["written"] is None
    assert set(summary) >= {"skipped", "changed", "failures", "sound_seconds", "seconds", "written"}


def test_json_of_an_export(work):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    command = [sys.executable, "-m", "keras_musictag.cli", "export", "tiny", "small", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)  # exporters print, too
    told = json.loads(result.stdout)
    assert told["folder"] == "small" and told["format"] == "onnx" and told["max_change"] < 1e-4


def test_json_of_fine_tuning(work):
    own_tags(work / "sounds", per_tag=6)
    arguments = ("finetune", "tiny", "--data", "sounds", "--out", "mine", "--stages", "head", "--json")
    plan = printed(*arguments, "--dry-run")
    assert plan["tags"] == ["beep", "hiss", "tick"] and sum(plan["clips"].values()) == 18 and not plan["problems"]
    report = printed(*arguments)
    assert report["folder"] == "mine" and report["finished"] is True and report["kept"] == "head"
    assert {"dataset", "split", "n_clips", "accuracy", "tags", "evaluation", "mistakes", "seconds"} <= set(report)


def test_json_of_training(work):
    two_tags(work / "clips", 20).to_csv(work / "clips.csv")
    quick = ("--steps", 4, "--batch-size", 8, "--set", "data.allow_untagged=true", "--out", "mine", "--json")
    plan = printed("train", "tiny", "--data", "clips.csv", *quick, "--dry-run")
    assert plan["clips"] == {"train": 16, "valid": 2, "test": 2} and plan["notes"]
    result = printed("train", "tiny", "--data", "clips.csv", *quick)
    assert result["finished"] is True and result["step"] == result["steps"] == 4 and result["folder"] == "mine"
    assert result["evaluation"]["split"] == "test" and result["agreement"] is None


def made():
    """Results of a benchmark, made up."""
    timing = {"median_ms": 2.0, "p10_ms": 1.0, "p90_ms": 3.0, "calls": 3}
    row = {
        "model": "tiny", "runtime": "keras", "precision": "float32", "threads": 1, "best_clips_per_s": 5.0,
        **dict.fromkeys(("log_mel", "waveform", "file", "decode", "resample"), timing),
    }  # fmt: skip
    machine = {"processor": "abacus", "cores": 2, "date": "2026-01-01", "system": "wood", "matmul_gflops": {}}
    model = {"model": "tiny", "scores": []}
    return BenchmarkRun(machine=machine, command="", clip_seconds=9.0, models=(model,), rows=(row,))


def test_json_of_benchmarks(work, monkeypatch):
    monkeypatch.setattr("keras_musictag.apps.benchmarking.benchmark", lambda *args, **options: made())
    result = run("benchmark", "tiny", "--json")
    (work / "a.json").write_text(result.stdout)  # as the shell's > does
    assert json.loads(result.stdout)["rows"][0]["model"] == "tiny"
    compared = printed("benchmark", "compare", "a.json", "a.json", "--json")
    assert {entry["verdict"] for entry in compared["ratios"]} == {"same"} and compared["only"] == []


# === What to call next ===


class Terminal(io.StringIO):
    def isatty(self):
        return True


def next_command(monkeypatch, *args):
    """The words after `next: keras-musictag`, or none."""
    stream = Terminal()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        main([str(arg) for arg in args], standalone_mode=False)
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("next: ")]
    assert len(lines) <= 1
    words = shlex.split(lines[0].removeprefix("next: ")) if lines else []
    assert words[:1] in ([], ["keras-musictag"])
    return words[1:]


def test_suggestions_can_be_pasted(work, monkeypatch):
    pytest.importorskip("matplotlib")
    song = "my song's.wav"
    soundfile.write(song, 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000), 16_000)
    again = next_command(monkeypatch, "tag", song, "-m", "tiny")
    assert again == ["taggram", song, "--model", "tiny"]
    draw = next_command(monkeypatch, *again)
    assert draw == [*again, "--plot", "taggram.png"]
    assert next_command(monkeypatch, *draw) == [] and (work / "taggram.png").is_file()
    for form in ("--json", "--csv"):
        assert next_command(monkeypatch, "tag", song, "-m", "tiny", form) == []
    assert "next:" not in run("tag", song, "-m", "tiny").stderr  # no terminal


def test_suggestions_after_measuring(work, monkeypatch):
    labelled_sounds(work / "my sounds", count=12)
    data = ("--data", "my sounds/manifest.csv", "--bootstrap", "0")
    tune = ["finetune", "tiny", "--data", "my sounds/manifest.csv"]
    assert next_command(monkeypatch, "evaluate", "tiny", *data) == tune
    assert next_command(monkeypatch, "evaluate", "tiny", *data, "--json") == []
    assert next_command(monkeypatch, "probe", "tiny", *data, "--folds", "2", "--mfcc") == tune


def test_suggestions_after_a_library(work, monkeypatch):
    pytest.importorskip("pyarrow")
    pytest.importorskip("duckdb")
    sounds(work / "music", 2)
    asked = next_command(monkeypatch, "library", "music", "--out", "tags.parquet", "-m", "tiny", "--workers", 1)
    assert asked[:2] == ["search", "tags.parquet"] and run(*asked).exit_code == 0


def test_other_suggestions(work, monkeypatch):
    assert next_command(monkeypatch, "demo", "-m", "tiny") == ["tag", "SONG.mp3", "--model", "tiny"]
    assert next_command(monkeypatch, "info", kmt.models.registry.DEFAULT_MODEL) == ["tag", "SONG"]
    assert next_command(monkeypatch, "data", "info", "gtzan") == ["data", "check", "gtzan", "FOLDER"]


# === Mistakes and versions ===


def test_close_names_are_offered():
    assert "Did you mean 'tag'" in run("tagg", "x.mp3").stderr.replace("one of: ", "").replace("(Possible", "Did")
    assert "--top" in run("tag", "--tpo", 3, "x.mp3").stderr


def test_versions(work, monkeypatch):
    for name in ("tensorflow", "jax", "torch"):
        monkeypatch.setenv("KERAS_BACKEND", name)
        assert f", {name} " in run("--version").stdout
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(work))
    assert ", tensorflow " in run("--version").stdout
    (work / "keras.json").write_text('{"backend": "jax"}')
    assert ", jax " in run("--version").stdout
    (work / "keras.json").write_text("[]")
    assert ", tensorflow " in run("--version").stdout


def test_runtimes_that_are_installed_are_named(monkeypatch):
    pytest.importorskip("onnxruntime")
    assert ", onnxruntime 1." in run("--version").stdout
