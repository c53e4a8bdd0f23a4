"""Sound that is still coming in: blocks of samples at one rate become mono blocks at another, without waiting.

Conventions: blocks are `(samples,)` or `(channels, samples)`, integers or floats, as everywhere in this package. What
comes out equals `reading.stream` on the same sound, with one exception. `mixing.mix` looks at ten seconds of channels
before it decides whether their mean stands for them; here nothing may wait so long. Samples leave at once, and the
decision is made from what was heard up to the last whole second.
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

# soxr holds samples back until its filter has seen what follows. The most that was measured over pairs of rates from 8
# to 192 kHz is 0.12 s; tests/test_live.py measures it again.
RESAMPLER_SECONDS = 0.15

_MEMORY = 10  # seconds that the decision about the channels looks back on, as many as `mixing.mix` looks at


def stream_blocks(
    blocks: Iterable[np.ndarray],
    sr: float,
    *,
    target_sr: int,
    resampler: str = "soxr_hq",
    name: str = "The stream",
    notes: list[str] | None = None,
) -> Blocks:
    """Mix blocks to mono and resample them as they come; memory does not grow.

    Args:
        blocks: arrays `(samples,)` or `(channels, samples)` in order, of any lengths, empty ones too. Floats are within
            [-1, 1], integers are scaled by the full range of their type. The number of channels may change.
        sr: their sample rate in Hz.
        target_sr: rate of the result in Hz.
        resampler: soxr quality.
        name: what to call the sound in messages.
        notes: gets a sentence at the end if channels cancelled each other out.

    Yields:
        float32 arrays `(samples,)` of any lengths. A sample comes out `RESAMPLER_SECONDS` after it came in at the
        latest, counted in seconds of sound; at once if both rates are the same.

    Raises:
        InvalidSamplesError: `sr` or a block cannot be sound.
        AudioTooShortError: there was no sample in any block.

    Example:
        >>> blocks = [np.zeros((2, 4410), "int16")] * 10
        >>> sum(len(block) for block in stream_blocks(blocks, 44100, target_sr=16000))
        16000
    """
    rate = check_sr(sr, "sr")
    check_sr(target_sr, "target_sr")
    said = [] if notes is None else notes
    mixed = checked(_mix(_planes(blocks, name), rate, said), name, 0)
    empty = True
    for block in resample(mixed, rate, target_sr, resampler):
        empty = False
        yield block
    if empty:
        raise AudioTooShortError(f"{name} has no samples. Check what feeds it.")


def _planes(blocks: Iterable[Any], name: str) -> Iterator[np.ndarray]:
    """Blocks as `(channels, samples)`."""
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
    """Mean of the channels, or the channel that was loudest so far where the mean has been lost.

    Cut at whole seconds, so that the result does not depend on how the blocks are split.
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
    """Energies of channels, and of their mean, in the last seconds.

    Attributes:
        channels: how many there are.
        chosen: the channel that stands for all, `None` for their mean.
        left: samples until the decision is made again.
    """

    def __init__(self, rate: int, channels: int = 0) -> None:
        self.channels = channels
        self.chosen: int | None = None
        self.left = self._rate = rate
        self._seconds: collections.deque[np.ndarray] = collections.deque(maxlen=_MEMORY)
        self._second = np.zeros(channels + 1)  # of the mean, then of each channel

    def add(self, piece: np.ndarray, y: np.ndarray) -> None:
        """Take `(channels, samples)` into account; `y` is what was made of it."""
        self.left -= len(y)
        if self.channels > 1:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found and reported later
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
