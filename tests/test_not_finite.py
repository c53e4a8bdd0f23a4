"""A loss or weight becomes NaN or infinite: training goes back and continues in float32; twice is an error."""

import dataclasses
import json
import os
import shutil

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import ops
from own_tags import own_tags
from test_training import Bands, Failing, Interrupted, network, run, score, spec, weights
from two_tags import TAGS, two_tags

import keras_musictag as kmt
from keras_musictag.cli import main
from keras_musictag.datasets.batches import FeatureCache, WindowBatches
from keras_musictag.loading import untrained
from keras_musictag.training import training_graph
from keras_musictag.training.distillation import distil
from keras_musictag.training.finetuning import FineTuneError, FineTuneSpec, fine_tune
from keras_musictag.training.loop import BEST, NotFiniteError, TrainingError, TrainingSpec
from keras_musictag.training.supervised import train
from keras_musictag.training.training_spec import lower_learning_rate


class Spoiled(Bands):
    """The inputs of a step are NaN the first `times` times that they are read."""

    def __init__(self, at, times=1):
        self.at, self.left = at, times

    def __getitem__(self, step):
        inputs, targets = super().__getitem__(step)
        if step == self.at and self.left:
            self.left -= 1
            inputs = inputs * np.nan
        return inputs, targets


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of a run in float32 that nothing happened to."""
    model = network()
    run(model, Bands(), spec(), tmp_path_factory.mktemp("whole"), validate=score, progress=False)
    return weights(model)


@pytest.fixture
def precisions(monkeypatch):
    """What training graphs are built in."""
    built = []
    original = training_graph.training_graph

    def noted(*args, **options):
        built.append(options["precision"])
        return original(*args, **options)

    monkeypatch.setattr(training_graph, "training_graph", noted)
    return built


# === The loop ===


@pytest.mark.contract
@pytest.mark.parametrize(("at", "back"), [(4, 0), (17, 10)])
def test_it_goes_back_and_ends_as_if_nothing_had_happened(tmp_path, whole, at, back, caplog):
    model = network()
    state = run(model, Spoiled(at), spec(), tmp_path, validate=score, progress=False)
    assert (state.step, state.failures, state.precision) == (40, 1, "float32")
    note = f"(float32); went back from step {at} to step {back} and continued in float32."
    assert len(state.notes) == 1 and state.notes[0].endswith(note) and state.notes[0] in caplog.text
    assert state.notes[0].startswith(f"The loss is nan at step {at}, whose inputs or targets are not finite")
    np.testing.assert_allclose(weights(model), whole, atol=1e-4)  # as in `test_training`: bit for bit, measured


def test_it_goes_on_in_float32(tmp_path, precisions):
    model = network()
    settings = spec(precision="mixed_bfloat16", steps=20)
    state = run(model, Spoiled(12), settings, tmp_path, validate=score, progress=False)
    assert precisions == ["mixed_bfloat16", "float32"] and state.precision == "float32"
    assert "at step 12, whose inputs or targets are not finite (mixed_bfloat16); went back" in state.notes[0]
    again = run(network(), Bands(), settings, tmp_path, validate=score, progress=False)
    assert again == state and precisions[2:] == ["float32"], "a run that is started again remembers"


def test_a_weight_is_found_where_the_loss_is_fine(tmp_path, whole, monkeypatch):
    original, steps = keras.Model.train_on_batch, []

    def poisoned(self, *args, **options):
        loss = original(self, *args, **options)
        steps.append(loss)
        if len(steps) == 10:  # just before a validation and a checkpoint
            bias = self.get_layer("head").bias
            bias.assign(ops.convert_to_numpy(bias) * 0 + np.inf)
        return loss

    monkeypatch.setattr(keras.Model, "train_on_batch", poisoned)
    model = network()
    state = run(model, Bands(), spec(), tmp_path, validate=score, progress=False)
    assert state.notes == ["A weight is NaN or infinite after step 9 (float32); went back from step 9 to step 0 and "
                           "continued in float32."]  # fmt: skip
    np.testing.assert_allclose(weights(model), whole, atol=1e-4)


def test_a_state_of_the_optimizer_is_never_saved_broken(tmp_path, whole, monkeypatch):
    original, steps = keras.Model.train_on_batch, []

    def poisoned(self, *args, **options):
        loss = original(self, *args, **options)
        steps.append(loss)
        if len(steps) == 20:
            state = next(v for v in self.optimizer.variables if len(v.shape) == 1 and "velocity" in v.path)
            state.assign(ops.convert_to_numpy(state) * 0 + np.inf)
        return loss

    monkeypatch.setattr(keras.Model, "train_on_batch", poisoned)
    model = network()
    state = run(model, Bands(), spec(), tmp_path, validate=score, progress=False)
    assert state.notes[0].startswith("A state of the optimizer is NaN or infinite after step 19")
    assert "back from step 20 to step 10" in state.notes[0]
    np.testing.assert_allclose(weights(model), whole, atol=1e-4)


def test_the_second_time_is_an_error(tmp_path):
    with pytest.raises(NotFiniteError) as raised:
        run(network(), Spoiled(12, times=2), spec(), tmp_path, validate=score, progress=False)
    told = str(raised.value)
    assert told.startswith("The loss is nan at step 12, whose inputs or targets are not finite, for the second time")
    assert "went back from step 12 to step 10" in told
    assert "Start again with correct data, in another folder" in told and "learning_rate" not in told
    # What was good is still there, and the failure is not forgotten.
    with pytest.raises(NotFiniteError, match=r"at step 15.*second time"):
        run(network(), Spoiled(15), spec(), tmp_path, validate=score, progress=False)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"learning_rate": 12.5}, "a learning_rate of 0.002 or less, or a clip_norm of 1, in another folder"),
        ({"learning_rate": 1e-3}, "a learning_rate of 0.0001 or less, or a clip_norm of 1, in another folder"),
        (
            {"clip_norm": 0.5, "learning_rate": 1e-3},
            "a learning_rate of 0.0001 or less, or a clip_norm of 0.05, in another folder",
        ),
    ],
)
def test_the_advice_can_be_followed(tmp_path, monkeypatch, settings, advice):
    """What it says to set can be set, and the folder keeps its run, as it says."""
    monkeypatch.setattr(keras.Model, "train_on_batch", lambda *_: np.nan)
    chosen = spec(steps=5, **settings)
    with pytest.raises(NotFiniteError) as raised:
        run(network(), Bands(), chosen, tmp_path / "run", validate=score, progress=False)
    assert f"Start again with {advice}: {tmp_path / 'run'} keeps the last good checkpoint" in str(raised.value)
    monkeypatch.undo()
    better = dataclasses.replace(chosen, learning_rate=lower_learning_rate(chosen.learning_rate, 2e-3), clip_norm=1.0)
    with pytest.raises(TrainingError, match="holds a run with other settings"):
        run(network(), Bands(), better, tmp_path / "run", validate=score, progress=False)
    assert run(network(), Bands(), better, tmp_path / "other", validate=score, progress=False).step == 5


def test_a_kill_after_going_back_costs_nothing(tmp_path, whole):
    at = 5  # before the first checkpoint: what is gone back to is written down at once

    class Both(Spoiled):
        def __getitem__(self, step):
            return super().__getitem__(step) if self.left else Failing(step if step > at else -1)[step]

    with pytest.raises(Interrupted):
        run(network(), Both(at), spec(), tmp_path, validate=score, progress=False)
    model = network()
    state = run(model, Bands(), spec(), tmp_path, validate=score, progress=False)
    assert state.failures == 1 and f"went back from step {at} to" in state.notes[0]
    np.testing.assert_allclose(weights(model), whole, atol=1e-4)


def test_what_was_best_is_what_the_checkpoint_says(tmp_path):
    """A validation between two checkpoints is saved with one of its own."""
    settings = spec(validate_every=3, checkpoint_every=100, steps=9)
    scores = iter([0.9, 0.5, 0.4])
    state = run(
        network(), Spoiled(4), settings, tmp_path, validate=lambda model: {"score": next(scores)}, progress=False
    )
    assert (state.best, state.best_step, state.failures) == (0.9, 3, 1) and (tmp_path / BEST).is_file()
    assert "back from step 4 to step 3" in state.notes[0]


# === What users call ===


@pytest.fixture
def spoil(monkeypatch):
    """Let the inputs of a step be NaN the first `times` times that a run reads them."""
    original = WindowBatches.__getitem__

    def begin(at, times=1):
        left = [times]

        def spoiled(self, step):
            inputs, targets = original(self, step)
            if step == at and left[0]:
                left[0] -= 1
                inputs = inputs * np.nan
            return inputs, targets

        monkeypatch.setattr(WindowBatches, "__getitem__", spoiled)

    return begin


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return two_tags(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return own_tags(tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def mels(tmp_path_factory):
    return FeatureCache(tmp_path_factory.mktemp("mels"), kmt.model_info("tiny"))


FEW = TrainingSpec(steps=6, validate_every=3, checkpoint_every=3, warmup_steps=1, precision="mixed_bfloat16")


def check(tagger, state):
    assert state.precision == "float32" and state.step == 6 and state.failures == 1
    assert state.notes[0].endswith("(mixed_bfloat16); went back from step 4 to step 3 and continued in float32.")
    assert np.isfinite(np.concatenate([w.ravel() for w in tagger.core.get_weights()])).all()


@pytest.mark.contract
def test_train(clips, mels, spoil, tmp_path):
    spoil(4)
    options = {"cache": mels, "training": FEW, "batch_size": 8, "progress": False}
    check(*train(untrained("tiny", TAGS), clips[:10], clips[10:], tmp_path / "run", **options))


@pytest.mark.contract
def test_distil(clips, mels, spoil, tmp_path):
    spoil(4)
    teacher = kmt.load("tiny")
    options = {"cache": mels, "training": FEW, "batch_size": 8, "progress": False}
    keras.utils.set_random_seed(0)
    check(*distil(kmt.load("tiny", weights=None), teacher, clips[:10], clips[10:], tmp_path / "run", **options))


@pytest.mark.contract
def test_fine_tune(three, spoil, tmp_path):
    spoil(2)
    settings = FineTuneSpec(epochs=2, batch_size=8, precision="mixed_bfloat16")
    options = {"settings": settings, "cache": tmp_path / "cache", "progress": False}
    result = fine_tune(kmt.load("tiny"), three, folder=tmp_path / "mine", **options)
    report = result.report
    assert report.precision == "float32" and len(report.notes) == 1 and f"note: {report.notes[0]}" in str(report)
    assert "not finite (mixed_bfloat16); went back from step 2 to step 0" in report.notes[0]
    saved = json.loads((tmp_path / "mine" / "report.json").read_text())
    assert saved["precision"] == "float32" and saved["notes"] == list(report.notes)
    assert np.isfinite(np.concatenate([w.ravel() for w in result.tagger.core.get_weights()])).all()
    spoil(2, times=2)
    advice = "Correct the data, or choose stages='head', which trains no network. If you gave a folder, choose another"
    with pytest.raises(FineTuneError, match=f"failed twice. .* step 2, whose inputs.*{advice}"):
        fine_tune(kmt.load("tiny"), three, folder=tmp_path / "twice", **options)


def test_the_advice_on_fine_tuning_can_be_followed(three, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    three.to_csv("three.csv")
    arguments = ["finetune", "tiny", "--data", "three.csv", "--out", "mine", "--epochs", "1", "--validation", "none"]
    monkeypatch.setattr(keras.Model, "train_on_batch", lambda *_: np.nan)
    result = CliRunner().invoke(main, [*arguments, "--learning-rate", "12.5"], catch_exceptions=False)
    advice = "Choose a learning_rate of 0.0001 or less, or stages='head', which trains no network. If you gave a folder"
    assert result.exit_code == 2 and advice in result.stderr
    arguments += ["--stages", "head"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    run_folder = os.path.join("mine", "run")
    assert result.exit_code == 2 and f"Choose another folder, or delete {run_folder} to start over." in result.stderr
    shutil.rmtree(run_folder)
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0


def test_the_default_is_float32(three, tmp_path, precisions):
    result = fine_tune(
        kmt.load("tiny"), three, settings=FineTuneSpec(epochs=1), cache=tmp_path / "cache", progress=False
    )
    assert set(precisions) == {"float32"} and result.report.precision == "float32" and result.report.notes == ()
    assert TrainingSpec(steps=1).precision == FineTuneSpec().precision == "float32"
    head = FineTuneSpec(stages="head")
    only = fine_tune(kmt.load("tiny"), three, settings=head, cache=tmp_path / "cache", progress=False)
    assert only.report.precision is None


def test_the_command_says_so(tmp_path, spoil, monkeypatch):
    two_tags(tmp_path / "clips", 20).to_csv(tmp_path / "clips.csv")
    monkeypatch.chdir(tmp_path)
    spoil(2)
    arguments = ["train", "tiny", "--data", "clips.csv", "--steps", "4", "--batch-size", "8",
                 "--set", "data.allow_untagged=true"]  # fmt: skip
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    assert "note: The loss is nan at step 2" in result.stdout
    facts = json.loads(CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert facts["precision"] == "float32" and len(facts["notes"]) == 1
