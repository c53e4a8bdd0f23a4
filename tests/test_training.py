"""The training loop: it learns, it resumes exactly, it stops when told, it keeps the best."""

import csv
import functools
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

import keras_musictag as kmt
from keras_musictag.errors import CacheError
from keras_musictag.training.loop import BEST, CHECKPOINT, LOG, TrainingError, TrainingSpec, fit, set_prior

pytestmark = pytest.mark.contract
run = functools.partial(fit, bn_momentum=0.8)  # the moving statistics have 40 steps to settle


class Bands:
    """Two tags: energy in the low or in the high bands. A batch depends on its step alone."""

    def __len__(self):
        return 40

    def __getitem__(self, step):
        rng = np.random.default_rng((7, step))
        y = rng.integers(0, 2, (16, 2)).astype("float32")
        x = rng.normal(0, 0.5, (16, 32, 63)).astype("float32")
        x[:, :16] += y[:, :1, None]
        x[:, 16:] += y[:, 1:, None]
        return x, y


def score(model):
    x, y = Bands()[10**6]
    p = ops.convert_to_numpy(model(x, training=False))
    return {"score": float(((p > 0.5) == y).mean())}


def network():
    keras.utils.set_random_seed(3)
    return kmt.models.tiny(num_tags=2)


def spec(**changes):
    settings = {
        "steps": 40,
        "validate_every": 10,
        "checkpoint_every": 10,
        "warmup_steps": 5,
        "learning_rate": 1e-2,
        "average": 0.8,
    }
    return TrainingSpec(**{**settings, **changes})


def weights(model):
    return np.concatenate([ops.convert_to_numpy(v).ravel() for v in model.weights])


def test_it_learns_and_keeps_the_best(tmp_path):
    model = network()
    before = score(model)["score"]
    state = run(model, Bands(), spec(), tmp_path, validate=score, progress=False)
    assert state.step == 40 and 0 <= state.waiting < 1
    assert state.best == score(model)["score"] > max(0.95, before)
    rows = list(csv.DictReader((tmp_path / LOG).read_text().splitlines()))
    assert [int(float(row["step"])) for row in rows] == [10, 20, 30, 40]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == [BEST, CHECKPOINT, LOG]


class Interrupted(Exception):
    pass


class Failing(Bands):
    def __init__(self, at):
        self.at = at

    def __getitem__(self, step):
        if step == self.at:
            raise Interrupted
        return super().__getitem__(step)


@pytest.mark.parametrize("at", [5, 10, 27])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, at):
    whole = network()
    expected = run(whole, Bands(), spec(), tmp_path / "whole", validate=score, progress=False)
    with pytest.raises(Interrupted):
        run(network(), Failing(at), spec(), tmp_path / "parts", validate=score, progress=False)
    resumed = network()
    resumed.get_layer("head").bias.assign([9.0, -9.0])  # whatever it starts from must not matter
    if at < 10:  # nothing was saved yet: the run starts over
        resumed = network()
    state = run(resumed, Bands(), spec(), tmp_path / "parts", validate=score, progress=False)
    assert (state.step, state.best, state.best_step) == (expected.step, expected.best, expected.best_step)
    # Measured: bit for bit on all three backends; threads may change the order of additions elsewhere.
    np.testing.assert_allclose(weights(resumed), weights(whole), atol=1e-4)
    assert (tmp_path / "parts" / LOG).read_text().splitlines()[0].startswith("step,loss,waiting,score")


def test_kill_9_costs_at_most_one_interval(tmp_path):
    """A real process, really killed, in the middle of a step."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("once is enough")
    code = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_training import *
class Slow(Bands):
    def __getitem__(self, step):
        time.sleep(0.05)
        print(step, flush=True)
        return super().__getitem__(step)
run(network(), Slow(), spec(), sys.argv[1], validate=score, progress=False)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "run"), os.path.dirname(__file__)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if int(line) == 29:  # read ahead of the steps by at most four: between 24 and 28 are done
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    resumed, whole = network(), network()
    steps = []

    class Counted(Bands):
        def __getitem__(self, step):
            steps.append(step)
            return super().__getitem__(step)

    run(resumed, Counted(), spec(), tmp_path / "run", validate=score, progress=False)
    assert steps == list(range(20, 40))
    run(whole, Bands(), spec(), tmp_path / "whole", validate=score, progress=False)
    np.testing.assert_allclose(weights(resumed), weights(whole), atol=1e-4)


def test_equal_seeds_give_equal_weights(tmp_path):
    runs = []
    for name in ("a", "b"):
        model = network()
        run(model, Bands(), spec(steps=10), tmp_path / name, validate=score, progress=False)
        runs.append(weights(model))
    np.testing.assert_allclose(runs[0], runs[1], atol=1e-6)


def test_patience(tmp_path):
    state = run(
        network(),
        Bands(),
        spec(validate_every=2, patience=3),
        tmp_path,
        validate=lambda model: {"score": 0.5},
        progress=False,
    )
    assert (state.step, state.best_step, state.stale) == (8, 8, 3)  # of equal scores the latest is kept


def test_ctrl_c_keeps_what_there_is(tmp_path):
    class Stopped(Bands):
        def __getitem__(self, step):
            if step == 23:
                raise KeyboardInterrupt
            return super().__getitem__(step)

    state = run(network(), Stopped(), spec(), tmp_path, validate=score, progress=False)
    assert state.step == 23
    assert run(network(), Bands(), spec(), tmp_path, validate=score, progress=False).step == 40


def test_bad_runs_are_named(tmp_path):
    run(network(), Bands(), spec(steps=10), tmp_path, validate=score, progress=False)
    with pytest.raises(TrainingError, match="holds a run with other settings"):
        run(network(), Bands(), spec(steps=11), tmp_path, validate=score, progress=False)

    class NotANumber(Bands):
        def __getitem__(self, step):
            x, y = super().__getitem__(step)
            return x * np.nan, y

    with pytest.raises(TrainingError, match=r"The loss is nan at step 0, whose inputs or targets are not finite, for"):
        run(network(), NotANumber(), spec(), tmp_path / "nan", validate=score, progress=False)
    with pytest.raises(TrainingError, match=r"validate\(\) must return 'score'; got auc"):
        run(network(), Bands(), spec(), tmp_path / "auc", validate=lambda model: {"auc": 1.0}, progress=False)
    with pytest.raises(TrainingError, match="There are batches for 40 steps; the run needs 41"):
        run(network(), Bands(), spec(steps=41), tmp_path / "long", validate=score, progress=False)
    with pytest.raises(TrainingError, match="steps must be a whole number of at least 1; got 0"):
        spec(steps=0)
    with pytest.raises(TrainingError, match="average must be at least 0 and below 1; got 1"):
        spec(average=1)
    with pytest.raises(TrainingError, match=r"final_learning_rate between 0 and it; got 0\.01 and 1\.0"):
        spec(final_learning_rate=1.0)
    with pytest.raises(TrainingError, match="learning_rate must be above 0"):
        spec(learning_rate=0.0, final_learning_rate=0.0)
    with pytest.raises(TrainingError, match=r"learning_rate must be above 0 and finite.* got inf"):
        spec(learning_rate=float("inf"))
    with pytest.raises(TrainingError, match="warmup_steps must be a whole number of at least 0; got -1"):
        spec(warmup_steps=-1)
    with pytest.raises(TrainingError, match="patience must be above 0, or None; got 0"):
        spec(patience=0)
    with pytest.raises(TrainingError, match="precision must be one of float32, mixed_bfloat16, auto; got 'int8'"):
        spec(precision="int8")


def test_a_fresh_head_starts_at_the_prior():
    model = kmt.models.tiny(num_tags=2)
    set_prior(model, np.array([0.25, 0.0]))
    bias = ops.convert_to_numpy(model.get_layer("head").bias)
    assert 1 / (1 + np.exp(-bias[0])) == pytest.approx(0.25) and np.isfinite(bias).all()
    set_prior(model, np.array([0.5, 0.5]))  # not fresh any more
    np.testing.assert_array_equal(ops.convert_to_numpy(model.get_layer("head").bias), bias)


def test_what_training_changes_stays_in_training(tmp_path):
    model = network()
    before = [layer.get_config() for layer in model.layers]
    fit(model, Bands(), spec(steps=2), tmp_path, validate=score, dropout=0.5, bn_momentum=0.5, progress=False)
    assert [layer.get_config() for layer in model.layers] == before
    with pytest.raises(TrainingError, match=r"dropout=20 turns a rate of 0\.1 into 2; it must be below 1"):
        fit(model, Bands(), spec(), tmp_path / "other", validate=score, dropout=20, progress=False)


@pytest.mark.parametrize("at", [3, 10, 22, 40])
def test_ctrl_c_at_any_step_or_validation_costs_nothing(tmp_path, at, ctrl_c):
    """A signal is heard wherever the loop is, and acted upon where nothing is half done."""
    whole = network()
    expected = run(whole, Bands(), spec(), tmp_path / "whole", validate=score, progress=False)

    def pressed(model):  # validations are at 10, 20, 30 and 40
        if at % 10 == 0 and not seen and seen.append(at) is None:
            os.kill(os.getpid(), signal.SIGINT)
        return score(model)

    class Pressing(Bands):
        def __getitem__(self, step):
            if at % 10 and step == at and not seen:
                seen.append(at)
                os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(step)

    seen = []
    stopped = run(network(), Pressing(), spec(), tmp_path / "parts", validate=pressed, progress=False)
    assert seen and stopped.step <= 40
    resumed = network()
    state = run(resumed, Bands(), spec(), tmp_path / "parts", validate=score, progress=False)
    assert (state.step, state.best, state.best_step) == (expected.step, expected.best, expected.best_step)
    np.testing.assert_allclose(weights(resumed), weights(whole), atol=1e-4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_is_deaf_to_ctrl_c_stays_so(tmp_path, ctrl_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    class Pressing(Bands):
        def __getitem__(self, step):
            os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(step)

    assert run(network(), Pressing(), spec(steps=5), tmp_path, validate=score, progress=False).step == 5


def test_a_run_that_was_over_is_not_trained_further(tmp_path):
    settings = spec(validate_every=7, patience=1)
    constant = {"validate": lambda model: {"score": 0.5}, "progress": False}
    first = run(network(), Bands(), settings, tmp_path, **constant)
    rows = (tmp_path / LOG).read_text()
    assert (first.step, len(rows.splitlines())) == (14, 3)
    assert run(network(), Bands(), settings, tmp_path, **constant) == first
    assert (tmp_path / LOG).read_text() == rows


def test_other_data_or_a_damaged_checkpoint_are_not_gone_on_with(tmp_path):
    options = {"validate": score, "progress": False}
    run(network(), Bands(), spec(steps=10), tmp_path, about={"data": "a"}, **options)
    with pytest.raises(TrainingError, match="holds a run with other settings, data or network"):
        run(network(), Bands(), spec(steps=10), tmp_path, about={"data": "b"}, **options)
    for augment in (lambda x: x, lambda x: -x):  # functions are told apart by name, not by where they are in memory
        run(network(), Bands(), spec(steps=10), tmp_path / "f", about={"augment": augment}, **options)
    (tmp_path / CHECKPOINT).write_bytes(b"nothing of the kind")
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors is damaged .* Delete it to start"):
        run(network(), Bands(), spec(steps=10), tmp_path, about={"data": "a"}, **options)
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="Choose another folder for the run"):
        run(network(), Bands(), spec(), tmp_path / "file", **options)
