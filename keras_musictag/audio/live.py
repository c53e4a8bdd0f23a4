"""Mix and resample live audio block by block, with little delay.

Conventions: blocks are `(samples,)` or `(channels, samples)`, integers or floats, as everywhere in this package. The
result equals that of `reading.stream`, with one exception: `mixing.mix` reads 10 s of audio before it decides whether
the channels cancel each other out; here, the decision is based on the 10 s up to the last whole second.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..errors import AudioTooShortError, InvalidSamplesError
from .decoding import Blocks
from .mixing import CANCELLED, mono
from .reading import check_samples, check_sr, checked, resample

# Maximum delay of soxr, whose filter needs the following samples. Measured for pairs of rates from 8 to 192 kHz: up to
# 0.12 s; tests/test_live.py measures it again.
RESAMPLER_SECONDS = 0.15

_MEMORY = 10  # seconds of audio that decide whether channels cancel, as in `mixing.mix`


def stream_blocks(
    blocks: Iterable[np.ndarray],
    sr: float,
    *,
    target_sr: int,
    resampler: str = "soxr_hq",
    name: str = "The stream",
    notes: list[str] | None = None,
) -> Blocks:
    """Mix blocks to mono and resample them as they arrive, in bounded memory.

    Args:
        blocks: arrays `(samples,)` or `(channels, samples)` in order, of any lengths, empty ones too. Floats are within
            [-1, 1], integers are scaled by the full range of their type. The number of channels may change.
        sr: their sample rate in Hz.
        target_sr: rate of the result in Hz.
        resampler: soxr quality.
        name: name of the audio in messages.
        notes: list to which a sentence is added at the end if channels cancelled each other out.

    Yields:
        float32 arrays `(samples,)` of varying lengths, delayed by at most `RESAMPLER_SECONDS` of audio, and not at all
        if both rates are the same.

    Raises:
        InvalidSamplesError: `sr` or a block is not valid.
        AudioTooShortError: no block has a sample.

    Example:
        >>> blocks = [np.zeros((2, 4410), "int16")] * 10
        >>> sum(len(block) for block in stream_blocks(blocks, 44100, target_sr=16000))
        16000
    """
    rate = check_sr(sr, "sr")
    check_sr(target_sr, "target_sr")
    mixed = checked(_mix(_planes(blocks, name), rate, [] if notes is None else notes), name, 0)
    empty = True
    for block in resample(mixed, rate, target_sr, resampler):
        empty = False
        yield block
    if empty:
        raise AudioTooShortError(f"{name} has no samples. Check its source.")


def _planes(blocks: Iterable[Any], name: str) -> Iterator[np.ndarray]:
    """Validate blocks and yield them as `(channels, samples)`, without empty ones."""
    if isinstance(blocks, np.ndarray):
        raise InvalidSamplesError(
            f"{name} must be an iterable of arrays, one per block; got one array of shape {blocks.shape}. "
            "Pass [array], or use taggram()."
        )
    for block in blocks:
        y = np.asarray(block)
        check_samples(y)
        y = np.atleast_2d(y)
        if y.shape[0] and y.shape[1]:
            yield y


def _mix(blocks: Iterator[np.ndarray], rate: int, notes: list[str]) -> Blocks:
    """Average the channels, or take the loudest one while they cancel each other out.

    Blocks are split at whole seconds, so the result does not depend on their lengths.
    """
    heard = _Channels(rate)
    cancelled = samples = 0
    for block in blocks:
        if len(block) != heard.channels:
            heard = _Channels(rate, len(block))
        while block.shape[1]:
            piece, block = block[:, : heard.left], block[:, heard.left :]
            y = mono(piece if heard.chosen is None else piece[heard.chosen])
            samples += len(y)
            cancelled += len(y) if heard.chosen is not None else 0
            heard.add(piece, y)
            yield y
    if cancelled:
        notes.append(
            f"The channels have opposite phases and cancel each other out in {cancelled / rate:.1f} of "
            f"{samples / rate:.1f} s; the louder channel was used there."
        )


class _Channels:
    """Energies of the channels and of their mean in the last 10 s.

    Attributes:
        channels: number of channels.
        chosen: the channel to use, `None` for the mean.
        left: samples until the choice is made again.
    """

    def __init__(self, rate: int, channels: int = 0) -> None:
        self.channels = channels
        self.chosen: int | None = None
        self.left = self._rate = rate
        self._seconds: collections.deque[np.ndarray] = collections.deque(maxlen=_MEMORY)
        self._second = np.zeros(channels + 1)  # energies in this second: of the mean, then of each channel

    def add(self, piece: np.ndarray, y: np.ndarray) -> None:
        """Add the energies of `(channels, samples)`, which was mixed to `y`, and choose after a whole second."""
        self.left -= len(y)
        if self.channels > 1:
            with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are reported later
                each = [mono(channel) for channel in piece]
                mean = y if self.chosen is None else mono(piece)
                self._second += [float(np.dot(one, one)) for one in (mean, *each)]
        if self.left:
            return
        self.left = self._rate
        self._seconds.append(self._second)
        self._second = np.zeros(self.channels + 1)
        mean_energy, *energies = np.sum(self._seconds, axis=0)
        lost = self.channels > 1 and mean_energy * self.channels**2 < CANCELLED * sum(energies)
        self.chosen = int(np.argmax(energies)) if lost else None
