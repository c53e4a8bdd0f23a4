"""Ratios of medians, measured interleaved in one process. Absolute times say nothing on a shared machine."""

import statistics
import time

import keras
import librosa
import numpy as np
import pytest
import scipy.fft

import keras_musictag as kmt
from keras_musictag.models.keras_runtime import KerasRuntime
from keras_musictag.models.layers import LogMelSpectrogram, mel_filterbank, window_function

pytestmark = [
    pytest.mark.speed,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the bounds are for the default backend"),
]


def _ratio(ours, theirs, rounds=30):
    """Median time of one call over median time of the other; calls take turns."""
    times = ([], [])
    for turn in range(rounds + 5):
        for function, kept in zip((ours, theirs), times, strict=True):
            started = time.perf_counter()
            function()
            if turn >= 5:
                kept.append(time.perf_counter() - started)
    return statistics.median(times[0]) / statistics.median(times[1])


@pytest.fixture(scope="module")
def clip():
    """29.12 s at 12 kHz."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, 1365 * 256).astype("float32")


def test_log_mel_costs_no_more_than_1_5_times_numpy(clip):
    spec = kmt.model_info("musicnet_crnn")
    padded = np.pad(clip, 256)
    inputs = keras.Input((padded.size,))
    run = KerasRuntime(keras.Model(inputs, LogMelSpectrogram.from_spec(spec.audio, spec.mel)(inputs)))
    taper = window_function("hann", 512, 512).astype("float32")
    filters = mel_filterbank(sr=12_000, n_fft=512, n_mels=96).T.astype("float32")

    def by_numpy():
        frames = np.lib.stride_tricks.sliding_window_view(padded, 512)[::256] * taper
        spectrum = scipy.fft.rfft(frames, axis=-1)
        return (spectrum.real**2 + spectrum.imag**2) @ filters

    ratio = _ratio(lambda: run.predict(padded[None]), by_numpy)
    assert ratio <= 1.5, f"log-mel layer took {ratio:.2f} x the NumPy time"


def test_tagging_costs_no_more_than_0_35_times_predict_with_librosa(clip):
    tagger = kmt.load("musicnet_crnn", weights=None)

    def by_predict():
        mel = librosa.feature.melspectrogram(y=clip, sr=12_000, n_fft=512, hop_length=256, n_mels=96)
        tagger.core.predict(librosa.power_to_db(mel)[None], verbose=0)

    ratio = _ratio(lambda: tagger.tag(clip, sr=12_000), by_predict)
    assert ratio <= 0.35, f"tag() took {ratio:.2f} x predict() with librosa features"  # measured 0.19
