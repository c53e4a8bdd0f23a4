"""Training on two devices of JAX, simulated on the processor, comes to the same as on one."""

import csv
import os
import subprocess
import sys

import keras
import pytest
from two_tags import two_tags

from keras_musictag.training.loop import data_parallel
from keras_musictag.training.training_spec import TrainingError

RUN = """
import sys
import keras
from keras_musictag.cli import main
from keras_musictag.training.loop import data_parallel
from keras_musictag.training.training_spec import TrainingError
main(sys.argv[1:], standalone_mode=False)
try:
    print("devices", data_parallel(7))
except TrainingError as error:
    print(error)
"""


def train(folder, devices, *options):
    """Train on so many devices; what is printed, and the rows of the log."""
    arguments = ["train", "tiny", "-d", "clips.csv", "--validation", "valid.csv", "-o", str(devices), *options]
    arguments += ["--steps", "20", "--batch-size", "8", "--learning-rate", "0.01"]
    for setting in ("data.allow_untagged=true", "training.validate_every=10"):
        arguments += ["--set", setting]
    settings = {"KERAS_BACKEND": "jax", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-c", RUN, *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    with open(folder / str(devices) / "run" / "log.csv", newline="") as file:
        return done.stdout + done.stderr, list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path):
    clips = two_tags(tmp_path / "clips", 27)
    clips[:20].to_csv(tmp_path / "clips.csv")
    clips[20:].to_csv(tmp_path / "valid.csv")  # seven: not a number that two devices can share
    return tmp_path


def test_two_devices_come_to_the_same_as_one(folder):
    pytest.importorskip("jax")
    said, one = train(folder, 1)
    assert said.splitlines().count("devices 1") == 1
    said, two = train(folder, 2, "--data-parallel")
    assert "devices: 2\n" in said
    assert "batch_size must be a multiple of the 2 devices that share it; got 7." in said
    for name in ("step", "loss", "pr_auc"):  # equal in all six digits, where it was measured
        assert [float(row[name]) for row in one] == pytest.approx([float(row[name]) for row in two], abs=1e-4)
    assert len(one) == 2


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX can")
def test_only_jax_shares_batches():
    with pytest.raises(TrainingError, match=r"Only JAX shares batches among devices; got (tensorflow|torch)"):
        data_parallel(8)
