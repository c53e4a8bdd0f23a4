"""Types, errors and messages that all decoders share.

A decoder is a context manager that takes a path or a seekable binary file, an offset and a duration in seconds, and a
list for notes. It gives the sample rate in Hz and an iterator of blocks `(channels, samples)` of integers or floats,
which `mixing.mix` turns into mono. Only the requested part is decoded where the format allows it.

A decoder raises `DecodeFailed` if it cannot open the file. Its iterator raises `TruncatedAudioError` where the audio
breaks off, and adds a sentence to the notes for each defect that leaves the audio usable.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import TruncatedAudioError

Blocks = Iterator[np.ndarray]
Decoded = Iterator[tuple[int, Blocks]]  # sample rate and blocks, yielded once by the function of a context manager

BLOCK_VALUES = 2**17  # samples times channels decoded at once, 512 kB of float32, which stay in a core's cache

# A file counts as truncated when more than this is missing. Encoder delay and padding account for up to 0.1 s.
TOLERATED_SECONDS = 0.5

MAX_PEAK = 100.0  # 40 dB over full scale; only integers cast to float and damaged frames exceed it
_MAX_CLIPPED = 0.05  # share of the samples of a lossy file that may exceed `MAX_PEAK`


class DecodeFailed(Exception):
    """This decoder cannot open the file; another one may."""


def describe(source: Any) -> str:
    """Return what messages call a source: its path, its file name, or the shape of the array."""
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
    """Convert seconds to whole frames, rounded down as in librosa."""
    return int(seconds * rate)


def wanted_frames(duration: float | None, rate: int) -> float:
    """Convert a duration to whole frames; `None` gives infinity."""
    return math.inf if duration is None else frames_in(duration, rate)


def truncated(path: Any, rate: int, start: int, decoded: int, declared: int, why: str) -> TruncatedAudioError:
    """Return the error for audio that breaks off `decoded` frames after frame `start`."""
    if decoded:
        until = f"decoding stopped after {(start + decoded) / rate:.1f} s"
        until += f" of {declared / rate:.1f} s" if declared else ""
    else:
        until = f"nothing can be decoded from {start / rate:.1f} s on"
    usable = math.floor((decoded - 1) / rate * 10) / 10  # up to 0.1 s less than was decoded: the end may be damaged
    advice = f", or use the intact part with duration={usable:.1f}" if usable > 0 else ""
    why = why.strip().rstrip(".") or "the data is damaged"
    return TruncatedAudioError(
        f"{describe(path)} is truncated or damaged: {until} ({why}). Get a complete copy{advice}."
    )


def check_complete(path: Any, rate: int, start: int, decoded: int, wanted: float, declared: int) -> None:
    """Raise if clearly fewer frames were decoded than requested and declared; a `declared` of 0 means unknown."""
    if min(wanted, declared - start) - decoded > TOLERATED_SECONDS * rate:
        raise truncated(path, rate, start, decoded, declared, "the data ends")


def clipped(blocks: Blocks, path: Any, rate: int, start: int, notes: list[str]) -> Blocks:
    """Clip samples far over full scale, as sound cards do; raise if there are many.

    A damaged frame of a lossy format can decode to thousands of times full scale.
    """
    decoded = clipped_samples = first = 0
    for block in blocks:
        if block.dtype.kind == "f" and block.size and max(block.max(), -block.min()) > MAX_PEAK:
            over = (np.abs(block) > MAX_PEAK).any(axis=0)
            if not clipped_samples:
                first = start + decoded + int(np.argmax(over))
            clipped_samples += int(over.sum())
            block = np.clip(block, -1, 1)
        decoded += block.shape[1]
        yield block
    if clipped_samples > _MAX_CLIPPED * decoded:
        raise truncated(path, rate, start, first - start, 0, "what follows is far over full scale")
    if clipped_samples:
        notes.append(f"The file is damaged at {first / rate:.1f} s: samples far over full scale were clipped.")
