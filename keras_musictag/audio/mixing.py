"""Mix channels to mono: their mean, or the loudest channel where they cancel each other out.

The mean of two channels with opposite phases is silence; a miswired cable and a karaoke filter produce such files.
Audio is therefore mixed in stretches of up to 10 s. Where the sum of the channels has much less energy than the sum of
independent channels would have, the channel with the most energy is used.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .decoding import Blocks

ONE_STEP = 2.0**-15  # smallest step of 16-bit audio; below it, all is digital silence

_STRETCH_SECONDS = 10.0
_STRETCH_VALUES = 2**22  # maximum of samples times channels in a stretch, 16 MB of float32

# Energy of the sum, as a share of that of all channels: 1 for independent channels and for a single one, 1 + r for two
# with correlation r. Of 216 stereo tracks of free music, 644 stretches of 10 s gave 0.52 and more; inverted copies of
# music give 0, and up to 0.012 behind a lossy codec (Vorbis at 48 kb/s). 2026-11-28.
CANCELLED = 0.05


def mix(blocks: Blocks, rate: int, notes: list[str]) -> Blocks:
    """Mix consecutive blocks of audio to mono. The result does not depend on where the blocks are split.

    Args:
        blocks: arrays `(channels, samples)` of integers or floats; the number of channels may change.
        rate: in Hz.
        notes: list to which a sentence is added if channels cancelled each other out.

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
    """Group blocks into stretches, splitting blocks where a stretch ends. A mono block is a stretch of its own."""
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
    """Return the channel with the most energy if the channels cancel and that channel is audible, else `None`."""
    with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are reported later
        energy = sum(_energy(y) for y in mixed)
        lost = energy * len(stretch[0]) ** 2 < CANCELLED * sum(_energy(piece) for piece in stretch)
        if not lost and energy >= ONE_STEP**2 * sum(map(len, mixed)):  # so at least one sample reaches one step
            return None
        loudest = int(np.argmax(sum(np.array([_energy(y) for y in piece]) for piece in stretch)))
        lost = lost or _peak(mixed) < ONE_STEP
        return loudest if lost and _peak([piece[loudest] for piece in stretch]) >= ONE_STEP else None


def _energy(y: np.ndarray) -> float:
    flat = y.ravel(order="K")  # does not copy contiguous arrays, interleaved or not
    return float(np.dot(flat, flat))


def _peak(pieces: list[np.ndarray]) -> float:
    return max(max(float(y.max()), -float(y.min())) for y in pieces if len(y))


def _floats(y: np.ndarray) -> np.ndarray:
    """Scale integers by the full range of their type; return floats unchanged."""
    if y.dtype.kind not in "iu":
        return y
    half = 2.0 ** (8 * y.dtype.itemsize - 1)
    zero = half if y.dtype.kind == "u" else 0.0  # unsigned PCM is centred on half its range
    return (y.astype("float64") - zero) / half


def mono(y: np.ndarray) -> np.ndarray:
    """Average channels.

    Args:
        y: array `(samples,)` or `(channels, samples)`. Integers are scaled by the full range of their type.

    Returns:
        float32 array `(samples,)`, contiguous.
    """
    y = _floats(y)
    # Overflows and infinities give values that are not finite, which are reported later.
    with np.errstate(over="ignore", invalid="ignore"):
        if y.ndim == 2:  # add channel by channel: `mean` takes 20 times as long on interleaved stereo
            total = y[0].astype(np.result_type(y.dtype, np.float32))
            for channel in y[1:]:
                total += channel
            y = total / len(y) if len(y) > 1 else total
        return np.ascontiguousarray(y, "float32")
