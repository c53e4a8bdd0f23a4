"""`train` and `distil` on the command line: what they print, what they refuse, and a process that is really killed."""

import csv
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from command_line import run
from two_tags import two_tags

import keras_musictag as kmt

QUICK = ("--steps", 10, "--batch-size", 8, "--learning-rate", 0.01, "--set", "data.allow_untagged=true")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    two_tags(tmp_path / "clips", 20).to_csv(tmp_path / "clips.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train(folder):
    result = run("train", "tiny", "--data", "clips.csv", *QUICK)
    assert result.exit_code == 0, result.stderr
    best, scored = result.stdout.splitlines()
    assert best.startswith("best pr_auc ") and best.endswith("of 10")
    assert re.match(r"tiny-clips on clips test, 2 clips in 1 groups: ROC-AUC [01]\.\d{4}, PR-AUC [01]\.\d{4}$", scored)
    assert result.stderr.splitlines()[-1].endswith("or keras_musictag.load('tiny-clips')")
    for said in ("data        clips: 16 train, 2 valid, 2 test clips", "note: the data have no splits", "run/log.csv"):
        assert said in result.stderr
    assert kmt.load(folder / "tiny-clips").tags == ("tonal", "noisy")
    assert (folder / "cache" / "log-mels").is_dir()  # where this package keeps what it can make again
    again = run("train", "tiny", "--data", "clips.csv", *QUICK)
    assert again.stdout == result.stdout
    other = run("train", "tiny", "--data", "clips.csv", *QUICK, "--seed", 1)
    assert other.exit_code == 2 and "seed 0 instead of 1" in other.stderr and "Choose another folder" in other.stderr
    assert run("tag", "clips/0.wav", "-m", "tiny-clips").exit_code == 0


def test_a_dry_run_computes_nothing(folder):
    arguments = ("train", "tiny", "--data", "clips.csv", *QUICK, "--dry-run", "--out", "mine")
    result = run(*arguments)
    assert result.exit_code == 0 and not (folder / "mine").exists() and not (folder / "cache").exists()
    assert "steps       10 of 8 windows" in result.stdout and result.stdout.endswith("folder: mine\n")
    (folder / "clips" / "3.wav").unlink()
    result = run(*arguments)
    assert result.exit_code == 1 and "20 rows: 19 fine, 1 problems (1 missing)" in result.stderr
    result = run(*arguments, "--strict")
    assert result.exit_code == 2 and "The manifest has problems" in result.stderr


def test_distil_from_a_folder(folder):
    shutil.copytree(folder / "clips", folder / "music")  # twenty files, no folders in it: each a group of its own
    two_tags(folder / "more", 10, seed=3).to_csv(folder / "more.csv")
    (folder / "recipe.toml").write_text(
        'task = "distil"\nmodel = "tiny"\nteacher = "tiny"\n[data]\nvalidation = "more.csv"\n'
        "[distillation]\nsegment_weight = 0.0\nhop_seconds = 0.5\n"
    )
    quick = QUICK[:-2]
    for command in (("distil",), ("train",)):  # `train --recipe` runs recipes of either task
        result = run(*command, "--recipe", "recipe.toml", "--data", "music", *quick, "--out", "./tiny")
        assert result.exit_code == 0, result.stderr
        assert "distil      tiny from tiny" in result.stderr and "tags        those of tiny" in result.stderr
        assert "best score" in result.stdout and result.stderr.endswith("keras_musictag.load('./tiny')\n")
    result = run("distil", "tiny", "--teacher", "tiny", "--data", "music", "--dry-run")
    assert result.exit_code == 2 and "to measure agreement; got 2" in result.stderr
    result = run(
        "distil", "--recipe", "recipe.toml", "--teacher", "tiny", "--teacher", "tiny", "-d", "music", "--dry-run"
    )
    assert result.exit_code == 0 and "distil      tiny from tiny and tiny" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), r"Name a model (e.g. train musicnet_crnn), or a recipe with --recipe."),
        (("train", "tiny"), "The recipe names no data. Set data.source, or give them (--data"),
        (("train", "tine", "--data", "clips.csv"), "Unknown model 'tine'. Did you mean 'tiny'"),
        (("train", "tiny", "--data", "nothing.csv"), "nothing.csv cannot be read (No such file or directory)"),
        (("train", "--recipe", "nothing.toml"), "The recipe 'nothing.toml' does not exist. Give a TOML file"),
        (("train", "tiny", "--data", "clips.csv", "--set", "steps"), "--set steps: write KEY=VALUE"),
        (("train", "tiny", "--data", "clips.csv", "--set", "training.stesp=3"), "Did you mean 'steps'?"),
        (("train", "tiny", "--data", "clips.csv", "--set", "data.split=half"), "one of 'full', 'clean'; got 'half'"),
        (("distil", "tiny", "--data", "clips.csv"), "does not state its teacher"),
        (("distil", "--recipe", "musicnet_crnn/magnatagatune"), "is a recipe for train. Run it with train --recipe."),
        (("train", "--recipe", "musicnet_crnn/magnatagatune"), "Give its folder (--data,"),
        (("train", "--recipe", "musicnet_crnn/magnatagatune", "--data", "clips"), "has no annotations_final.csv"),
        (("train", "tiny", "--data", "clips.csv", "--precision", "float16"), "'float16' is not one of 'float32'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(folder, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == "" and sorted(path.name for path in folder.iterdir()) == ["clips", "clips.csv"]


def test_a_killed_command_goes_on(folder, caplog):
    """A real process and SIGKILL; what is checked of the numbers is in test_training and test_recipes."""
    often = ("--set", "training.checkpoint_every=5", "--set", "training.validate_every=5")
    data = ("--data", "clips.csv", "--set", "data.allow_untagged=true", "--batch-size", "8")
    command = ["train", "tiny", *data, "--out", "mine", "--cache", "mels", "--steps", "300", *often]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_musictag.cli", *command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    checkpoint = folder / "mine" / "run" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and checkpoint.exists() and not (folder / "mine" / "spec.json").exists()
    assert not list((folder / "mine").glob("*.safetensors"))
    caplog.set_level("INFO", "keras_musictag")
    result = run(*command)
    assert result.exit_code == 0, result.stderr
    assert "Resuming at step " in caplog.text
    rows = list(csv.DictReader((folder / "mine" / "run" / "log.csv").read_text().splitlines()))
    assert [int(float(row["step"])) for row in rows] == list(range(5, 301, 5))
    assert kmt.load(folder / "mine").spec.metrics
