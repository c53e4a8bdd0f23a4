"""Decoders for what libsndfile does not know: PyAV (extra `av`) and librosa's fallback to an ffmpeg program.

Each takes a path or a seekable binary file, an offset and a duration in seconds, and returns the sample rate in Hz and
an iterator of mono float32 blocks. What it cannot open raises `DecodeFailed` at once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import TruncatedAudioError


class DecodeFailed(Exception):
    """This decoder cannot open the file; another one may."""


def pyav_blocks(path: Any, offset: float, duration: float | None) -> tuple[int, Iterator[np.ndarray]]:
    """Decode with FFmpeg's libraries through PyAV.

    Raises:
        DecodeFailed: PyAV is not installed, or finds no sound in the file.
        TruncatedAudioError: from the iterator, where decoding breaks off.
    """
    try:
        import av
    except ImportError as error:
        raise DecodeFailed("not installed") from error
    if hasattr(path, "read"):
        path.seek(0)
    try:
        # A playlist must not make the library open anything but local files.
        container = av.open(
            path if hasattr(path, "read") else os.fsdecode(path), options={"protocol_whitelist": "file,crypto,data"}
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise DecodeFailed(str(error)) from error
    if not container.streams.audio or not container.streams.audio[0].rate:
        container.close()
        raise DecodeFailed("no sound in it")
    rate = container.streams.audio[0].rate
    return rate, _pyav_frames(container, path, rate, offset, duration)


def _pyav_frames(container: Any, path: Any, rate: int, offset: float, duration: float | None) -> Iterator[np.ndarray]:
    import av

    with container:
        sound = container.streams.audio[0]
        to_float = av.AudioResampler(format="fltp", rate=rate)
        start = round(offset * rate)
        left = None if duration is None else round(duration * rate)
        if start:
            container.seek(int(max(0.0, offset - 1.0) * av.time_base))  # a little early, then drop up to the sample
        position = None if start else 0
        try:
            for frame in _converted(container.decode(sound), to_float):
                block = frame.to_ndarray().mean(axis=0)
                if position is None:
                    position = round((frame.time or 0.0) * rate)
                skip = max(0, start - position)
                position += len(block)
                block = block[skip:]
                if left is not None:
                    block = block[:left]
                    left -= len(block)
                if len(block):
                    yield block.astype("float32", copy=False)
                if left == 0:
                    return
        except av.error.FFmpegError as error:
            seconds = (position or 0) / rate
            raise TruncatedAudioError(
                f"{os.fsdecode(path) if not hasattr(path, 'read') else path!r} is truncated or damaged: decoding stopped "
                f"after {seconds:.1f} s ({error}). Get a complete copy, or use what is there with duration={seconds:.1f}."
            ) from error


def _converted(frames: Any, to_float: Any) -> Iterator[Any]:
    """Frames as planar float32; the converter holds some back until it is flushed."""
    for frame in frames:
        yield from to_float.resample(frame)
    yield from to_float.resample(None)


def librosa_blocks(path: Any, offset: float, duration: float | None) -> tuple[int, Iterator[np.ndarray]]:
    """Decode with whatever librosa finds (audioread and an ffmpeg program), all at once.

    Raises:
        DecodeFailed: nothing can read it, or the source is not a path.
    """
    if hasattr(path, "read"):
        raise DecodeFailed("takes paths only")
    try:
        import audioread
        import librosa
    except ImportError as error:
        raise DecodeFailed("not installed") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # librosa announces its fallback on every call
            y, rate = librosa.load(os.fsdecode(path), sr=None, mono=True, offset=offset, duration=duration)
    except (audioread.exceptions.DecodeError, audioread.exceptions.NoBackendError, EOFError, OSError, RuntimeError) as error:
        raise DecodeFailed(str(error) or "no ffmpeg program found") from error
    return int(rate), iter([y] if len(y) else [])
