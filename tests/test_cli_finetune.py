"""`finetune` on the command line: what it prints, what it refuses, and how it ends."""

import os
import shutil
import signal

import pytest
from command_line import run
from own_tags import own_tags
from two_tags import two_tags

import keras_musictag as kmt
from keras_musictag.datasets.batches import WindowBatches
from keras_musictag.training.finetuning import fine_tune_run as module


@pytest.fixture
def folder(tmp_path, monkeypatch):
    own_tags(tmp_path / "sounds", per_tag=6)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_folder_to_a_tagger(folder):
    result = run("finetune", "tiny", "--data", "sounds", "--epochs", 1)
    assert result.exit_code == 0, result.stderr
    for said in (
        "fine-tune   tiny\ndata        sounds: 15 train, 3 validation clips\ntags        3, one per clip\n",
        "at most 1 epoch,",
        "folder: tiny-sounds\n",
    ):
        assert said in result.stderr
    lines = result.stdout.splitlines()
    assert (
        lines[0].startswith("accuracy ")
        and " on sounds, validation, " in lines[0]
        and "true \\ predicted  beep" in result.stdout
    )
    assert result.stderr.splitlines()[-1] == (
        "next: keras-musictag tag SONG --model tiny-sounds, or keras_musictag.load('tiny-sounds')"
    )  # fmt: skip
    tagger = kmt.load(folder / "tiny-sounds")
    assert tagger.tags == ("beep", "hiss", "tick") and "epochs 1" in tagger.spec.trained_on
    tagged = run("tag", "sounds/tick/0.wav", "--model", "tiny-sounds", "--top", 1)
    assert tagged.exit_code == 0 and "tick" in tagged.stdout
    other = run("finetune", "tiny", "--data", "sounds", "--epochs", 1, "--seed", 1)
    assert other.exit_code == 2 and "holds a run with other data, seed 0 instead of 1" in other.stderr


def test_options_arrive(folder, monkeypatch):
    plans = []
    monkeypatch.setattr(
        module, "seconds_for", lambda base, data, settings: plans.append((data, settings)) or (1.0, 2.0)
    )
    own_tags(folder / "others", per_tag=2, seed=1)
    two_tags(folder / "two", 8, seconds=0.2).to_csv(folder / "two.csv")

    def planned(*options):
        result = run("finetune", "tiny", "--dry-run", *options)
        assert result.exit_code == 0, result.stderr
        return plans[-1]

    data, settings = planned(
        "-d", "sounds", "--tags", "tick, beep", "--validation", "others", "--stages", "head", "--learning-rate", 1e-3,
        "--seed", 3,
    )  # fmt: skip
    assert data.tags == ("tick", "beep") and len(data.validation) == 6 and not data.exclusive
    assert (settings.stages, settings.learning_rate, settings.seed) == ("head", 1e-3, 3)
    data, settings = planned("-d", "sounds", "--validation", "none", "--multi-label")
    assert data.validation is None and not data.exclusive and settings == kmt.FineTuneSpec()
    data, _ = planned("-d", "two.csv", "--validation", "0.5")
    assert len(data.validation) == 4 and not data.exclusive


def test_a_dry_run_finds_every_problem_and_writes_nothing(folder):
    arguments = ("finetune", "tiny", "--data", "sounds", "--out", "mine", "--dry-run")
    result = run(*arguments)
    assert result.exit_code == 0 and not (folder / "mine").exists() and not (folder / "cache").exists()
    assert "stages      embeddings and head, about " in result.stdout and result.stdout.endswith("folder: mine\n")
    (folder / "sounds" / "tick" / "3.wav").write_bytes(b"")
    shutil.copy(folder / "sounds" / "hiss" / "0.wav", folder / "sounds" / "tick" / "copy.wav")
    result = run(*arguments)
    assert result.exit_code == 1 and "19 rows: 18 fine, 1 problems (1 zero bytes)" in result.stderr
    assert "copies with different tags: 1" in result.stderr and "tags        3" in result.stdout
    result = run(*arguments, "--strict")
    assert result.exit_code == 2 and "The manifest has problems" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny",), "Missing option '--data'"),
        (("tine", "-d", "sounds"), "Unknown model 'tine'. Did you mean 'tiny'"),
        (("tiny", "-d", "nothing.csv"), "nothing.csv cannot be read (No such file or directory)"),
        (
            ("tiny", "-d", "sounds", "--tags", "tick,,beep"),
            "--tags: 'tick,,beep' has an empty name. Write names with ',' between them",
        ),
        (("tiny", "-d", "sounds", "--tags", "dub"), "None of the tags 'dub' is in the manifest"),
        (("tiny", "-d", "sounds", "--validation", "2"), "validation must be a share between 0 and 1, clips, or None"),
        (("tiny", "-d", "sounds", "--validation", "other.csv"), "other.csv cannot be read"),
        (("tiny", "-d", "sounds", "--stages", "tail"), "'tail' is not one of 'head', 'full'"),
        (("tiny", "-d", "sounds", "--tags", "tick", "--single-label"), "every clip must have exactly one tag"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, message):
    result = run("finetune", *arguments)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == "" and [path.name for path in folder.iterdir()] == ["sounds"]


def test_ctrl_c_has_an_exit_code_of_its_own(folder, ctrl_c, monkeypatch):
    get = WindowBatches.__getitem__

    def press(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return get(self, index)

    monkeypatch.setattr(WindowBatches, "__getitem__", press)
    command = ("finetune", "tiny", "--data", "sounds", "--out", "./tiny", "--validation", "none")
    result = run(*command)
    assert result.exit_code == 130 and "Stopped early: ./tiny has the best so far. Run the" in result.stderr
    assert "keras_musictag.load('./tiny')" in result.stderr and kmt.load(folder / "tiny").tags[0] == "beep"
    monkeypatch.setattr(WindowBatches, "__getitem__", get)
    assert run(*command).exit_code == 0


def test_ctrl_c_before_there_is_anything(folder, monkeypatch):
    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "solve_head", stopped)
    result = run("finetune", "tiny", "--data", "sounds", "--out", "mine")
    assert result.exit_code == 130 and "Stopped before a tagger was saved. Run the command" in result.stderr
    assert not (folder / "mine" / "spec.json").exists()
