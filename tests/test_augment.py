"""Augmentation: amounts in dB whatever the scaling, identities, and draws that depend on the generator alone."""

import numpy as np
import pytest

from keras_musictag.datasets.augment import (
    Augmentation,
    from_power,
    gain,
    limit_range,
    mask_frames,
    mask_mels,
    mix,
    mixup,
    shift_mels,
    tilt,
    to_power,
)
from keras_musictag.models.layers import LogMelSpectrogram
from keras_musictag.models.spec import AudioSpec, MelSpec

DB = MelSpec(n_fft=256, hop_length=128, n_mels=16, scaling="db")
TOP = MelSpec(n_fft=256, hop_length=128, n_mels=16, scaling="db", ref=0.5, top_db=60.0)
LOG = MelSpec(n_fft=256, hop_length=128, n_mels=16, scaling="log10")
RAW = MelSpec(n_fft=256, hop_length=128, n_mels=16, scaling=None)
scalings = pytest.mark.parametrize("mel", [DB, TOP, LOG, RAW], ids=["db", "top_db", "log10", "power"])


def power(batch=4, frames=20, seed=0):
    return 10 ** np.random.default_rng(seed).uniform(-4, 2, (batch, 16, frames))


def targets(batch=4):
    return np.eye(batch, 6, dtype="float32")


# === Power and back ===


@scalings
def test_scaling_is_that_of_the_layer(mel):
    y = np.random.default_rng(0).uniform(-1, 1, (2, 4000)).astype("float32")
    plain = LogMelSpectrogram.from_spec(AudioSpec(sr=8000), RAW)
    scaled = LogMelSpectrogram.from_spec(AudioSpec(sr=8000), mel)
    got = from_power(np.asarray(plain(y)), mel)
    np.testing.assert_allclose(got, np.asarray(scaled(y)), rtol=1e-5, atol=1e-5)  # measured: 8e-6 dB
    assert got.dtype == np.float32


@scalings
def test_power_comes_back(mel):
    p = power()
    x = from_power(p, mel)
    kept = x > x.min(axis=(1, 2), keepdims=True)  # the rest is cut off where there is a top_db
    np.testing.assert_allclose(to_power(x, mel)[kept], p[kept], rtol=1e-5)  # measured: 4e-6


def test_silence_has_no_power_left_over():
    assert from_power(np.zeros((1, 2, 2)), LOG).max() == 0
    assert to_power(np.zeros((1, 2, 2)), LOG).max() == 0
    assert to_power(np.full((1, 2, 2), -1e-3), LOG).min() == 0  # rounding below 0 is no negative power


def test_range_is_limited_per_example():
    x = np.array([[[0.0, -70.0]], [[-50.0, -70.0]]], "float32")
    np.testing.assert_array_equal(limit_range(x, TOP), [[[0.0, -60.0]], [[-50.0, -70.0]]])
    assert limit_range(x, DB) is x


# === Level and pitch ===


@scalings
def test_nothing_changes_without_an_amount(mel):
    x = from_power(power(), mel)
    for same in (gain(x, 0.0, mel), tilt(x, np.zeros(4), mel), shift_mels(x, 0), shift_mels(x, np.zeros(4, int))):
        np.testing.assert_array_equal(same, x)
    same, y = Augmentation(mel=mel)(x, targets(), np.random.default_rng(0))
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(y, targets())


@scalings
def test_gain_is_in_db_of_power(mel):
    p, db = power(), np.array([-6.0, 0.0, 3.0, 10.0])
    expected = from_power(p * 10 ** (db[:, None, None] / 10), mel)
    np.testing.assert_allclose(gain(from_power(p, mel), db, mel), expected, rtol=2e-5, atol=2e-5)


def test_gain_stays_above_the_floor():
    x = np.full((1, 2, 2), -99.0, "float32")
    assert gain(x, -6.0, DB).min() == -100


@scalings
def test_tilt_turns_around_the_middle(mel):
    p = np.ones((1, 16, 3))
    got = 10 * np.log10(to_power(tilt(from_power(p, mel), 6.0, mel), mel))[0, :, 0]
    np.testing.assert_allclose(got, np.linspace(-3, 3, 16), atol=1e-5)


def test_tilt_of_one_band_changes_nothing():
    np.testing.assert_array_equal(tilt(np.ones((1, 1, 2), "float32"), 6.0, DB), np.ones((1, 1, 2)))


def test_shift_fills_with_the_edge():
    x = np.arange(3.0)[None, :, None].repeat(3, 0)
    np.testing.assert_array_equal(
        shift_mels(x, np.array([-1, 2, 9]))[:, :, 0], [[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    )


# === Masks ===


@pytest.mark.parametrize(("mask", "axis"), [(mask_frames, 2), (mask_mels, 1)])
def test_masks_hide_whole_lines_behind_the_mean(mask, axis):
    x = from_power(power(batch=64), LOG)
    got = mask(x, 2, 5, np.random.default_rng(0))
    hidden = (got != x).all(axis=3 - axis)
    np.testing.assert_array_equal(hidden, (got != x).any(axis=3 - axis))
    assert 0 < hidden.sum(axis=1).max() <= 10
    assert len(np.unique(hidden.sum(axis=1))) > 5  # every example has its own
    example = np.flatnonzero(hidden.any(axis=1))[0]
    assert np.isclose(got[example].take(np.flatnonzero(hidden[example])[0], axis - 1), x[example].mean()).all()


def test_mask_wider_than_the_spectrogram():
    x = from_power(power(batch=50, frames=3), LOG)
    assert np.isfinite(mask_frames(x, 1, 99, np.random.default_rng(0))).all()


# === Mixing ===


@scalings
def test_powers_add_up(mel):
    p = power()
    partner, weight = np.array([1, 2, 3, 0]), np.array([0.5, 0.25, 1.0, 0.0])
    x, y = mix(from_power(p, mel), targets(), partner, weight, mel)
    share = weight[:, None, None]
    # top_db was applied before the mixing too, where it raises what is 60 dB down: 1e-6 of the maximum
    floor = p.max() * (1e-6 if mel is TOP else 0)
    np.testing.assert_allclose(to_power(x, mel), share * p + (1 - share) * p[partner], rtol=1e-4, atol=floor)
    np.testing.assert_array_equal(x[2], from_power(p, mel)[2])
    np.testing.assert_array_equal(y[:2, :4], [[1, 1, 0, 0], [0, 1, 1, 0]])


def test_weighted_targets_and_log_domain():
    x = np.array([[[0.0]], [[10.0]]], "float32")
    mixed, y = mix(x, np.eye(2), np.array([1, 0]), np.array([0.75, 1.0]), DB, domain="log", targets="weighted")
    np.testing.assert_allclose(mixed.ravel(), [2.5, 10.0])
    np.testing.assert_allclose(y, [[0.75, 0.25], [0.0, 1.0]])


def test_inputs_are_left_alone():
    x, y = from_power(power(), DB), targets()
    copies = x.copy(), y.copy()
    recipe = Augmentation(
        mel=DB, mixup=1.0, gain_db=6.0, tilt_db=3.0, shift_bands=2, time_masks=1, time_mask_frames=5, mel_masks=1,
        mel_mask_bands=3,
    )  # fmt: skip
    one = recipe(x, y, np.random.default_rng(7))
    two = recipe(x, y, np.random.default_rng(7))
    other = recipe(x, y, np.random.default_rng(8))
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(y, copies[1])
    for a, b, c in zip(one, two, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.float32
        assert not np.array_equal(a, c)


def test_no_example_is_mixed_with_itself_and_the_probability_holds():
    y = np.eye(1000, dtype="float32")
    x = np.zeros((1000, 1, 1), "float32")
    assert (mixup(x, y, 1.0, DB, np.random.default_rng(0))[1].sum(axis=1) == 2).all()
    mixed = mixup(x, y, 0.3, DB, np.random.default_rng(0))[1].sum(axis=1) == 2
    assert 0.25 < mixed.mean() < 0.35  # 3.4 standard deviations
    np.testing.assert_array_equal(mixup(x[:1], y[:1], 1.0, DB, np.random.default_rng(0))[1], y[:1])


def test_classical_mixup_keeps_the_sum_of_the_targets():
    x, y = mixup(from_power(power(), DB), targets(), 1.0, DB, np.random.default_rng(0), mode="log")
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)
    assert np.isfinite(x).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gain_db": -1.0}, r"gain_db must be a number of dB, 0 or more; got -1.0"),
        ({"tilt_db": float("nan")}, r"tilt_db must be a number of dB, 0 or more; got nan"),
        ({"time_masks": 1.5}, r"time_masks must be a whole number, 0 or more; got 1.5"),
        ({"mixup": 2}, r"mixup must be a probability from 0 to 1; got 2"),
        ({"mixup_mode": "sum"}, r"mixup_mode must be 'power' or 'log'; got 'sum'"),
    ],
)
def test_invalid_amounts(wrong, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(mel=DB, **wrong)
