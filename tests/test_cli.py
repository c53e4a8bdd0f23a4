"""The command line: output, exit codes, errors without tracebacks."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from command_line import run

import keras_musictag as kmt


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    t = np.arange(32_000) / 16_000
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * t), 16_000)
    soundfile.write(tmp_path / "noise.flac", 0.2 * rng.standard_normal(t.size), 16_000)
    (tmp_path / "text.mp3").write_text("not music\n" * 100)
    return tmp_path


# === tag ===


def test_tag_prints_bars(files):
    result = run("tag", files / "tone.wav", "-m", "tiny", "--top", 2)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].endswith("tone.wav")
    assert lines[1].split()[0] == "tone" and "█" in lines[1]
    assert len(lines) == 3


def test_tag_json_is_one_object_per_file(files):
    result = run("tag", files / "tone.wav", files / "text.mp3", files / "noise.flac", "-m", "tiny", "--json", "-n", 1)
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["file"].rsplit("/", 1)[-1] for row in rows] == ["tone.wav", "text.mp3", "noise.flac"]
    assert list(rows[0]["tags"]) == ["tone"] and list(rows[2]["tags"]) == ["noise"]
    assert rows[0]["model"] == "tiny" and "tags" not in rows[1]
    assert "not a sound file" in rows[1]["error"]
    assert "error: " in result.stderr and "1 of 3 files could not be tagged" in result.stderr


def test_tag_csv(files):
    result = run("tag", files / "tone.wav", files / "nothing.wav", "-m", "tiny", "--csv", "-n", 2)
    assert result.exit_code == 1
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["tag"] for row in rows[:1]] == ["tone"] and float(rows[0]["probability"]) > 0.5
    assert rows[2]["tag"] == "" and "does not exist" in rows[2]["error"]
    assert len(rows) == 3


def test_threshold_leaves_tags_out(files):
    result = run("tag", files / "tone.wav", "-m", "tiny", "--json", "--threshold", 0.5)
    assert list(json.loads(result.stdout)["tags"]) == ["tone"]
    result = run("tag", files / "tone.wav", "-m", "tiny", "--threshold", 1)
    assert "no tag reaches the threshold" in result.stdout


# === taggram ===


def test_taggram(files):
    result = run("taggram", files / "tone.wav", "-m", "tiny", "--hop", 0.5, "--json")
    gram = json.loads(result.stdout)
    assert len(gram["times"]) == len(gram["probabilities"]) == 3 and len(gram["tags"]) == 5
    result = run("taggram", files / "tone.wav", "-m", "tiny", "--hop", 0.5, "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [float(row["time"]) for row in rows] == pytest.approx(gram["times"], abs=1e-3)
    assert [float(row["tone"]) for row in rows] == pytest.approx([row[0] for row in gram["probabilities"]], abs=1e-5)
    result = run("taggram", files / "tone.wav", "-m", "tiny", "--hop", 0.5, "--top", 1)
    assert result.stdout.splitlines()[0].split()[:3] == ["0.5", "s", "tone"]


def test_taggram_plot(files):
    pytest.importorskip("matplotlib")
    picture = files / "gram.png"
    result = run("taggram", files / "tone.wav", "-m", "tiny", "--plot", picture)
    assert result.exit_code == 0 and result.stdout == ""
    assert f"Wrote {picture}" in result.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = run("taggram", files / "tone.wav", "-m", "tiny", "--plot", files / "gram.doc")
    assert result.exit_code == 2 and "must end in .png, .svg or .pdf" in result.stderr
    result = run("taggram", files / "tone.wav", "-m", "tiny", "--plot", files / "no" / "gram.png")
    assert result.exit_code == 2 and "does not exist" in result.stderr


# === models, info, validate, demo ===


def test_models():
    result = run("models")
    assert result.exit_code == 0
    listed = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert set(kmt.list_models()) == set(listed)
    assert "398,530" in listed["musicnet_crnn"]
    for name, facts in {
        "musicnet_crnn": ("MagnaTagATune", "Apache-2.0", "1.6 MB"),
        "won_fcn_jamendo": ("MTG-Jamendo", "MIT", "1.9 MB"),
        "tiny": ("own tags", "Apache-2.0", "0.0 MB"),
    }.items():
        timed = next(each for each in kmt.model_info(name).latency if (each.scope, each.batch) == ("waveform", 1))
        assert all(f"  {fact}  " in listed[name] for fact in facts)
        number = listed[name].split(f"  {timed.median_ms:.0f} ms [")[1][0]
        assert f"[{number}] {timed.machine}, {timed.threads} threads, {timed.date}" in result.stderr
    for name in kmt.list_models():
        weights = kmt.model_info(name).weights
        expected = "none yet" if weights is None else "included" if weights.kind == "file" else "to download, "
        assert f"  {expected}" in listed[name]
    specs = [json.loads(line) for line in run("models", "vgg_*", "--json").stdout.splitlines()]
    assert [spec["name"] for spec in specs] == ["vgg_msd", "vgg_mtt"]
    assert "No model matches 'zzz'" in run("models", "zzz").stderr


def test_info():
    result = run("info", "musicnn_mtt")
    for fact in ("ISC", "787,159", "1a66a2e5", "MagnaTagATune", "0.9069", "5,329", "16,000 Hz", "guitar, classical"):
        assert fact in result.stdout
    assert json.loads(run("info", "tiny", "--json").stdout)["name"] == "tiny"
    result = run("info", "musicnet_crn")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: Unknown model 'musicnet_crn'. Did you mean 'musicnet_crnn'")


def test_validate(monkeypatch):
    result = run("validate", "tiny", "musicnet_crnn")
    assert result.exit_code == 0
    assert "ok   trainable parameters: 397818" in result.stdout
    assert "ok   % fewer parameters than baseline_cnn: 54" in result.stdout
    assert "ok   weights: fetched, verified, assigned" in result.stdout
    import dataclasses

    from keras_musictag.models import registry

    spec = kmt.model_info("tiny")
    monkeypatch.setitem(registry._specs, "tiny", dataclasses.replace(spec, claims={"parameters": 1}))
    result = run("validate", "tiny")
    assert result.exit_code == 1
    assert "FAIL parameters: expected 1, found 3829" in result.stdout and "Failed checks: 1." in result.stderr


def test_demo():
    result = run("demo", "-m", "tiny")
    assert result.exit_code == 0 and "clip.ogg" in result.stdout


# === Errors ===


def test_errors_are_one_line_with_exit_code_2(files, tmp_path):
    result = run("tag", files / "tone.wav", "-m", "nonsense")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: Unknown model 'nonsense'") and len(result.stderr.splitlines()) == 1
    assert run("tag").exit_code == 2
    assert run("tag", files / "tone.wav", "--top", 0).exit_code == 2
    result = run("taggram", files / "text.mp3", "-m", "tiny")
    assert result.exit_code == 1 and "not a sound file" in result.stderr


def test_version():
    result = run("--version")
    assert kmt.__version__ in result.stdout and "keras 3" in result.stdout


def test_a_real_process_is_quiet_and_has_no_traceback(files):
    """Everything a shell user sees: nothing of TensorFlow's notices, one line per error."""
    command = [sys.executable, "-m", "keras_musictag.cli", "tag", "-m", "tiny", "tone.wav", "text.mp3"]
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=files, env=env)
    assert result.returncode == 1
    errors = result.stderr.splitlines()
    assert len(errors) == 2, result.stderr
    assert errors[0].startswith("error: 'text.mp3' is not a sound file")
    assert errors[1] == "1 of 2 files could not be tagged."
    assert result.stdout.splitlines()[1].split()[0] == "tone"


def test_help_shows_its_examples_line_by_line():
    lines = run("--help").stdout.splitlines()
    assert "  keras-musictag models                    list the models" in lines


def test_ordinary_mistakes_have_no_traceback(files, monkeypatch):
    for arguments, message in (
        (("--hop", "nan"), "hop_seconds must be positive"),
        (("--hop", 100_000), "hop_seconds must be positive and at most a day"),
    ):
        result = run("taggram", files / "tone.wav", "-m", "tiny", *arguments)
        assert result.exit_code == 2 and message in result.stderr
    pytest.importorskip("matplotlib")
    (files / "folder.png").mkdir()
    result = run("taggram", files / "tone.wav", "-m", "tiny", "--plot", files / "folder.png")
    assert result.exit_code == 2 and "cannot be written" in result.stderr
    monkeypatch.setenv("KERAS_BACKEND", "jaxx")
    assert "jaxx not installed" in run("--version").stdout


def test_a_part_of_a_file(files):
    whole = json.loads(run("tag", files / "noise.flac", "-m", "tiny", "--json").stdout)
    part = json.loads(run("tag", files / "noise.flac", "-m", "tiny", "--json", "--offset", 0.5, "--duration", 1).stdout)
    assert part["tags"] != whole["tags"]
    result = run("tag", files / "noise.flac", "-m", "tiny", "--offset", 10)
    assert result.exit_code == 1 and "has no samples from 10" in result.stderr


def test_csv_mentions_every_file(files):
    result = run("tag", files / "tone.wav", "-m", "tiny", "--csv", "--threshold", 1)
    assert next(iter(csv.DictReader(io.StringIO(result.stdout))))["tag"] == ""


def test_output_that_knows_no_block_characters(files):
    command = [sys.executable, "-m", "keras_musictag.cli", "tag", "-m", "tiny", "tone.wav"]
    env = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    result = subprocess.run(command, capture_output=True, cwd=files, env=env)
    assert result.returncode == 0, result.stderr
    assert b"tone" in result.stdout
