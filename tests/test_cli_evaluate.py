"""`keras-musictag evaluate`: what it prints and writes, exit codes, and what `--data` may be."""

import csv
import json
import shutil
import subprocess
import sys

import command_line
import pytest
from labelled_sounds import labelled_sounds

import keras_musictag as kmt
from keras_musictag.cli.data_options import load_data
from keras_musictag.datasets import DataError, catalogue
from keras_musictag.errors import MusicTagError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return labelled_sounds(tmp_path_factory.mktemp("made")).parent


@pytest.fixture
def sounds(made, tmp_path, monkeypatch):
    """The current folder, with labelled sounds in `sounds`."""
    shutil.copytree(made, tmp_path / "sounds")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sounds"


def run(*args):
    return command_line.run("evaluate", *args)


DATA = ("--data", "sounds/manifest.csv", "--bootstrap", 20)


# === What comes out ===


def test_one_model(sounds, tmp_path):
    pytest.importorskip("matplotlib")
    outputs = ("--json", "r.json", "--csv", "r.csv", "--plot", "r.svg", "--scores", "r.npz")
    result = run("tiny", *DATA, "--dataset", "my sounds", *outputs)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "tiny on my sounds test, 40 clips in 10 groups"
    assert lines[1].split() == ["tag", "positives", "ROC-AUC", "PR-AUC"]
    assert lines[2].startswith("mean, 3 of 4 tags")
    assert "[low, high]: 95 % intervals from 20 resamples of groups" in lines
    data = json.loads((tmp_path / "r.json").read_text())
    assert (data["model"], data["dataset"], data["split"], data["n_clips"]) == ("tiny", "my sounds", "test", 40)
    assert f"{data['roc_auc']:.3f} [{data['roc_auc_low']:.3f}, {data['roc_auc_high']:.3f}]" in lines[2]
    with (tmp_path / "r.csv").open(newline="") as file:
        assert [row["tag"] for row in csv.DictReader(file)] == ["tone", "noise", "clicks", "sweep"]
    assert "<svg" in (tmp_path / "r.svg").read_text()
    assert [line for line in result.stderr.splitlines() if line] == [
        "Wrote r.npz.", "Wrote r.json.", "Wrote r.csv.", "Wrote r.svg."
    ]  # fmt: skip


def test_scores_that_were_kept_are_measured_again_without_sound(sounds):
    first = run("tiny", *DATA, "--scores", "kept.npz")
    shutil.rmtree(sounds)
    again = run("kept.npz", "--bootstrap", 20)
    assert (again.exit_code, again.stdout) == (0, first.stdout)


def test_two_models_and_their_difference(sounds, tmp_path):
    tagger = kmt.load("tiny")
    head = tagger.core.get_layer("head").weights[0]
    head.assign(-head)
    tagger.save("mine")
    result = run("tiny", "./mine", *DATA, "--cache", "log-mels", "--scores", "both.npz", "--json", "d.json")
    assert result.exit_code == 0, result.stderr
    titles = [line for line in result.stdout.splitlines() if " on manifest test" in line]
    assert titles == [
        "tiny on manifest test, 40 clips in 10 groups",
        "./mine on manifest test, 40 clips in 10 groups",
        "tiny minus ./mine on manifest test, 40 clips in 10 groups",
    ]
    data = json.loads((tmp_path / "d.json").read_text())
    assert data["roc_auc_delta"] == pytest.approx(data["a"]["roc_auc"] - data["b"]["roc_auc"])
    assert data["weights_sha256_a"] != data["weights_sha256_b"]
    assert list((tmp_path / "log-mels").rglob("*.npy"))
    assert run("both.npz", "--bootstrap", 20).stdout == result.stdout
    run("./mine", *DATA, "--scores", "mine.npz")
    mixed = run("tiny", "mine.npz", *DATA)
    assert "tiny minus mine.npz on manifest test, 40 clips" in mixed.stdout
    result = run("both.npz", "mine.npz")
    assert result.exit_code == 2 and "At most two models can be compared" in result.stderr


def test_a_folder_per_class_has_no_splits(sounds):
    for tag, number in (("tone", 1), ("tone", 2), ("noise", 3), ("noise", 4)):
        (sounds.parent / "music" / tag).mkdir(parents=True, exist_ok=True)
        shutil.copy(sounds / f"{number:02}.wav", sounds.parent / "music" / tag)
    result = run("tiny", "--data", "music")
    assert result.exit_code == 2 and "The data has no splits" in result.stderr and "--split all" in result.stderr
    result = run("tiny", "--data", "music", "--split", "all", "--bootstrap", 20)
    assert result.exit_code == 0 and result.stdout.startswith("tiny on music all, 4 clips in 4 tracks")


# === Complaints ===


def test_a_sound_that_cannot_be_tagged_is_reported_and_gives_exit_code_1(sounds):
    (sounds / "07.wav").write_text("not music\n" * 100)
    result = run("tiny", *DATA)
    assert result.exit_code == 1
    assert "error: " in result.stderr and "07.wav' is not a sound file" in result.stderr
    assert "left out, 1 of 40 rows could not be tagged, first 07.wav" in result.stdout
    result = run("tiny", *DATA, "--strict", "--json", "never.json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ") and "is not a sound file" in result.stderr
    assert not (sounds.parent / "never.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny",), "--data is missing: name the labelled data to measure tiny on."),
        (("tiny", "tiny", *DATA), "tiny is given twice"),
        (("nonsense", *DATA), "Unknown model 'nonsense'"),
        (("tiny", "nonsense", *DATA), "Unknown model 'nonsense'"),
        (("tiny", "--data", "gone.csv"), "gone.csv cannot be read"),
        (("tiny", "--data", "magnatagatune:"), "names no folder"),
        (("tiny", "--data", "magnatagatune:sounds"), "has no annotations_final.csv"),
        (("gone.npz",), "gone.npz cannot be read as scores"),
        (("tiny", *DATA, "--split", "valid"), "no rows in the split 'valid'"),
        (("tiny", *DATA, "--split", "dev"), "'dev' is not one of"),
        (("tiny", *DATA, "--json", "r.txt"), "--json r.txt: the name must end in .json"),
        (("tiny", *DATA, "--csv", "no/r.csv"), "--csv no/r.csv: the folder"),
        (("tiny", *DATA, "--plot", "r.doc"), "--plot r.doc: the name must end in .png, .svg or .pdf"),
        (("tiny", *DATA, "--scores", "r.json"), "--scores r.json: the name must end in .npz or .csv"),
        (("tiny", *DATA, "--scores", "r.csv", "--csv", "r.csv"), "Two options name the same file"),
    ],
)  # fmt: skip
def test_mistakes_have_exit_code_2_and_come_before_the_work(sounds, monkeypatch, arguments, message):
    monkeypatch.setattr(kmt.Tagger, "tag", lambda *_, **__: pytest.fail("tagged"))
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_real_process_shows_one_line_per_problem(sounds):
    """No notices of TensorFlow or of decoders, no traceback."""
    (sounds / "07.wav").write_text("not music\n" * 100)
    command = [sys.executable, "-m", "keras_musictag.cli", "evaluate", "tiny", *map(str, DATA)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout.startswith("tiny on manifest test, 39 clips")
    lines = result.stderr.splitlines()
    assert len(lines) == 2, result.stderr
    assert lines[0].endswith("1 of 40 rows could not be tagged and are left out.")
    assert lines[1].startswith("error: ")


# === --data ===


def test_what_data_may_be(sounds, monkeypatch):
    manifest, name, grouped_by = load_data("sounds/manifest.csv")
    assert (len(manifest), name, grouped_by) == (40, "manifest", "")
    (sounds.parent / "music" / "tone").mkdir(parents=True)
    shutil.copy(sounds / "00.wav", sounds.parent / "music" / "tone")
    manifest, name, _ = load_data("music")
    assert (manifest.tags, name) == (("tone",), "music")
    (sounds / "annotations_final.csv").touch()
    calls = []
    monkeypatch.setattr(catalogue, "magnatagatune", lambda *args, partial: calls.append(args) or manifest)
    for text in ("magnatagatune:some/folder", "sounds"):
        assert load_data(text) == (manifest, "MagnaTagATune, full split", "artist")
    assert load_data("magnatagatune-clean:C:/folder")[1:] == ("MagnaTagATune, clean split", "artist")
    assert calls == [("some/folder", "full"), ("sounds", "full"), ("C:/folder", "clean")]
    with pytest.raises(MusicTagError, match=r"names no folder\. Write magnatagatune:FOLDER"):
        load_data("magnatagatune:")
    with pytest.raises(DataError, match="A manifest must be a folder of folders or a file"):
        load_data("nowhere")
