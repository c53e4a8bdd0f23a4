"""The second decoder, FFmpeg's libraries through PyAV: m4a, wma, video containers, DSD, ..., and damaged MP3.

See `decoding` for what a decoder is. Only calls that PyAV has from version 16 to 19 are used.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

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

_HELD_FRAMES = 1024  # of FFmpeg, passed on together: 24 s of AAC

# Formats that are nothing but one frame of sound after another. Players pass over a damaged one and go on, and so does
# this decoder as long as they are few.
_BARE = frozenset(("aac", "ac3", "dts", "eac3", "mp3"))
_MOST_DAMAGED = 0.05  # of the packets

_PLANES = 8  # of a frame; PyAV up to 19 looks for one more than this and crashes


# === The decoder ===


@contextlib.contextmanager
def pyav_decoder(path: Any, offset: float, duration: float | None, notes: list[str]) -> Decoded:
    """Decode m4a, wma, video containers, ... with FFmpeg's libraries through PyAV."""
    with _opened_frames(path) as (frames, first):
        # The rate of the frame counts: for HE-AAC the container may name half of it.
        rate, blocks = first.sample_rate, _joined(_pieces(frames, first, path, offset, duration, notes))
        if frames.format in _BARE:
            blocks = clipped(blocks, path, rate, frames_in(offset, rate), notes)
        yield rate, blocks


@contextlib.contextmanager
def _opened_frames(path: Any) -> Iterator[tuple[_Frames, Any]]:
    """The frames of a file, and the first of them, which is taken; raises `DecodeFailed` if there is none."""
    try:
        import av
    except ImportError as error:  # it is required, but has no wheel for some platforms
        raise DecodeFailed("not installed") from error
    with contextlib.ExitStack() as stack:
        file = _Bounded(stack.enter_context(opened(path)))
        try:
            frames = _Frames(stack.enter_context(_open_container(file)))
            first = next(frames, None)
        except (av.error.FFmpegError, OSError, ValueError) as error:  # OSError: sent to an impossible place of the file
            raise DecodeFailed(getattr(error, "strerror", None) or str(error)) from error
        if first is None:
            raise DecodeFailed("no sound in it")
        file.left = math.inf
        yield frames, first


def _open_container(file: _Bounded) -> Any:
    """Open a file with FFmpeg; its tags need not be UTF-8.

    FFmpeg gets an open file and may use no protocol, so a playlist cannot make it open any other file or address. The
    file has no name, so nothing is an MP3 only because it is called so.
    """
    import av

    options = {"protocol_whitelist": "none"}
    try:
        return av.open(file, options=options)
    except UnicodeDecodeError:  # PyAV 18 and older: they take this option, newer ones need none
        file.seek(0)
        return av.open(file, options=options, metadata_errors="replace")


class _Bounded(Patched):
    """For FFmpeg, which goes from header to header without an end: through 10 GB of zeros after `WAVE` for hours."""

    left: float = 2**25  # bytes that may be read; opening takes the tables of an MP4 (0.6 MB per hour) and pictures

    def read(self, size: int = -1) -> bytes:
        if self.left < 0:
            return b""
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0:
            raise OSError("headers without an end")  # once: PyAV prints a second one
        return data


class _Frames:
    """Iterator over the frames of a container's first sound stream.

    Attributes:
        stream: the stream; `None` if there is none that can be decoded.
        packets, damaged: how many packets have come, and how many of them were passed over.
        end: position in the file behind the last packet that could be decoded.
    """

    def __init__(self, container: Any) -> None:
        """Decode nothing yet."""
        streams = container.streams.audio
        # Where FFmpeg has no decoder for a stream, PyAV before 18.1 crashes instead of raising.
        self.stream: Any = streams[0] if streams and streams[0].codec_context is not None else None
        self.packets = self.damaged = self.end = 0
        self._container = container
        self._frames = self._decode()
        self._interleave: Any = None  # made for frames of one kind
        self._kind: Any = None

    @property
    def format(self) -> str:
        """FFmpeg's name of the container."""
        return str(self._container.format.name)

    def remaining_seconds(self) -> float:
        """Take all packets that are left, without decoding them, and add their durations."""
        durations = sum(packet.duration or 0 for packet in self._container.demux(self.stream))
        return float(durations * self.stream.time_base)

    def seek(self, time: int) -> None:
        """Go to a time of the stream, or to a little before it."""
        self._container.seek(time, stream=self.stream)
        self._frames = self._decode()

    def channels(self, frame: Any) -> np.ndarray:
        """The samples of a frame, integers or floats `(channels, samples)`."""
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
    """The sound of each frame, `(channels, samples)`, as far as it is asked for."""
    import av

    rate, sound = first.sample_rate, frames.stream
    start, wanted = frames_in(offset, rate), wanted_frames(duration, rate)
    # Containers that count in samples (mov, FLAC, WavPack, ...) know their length and find any sample. Others round
    # times to milliseconds or estimate them from the bit rate: those are decoded from the beginning and not judged.
    exact = sound.time_base == Fraction(1, rate) and first.pts is not None
    declared = (sound.duration or 0) if exact else 0
    reached = decoded = 0  # the next frame to come, and how many were passed on
    frame = first
    try:
        if exact and 2 * rate < start < declared:
            frames.seek(first.pts + start - rate)  # a second early: a codec needs a run-up
            frame = next((frame for frame in frames if frame.pts is not None), None)
            reached = frame.pts - first.pts if frame is not None else 0
        while frame is not None and decoded < wanted:
            if frame.sample_rate != rate:
                raise truncated(path, rate, start, decoded, declared, f"the rate turns to {frame.sample_rate} Hz")
            y = frames.channels(frame)[:, max(0, start - reached) :]
            reached += frame.samples
            y = y[:, : int(min(y.shape[1], wanted - decoded))]
            decoded += y.shape[1]
            yield y
            frame = next(frames, None) if decoded < wanted else None
    except (av.error.FFmpegError, OSError) as error:
        raise truncated(path, rate, start, decoded, declared, str(error.strerror)) from error
    if frames.damaged > _MOST_DAMAGED * frames.packets:
        why = f"{frames.damaged} of {frames.packets} frames cannot be decoded"
        raise truncated(path, rate, start, decoded, declared, why)
    if frames.damaged:
        notes.append(
            f"The file is damaged: {frames.damaged} of {frames.packets} frames could not be decoded and were skipped."
        )
    check_complete(path, rate, start, decoded, wanted, declared)


def _joined(pieces: Iterable[np.ndarray]) -> Blocks:
    """Fewer and larger blocks: FFmpeg's frames are small, 1024 samples in m4a."""
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


# === What libsndfile does not read of an MP3 ===


def mp3_length(path: Any, rate: int) -> int:
    """Count the frames of an MP3 by what its packets state, without decoding them; 0 if it cannot be done."""
    import av

    with contextlib.suppress(DecodeFailed, av.error.FFmpegError, OSError), _opened_frames(path) as (frames, first):
        if frames.format == "mp3":
            return int(first.samples + frames.remaining_seconds() * rate)
    return 0


class RestOfMP3:
    """What FFmpeg decodes of an MP3 from some frame on, passing over damage as players do.

    Args:
        path: path or file.
        rate: in Hz, as the first decoder found it.
        start: the first frame that is wanted.

    Attributes:
        decoded: how many frames have come.
        end: position in the file behind the last packet that could be decoded.
    """

    def __init__(self, path: Any, rate: int, start: int) -> None:
        """Decode nothing yet."""
        self.rate, self.start = rate, start
        self.decoded = self.end = 0
        self._path = path

    def blocks(self, wanted: float) -> Blocks:
        """At most `wanted` frames, as arrays `(channels, samples)`; fewer where nothing more can be decoded."""
        return _joined(self._pieces(wanted))

    def _pieces(self, wanted: float) -> Blocks:
        import av

        with contextlib.suppress(DecodeFailed, av.error.FFmpegError, OSError), _opened_frames(self._path) as opened:
            frames, frame = opened
            reached = 0
            while frame is not None and frames.format == "mp3":
                if frame.sample_rate == self.rate:  # else it is junk that looks like a frame
                    y = frames.channels(frame)[:, max(0, self.start - reached) :]
                    reached += frame.samples
                    y = y[:, : int(min(y.shape[1], wanted - self.decoded))]
                    if y.shape[1]:
                        self.decoded, self.end = self.decoded + y.shape[1], frames.end
                        yield y
                frame = next(frames, None) if self.decoded < wanted else None
