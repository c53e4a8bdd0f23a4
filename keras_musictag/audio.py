"""File or array in, float32 mono at the wanted rate out: the only decoding and resampling code.

Conventions: waveforms are float32 `(samples,)` in [-1, 1], rates are in Hz, offsets and durations in seconds of the
source. Sound is decoded, mixed to mono and resampled block by block, so memory does not grow with the length of a file
and only the part that was asked for is decoded.

Decoders, in order: libsndfile (WAV, FLAC, Ogg, Opus, MP3, AIFF, ...), PyAV where the extra `av` is installed (m4a,
wma, video containers, ...), and librosa's own fallback where an ffmpeg program is installed.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import soxr

from ._decoders import DecodeFailed, librosa_blocks, pyav_blocks
from .errors import (
    AudioNotFoundError,
    AudioTooShortError,
    InvalidSamplesError,
    TruncatedAudioError,
    UnsupportedAudioError,
)

Source = str | os.PathLike[str] | IO[bytes] | np.ndarray | tuple[np.ndarray, float]
Blocks = Iterator[np.ndarray]

MIN_SR, MAX_SR = 1_000, 1_000_000
BLOCK_SECONDS = 60  # 10 MB of 44.1 kHz float32: large enough for one FFT-sized step, small enough to forget

# A file counts as truncated when more than this much of what it declares is missing. Encoders' padding and delay
# account for up to 0.1 s; MP3 lengths without a Xing header are estimates and are not judged at all.
_TOLERATED_SECONDS, _TOLERATED_SHARE = 0.5, 0.02


# === Public ===


def load(
    source: Source,
    sr: float | None = None,
    *,
    target_sr: int,
    resampler: str = "soxr_hq",
    offset: float = 0.0,
    duration: float | None = None,
) -> np.ndarray:
    """Decode a whole sound, or the part from `offset` on for `duration` seconds.

    Args:
        source: a path, a seekable binary file object, an array `(samples,)` or `(channels, samples)`, or `(array, sr)`.
            Integer arrays are scaled by their type's full range.
        sr: sample rate of an array in Hz; files know their own.
        target_sr: rate of the result in Hz.
        resampler: soxr quality.
        offset: seconds to skip.
        duration: seconds to decode, `None` for all.

    Returns:
        float32 array `(samples,)`.

    Raises:
        AudioError: one of its subclasses says what is wrong with the sound.

    Example:
        >>> load(np.zeros((2, 44100), "int16"), sr=44100, target_sr=16000).shape
        (16000,)
    """
    blocks = list(stream(source, sr, target_sr=target_sr, resampler=resampler, offset=offset, duration=duration))
    if not blocks:
        raise AudioTooShortError(f"{describe(source)} has no samples{_from(offset)}.")
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def stream(
    source: Source,
    sr: float | None = None,
    *,
    target_sr: int,
    resampler: str = "soxr_hq",
    offset: float = 0.0,
    duration: float | None = None,
) -> Blocks:
    """Like `load`, as an iterator over consecutive blocks: memory is bounded whatever the length.

    Raises:
        AudioError: as `load`, when the iterator gets there.
    """
    _check_seconds("offset", offset, least=0.0)
    if duration is not None:
        _check_seconds("duration", duration, least=0.0)
    rate, blocks = _decode(source, sr, offset, duration)
    yield from _resample(_finite(blocks, source), rate, target_sr, resampler)


def describe(source: Any) -> str:
    """What to call a source in a message: its path, its file name, or the shape of the array."""
    if isinstance(source, tuple) and source:
        source = source[0]
    if isinstance(source, np.ndarray):
        return f"The array of shape {source.shape}"
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fsdecode(source))
    return repr(getattr(source, "name", None) or f"the {type(source).__name__} object")


# === Decoding ===


def _decode(source: Source, sr: float | None, offset: float, duration: float | None) -> tuple[int, Blocks]:
    """Sample rate of the source, and its mono float32 blocks from `offset` on."""
    if isinstance(source, tuple):
        if len(source) != 2 or sr is not None:
            raise InvalidSamplesError(f"A tuple source is (array, sr) and nothing more; got {len(source)} items, sr={sr!r}.")
        source, sr = source
    if isinstance(source, np.ndarray):
        return _from_array(source, sr, offset, duration)
    if isinstance(source, (list, memoryview, bytes, bytearray)) or not (
        isinstance(source, (str, os.PathLike)) or hasattr(source, "read")
    ):
        raise InvalidSamplesError(
            f"A sound is a path, a binary file object or a NumPy array with its sr; got {type(source).__name__}. "
            "Wrap encoded bytes in io.BytesIO, samples in numpy.asarray."
        )
    if sr is not None:
        raise InvalidSamplesError(f"sr={sr!r} goes with an array; {describe(source)} knows its own rate.")
    return _from_file(_checked_file(source), offset, duration)


def _checked_file(source: Any) -> str | bytes | IO[bytes]:
    """The path, or the file object at its start, once it is clear that there is something in it."""
    if hasattr(source, "read"):
        if isinstance(source, io.TextIOBase) or not (hasattr(source, "seek") and source.seekable()):
            raise InvalidSamplesError(
                f"{describe(source)} must be a seekable binary file: open it with mode 'rb', or read it into io.BytesIO."
            )
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        path: Any = source
    else:
        path = os.fspath(source)
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:  # ValueError: an embedded null character
            reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error})"
            raise AudioNotFoundError(f"{describe(source)} {reason}.") from error
        if stat.S_ISDIR(status.st_mode):
            raise AudioNotFoundError(f"{describe(source)} is a folder; give a sound file.")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe could wait for ever
            raise AudioNotFoundError(f"{describe(source)} is not a regular file.")
        size = status.st_size
    if size == 0:
        raise AudioTooShortError(f"{describe(source)} is empty (0 bytes).")
    return path


def _from_file(path: Any, offset: float, duration: float | None) -> tuple[int, Blocks]:
    """Try the decoders in turn; the first that recognises the file gets it."""
    reasons = []
    attempts: tuple[tuple[str, Callable[..., tuple[int, Blocks]]], ...] = (
        ("libsndfile", _soundfile_blocks),
        ("PyAV", pyav_blocks),
        ("librosa", librosa_blocks),
    )
    for decoder, opener in attempts:
        try:
            rate, blocks = opener(path, offset, duration)
        except PermissionError as error:
            raise AudioNotFoundError(f"{describe(path)} cannot be opened ({error}).") from error
        except DecodeFailed as error:
            reasons.append(f"{decoder}: {error}")
            continue
        _check_sr(rate, describe(path))
        return rate, blocks
    raise UnsupportedAudioError(
        f"{describe(path)} is not a sound file that an installed decoder can read ({'; '.join(reasons)}). "
        "For m4a, wma and video files: pip install 'keras_musictag[av]'."
    )


def _soundfile_blocks(path: Any, offset: float, duration: float | None) -> tuple[int, Blocks]:
    if hasattr(path, "read"):
        path.seek(0)
    try:
        sound = soundfile.SoundFile(path if hasattr(path, "read") else os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        if isinstance(path, (str, bytes)) and not os.access(path, os.R_OK):
            raise PermissionError(f"no read permission: {os.fsdecode(path)}") from error
        raise DecodeFailed(str(error).rpartition(": ")[2].strip() or repr(error)) from error

    def blocks() -> Blocks:
        with sound:
            rate, declared = sound.samplerate, _declared_frames(sound, path)
            start = round(offset * rate)
            _seek(sound, start)
            wanted = math.inf if duration is None else round(duration * rate)
            end = min(wanted, max(0, declared - start)) if declared else wanted
            decoded = 0
            while decoded < wanted:
                step = int(min(BLOCK_SECONDS * rate, wanted - decoded))
                try:
                    block = sound.read(step, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    raise _truncated(path, start + decoded, declared, rate, str(error)) from error
                if len(block):
                    decoded += len(block)
                    yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
                if len(block) < step:
                    break
            if declared and end - decoded > max(_TOLERATED_SECONDS * rate, _TOLERATED_SHARE * end):
                raise _truncated(path, start + decoded, declared, rate, "the data ends")

    return sound.samplerate, blocks()


def _seek(sound: soundfile.SoundFile, frame: int) -> None:
    """Go to `frame`, or to the end if that is nearer; decode up to it where the format cannot seek."""
    if frame <= 0:
        return
    try:
        sound.seek(min(frame, sound.frames))
    except (soundfile.LibsndfileError, RuntimeError):
        while frame > 0:
            skipped = len(sound.read(min(frame, BLOCK_SECONDS * sound.samplerate), dtype="float32", always_2d=True))
            if skipped == 0:
                return
            frame -= skipped


def _declared_frames(sound: soundfile.SoundFile, path: Any) -> int:
    """Frames the header promises, 0 where it makes no promise that can be held against the file."""
    if sound.format == "MP3" and not _has_xing_header(path):
        return 0
    # libsndfile silently cuts a WAV's or AIFF's length down to what is there; its log keeps what was declared.
    match = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if match is not None:
        declared, actual = int(match[1]), int(match[2])
        streamed = declared == 0 or declared >= 0x7FFF0000  # written to a pipe, length never filled in
        if not streamed and actual > 0:
            return sound.frames * declared // actual
    return sound.frames if sound.frames < 2**62 else 0


def _has_xing_header(path: Any) -> bool:
    """Whether an MP3 says how many frames it has (LAME's Xing or Info tag, or VBRI)."""
    if hasattr(path, "read"):
        position = path.tell()
        path.seek(0)
        head = _first_mp3_frame(path)
        path.seek(position)
    else:
        with open(path, "rb") as file:
            head = _first_mp3_frame(file)
    return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))


def _first_mp3_frame(file: IO[bytes]) -> bytes:
    head = file.read(10)
    if head[:3] == b"ID3" and len(head) == 10:  # an ID3v2 tag comes first; its size has seven bits a byte
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(10 + size)
        head = b""
    return head + file.read(400)


def _truncated(path: Any, decoded: int, declared: int, rate: int, why: str) -> TruncatedAudioError:
    seconds = decoded / rate
    whole = f" of {declared / rate:.1f} s" if declared else ""
    reason = why.rpartition(": ")[2].strip().rstrip(".") or "the data is damaged"
    return TruncatedAudioError(
        f"{describe(path)} is truncated or damaged: decoding stopped after {seconds:.1f} s{whole} ({reason}). "
        f"Get a complete copy, or use what is there with duration={math.floor(seconds * 10) / 10:.1f}."
    )


# === Arrays ===


def _from_array(y: np.ndarray, sr: float | None, offset: float, duration: float | None) -> tuple[int, Blocks]:
    if sr is None:
        raise InvalidSamplesError("An array has no sample rate of its own: pass it too, e.g. tag(y, sr=44100).")
    rate = _check_sr(sr, "sr")
    y = np.ma.getdata(y)
    if y.ndim not in (1, 2):
        raise InvalidSamplesError(f"An array must be (samples,) or (channels, samples); got shape {y.shape}.")
    if y.ndim == 2 and y.shape[0] > 32 and y.shape[0] > y.shape[1]:
        raise InvalidSamplesError(
            f"An array of shape {y.shape} looks like (samples, channels); librosa's order (channels, samples) is "
            "expected: pass y.T."
        )
    if y.dtype.kind not in "iuf":
        raise InvalidSamplesError(f"Samples must be integers or floats; got an array of {y.dtype}.")
    if y.size == 0:
        raise AudioTooShortError(f"The array of shape {y.shape} has no samples.")
    start = round(offset * rate)
    y = y[..., start : None if duration is None else start + round(duration * rate)]

    def blocks() -> Blocks:
        step = BLOCK_SECONDS * rate
        for first in range(0, y.shape[-1], step):
            yield _to_float_mono(y[..., first : first + step])

    return rate, blocks()


def _to_float_mono(y: np.ndarray) -> np.ndarray:
    if y.dtype.kind == "u":  # unsigned PCM is centred on half its range
        half = 2.0 ** (8 * y.dtype.itemsize - 1)
        y = (y.astype("float64") - half) / half
    elif y.dtype.kind == "i":
        y = y.astype("float64") / 2.0 ** (8 * y.dtype.itemsize - 1)
    if y.ndim == 2:
        y = y.mean(axis=0, dtype="float64" if y.dtype == "float64" else "float32")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is reported as such
        return np.asarray(y, "float32")


# === Checks and resampling ===


def _check_sr(sr: Any, what: str) -> int:
    if isinstance(sr, bool) or not isinstance(sr, (int, float, np.integer, np.floating)) or not MIN_SR <= sr <= MAX_SR:
        khz = " That looks like kHz." if isinstance(sr, (int, float)) and 4 <= sr <= 400 else ""
        raise InvalidSamplesError(f"{what}: the sample rate must be {MIN_SR} to {MAX_SR} Hz; got {sr!r}.{khz}")
    if sr != int(sr):
        raise InvalidSamplesError(f"{what}: the sample rate must be a whole number of Hz; got {sr!r}.")
    return int(sr)


def _check_seconds(what: str, value: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or not value >= least:
        raise InvalidSamplesError(f"{what} must be seconds, not negative; got {value!r}.")
    if math.isinf(value):
        raise InvalidSamplesError(f"{what} must be finite; got {value!r}.")


def _finite(blocks: Blocks, source: Source) -> Blocks:
    """Pass blocks on as long as every sample is a number."""
    before = 0
    for block in blocks:
        good = np.isfinite(block)
        if not good.all():
            first = before + int(np.argmin(good))
            raise InvalidSamplesError(
                f"{describe(source)} has {np.count_nonzero(~good)} samples that are NaN or infinite, the first one at "
                f"sample {first}. Repair the sound, e.g. with numpy.nan_to_num."
            )
        before += len(block)
        yield block


def _resample(blocks: Blocks, rate: int, target: int, quality: str) -> Blocks:
    """soxr in streaming mode: the same samples as in one piece, and librosa's length, ceil(samples * target / rate)."""
    if rate == target:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, target, 1, dtype="float32", quality=quality)
    read = written = 0
    for block in blocks:
        read += len(block)
        out = resampler.resample_chunk(np.ascontiguousarray(block))
        written += len(out)
        if len(out):
            yield out
    wanted = -(-read * target // rate) - written
    tail = resampler.resample_chunk(np.zeros(0, "float32"), last=True)[: max(0, wanted)]
    tail = np.pad(tail, (0, max(0, wanted - len(tail))))
    if len(tail):
        yield tail


def _from(offset: float) -> str:
    return f" after {offset} s" if offset else ""


def duration_of(path: str | os.PathLike[str]) -> float | None:
    """Seconds a sound file declares, `None` where libsndfile cannot tell. Cheap: only the header is read."""
    try:
        info = soundfile.info(os.fsencode(Path(path)))
    except (soundfile.LibsndfileError, OSError):
        return None
    return float(info.duration) if info.frames < 2**62 else None
