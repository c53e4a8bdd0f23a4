"""Decoders: libsndfile, and PyAV for what it does not know.

Each is a context manager that takes a path or a seekable binary file, an offset and a duration in seconds, and gives
the sample rate in Hz and an iterator of mono float32 blocks `(samples,)`. Nothing outside the part asked for is decoded
where the format allows it. What a decoder cannot open raises `DecodeFailed` at once; the iterator raises
`TruncatedAudioError` where the sound breaks off.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import soundfile

from ..errors import TruncatedAudioError
from .containers import Patched, misdated_opus, mp3_states_length, opened, unclosed_wav

Blocks = Iterator[np.ndarray]
Decoded = Iterator[tuple[int, Blocks]]  # what the function under a context manager yields, once

BLOCK_VALUES = 2**20  # samples times channels decoded at once, 4 MB of float32: 12 s of 44.1 kHz stereo
UNKNOWN_FRAMES = 2**62  # libsndfile says 2**63 - 1 of a FLAC written to a pipe

_HELD_FRAMES = 1024  # of FFmpeg, passed on together: 24 s of AAC

# A file counts as truncated when more than this is missing. Encoders' delay and padding account for up to 0.1 s.
_TOLERATED_SECONDS = 0.5

# libsndfile cuts the length of a PCM file down to what is there; its log keeps what the header said. WAV: "data",
# AIFF: "SSND", AU: "Data Size", W64: "riff", the whole file.
_CUT_DOWN = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_CUT_DOWN_RF64 = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")


class DecodeFailed(Exception):
    """This decoder cannot open the file; another one may."""


# === Shared ===


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


def mono(y: np.ndarray) -> np.ndarray:
    """Mix samples of any integer or float type to mono.

    Args:
        y: array `(samples,)` or `(channels, samples)`. Integers are scaled by the full range of their type.

    Returns:
        float32 array `(samples,)`, contiguous.
    """
    if y.dtype.kind in "iu":
        half = 2.0 ** (8 * y.dtype.itemsize - 1)
        zero = half if y.dtype.kind == "u" else 0.0  # unsigned PCM is centred on half its range
        y = (y.astype("float64") - zero) / half
    # What overflows here, or is infinity minus infinity, is found and reported as not finite.
    with np.errstate(over="ignore", invalid="ignore"):
        if y.ndim == 2:  # one channel after the other: `mean` takes 20 times as long on interleaved stereo
            total = y[0].astype(np.result_type(y.dtype, np.float32))
            for channel in y[1:]:
                total += channel
            y = total / len(y) if len(y) > 1 else total
        return np.ascontiguousarray(y, "float32")


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


def _check_complete(path: Any, rate: int, start: int, decoded: int, wanted: float, declared: int) -> None:
    """Raise where clearly less came out than was asked for and the header promises; 0 promises nothing."""
    if min(wanted, declared - start) - decoded > _TOLERATED_SECONDS * rate:
        raise truncated(path, rate, start, decoded, declared, "the data ends")


# === libsndfile ===


@contextlib.contextmanager
def soundfile_decoder(path: Any, offset: float, duration: float | None) -> Decoded:
    """Decode WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, ... with libsndfile."""
    with contextlib.ExitStack() as stack:
        try:
            sound = stack.enter_context(_open_soundfile(path))
            if sound.format == "RAW":  # anything at all that is called .au, .snd or .vox passes for samples
                raise DecodeFailed("a headerless sound, going by its name alone")
            if sound.subtype == "VORBIS" and offset:  # where its headers are damaged, to seek would crash libsndfile
                if not len(sound.read(1)):
                    raise DecodeFailed("its headers are damaged")
                sound = stack.enter_context(_open_soundfile(path))  # having read, it would seek to a little elsewhere
            patches = _patches(sound, path)
            if patches:
                sound = stack.enter_context(_Sound(_Quiet(stack.enter_context(opened(path)), patches)))
        except (soundfile.LibsndfileError, TypeError, ValueError) as error:
            reason = getattr(error, "error_string", "") or str(error) or repr(error)
            if "not a regular file" in reason:  # its words for an MP3 without MPEG frames; the file is there
                reason = "no sound found"
            raise DecodeFailed(reason.rstrip(".")) from error
        yield sound.samplerate, _soundfile_blocks(sound, path, offset, duration)


def _patches(sound: _Sound, path: Any) -> dict[int, bytes]:
    """What libsndfile has to see instead of what is in the file, by position, in order to read all of the sound."""
    if sound.frames == 0 and sound.format in ("WAV", "WAVEX"):
        with opened(path) as file:
            position = unclosed_wav(file)
        return {} if position is None else {position: b"\xff\xff\xff\xff"}  # a length taken as "up to the end"
    if sound.subtype == "OPUS":
        with opened(path) as file:
            return misdated_opus(file)
    return {}


class _Quiet(Patched):
    """For libsndfile, which seeks to negative positions in damaged files and cannot take an exception."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return self.tell()


class _Sound(soundfile.SoundFile):
    """A sound that is read from where it is, and no more.

    After every read soundfile seeks to where it is already, if this says that it can. At the end of a FLAC of unknown
    length (one written to a pipe) that fails.
    """

    def seekable(self) -> bool:
        return False


def native_path(path: Any) -> Any:
    """A path as libsndfile takes it: bytes, since names need not be UTF-8, but text on Windows."""
    return os.fsdecode(path) if os.name == "nt" else os.fsencode(path)


def _open_soundfile(path: Any) -> _Sound:
    if not hasattr(path, "read"):
        return _Sound(native_path(path))
    path.seek(0)
    return _Sound(_Quiet(path))


def _soundfile_blocks(sound: _Sound, path: Any, offset: float, duration: float | None) -> Blocks:
    rate, declared = sound.samplerate, _declared_frames(sound, path)
    start, wanted = frames_in(offset, rate), wanted_frames(duration, rate)
    block = max(1, BLOCK_VALUES // sound.channels)
    there = min(wanted, sound.frames - start)  # libsndfile gives no more, but fills the rest of an array with zeros
    decoded = 0
    try:
        _seek(sound, start, block)
        while decoded < there:
            step = int(min(block, there - decoded))
            y = sound.read(step, dtype="float32", always_2d=True)
            if len(y):
                decoded += len(y)
                yield mono(y.T)
            if len(y) < step:
                break
    except soundfile.LibsndfileError as error:
        decoded += _readable(sound, start + decoded)
        raise truncated(path, rate, start, decoded, declared, error.error_string) from error
    _check_complete(path, rate, start, decoded, wanted, declared)


def _readable(sound: _Sound, frame: int) -> int:
    """How many frames can be read from `frame` on, where reading a whole block failed: for the message."""
    reached = sound.tell()
    if reached > frame:  # the FLAC decoder has advanced to the damage, and won't go back
        return reached - frame
    step = 1 + sound.samplerate // 20
    with contextlib.suppress(soundfile.LibsndfileError):
        reached = sound.seek(frame)
        while len(sound.read(step, dtype="float32")) == step:
            reached += step
    return max(0, reached - frame)


def _seek(sound: _Sound, frame: int, block: int) -> None:
    """Go to `frame`, or to the end if that is nearer; decode up to it where the format cannot seek."""
    if frame <= 0:
        return
    if super(_Sound, sound).seekable() and sound.frames < UNKNOWN_FRAMES:
        sound.seek(min(frame, sound.frames))
        return
    while frame > 0:
        skipped = len(sound.read(min(frame, block), dtype="float32", always_2d=True))
        if skipped == 0:
            return
        frame -= skipped


def _declared_frames(sound: _Sound, path: Any) -> int:
    """Frames the header promises, 0 where it makes no promise that can be held against the file."""
    if sound.format == "MP3":
        with opened(path) as file:
            if not mp3_states_length(file):  # a guess; libsndfile, and so librosa, reads no further than that
                return 0
    cut_down = _CUT_DOWN.search(sound.extra_info)
    if cut_down is not None:
        declared, actual = int(cut_down[1]), int(cut_down[2])
        # A program that writes to a pipe cannot fill in the length later; it begins with 0, 2**31 or 2**32, or a
        # little less (sox).
        streamed = declared == 0 or 0x7FFF0000 <= declared <= 0x80000000 or 0xFFFF0000 <= declared < 2**32
        streamed = streamed or declared >= UNKNOWN_FRAMES
        if not streamed and actual > 0:
            return sound.frames * declared // actual
    cut_down = _CUT_DOWN_RF64.search(sound.extra_info)
    if cut_down is not None:
        return int(cut_down[2])
    return sound.frames if sound.frames < UNKNOWN_FRAMES else 0


# === PyAV ===


@contextlib.contextmanager
def pyav_decoder(path: Any, offset: float, duration: float | None) -> Decoded:
    """Decode m4a, wma, video containers, ... with FFmpeg's libraries through PyAV."""
    try:
        import av
    except ImportError as error:  # it is required, but has no wheel for some platforms
        raise DecodeFailed("not installed") from error
    with contextlib.ExitStack() as stack:
        file = _Bounded(stack.enter_context(opened(path)))
        try:
            container = stack.enter_context(_open_container(file))
            # Where FFmpeg has no decoder for a stream, PyAV before 18.1 crashes instead of raising.
            known = container.streams.audio and container.streams.audio[0].codec_context is not None
            frames = container.decode(audio=0) if known else iter(())
            first = next(frames, None)
        except (av.error.FFmpegError, OSError, ValueError) as error:  # OSError: sent to an impossible place of the file
            raise DecodeFailed(getattr(error, "strerror", None) or str(error)) from error
        if first is None:
            raise DecodeFailed("no sound in it")
        file.left = math.inf
        # The rate of the frame counts: for HE-AAC the container may name half of it.
        yield first.sample_rate, _pyav_blocks(container, first, frames, path, offset, duration)


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


def _pyav_blocks(
    container: Any, first: Any, frames: Iterator[Any], path: Any, offset: float, duration: float | None
) -> Blocks:
    import av

    rate, sound = first.sample_rate, container.streams.audio[0]
    start, wanted = frames_in(offset, rate), wanted_frames(duration, rate)
    # Containers that count in samples (mov, FLAC, WavPack, ...) know their length and find any sample. Others round
    # times to milliseconds or estimate them from the bit rate: those are decoded from the beginning and not judged.
    exact = sound.time_base == Fraction(1, rate) and first.pts is not None
    declared = (sound.duration or 0) if exact else 0
    reached = decoded = 0  # the next frame to come, and how many were passed on
    frames = itertools.chain([first], frames)
    held: list[np.ndarray] = []  # FFmpeg's frames are small, 1024 samples in m4a
    try:
        if exact and 2 * rate < start < declared:
            container.seek(first.pts + start - rate, stream=sound)  # a second early: a codec needs a run-up
            frames, reached = container.decode(sound), -1
        for frame in frames:
            if frame.sample_rate != rate:
                raise truncated(path, rate, start, decoded, declared, f"the rate turns to {frame.sample_rate} Hz")
            if reached < 0:
                if frame.pts is None:
                    continue
                reached = frame.pts - first.pts
            y = _mono_frame(frame)[max(0, start - reached) :]
            reached += frame.samples
            y = y[: int(min(len(y), wanted - decoded))]
            decoded += len(y)
            held.append(y)
            if decoded >= wanted:
                break
            if len(held) >= _HELD_FRAMES:
                yield np.concatenate(held)
                held.clear()
    except (av.error.FFmpegError, OSError) as error:
        raise truncated(path, rate, start, decoded, declared, str(error.strerror)) from error
    if held:
        yield np.concatenate(held)
    _check_complete(path, rate, start, decoded, wanted, declared)


def _mono_frame(frame: Any) -> np.ndarray:
    y = frame.to_ndarray()
    return mono(y if frame.format.is_planar else y.reshape(-1, frame.layout.nb_channels).T)
