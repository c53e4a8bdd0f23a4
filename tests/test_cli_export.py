"""The command `export`, and `--runtime` where sounds are tagged."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import keras
import numpy as np
import pytest
import soundfile
from command_line import run
from labelled_sounds import labelled_sounds

import keras_musictag as kmt
from keras_musictag.cli import main
from keras_musictag.tagging.exported import Format, InputKind, Precision
from keras_musictag.tagging.runtimes import runtimes

HEAVY = {"tensorflow", "keras", "jax", "torch", "openvino_telemetry"}  # the last reports to a server


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """`tiny` as ONNX, and as LiteRT where that can be written."""
    folder, tiny = tmp_path_factory.mktemp("exports"), kmt.load("tiny")
    formats = ("onnx", "litert") if keras.backend.backend() == "tensorflow" else ("onnx",)
    return {format: tiny.export(folder / format, format=format, input="log_mel").folder for format in formats}


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000), 16_000)
    return path


# === export ===


def test_export_says_what_it_measured_and_what_is_next(tmp_path, song):
    result = run("export", "tiny", tmp_path / "small", "--precision", "int8", "--calibrate", song)
    assert result.exit_code == 0
    assert "small: onnx int8, waveform in, 0.0" in result.stdout
    assert "largest change" in result.stdout and f"tag SONG --model {tmp_path / 'small'}" in result.stderr
    again = run("export", "tiny", tmp_path / "small")
    assert again.exit_code == 2 and "already exists. Pass overwrite=True" in again.stderr
    assert run("export", "tiny", tmp_path / "small", "--overwrite", "--input", "log_mel").exit_code == 0
    assert run("tag", song, "-m", tmp_path / "small", "-n", 1).stdout.split()[1] == "tone"


def test_export_measures_labelled_data(tmp_path):
    table = labelled_sounds(tmp_path / "sounds", count=12)
    result = run("export", "tiny", tmp_path / "small", "-p", "float16", "--data", table)
    assert result.exit_code == 0
    assert "macro ROC-AUC on" in result.stdout and "split test, n = 12" in result.stdout


def test_export_of_an_export(tmp_path, exports):
    result = run("export", exports["onnx"], tmp_path / "again")
    assert result.exit_code == 2 and "An exported tagger has no 'export'" in result.stderr


def test_choices_are_those_of_the_package():
    def choices(command, name):
        (option,) = [p for p in main.get_command(click.Context(main), command).params if p.name == name]
        return tuple(option.type.choices)

    for name, literal in (("format", Format), ("precision", Precision), ("input", InputKind)):
        assert choices("export", name) == get_args(literal)
    assert choices("tag", "runtime") == ("auto", *runtimes())


# === --runtime ===


def test_tag_and_taggram_on_a_runtime(song):
    on_keras, on_onnx = (
        json.loads(run("tag", song, "-m", "tiny", "--json", *options).stdout)["tags"]
        for options in ((), ("--runtime", "onnxruntime", "--threads", 1))
    )
    assert on_onnx == pytest.approx(on_keras, abs=1e-4)
    result = run("taggram", song, "-m", "tiny", "--runtime", "auto", "--csv")
    assert result.exit_code == 0 and re.search(r"tiny runs on \w+\.", result.stderr)
    assert result.stdout.startswith("time,tone,")


def test_a_runtime_that_does_not_read_the_export(song, exports):
    result = run("tag", song, "-m", exports["onnx"], "--runtime", "litert")
    assert result.exit_code == 2
    assert "litert does not read onnx exports. Use openvino or onnxruntime." in result.stderr


# === Without Keras ===


def imported(code, *args):
    """Which of the heavy packages a new process has imported after running some code."""
    code = f"{code}\nimport sys; print('imported', sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1], result


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_tagging_with_an_export_imports_no_keras(exports, song, runtime):
    format = "litert" if runtime == "litert" else "onnx"
    if format not in exports:
        pytest.skip("is written by TensorFlow")
    code = (
        "import sys, keras_musictag as kmt\n"
        "tagger = kmt.load(sys.argv[1], runtime=sys.argv[2])\n"
        "assert list(tagger.tag(sys.argv[3], top=1)) == ['tone'] and len(tagger.embed(sys.argv[3])) == 16\n"
        "tagger.taggram(sys.argv[3])"
    )
    assert imported(code, exports[format], runtime, song)[0] == "imported []"


@pytest.mark.parametrize("command", ["tag", "taggram"])
def test_so_does_the_command(exports, song, command):
    code = (
        "import sys\nfrom keras_musictag.cli import main\n"
        f"main([{command!r}, sys.argv[2], '--model', sys.argv[1]], standalone_mode=False)"
    )
    last, result = imported(code, exports["onnx"], song)
    assert last == "imported []"
    assert "tone" in result.stdout and result.stderr == ""


def test_so_does_a_library(exports, song, tmp_path):
    code = (
        "import sys\nfrom keras_musictag.cli import main\n"
        "main(['library', sys.argv[2], '--out', sys.argv[3], '--model', sys.argv[1]], standalone_mode=False)"
    )
    last, result = imported(code, exports["onnx"], song, tmp_path / "tags.csv")
    assert last == "imported []"
    assert "1 tagged now" in result.stdout


def test_so_does_a_search(exports, song, tmp_path):
    pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    table = tmp_path / "tags.parquet"
    assert run("library", song, "--out", table, "--model", exports["onnx"], "--embeddings").exit_code == 0
    code = (
        "import sys\nfrom keras_musictag.cli import main\n"
        "main(['search', sys.argv[3], '--like', sys.argv[2], '--model', sys.argv[1]], standalone_mode=False)"
    )
    last, result = imported(code, exports["onnx"], song, table)
    assert last == "imported []" and "1.000  " in result.stdout


def test_so_does_the_page(exports, song):
    code = (
        "import contextlib, sys\nfrom keras_musictag.apps import serving\nfrom keras_musictag.cli import main\n"
        "@contextlib.contextmanager\n"
        "def served(service, **options):\n"
        "    print(service.answer(sys.argv[2], service.models))\n"
        "    raise KeyboardInterrupt\n"
        "    yield\n"
        "serving.serving = served\n"
        "main(['serve', '--model', sys.argv[1]], standalone_mode=False)"
    )
    last, result = imported(code, exports["onnx"], song)
    assert last == "imported []" and "tone" in result.stdout


def test_nor_does_a_model_that_was_exported_before(song):
    assert run("tag", song, "-m", "tiny", "--runtime", "onnxruntime").exit_code == 0
    code = "import sys, keras_musictag as kmt\nkmt.load('tiny', runtime='onnxruntime').tag(sys.argv[1])"
    assert imported(code, song)[0] == "imported []"


def test_a_folder_is_loaded_from_python_by_path(exports):
    assert kmt.load(Path(exports["onnx"])).spec.name == "tiny"
