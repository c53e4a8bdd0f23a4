"""What all decoders share: their types, errors and messages.

A decoder is a context manager that takes a path or a seekable binary file, an offset and a duration in seconds, and a
list for notes. It gives the sample rate in Hz and an iterator of blocks `(channels, samples)` of integers or floats,
which `mixing.mix` turns into mono. Nothing outside the part asked for is decoded where the format allows it. What a
decoder cannot open raises `DecodeFailed` at once; the iterator raises `TruncatedAudioError` where the sound breaks off,
and adds to the notes what a user should know of a sound that can be used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import TruncatedAudioError

Blocks = Iterator[np.ndarray]
Decoded = Iterator[tuple[int, Blocks]]  # what the function under a context manager yields, once

BLOCK_VALUES = 2**20  # samples times channels decoded at once, 4 MB of float32: 12 s of 44.1 kHz stereo

# A file counts as truncated when more than this is missing. Encoders' delay and padding account for up to 0.1 s.
TOLERATED_SECONDS = 0.5


MAX_PEAK = 100.0  # 40 dB over full scale: no sound is, but integers cast to float are, and frames that are damaged
_MOST_WILD = 0.05  # of the samples of a lossy sound, above that


class DecodeFailed(Exception):
    """This decoder cannot open the file; another one may."""


def describe(source: Any) -> str:
    """What to call a source in a message: its path, its file name, or the shape of the array."""
    if isinstance(source, tuple) and source:
        source = source[0]
    if isinstance(source, np.ndarray):
        return f"The array of shape {source.shape}"
    if not isinstance(source, (str, bytes, os.PathLike)):
        name = getattr(source, "name", None)
        if not isinstance(name, (str, bytes)) or not name:
            return f"The {type(source).__name__} object"
        source = name
    return repr(str(os.fsdecode(source)))


def frames_in(seconds: float, rate: int) -> int:
    """Whole frames in some seconds, rounded down as librosa does."""
    return int(seconds * rate)


def wanted_frames(duration: float | None, rate: int) -> float:
    """Frames in a duration; infinity for all there are."""
    return math.inf if duration is None else frames_in(duration, rate)


def truncated(path: Any, rate: int, start: int, decoded: int, declared: int, why: str) -> TruncatedAudioError:
    """The error for a sound that breaks off `decoded` frames after frame `start`."""
    if decoded:
        until = f"decoding stopped after {(start + decoded) / rate:.1f} s"
        until += f" of {declared / rate:.1f} s" if declared else ""
    else:
        until = f"nothing can be decoded from {start / rate:.1f} s on"
    usable = math.floor((decoded - 1) / rate * 10) / 10  # a little less than there was: its end may be damaged
    advice = f", or use what is there with duration={usable:.1f}" if usable > 0 else ""
    why = why.strip().rstrip(".") or "the data is damaged"
    return TruncatedAudioError(
        f"{describe(path)} is truncated or damaged: {until} ({why}). Get a complete copy{advice}."
    )


def check_complete(path: Any, rate: int, start: int, decoded: int, wanted: float, declared: int) -> None:
    """Raise where clearly less came out than was asked for and the header promises; 0 promises nothing."""
    if min(wanted, declared - start) - decoded > TOLERATED_SECONDS * rate:
        raise truncated(path, rate, start, decoded, declared, "the data ends")


def clipped(blocks: Blocks, path: Any, rate: int, start: int, notes: list[str]) -> Blocks:
    """Clip what damaged frames of a lossy format become, as sound cards do; raise where that is much of the sound.

    A frame whose bits are not its own can decode to anything, thousands of times full scale.
    """
    decoded = wild = first = 0
    for block in blocks:
        if block.dtype.kind == "f" and block.size and max(block.max(), -block.min()) > MAX_PEAK:
            over = (np.abs(block) > MAX_PEAK).any(axis=0)
            first = first if wild else start + decoded + int(np.argmax(over))
            wild += int(over.sum())
            block = np.clip(block, -1, 1)
        decoded += block.shape[1]
        yield block
    if wild > _MOST_WILD * decoded:
        raise truncated(path, rate, start, first - start, 0, "what follows is far over full scale")
    if wild:
        notes.append(f"The file is damaged at {first / rate:.1f} s: samples far over full scale were clipped.")
