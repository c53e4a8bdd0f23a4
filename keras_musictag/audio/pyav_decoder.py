"""The second decoder, FFmpeg's libraries through PyAV: m4a, wma, video containers, DSD, ..., and damaged MP3.

`decoding` describes the interface of a decoder. Works with PyAV 16 to 19.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from .containers import Patched, opened
from .decoding import (
    BLOCK_VALUES,
    Blocks,
    Decoded,
    DecodeFailed,
    check_complete,
    clipped,
    frames_in,
    truncated,
    wanted_frames,
)

_HELD_FRAMES = 1024  # FFmpeg frames joined into a block: 24 s of AAC

# Formats that are a plain sequence of audio frames. Players skip damaged frames, and so does this decoder if they are
# few.
_BARE = frozenset(("aac", "ac3", "dts", "eac3", "mp3"))
_MAX_DAMAGED = 0.05  # share of the packets

_PLANES = 8  # channels of a planar frame from which PyAV up to 19 crashes, reading one plane too many


# === The decoder ===


@contextlib.contextmanager
def pyav_decoder(path: Any, offset: float, duration: float | None, notes: list[str]) -> Decoded:
    """Decode m4a, wma, video containers, ... with FFmpeg's libraries through PyAV."""
    with _opened_frames(path) as (frames, first):
        # Use the rate of the frame: for HE-AAC the container may state half of it.
        rate, blocks = first.sample_rate, _joined(_pieces(frames, first, path, offset, duration, notes))
        if frames.format in _BARE:
            blocks = clipped(blocks, path, rate, frames_in(offset, rate), notes)
        yield rate, blocks


@contextlib.contextmanager
def _opened_frames(path: Any) -> Iterator[tuple[_Frames, Any]]:
    """Open a file and give the iterator over its frames and the first frame, which the iterator has passed.

    Raises:
        DecodeFailed: the file cannot be opened or has no frame.
    """
    try:
        import av
    except ImportError as error:  # PyAV is a dependency, but has no wheel for some platforms
        raise DecodeFailed("not installed") from error
    with contextlib.ExitStack() as stack:
        file = _Bounded(stack.enter_context(opened(path)))
        try:
            frames = _Frames(stack.enter_context(open_container(file)))
            first = next(frames, None)
        except (av.error.FFmpegError, OSError, ValueError) as error:  # OSError: a seek to an impossible position
            raise DecodeFailed(getattr(error, "strerror", None) or str(error)) from error
        if first is None:
            raise DecodeFailed("no audio in it")
        file.left = math.inf
        yield frames, first


def open_container(file: BinaryIO | _Bounded) -> Any:
    """Open a file with FFmpeg; its tags need not be UTF-8.

    FFmpeg gets an open file and may use no protocol, so a playlist cannot make it open any other file or address. The
    file has no name, so FFmpeg recognises the format by the content alone.
    """
    import av

    options = {"protocol_whitelist": "none"}
    try:
        return av.open(file, options=options)
    except UnicodeDecodeError:  # PyAV 18 and older need this option; newer versions do not have it
        file.seek(0)
        return av.open(file, options=options, metadata_errors="replace")


class _Bounded(Patched):
    """A file of which only `left` bytes can be read.

    FFmpeg searches for headers without a limit: 10 GB of zeros after `WAVE` would take hours to open.
    """

    left: float = 2**25  # bytes; opening a file reads the tables of an MP4 (0.6 MB per hour) and embedded pictures

    def read(self, size: int = -1) -> bytes:
        if self.left < 0:
            return b""
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0:
            raise OSError("its headers do not end")  # raised once: PyAV prints a second exception
        return data


class _Frames:
    """Iterate over the frames of a container's first audio stream.

    Attributes:
        stream: the stream; `None` if there is none that can be decoded.
        packets, damaged: number of packets read, and of those skipped as damaged.
        end: position in the file after the last packet that was decoded.
    """

    def __init__(self, container: Any) -> None:
        """Find the stream."""
        streams = container.streams.audio
        # PyAV before 18.1 crashes on a stream that FFmpeg has no decoder for.
        self.stream: Any = streams[0] if streams and streams[0].codec_context is not None else None
        self.packets = self.damaged = self.end = 0
        self._container = container
        self._frames = self._decode()
        self._interleave: Any = None  # resampler for frames of the format `_kind`
        self._kind: Any = None

    @property
    def format(self) -> str:
        """FFmpeg's name of the container format."""
        return str(self._container.format.name)

    def remaining_seconds(self) -> float:
        """Sum the durations of the remaining packets without decoding them."""
        durations = sum(packet.duration or 0 for packet in self._container.demux(self.stream))
        return float(durations * self.stream.time_base)

    def seek(self, time: int) -> None:
        """Seek to a time of the stream, or shortly before it."""
        self._container.seek(time, stream=self.stream)
        self._frames = self._decode()

    def channels(self, frame: Any) -> np.ndarray:
        """Return the samples of a frame, integers or floats `(channels, samples)`."""
        count = frame.layout.nb_channels
        if frame.format.is_planar and count < _PLANES:
            planes: np.ndarray = frame.to_ndarray()
            return planes
        if not frame.format.is_planar:
            return frame.to_ndarray().reshape(-1, count).T
        kind = frame.format.packed.name, frame.layout.name, frame.sample_rate
        if kind != self._kind:
            self._interleave, self._kind = _interleaver(*kind), kind
        parts = [part.to_ndarray().reshape(-1, count).T for part in self._interleave.resample(frame)]
        return np.concatenate(parts, axis=1)

    def __iter__(self) -> Iterator[Any]:
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Return the next frame."""
        return next(self._frames)

    def _decode(self) -> Iterator[Any]:
        import av

        if self.stream is None:
            return
        for packet in self._container.demux(self.stream):
            self.packets += 1
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                if self.format not in _BARE:
                    raise
                self.damaged += 1
                continue
            if packet.pos is not None:
                self.end = packet.pos + packet.size
            yield from frames


def _interleaver(sample_format: str, layout: str, rate: int) -> Any:
    import av

    return av.AudioResampler(sample_format, layout, rate)


def _pieces(frames: _Frames, first: Any, path: Any, offset: float, duration: float | None, notes: list[str]) -> Blocks:
    """Yield the requested samples of each frame, `(channels, samples)`."""
    import av

    rate, stream = first.sample_rate, frames.stream
    start, wanted = frames_in(offset, rate), wanted_frames(duration, rate)
    # Containers that count in samples (mov, FLAC, WavPack, ...) state their length and can seek to any sample. Others
    # round times to milliseconds or estimate them from the bit rate: these are decoded from the beginning, and their
    # length is not checked.
    exact = stream.time_base == Fraction(1, rate) and first.pts is not None
    declared = (stream.duration or 0) if exact else 0
    reached = decoded = 0  # first sample of the current frame, and number of samples yielded
    frame = first
    try:
        if exact and 2 * rate < start < declared:
            frames.seek(first.pts + start - rate)  # one second early: a codec needs some frames to settle
            frame = next((frame for frame in frames if frame.pts is not None), None)
            reached = frame.pts - first.pts if frame is not None else 0
        while frame is not None and decoded < wanted:
            if frame.sample_rate != rate:
                raise truncated(path, rate, start, decoded, declared, f"the rate changes to {frame.sample_rate} Hz")
            y = frames.channels(frame)[:, max(0, start - reached) :]
            reached += frame.samples
            y = y[:, : int(min(y.shape[1], wanted - decoded))]
            decoded += y.shape[1]
            yield y
            frame = next(frames, None) if decoded < wanted else None
    except (av.error.FFmpegError, OSError) as error:
        raise truncated(path, rate, start, decoded, declared, str(error.strerror)) from error
    if frames.damaged > _MAX_DAMAGED * frames.packets:
        why = f"{frames.damaged} of {frames.packets} frames cannot be decoded"
        raise truncated(path, rate, start, decoded, declared, why)
    if frames.damaged:
        notes.append(
            f"The file is damaged: {frames.damaged} of {frames.packets} frames could not be decoded and were skipped."
        )
    check_complete(path, rate, start, decoded, wanted, declared)


def _joined(pieces: Iterable[np.ndarray]) -> Blocks:
    """Join consecutive frames, which are small (1024 samples in m4a), into larger blocks."""
    held: list[np.ndarray] = []
    values = 0
    for y in pieces:
        full = len(held) >= _HELD_FRAMES or values >= BLOCK_VALUES
        if held and (full or len(y) != len(held[0]) or y.dtype != held[0].dtype):
            yield np.concatenate(held, axis=1)
            held, values = [], 0
        held.append(y)
        values += y.size
    if held:
        yield np.concatenate(held, axis=1)


# === MP3 that libsndfile does not read to the end ===


def mp3_length(path: Any, rate: int) -> int:
    """Count the samples of an MP3 from the durations of its packets, without decoding; 0 if that is not possible."""
    import av

    with contextlib.suppress(DecodeFailed, av.error.FFmpegError, OSError), _opened_frames(path) as (frames, first):
        if frames.format == "mp3":
            return int(first.samples + frames.remaining_seconds() * rate)
    return 0


class RestOfMP3:
    """Decode an MP3 with FFmpeg from some sample on, skipping damage as players do.

    Args:
        path: path or file.
        rate: sample rate in Hz, as the first decoder found it.
        start: first sample to decode.

    Attributes:
        decoded: number of samples decoded so far.
        end: position in the file after the last packet that was decoded.
    """

    def __init__(self, path: Any, rate: int, start: int) -> None:
        """Store the arguments."""
        self.rate, self.start = rate, start
        self.decoded = self.end = 0
        self._path = path

    def blocks(self, wanted: float) -> Blocks:
        """Yield arrays `(channels, samples)`, `wanted` samples in all or as many as can be decoded."""
        return _joined(self._pieces(wanted))

    def _pieces(self, wanted: float) -> Blocks:
        import av

        with contextlib.suppress(DecodeFailed, av.error.FFmpegError, OSError), _opened_frames(self._path) as opened:
            frames, frame = opened
            reached = 0
            while frame is not None and frames.format == "mp3":
                if frame.sample_rate == self.rate:  # other rates come from data that only looks like a frame
                    y = frames.channels(frame)[:, max(0, self.start - reached) :]
                    reached += frame.samples
                    y = y[:, : int(min(y.shape[1], wanted - self.decoded))]
                    if y.shape[1]:
                        self.decoded, self.end = self.decoded + y.shape[1], frames.end
                        yield y
                frame = next(frames, None) if self.decoded < wanted else None
