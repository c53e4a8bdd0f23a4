"""`keras-musictag probe`: what it prints and writes, exit codes, and which models it takes."""

import csv
import json
import shutil
import subprocess
import sys

import command_line
import pytest
from labelled_sounds import labelled_sounds

import keras_musictag as kmt
from keras_musictag.apps.probing import runner as probing


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return labelled_sounds(tmp_path_factory.mktemp("made"), count=24, seconds=1.2).parent


@pytest.fixture
def sounds(made, tmp_path, monkeypatch):
    """The current folder, with labelled sounds in `sounds`."""
    shutil.copytree(made, tmp_path / "sounds")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sounds"


DATA = ("--data", "sounds/manifest.csv", "--folds", 3, "--bootstrap", 20)


def run(*args):
    return command_line.run("probe", *args)


# === What comes out ===


def test_models_and_mfcc(sounds, tmp_path):
    pytest.importorskip("matplotlib")
    kmt.load("tiny", weights=None).save("random")
    outputs = ("--json", "r.json", "--csv", "r.csv", "--plot", "r.svg", "--cache", "features")
    result = run("tiny", "./random", "--mfcc", *DATA, "--dataset", "my sounds", *outputs)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "linear probes on my sounds, 3-fold cross-validation, 24 clips in 6 groups, 4 tags, any number each"
    )
    assert sorted(line.split()[0] for line in lines[2:5]) == ["./random", "mfcc", "tiny"]
    assert "[low, high]: 95 % intervals from 20 resamples of groups" in lines
    data = json.loads((tmp_path / "r.json").read_text())
    assert [row["model"] for row in data["models"]] == [line.split()[0] for line in lines[2:5]]
    assert f"{data['models'][0]['roc_auc']:.3f}" in lines[2]
    with (tmp_path / "r.csv").open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == [row["model"] for row in data["models"]]
    assert "<svg" in (tmp_path / "r.svg").read_text()
    assert list((tmp_path / "features" / "embeddings").rglob("*.npz"))
    assert [line for line in result.stderr.splitlines() if line] == ["Wrote r.json.", "Wrote r.csv.", "Wrote r.svg."]
    again = run("tiny", "./random", "--mfcc", *DATA, "--dataset", "my sounds", "--cache", "features")
    assert again.stdout == result.stdout


def test_a_split(sounds):
    text = (sounds / "manifest.csv").read_text().replace(",test,", ",train,", 20)
    (sounds / "manifest.csv").write_text(text)
    assert "24 clips in 6 groups" in run("tiny", *DATA).stdout
    assert "20 clips in 5 groups" in run("tiny", *DATA, "--split", "train").stdout
    result = run("tiny", *DATA, "--split", "valid")
    assert result.exit_code == 2 and "no rows in the split 'valid'" in result.stderr


def test_without_names_all_pretrained_models_are_taken(sounds, monkeypatch):
    asked = []

    def probe(models, manifest, **options):
        asked.extend(models)
        return real(["tiny"], manifest, **options)

    real = probing.probe
    monkeypatch.setattr(probing, "probe", probe)
    assert run(*DATA).exit_code == 0
    assert asked == [name for name in kmt.list_models(pretrained=True) if name != "tiny"]
    assert {"musicnet_crnn", "musicnn_msd"} <= set(asked)


# === Complaints ===


def test_what_is_left_out_is_reported(sounds, monkeypatch):
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    result = run("tiny", "vgg_mtt", *DATA)
    assert result.exit_code == 1 and "not probed: vgg_mtt: " in result.stdout and "\ntiny " in result.stdout
    (sounds / "07.wav").write_text("not music\n" * 100)
    result = run("tiny", *DATA)
    assert result.exit_code == 1
    assert "error: " in result.stderr and "07.wav' is not a sound file" in result.stderr
    assert "clips left out, as they cannot be used: 1, first 07.wav" in result.stdout and "23 clips" in result.stdout


def test_models_that_nobody_named_may_be_missing(sounds, monkeypatch):
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    monkeypatch.setattr("keras_musictag.cli.probe.list_models", lambda pretrained: ["musicnet_crnn", "tiny", "vgg_mtt"])
    result = run(*DATA)
    assert result.exit_code == 0, result.stderr
    assert "not probed: vgg_mtt: " in result.stdout and "\nmusicnet_crnn " in result.stdout
    assert "\ntiny " not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny",), "Missing option '--data'"),
        (("tiny", "tiny", *DATA), "repeated: tiny"),
        (("nonsense", *DATA), "Unknown model 'nonsense'"),
        (("tiny", "--data", "gone.csv"), "gone.csv cannot be read"),
        (("tiny", *DATA, "--folds", "7"), "7 folds need at least 7 groups"),
        (("tiny", *DATA, "--folds", "1"), "1 is not in the range x>=2"),
        (("tiny", *DATA, "--json", "r.txt"), "--json r.txt: the name must end in .json"),
        (("tiny", *DATA, "--csv", "no/r.csv"), "--csv no/r.csv: the folder"),
        (("tiny", *DATA, "--plot", "r.doc"), "--plot r.doc: the name must end in .png, .svg or .pdf"),
    ],
)
def test_mistakes_have_exit_code_2_and_come_before_the_work(sounds, monkeypatch, arguments, message):
    monkeypatch.setattr("keras_musictag.audio.reading.stream", lambda *_, **__: pytest.fail("decoded"))
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_real_process_shows_nothing_else(sounds):
    """No notices of TensorFlow or of decoders, no traceback."""
    command = [sys.executable, "-m", "keras_musictag.cli", "probe", "tiny", *map(str, DATA)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("linear probes on manifest, 3-fold cross-validation, 24 clips in 6 groups")
