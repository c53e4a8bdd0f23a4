"""Channels to mono: their mean, or the loudest of them where they cancel each other out.

The mean of two channels with opposite phases is silence, though each of them can be heard: a cable soldered the wrong
way round does that, and so does a karaoke filter. So every stretch of some seconds is looked at: where the sum of its
channels has clearly less energy than independent channels would give, the channel with most energy stands for all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .decoding import Blocks

ONE_STEP = 2.0**-15  # of 16-bit sound; what never reaches it is digital silence

_STRETCH_SECONDS = 10.0
_STRETCH_VALUES = 2**22  # samples times channels that a stretch has at most, 16 MB of float32

# Energy of the sum, as a share of that of all channels: 1 for independent channels and for a single one, 1 + r for two
# with correlation r. Of 216 stereo tracks of free music, 644 stretches of 10 s gave 0.52 and more; inverted copies of
# music give 0, and up to 0.012 behind a lossy codec (Vorbis at 48 kb/s). 2026-11-28.
CANCELLED = 0.05


def mix(blocks: Blocks, rate: int, notes: list[str]) -> Blocks:
    """Mix consecutive blocks of a sound to mono; the result does not depend on where they are split.

    Args:
        blocks: arrays `(channels, samples)` of integers or floats; the number of channels may change.
        rate: in Hz.
        notes: gets a sentence if channels cancelled each other out.

    Yields:
        float32 arrays `(samples,)`, contiguous.
    """
    samples = cancelled = 0
    for stretch in _stretches(blocks, rate):
        stretch = [_floats(piece) for piece in stretch]
        pieces = [mono(piece) for piece in stretch]
        loudest = _louder_than_mix(stretch, pieces) if len(stretch[0]) > 1 else None
        if loudest is not None:
            pieces = [mono(piece[loudest]) for piece in stretch]
            cancelled += sum(map(len, pieces))
        samples += sum(map(len, pieces))
        yield from pieces
    if cancelled:
        notes.append(
            f"The channels have opposite phases and cancel each other out in {cancelled / rate:.1f} of "
            f"{samples / rate:.1f} s; the louder channel was used there."
        )


def _stretches(blocks: Blocks, rate: int) -> Iterator[list[np.ndarray]]:
    """Pieces of blocks, those of a stretch together; a block of one channel is a stretch."""
    held: list[np.ndarray] = []
    length = 0
    for block in blocks:
        if held and len(held[0]) != len(block):
            yield held
            held, length = [], 0
        if len(block) == 1:
            yield [block]
            continue
        most = max(1, min(int(_STRETCH_SECONDS * rate), _STRETCH_VALUES // len(block)))
        while length + block.shape[1] >= most:
            yield [*held, block[:, : most - length]]
            block, held, length = block[:, most - length :], [], 0
        if block.shape[1]:
            held.append(block)
            length += block.shape[1]
    if held:
        yield held


def _louder_than_mix(stretch: list[np.ndarray], mixed: list[np.ndarray]) -> int | None:
    """The channel with most energy, where the mix of a stretch is lost and that channel can be heard; else `None`."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found and reported later
        energy = sum(_energy(y) for y in mixed)
        lost = energy * len(stretch[0]) ** 2 < CANCELLED * sum(_energy(piece) for piece in stretch)
        if not lost and energy >= ONE_STEP**2 * sum(map(len, mixed)):  # then it reaches one step somewhere
            return None
        loudest = int(np.argmax(sum(np.array([_energy(y) for y in piece]) for piece in stretch)))
        lost = lost or _peak(mixed) < ONE_STEP
        return loudest if lost and _peak([piece[loudest] for piece in stretch]) >= ONE_STEP else None


def _energy(y: np.ndarray) -> float:
    flat = y.ravel(order="K")  # no copy of what is contiguous, interleaved or not
    return float(np.dot(flat, flat))


def _peak(pieces: list[np.ndarray]) -> float:
    return max(max(float(y.max()), -float(y.min())) for y in pieces if len(y))


def _floats(y: np.ndarray) -> np.ndarray:
    """Integers scaled by the full range of their type; floats as they are."""
    if y.dtype.kind not in "iu":
        return y
    half = 2.0 ** (8 * y.dtype.itemsize - 1)
    zero = half if y.dtype.kind == "u" else 0.0  # unsigned PCM is centred on half its range
    return (y.astype("float64") - zero) / half


def mono(y: np.ndarray) -> np.ndarray:
    """Mean of the channels.

    Args:
        y: array `(samples,)` or `(channels, samples)`. Integers are scaled by the full range of their type.

    Returns:
        float32 array `(samples,)`, contiguous.
    """
    y = _floats(y)
    # What overflows here, or is infinity minus infinity, is found and reported as not finite.
    with np.errstate(over="ignore", invalid="ignore"):
        if y.ndim == 2:  # one channel after the other: `mean` takes 20 times as long on interleaved stereo
            total = y[0].astype(np.result_type(y.dtype, np.float32))
            for channel in y[1:]:
                total += channel
            y = total / len(y) if len(y) > 1 else total
        return np.ascontiguousarray(y, "float32")
