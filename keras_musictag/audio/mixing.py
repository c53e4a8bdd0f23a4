"""Mix channels to mono: their mean, or the loudest channel where they cancel each other out.

The mean of two channels with opposite phases is silence; a miswired cable and a karaoke filter produce such files.
Audio is therefore mixed in stretches of up to 10 s. Where the sum of the channels has much less energy than the sum of
independent channels would have, the channel with the most energy is used.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import numpy as np

from .decoding import Blocks

ONE_STEP = 2.0**-15  # smallest step of 16-bit audio; below it, all is digital silence

_STRETCH_SECONDS = 10.0
_STRETCH_VALUES = 2**22  # maximum of samples times channels in a stretch, 16 MB of float32
_KEPT_BYTES = 2**23  # maximum size of memory that a thread keeps from file to file

# Energy of the sum, as a share of that of all channels: 1 for independent channels and for a single one, 1 + r for two
# with correlation r. Of 216 stereo tracks of free music, 644 stretches of 10 s gave 0.52 and more; inverted copies of
# music give 0, and up to 0.012 behind a lossy codec (Vorbis at 48 kb/s). 2026-11-28.
CANCELLED = 0.05

# Memory of a stretch, kept from file to file: the system clears new memory page by page, which took twice as long as
# mixing, 5 ms of the 30 ms that a clip of 29 s takes from MP3 to 12 kHz.
_kept = threading.local()


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
    for y, lost in _mixed(blocks, rate):
        samples += len(y)
        cancelled += len(y) if lost else 0
        yield y
    if cancelled:
        notes.append(
            f"The channels have opposite phases and cancel each other out in {cancelled / rate:.1f} of "
            f"{samples / rate:.1f} s; the louder channel was used there."
        )


def _mixed(blocks: Blocks, rate: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield mono samples, and whether they are of the loudest channel only. A mono block is a stretch of its own."""
    stretch: _Stretch | None = None
    try:
        for block in blocks:
            if stretch is not None and (len(block), block.dtype) != stretch.kind:
                yield from stretch.ended()
                stretch.close()
                stretch = None
            if len(block) == 1:
                yield mono(block), False
                continue
            if stretch is None:
                stretch = _Stretch(block, rate)
            while block.shape[1]:
                block = stretch.added(block)
                if stretch.full:
                    yield from stretch.ended()
        if stretch is not None:
            yield from stretch.ended()
    finally:
        if stretch is not None:
            stretch.close()


class _Stretch:
    """A stretch of audio and its mix, one after the other in the same memory.

    Attributes:
        kind: number of channels and type of the samples.
    """

    def __init__(self, block: np.ndarray, rate: int) -> None:
        self.kind = channels, dtype = len(block), block.dtype
        self._most = max(1, min(int(_STRETCH_SECONDS * rate), _STRETCH_VALUES // channels))
        begin, end = 4 * self._most, (4 + channels * dtype.itemsize) * self._most
        self._memory = _memory(end)
        self._mixed = self._memory[:begin].view("float32")
        values = self._memory[begin:end].view(dtype)
        interleaved = block.strides[0] < block.strides[1]  # copying is fast if both are
        self._channels = values.reshape(-1, channels).T if interleaved else values.reshape(channels, -1)
        self._clear()

    def _clear(self) -> None:
        self._length = 0
        self._ends: list[int] = []  # of the blocks
        self._energy = self._energy_mixed = 0.0

    def close(self) -> None:
        """Leave the memory to the next stretch of this thread."""
        _kept.memory = self._memory if self._memory.nbytes <= _KEPT_BYTES else None

    @property
    def full(self) -> bool:
        """Whether no sample fits any more."""
        return self._length == self._most

    def added(self, block: np.ndarray) -> np.ndarray:
        """Mix a block while it is in the processor's cache; return what did not fit."""
        begin = self._length
        block, rest = block[:, : self._most - begin], block[:, self._most - begin :]
        self._length = end = begin + block.shape[1]
        self._ends.append(end)
        floats = _floats(block)
        self._channels[:, begin:end] = block
        self._mixed[begin:end] = mixed = mono(floats)
        with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are reported later
            self._energy += _energy(floats)
            self._energy_mixed += _energy(mixed)
        return rest

    def ended(self) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield the samples as `_mixed` does, and clear the stretch."""
        loudest = self._louder_than_mix()
        y = self._mixed[: self._length] if loudest is None else mono(self._channels[loudest, : self._length])
        for begin, end in itertools.pairwise([0, *self._ends]):
            yield y[begin:end].copy(), loudest is not None
        self._clear()

    def _louder_than_mix(self) -> int | None:
        """Return the channel with the most energy if the channels cancel and that channel is audible, else `None`."""
        mixed, channels = self._mixed[: self._length], self._channels[:, : self._length]
        with np.errstate(over="ignore", invalid="ignore"):
            lost = self._energy_mixed * len(channels) ** 2 < CANCELLED * self._energy
            if not lost and self._energy_mixed >= ONE_STEP**2 * len(mixed):  # so at least one sample reaches one step
                return None
            floats = [_floats(channel) for channel in channels]
            loudest = int(np.argmax([_energy(y) for y in floats]))
            lost = lost or _peak(mixed) < ONE_STEP
            return loudest if lost and _peak(floats[loudest]) >= ONE_STEP else None


def _memory(size: int) -> np.ndarray:
    """Return bytes `(size,)` or more, the kept ones if they suffice."""
    memory: np.ndarray | None = getattr(_kept, "memory", None)
    _kept.memory = None
    return memory if memory is not None and memory.nbytes >= size else np.empty(size, "uint8")


def _energy(y: np.ndarray) -> float:
    flat = y.ravel(order="K")  # does not copy contiguous arrays, interleaved or not
    return float(np.dot(flat, flat))


def _peak(y: np.ndarray) -> float:
    return max(float(y.max()), -float(y.min())) if len(y) else 0.0


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
            wide = np.result_type(y.dtype, np.float32)
            total = np.add(y[0], y[1], dtype=wide) if len(y) > 1 else y[0].astype(wide)
            for channel in y[2:]:
                total += channel
            total /= len(y)
            y = total
        return np.ascontiguousarray(y, "float32")
