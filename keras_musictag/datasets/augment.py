"""Augment batches of log-mels, as NumPy arrays with a random generator of the caller.

Conventions: batches are float32 `(batch, mels, frames)` in the scaling of a `MelSpec` (`"db"`, `"log10"` or plain
power), targets float32 `(batch, tags)` in [0, 1]. Amounts are per example; levels are in dB of power for every scaling,
widths in mel bands or frames. No array is changed in place.

Masks: SpecAugment (Park et al., 2019, https://arxiv.org/abs/1904.08779). Mixing: mixup (Zhang et al., 2018,
https://arxiv.org/abs/1710.09412), here of powers: for uncorrelated signals, the expected power of the sum is the sum of
the powers.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args

import numpy as np

from ..models.mel import decibels_per_decade
from ..models.spec import MelSpec

DECIBELS = ("db", "amplitude_to_db")  # scalings in dB

Domain = Literal["power", "log"]
Targets = Literal["max", "weighted"]

# Parameter a of the distribution Beta(a, a) of weights. With targets "max", both examples must be audible: 90 % of the
# weights of Beta(4, 4) are between 0.22 and 0.78, at most 5.4 dB apart. Classical mixup mostly stays close to one.
_ALPHA = {"max": 4.0, "weighted": 0.4}


# === Power and back ===


def to_power(x: np.ndarray, mel: MelSpec) -> np.ndarray:
    """Undo the scaling of a log-mel.

    Args:
        x: array `(..., mels, frames)` in the scaling of `mel`.
        mel: scaling of `x`.

    Returns:
        float64 array of the same shape: mel power. Powers that the scaling clipped at `amin` are `amin`.

    Example:
        >>> to_power(np.array([[-10.0, 0.0, 10.0]]), MelSpec(scaling="db"))
        array([[ 0.1,  1. , 10. ]])
    """
    x = np.asarray(x, "float64")
    if mel.scaling in DECIBELS:
        return max(mel.amin, mel.ref) * 10.0 ** (x / decibels_per_decade(mel))
    if mel.scaling == "log10":
        return np.maximum(np.expm1(x * math.log(10.0)), 0.0) / mel.gain
    if mel.scaling == "log":
        return np.maximum(np.exp(x * mel.std + mel.mean) - mel.log_offset, 0.0)
    return x


def from_power(power: np.ndarray, mel: MelSpec) -> np.ndarray:
    """Scale mel power as `LogMelSpectrogram` does, including `top_db`.

    Args:
        power: array `(..., mels, frames)`, 0 or more.
        mel: scaling of the result.

    Returns:
        float32 array of the same shape.

    Example:
        >>> from_power(np.array([[0.1, 1.0, 0.0]]), MelSpec(scaling="db"))
        array([[ -10.,    0., -100.]], dtype=float32)
    """
    power = np.asarray(power, "float64")
    if mel.scaling in DECIBELS:
        factor = decibels_per_decade(mel)
        db = factor * np.log10(np.maximum(power, mel.amin)) - factor * math.log10(max(mel.amin, mel.ref))
        return limit_range(db.astype("float32"), mel)
    if mel.scaling == "log10":
        return (np.log1p(mel.gain * power) / math.log(10.0)).astype("float32")
    if mel.scaling == "log":
        return ((np.log(power + mel.log_offset) - mel.mean) / mel.std).astype("float32")
    return power.astype("float32")


def limit_range(x: np.ndarray, mel: MelSpec) -> np.ndarray:
    """Clip values more than `mel.top_db` dB below the maximum of each `(mels, frames)`; for scalings in dB only.

    Example:
        >>> limit_range(np.array([[0.0, -50.0, -90.0]]), MelSpec(top_db=80.0))
        array([[  0., -50., -80.]])
    """
    if mel.scaling not in DECIBELS or mel.top_db is None:
        return x
    return np.maximum(x, x.max(axis=(-2, -1), keepdims=True) - x.dtype.type(mel.top_db))


# === Level and pitch ===


def gain(x: np.ndarray, db: np.ndarray | float, mel: MelSpec) -> np.ndarray:
    """Make examples louder or softer.

    Args:
        x: log-mels `(batch, mels, frames)`.
        db: dB to add, one number or `(batch,)`.
        mel: scaling of `x`.

    Returns:
        float32 array like `x`.

    Example:
        >>> gain(np.full((1, 2, 3), -20.0, "float32"), 6.0, MelSpec()).max()
        np.float32(-14.0)
    """
    return _add_db(x, np.reshape(np.asarray(db, "float64"), (-1, 1, 1)), mel)


def tilt(x: np.ndarray, db: np.ndarray | float, mel: MelSpec) -> np.ndarray:
    """Make examples brighter or duller, as a different microphone or master would.

    The gain changes linearly along the mel axis, which is logarithmic above 1 kHz; the middle band keeps its level.

    Args:
        x: log-mels `(batch, mels, frames)`.
        db: gain of the highest band minus that of the lowest in dB, one number or `(batch,)`; negative for duller.
        mel: scaling of `x`.

    Returns:
        float32 array like `x`.

    Example:
        >>> tilt(np.zeros((1, 3, 1), "float32"), 4.0, MelSpec())[0, :, 0]
        array([-2.,  0.,  2.], dtype=float32)
    """
    slope = np.linspace(-0.5, 0.5, x.shape[1]) if x.shape[1] > 1 else np.zeros(1)
    return _add_db(x, np.reshape(np.asarray(db, "float64"), (-1, 1, 1)) * slope[None, :, None], mel)


def _add_db(x: np.ndarray, db: np.ndarray, mel: MelSpec) -> np.ndarray:
    if not db.any():
        return x  # unchanged, without the rounding error of the conversion to power
    if mel.scaling in DECIBELS:  # 20 times faster than by conversion to power
        factor = decibels_per_decade(mel)
        floor = factor * math.log10(mel.amin / max(mel.amin, mel.ref))
        return limit_range(np.maximum(x + (factor / 10.0 * db).astype("float32"), np.float32(floor)), mel)
    return from_power(to_power(x, mel) * 10.0 ** (db / 10.0), mel)


def shift_mels(x: np.ndarray, bands: np.ndarray | int) -> np.ndarray:
    """Shift examples along the mel axis, roughly a change of pitch; the outermost band is repeated at the end.

    Args:
        x: log-mels `(batch, mels, frames)` in any scaling.
        bands: number of mel bands to shift up by, one number or `(batch,)`; negative for down.

    Returns:
        array like `x`.

    Example:
        >>> shift_mels(np.array([[[1.0], [2.0], [3.0]]]), 1)[0, :, 0]
        array([1., 1., 2.])
    """
    bands = np.broadcast_to(np.asarray(bands), (len(x),))
    source = np.clip(np.arange(x.shape[1])[None, :] - bands[:, None], 0, x.shape[1] - 1)
    return np.take_along_axis(x, source[:, :, None], axis=1)


# === Masks ===


def mask_frames(x: np.ndarray, count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Replace ranges of frames by the mean of each example.

    Args:
        x: log-mels `(batch, mels, frames)`.
        count: masks per example; they may overlap.
        most: maximum width in frames; each width is drawn from 0 to `most`.
        rng: random generator.

    Returns:
        array like `x`.

    Example:
        >>> x = np.arange(12.0).reshape(1, 3, 4)
        >>> int((mask_frames(x, 1, 2, np.random.default_rng(0)) != x).any(axis=1).sum())
        2
    """
    return _mask(x, 2, count, most, rng)


def mask_mels(x: np.ndarray, count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Replace ranges of mel bands by the mean of each example; as `mask_frames`, with widths in mel bands."""
    return _mask(x, 1, count, most, rng)


def _mask(x: np.ndarray, axis: int, count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    size = x.shape[axis]
    if not count or not most:
        return x
    widths = rng.integers(0, min(most, size), (len(x), count), endpoint=True)
    starts = rng.integers(0, size - widths, endpoint=True)
    at = np.arange(size)
    hidden = ((at >= starts[..., None]) & (at < (starts + widths)[..., None])).any(axis=1)  # (batch, size)
    mean = x.mean(axis=(1, 2), keepdims=True, dtype="float64").astype(x.dtype)
    return np.where(np.expand_dims(hidden, 3 - axis), mean, x)


# === Mixing ===


def mix(
    x: np.ndarray, y: np.ndarray, partner: np.ndarray, weight: np.ndarray, mel: MelSpec,
    *, domain: Domain = "power", targets: Targets = "max",
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mix every example with another one of the batch.

    Args:
        x: log-mels `(batch, mels, frames)`.
        y: targets `(batch, tags)`.
        partner: integers `(batch,)`: index of the example to mix with.
        weight: `(batch,)` in [0, 1]: weight of the example itself; with 1, it is unchanged.
        mel: scaling of `x`.
        domain: `"power"` averages powers, `"log"` averages log-mels.
        targets: `"max"`: maximum of both targets, `"weighted"`: weighted mean of the targets.

    Returns:
        Mixed log-mels and targets, float32.

    Example:
        >>> x = np.array([[[0.0]], [[10.0]]], "float32")
        >>> mixed, _ = mix(x, np.eye(2), np.array([1, 0]), np.array([0.5, 1.0]), MelSpec())
        >>> mixed.ravel().round(2)  # (1 + 10) / 2 is 7.4 dB
        array([ 7.4, 10. ], dtype=float32)
    """
    chosen = np.flatnonzero(np.asarray(weight) < 1)
    x, y = np.array(x, "float32"), np.array(y, "float32")
    if not len(chosen):
        return x, y
    one, other = chosen, np.asarray(partner)[chosen]
    share = np.asarray(weight, "float64")[chosen]
    here, there = share[:, None, None], 1 - share[:, None, None]
    if domain == "power":
        mixed_x = from_power(here * to_power(x[one], mel) + there * to_power(x[other], mel), mel)
    else:
        mixed_x = (here * x[one] + there * x[other]).astype("float32")
    if targets == "max":
        mixed_y = np.maximum(y[one], y[other])
    else:
        mixed_y = (here[:, 0] * y[one] + there[:, 0] * y[other]).astype("float32")
    x[chosen], y[chosen] = mixed_x, mixed_y
    return x, y


def mixup(
    x: np.ndarray, y: np.ndarray, probability: float, mel: MelSpec, rng: np.random.Generator, *, mode: Domain = "power"
) -> tuple[np.ndarray, np.ndarray]:
    """Mix some examples of a batch with others.

    Args:
        x: log-mels `(batch, mels, frames)`.
        y: targets `(batch, tags)`.
        probability: probability of mixing an example, 0 to 1.
        mel: scaling of `x`.
        rng: random generator.
        mode: `"power"`: mean of powers, maximum of targets, weights from Beta(4, 4); `"log"`: classical mixup, mean of
            log-mels and targets, weights from Beta(0.4, 0.4).

    Returns:
        Log-mels and targets, float32.

    Example:
        >>> mixup(np.zeros((4, 2, 3)), np.eye(4), 1.0, MelSpec(), np.random.default_rng(0))[1].sum(axis=1)
        array([2., 2., 2., 2.], dtype=float32)
    """
    targets: Targets = "max" if mode == "power" else "weighted"
    count = len(x)
    if not probability or count < 2:
        return x, y
    partner = np.empty(count, "int64")  # a cycle through all, so that no example is mixed with itself
    order = rng.permutation(count)
    partner[order] = np.roll(order, 1)
    weight = rng.beta(_ALPHA[targets], _ALPHA[targets], count)
    weight = np.where(rng.random(count) < probability, weight, 1.0)
    return mix(x, y, partner, weight, mel, domain=mode, targets=targets)


# === All augmentations ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Apply mixup, gain, tilt, shift and masks, in this order; by default, each is off.

    Attributes:
        mel: scaling of the log-mels.
        mixup: probability of mixing an example with another.
        mixup_mode: mode of `mixup`.
        gain_db: gains are drawn from -gain_db to gain_db.
        tilt_db: tilts are drawn from -tilt_db to tilt_db.
        shift_bands: shifts are drawn from -shift_bands to shift_bands.
        time_masks: number of masks in time per example.
        time_mask_frames: maximum width of these in frames.
        mel_masks: number of masks in frequency per example.
        mel_mask_bands: maximum width of these in mel bands.

    Raises:
        ValueError: an amount is negative or the mode is unknown.

    Example:
        >>> augment = Augmentation(mel=MelSpec(), gain_db=6.0, mel_masks=2, mel_mask_bands=8)
        >>> x, y = augment(np.zeros((4, 96, 187), "float32"), np.zeros((4, 50), "float32"), np.random.default_rng(0))
        >>> x.shape, y.shape
        ((4, 96, 187), (4, 50))
    """

    mel: MelSpec
    mixup: float = 0.0
    mixup_mode: Domain = "power"
    gain_db: float = 0.0
    tilt_db: float = 0.0
    shift_bands: int = 0
    time_masks: int = 0
    time_mask_frames: int = 0
    mel_masks: int = 0
    mel_mask_bands: int = 0

    def __post_init__(self) -> None:
        """Validate the amounts."""
        check_mixup(self.mixup, self.mixup_mode)
        for field in ("gain_db", "tilt_db"):
            _check(field, getattr(self, field), False, "a number of dB, 0 or more")
        for field in ("shift_bands", "time_masks", "time_mask_frames", "mel_masks", "mel_mask_bands"):
            _check(field, getattr(self, field), True, "a whole number, 0 or more")

    def __call__(self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Augment a batch.

        Args:
            x: log-mels `(batch, mels, frames)`.
            y: targets `(batch, tags)`.
            rng: random generator.

        Returns:
            Log-mels and targets of the same shapes, float32.
        """
        count = len(x)
        x, y = mixup(x, y, self.mixup, self.mel, rng, mode=self.mixup_mode)
        if self.gain_db:
            x = gain(x, rng.uniform(-self.gain_db, self.gain_db, count), self.mel)
        if self.tilt_db:
            x = tilt(x, rng.uniform(-self.tilt_db, self.tilt_db, count), self.mel)
        if self.shift_bands:
            x = shift_mels(x, rng.integers(-self.shift_bands, self.shift_bands, count, endpoint=True))
        x = mask_frames(x, self.time_masks, self.time_mask_frames, rng)
        return mask_mels(x, self.mel_masks, self.mel_mask_bands, rng), y


def check_mixup(probability: Any, mode: Any) -> None:
    """Validate the arguments of `mixup`.

    Raises:
        ValueError: the probability or the mode is not valid.
    """
    if isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
        raise ValueError(f"mixup must be a probability from 0 to 1; got {probability!r}.")
    if mode not in get_args(Domain):
        raise ValueError(f"mixup_mode must be 'power' or 'log'; got {mode!r}.")


def _check(field: str, value: Any, whole: bool, wanted: str) -> None:
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise ValueError(f"{field} must be {wanted}; got {value!r}.")
