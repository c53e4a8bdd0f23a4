"""Read raw samples, which have no header, from a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

FORMATS = {"f32le": "<f4", "s16le": "<i2"}  # FFmpeg's names; little-endian

_READ_BYTES = 2**16  # maximum per read


def read_pcm(
    pipe: IO[bytes], sample_format: str = "f32le", channels: int = 1, *, notes: list[str]
) -> Iterator[np.ndarray]:
    """Yield blocks of samples from a pipe until it ends.

    Args:
        pipe: binary file object; its method `read1`, if it has one, returns available bytes without waiting for more.
        sample_format: one of `FORMATS`.
        channels: number of interleaved channels.
        notes: list to which a sentence is added if the pipe ends within a sample, which is left out.

    Yields:
        Arrays `(channels, samples)` of float32 or int16.

    Raises:
        ValueError: the format is unknown, or there is fewer than one channel.

    Example:
        >>> import io
        >>> [block.tolist() for block in read_pcm(io.BytesIO(bytes([1, 0, 2, 0])), "s16le", 2, notes=[])]
        [[[1], [2]]]
    """
    if sample_format not in FORMATS:
        raise ValueError(f"sample_format must be one of {', '.join(FORMATS)}; got {sample_format!r}.")
    if channels < 1:
        raise ValueError(f"channels must be at least 1; got {channels!r}.")
    kind = np.dtype(FORMATS[sample_format])
    frame = kind.itemsize * channels
    read = getattr(pipe, "read1", pipe.read)
    return _blocks(lambda: read(_READ_BYTES), kind, channels, frame, notes)


def _blocks(
    read: Callable[[], bytes], kind: np.dtype[Any], channels: int, frame: int, notes: list[str]
) -> Iterator[np.ndarray]:
    rest = b""
    while data := read():
        data = rest + data
        whole = len(data) // frame * frame
        rest = data[whole:]
        if whole:
            samples = np.frombuffer(data[:whole], kind).reshape(-1, channels).T
            yield samples.astype(kind.newbyteorder("="))
    if rest:
        notes.append(
            f"The pipe ended in the middle of a sample: {len(rest)} of {frame} bytes were received and left out. "
            "Check that the audio is complete, and its format and channels."
        )
