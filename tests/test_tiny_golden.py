"""Golden numbers of `tiny`: the same on every backend. Make them again with: python tests/test_tiny_golden.py."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_musictag as kmt
from keras_musictag.models.layers import LogMelSpectrogram

pytestmark = pytest.mark.contract

GOLDEN = Path(__file__).parent / "golden" / "tiny.json"
SR = 16_000
# TensorFlow, JAX and torch differ by at most 2.3e-7 [m].
TOLERANCE = 1e-5


def _hash_noise(n):
    """White noise in [-1, 1) from integer arithmetic alone, so that it depends on no generator."""
    mask = np.uint64(0xFFFFFFFF)
    for factor, shift in ((2_654_435_761, 15), (2_246_822_519, 13), (3_266_489_917, 16)):
        n = (n * np.uint64(factor)) & mask
        n ^= n >> np.uint64(shift)
    return n / 2.0**31 - 1.0


def sounds():
    """One sound of 2.5 s for each tag, float32 `(samples,)` at 16 kHz."""
    n = np.arange(5 * SR // 2)
    t = n / SR
    return {
        "tone": 0.5 * np.sin(2 * np.pi * 440 * t),
        "chord": 0.2 * sum(np.sin(2 * np.pi * hz * t) for hz in (262, 330, 392)),
        "noise": 0.3 * _hash_noise(n.astype("uint64") + np.uint64(1)),
        "clicks": 0.9 * (n % 2000 == 1000),
        "sweep": 0.5 * np.sin(2 * np.pi * (100 * t + 1380 * t**2)),  # 100 to 7,000 Hz
    }


def measure(tagger, samples):
    """Probabilities by tag, and the mean log-mel of the first window."""
    front_end = LogMelSpectrogram.from_spec(tagger.spec.audio, tagger.spec.mel)
    window = samples[None, : tagger.spec.window_samples].astype("float32")
    log_mel = keras.ops.convert_to_numpy(front_end(window))
    probabilities = tagger.tag(samples.astype("float32"), SR)
    return {
        "probabilities": {tag: probabilities[tag] for tag in tagger.tags},
        "log_mel_mean": float(log_mel.mean(dtype="float64")),
    }


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text())


def test_golden_numbers_are_of_these_weights(golden, tiny):
    assert golden["weights_sha256"] == tiny.spec.weights.sha256, f"Run python tests/{Path(__file__).name}."
    assert list(golden["sounds"]) == list(tiny.tags) == list(sounds())


@pytest.mark.parametrize("name", sounds())
def test_golden_numbers(name, golden, tiny):
    expected, found = golden["sounds"][name], measure(tiny, sounds()[name])
    assert found["log_mel_mean"] == pytest.approx(expected["log_mel_mean"], abs=TOLERANCE)
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=TOLERANCE)


@pytest.mark.parametrize("name", sounds())
def test_every_sound_is_recognised(name, tiny):
    ((best, probability),) = tiny.tag(sounds()[name], SR, top=1).items()
    assert best == name and probability > 0.8


if __name__ == "__main__":
    tagger = kmt.load("tiny")
    made_with = f"python tests/{Path(__file__).name}, Keras {keras.__version__} on {keras.backend.backend()}"
    numbers = {name: measure(tagger, samples) for name, samples in sounds().items()}
    document = {"made_with": made_with, "weights_sha256": tagger.spec.weights.sha256, "sounds": numbers}
    GOLDEN.write_text(json.dumps(document, indent=2) + "\n")
