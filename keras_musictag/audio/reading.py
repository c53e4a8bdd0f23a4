"""Read a file or an array as float32 mono at a given sample rate: the only decoding and resampling code.

Conventions: waveforms are float32 `(samples,)` in [-1, 1], rates are in Hz, offsets and durations in seconds of the
source. Audio is decoded, mixed to mono and resampled block by block, so memory does not grow with the length of a file
and only the requested part is decoded. The result equals `librosa.load(path, sr=target, mono=True)`.

Decoders, in order: libsndfile (WAV, FLAC, Ogg, Opus, MP3, AIFF, ...) and PyAV, which brings FFmpeg's libraries (m4a,
wma, video containers, ...). No program has to be installed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import stat
from typing import IO, Any

import numpy as np
import soundfile
import soxr

from ..errors import (
    AudioNotFoundError,
    AudioTooShortError,
    InvalidSamplesError,
    TruncatedAudioError,
    UnsupportedAudioError,
)
from .containers import breaks_off, mp3_states_length, mp4_breaks_off, opened
from .decoding import BLOCK_VALUES, MAX_PEAK, Blocks, DecodeFailed, frames_in, truncated, wanted_frames
from .decoding import describe as describe
from .mixing import mix
from .pyav_decoder import mp3_length, pyav_decoder
from .soundfile_decoder import UNKNOWN_FRAMES, native_path, soundfile_decoder

_log = logging.getLogger(__name__)

Source = str | os.PathLike[str] | IO[bytes] | np.ndarray | tuple[np.ndarray, float]

MIN_SR, MAX_SR = 1_000, 1_000_000
_MAX_FILE_SR = 4_000_000  # FFmpeg decodes DSD to an eighth of its rate: 2.8 MHz for DSD512
_MAX_SECONDS = 1e9  # 32 years
_MAX_CHANNELS = 32  # an array with more channels than this and than samples has its axes swapped
_SOXR_SAMPLES = 2**17  # per call of soxr; it is fastest while its input and output stay in the cache


# === Public ===


def load(
    source: Source,
    sr: float | None = None,
    *,
    target_sr: int,
    resampler: str = "soxr_hq",
    offset: float = 0.0,
    duration: float | None = None,
    notes: list[str] | None = None,
) -> np.ndarray:
    """Load an audio file or array, or the part from `offset` on for `duration` seconds.

    Args:
        source: a path, a seekable binary file object, an array `(samples,)` or `(channels, samples)`, or `(array, sr)`.
            Floats are within [-1, 1], integers are scaled by the full range of their type. A file object is read from
            its beginning, stays open and gets its position back.
        sr: sample rate of an array in Hz; files state their own.
        target_sr: rate of the result in Hz.
        resampler: soxr quality.
        offset: seconds to skip.
        duration: seconds to decode, `None` for all.
        notes: list to which a sentence is added for each defect that leaves the audio usable: damage that was skipped,
            channels that cancel each other out, a sample rate below half of `target_sr`. By default, these are logged
            as warnings.

    Returns:
        float32 array `(samples,)`, never a view of `source`.

    Raises:
        AudioError: the audio cannot be used; the subclass and the message say why.

    Example:
        >>> load(np.ones((2, 44100), "int16"), sr=44100, target_sr=16000).shape
        (16000,)
    """
    return np.concatenate(
        list(
            stream(source, sr, target_sr=target_sr, resampler=resampler, offset=offset, duration=duration, notes=notes)
        )
    )


def stream(
    source: Source,
    sr: float | None = None,
    *,
    target_sr: int,
    resampler: str = "soxr_hq",
    offset: float = 0.0,
    duration: float | None = None,
    notes: list[str] | None = None,
) -> Blocks:
    """Load audio as `load` does, block by block, in bounded memory.

    Yields:
        float32 arrays `(samples,)` of varying lengths, at least one.

    Raises:
        AudioError: as `load`, when the iterator reaches the problem.
    """
    check_sr(target_sr, "target_sr")
    _check_seconds("offset", offset)
    if duration is not None:
        _check_seconds("duration", duration)
        if duration == 0:
            raise InvalidSamplesError("duration must be more than 0 seconds, or None for all; got 0.")
    found: list[str] = []
    with contextlib.ExitStack() as stack:
        rate, blocks = _decode(stack, source, sr, offset, duration, found)
        empty = True
        blocks = checked(mix(blocks, rate, found), describe(source), frames_in(offset, rate))
        for block in resample(blocks, rate, target_sr, resampler):
            empty = False
            yield block
    if 2 * rate < target_sr:
        found.append(
            f"The sample rate is {rate} Hz, so the audio has no content above {rate // 2} Hz. The model expects "
            f"content up to {target_sr // 2} Hz."
        )
    if notes is not None:
        notes += found
    else:
        for note in found:
            _log.warning("%s: %s", describe(source), note)
    if empty:
        part = f" from {offset} s on" if offset else ""
        part += f" for {duration} s" if duration is not None else ""
        advice = "Choose a part within the audio" if part else "Get a complete copy"
        raise AudioTooShortError(f"{describe(source)} has no samples{part}. {advice}.")


def duration_of(path: str | os.PathLike[str]) -> float | None:
    """Return the duration in seconds that an audio file declares, `None` if libsndfile cannot tell.

    Reads the header only, but the whole file (without decoding) for an MP3 whose header states no length.

    Example:
        >>> duration_of("no_such_file.wav") is None
        True
    """
    try:
        info = soundfile.info(native_path(path))
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError):
        return None
    if info.format == "RAW" or info.frames >= UNKNOWN_FRAMES:
        return None
    if info.format == "MP3":
        with open(path, "rb") as file:
            stated = mp3_states_length(file)
        counted = 0 if stated else mp3_length(path, info.samplerate)
        return counted / info.samplerate if counted else float(info.duration)
    return float(info.duration)


# === Files ===


def _decode(
    stack: contextlib.ExitStack,
    source: Source,
    sr: float | None,
    offset: float,
    duration: float | None,
    notes: list[str],
) -> tuple[int, Blocks]:
    """Return the sample rate and the decoded blocks `(channels, samples)` from `offset` on.

    Opened files are closed by the stack.
    """
    given: Any = source
    if isinstance(given, tuple):
        if len(given) != 2 or sr is not None:
            raise InvalidSamplesError(
                f"A tuple source must be (array, sr), without a separate sr; got {len(given)} items and sr={sr!r}."
            )
        given, sr = given
    if isinstance(given, np.ndarray):
        return _from_array(given, sr, offset, duration)
    if not isinstance(given, (str, os.PathLike)) and not hasattr(given, "read"):
        raise InvalidSamplesError(
            f"A source must be a path, a binary file object or a NumPy array with its sr; got {type(given).__name__}. "
            "Wrap encoded bytes in io.BytesIO, samples in numpy.asarray."
        )
    if sr is not None:
        raise InvalidSamplesError(f"sr={sr!r} goes with an array; {describe(given)} states its own rate. Leave sr out.")
    if hasattr(given, "read"):
        _check_file_object(given)
        stack.enter_context(opened(given))
    else:
        _check_path(given)
    return _from_file(stack, given, offset, duration, notes)


def _check_path(path: str | os.PathLike[str]) -> None:
    """Require a readable regular file that is not empty."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise AudioNotFoundError(f"{describe(path)} is a folder. Give a sound file.")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe could block forever
            raise AudioNotFoundError(
                f"{describe(path)} is not a regular file (a pipe, a socket or a device). Read it into io.BytesIO first."
            )
        with open(path, "rb") as file:
            file.read(1)
    except AudioNotFoundError:
        raise
    except FileNotFoundError as error:
        where = "" if os.path.isabs(path) else f" in {os.getcwd()!r}"
        raise AudioNotFoundError(f"{describe(path)} does not exist{where}. Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: an embedded null character
        reason = getattr(error, "strerror", None) or error
        raise AudioNotFoundError(
            f"{describe(path)} cannot be opened ({reason}). Check the path and the permissions."
        ) from error
    if status.st_size == 0:
        raise _empty(path)


def _check_file_object(file: Any) -> None:
    """Require a file object that is open, binary, readable, seekable and not empty."""
    if getattr(file, "closed", False):
        raise InvalidSamplesError(f"{describe(file)} is closed. Open it again with mode 'rb'.")
    seekable = hasattr(file, "seek") and hasattr(file, "tell") and getattr(file, "seekable", lambda: True)()
    readable = getattr(file, "readable", lambda: True)()
    if isinstance(file, io.TextIOBase) or not seekable or not readable:
        raise InvalidSamplesError(
            f"{describe(file)} must be a seekable binary file. Open it with mode 'rb', or read it into io.BytesIO."
        )
    with opened(file):
        start = file.read(1)
    if not isinstance(start, bytes):
        raise InvalidSamplesError(
            f"{describe(file)} must be a binary file; its read() returned {type(start).__name__}. Open it with mode "
            "'rb'."
        )
    if not start:
        raise _empty(file)


def _empty(source: Any) -> AudioTooShortError:
    return AudioTooShortError(f"{describe(source)} is empty (0 bytes). Get a complete copy.")


def _from_file(
    stack: contextlib.ExitStack, path: Any, offset: float, duration: float | None, notes: list[str]
) -> tuple[int, Blocks]:
    """Open the file with the first decoder that recognises it."""
    reasons = []
    for name, decoder in (("libsndfile", soundfile_decoder), ("PyAV", pyav_decoder)):
        try:
            rate, blocks = stack.enter_context(decoder(path, offset, duration, notes))
        except DecodeFailed as error:
            reasons.append(f"{name}: {error}")
        else:
            return check_sr(rate, describe(path), _MAX_FILE_SR), _whole(blocks, path, rate, offset, duration)
    with opened(path) as file:
        why = "the MP4 file ends before its index" if mp4_breaks_off(file) else breaks_off(file)
    if why:
        raise TruncatedAudioError(
            f"{describe(path)} is truncated: {why}, so it cannot be decoded. Get a complete copy."
        )
    advice = " For m4a, wma and video files: pip install av." if "PyAV: not installed" in reasons else ""
    raise UnsupportedAudioError(
        f"{describe(path)} is not a sound file that an installed decoder can read ({'; '.join(reasons)}). "
        f"Check its format, or convert it to WAV or FLAC.{advice}"
    )


def _whole(blocks: Blocks, path: Any, rate: int, offset: float, duration: float | None) -> Blocks:
    """Yield the blocks; raise if they end before the requested part does and the file is truncated."""
    decoded = 0
    for block in blocks:
        decoded += block.shape[1]
        yield block
    if decoded < wanted_frames(duration, rate):
        with opened(path) as file:
            why = breaks_off(file)
        if why:
            raise truncated(path, rate, frames_in(offset, rate), decoded, 0, why)


# === Arrays ===


def _from_array(y: np.ndarray, sr: float | None, offset: float, duration: float | None) -> tuple[int, Blocks]:
    if sr is None:
        raise InvalidSamplesError("The sample rate of an array is missing. Pass it too, e.g. tag(y, sr=44100).")
    rate = check_sr(sr, "sr")
    y = np.asarray(y)
    check_samples(y)
    if y.size == 0:
        raise AudioTooShortError(f"The array of shape {y.shape} has no samples.")
    start = frames_in(offset, rate)
    y = np.atleast_2d(y)[:, start : None if duration is None else start + frames_in(duration, rate)]
    step = max(1, BLOCK_VALUES // y.shape[0])
    return rate, (y[:, first : first + step] for first in range(0, y.shape[1], step))


# === Checks and resampling ===


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_sr(sr: Any, what: str, most: int = MAX_SR) -> int:
    """Require a whole number of Hz within bounds; returns it as an integer. `what` names it in the message."""
    if not _is_number(sr) or not MIN_SR <= sr <= most or sr != int(sr):
        khz = f" That looks like kHz: use {round(1000 * sr)}." if _is_number(sr) and 4 <= sr <= 400 else ""
        raise InvalidSamplesError(
            f"{what}: the sample rate must be a whole number of Hz from {MIN_SR} to {most}; got {sr!r}.{khz}"
        )
    return int(sr)


def _check_seconds(what: str, value: Any) -> None:
    if not _is_number(value) or not 0 <= value <= _MAX_SECONDS:
        raise InvalidSamplesError(f"{what} must be a number of seconds, not negative and finite; got {value!r}.")


def check_samples(y: np.ndarray) -> None:
    """Validate the shape and type of an array `(samples,)` or `(channels, samples)`.

    Raises:
        InvalidSamplesError: wrong shape or type.
    """
    if y.ndim not in (1, 2):
        raise InvalidSamplesError(f"An array must be (samples,) or (channels, samples); got shape {y.shape}.")
    if y.dtype.kind not in "iuf":
        raise InvalidSamplesError(f"Samples must be integers or floats; got an array of {y.dtype}.")
    if y.dtype.kind in "iu" and y.dtype.itemsize > 4:  # 16-bit audio in NumPy's default type; scaled, it is silence
        raise InvalidSamplesError(
            f"Integers must have at most 32 bits; got an array of {y.dtype}. Cast it to its original width, "
            "e.g. y.astype('int16')."
        )
    if y.ndim == 2 and y.shape[0] > _MAX_CHANNELS and y.shape[0] > y.shape[1]:
        raise InvalidSamplesError(
            f"An array of shape {y.shape} looks like (samples, channels); librosa's order (channels, samples) is "
            "expected: pass y.T."
        )


def checked(blocks: Blocks, name: str, first: int) -> Blocks:
    """Yield the blocks; raise at samples that are not finite or far over full scale. They begin at frame `first`."""
    for block in blocks:
        peak = max(float(block.max()), -float(block.min())) if len(block) else 0.0  # NaN if the block contains NaN
        if not math.isfinite(peak):
            at = first + int(np.argmin(np.isfinite(block)))
            raise InvalidSamplesError(
                f"{name} has samples that are NaN or infinite, the first one at sample {at}. Replace them, e.g. with "
                "numpy.nan_to_num."
            )
        if peak > MAX_PEAK:
            raise InvalidSamplesError(
                f"{name} has floats up to {peak:.0f} where full scale is 1. Divide by the full scale they "
                "came from, e.g. 32768 for 16 bits, or pass the integers."
            )
        first += len(block)
        yield block


def resample(blocks: Blocks, rate: int, target: int, quality: str) -> Blocks:
    """Resample with soxr block by block. The samples are those of a single call, and as many as librosa gives."""
    if rate == target:
        yield from (block for block in blocks if len(block))
        return
    resampler = soxr.ResampleStream(rate, target, 1, dtype="float32", quality=quality)
    read = written = 0
    for block in blocks:
        read += len(block)
        for first in range(0, len(block), _SOXR_SAMPLES):
            out = resampler.resample_chunk(block[first : first + _SOXR_SAMPLES])
            written += len(out)
            if len(out):
                yield out
    # librosa's formula, rounding errors included: from 44.1 to 12 kHz the product can be just above a whole number.
    missing = math.ceil(read * (target / rate)) - written
    tail = resampler.resample_chunk(np.zeros(0, "float32"), last=True)[: max(0, missing)]
    tail = np.pad(tail, (0, max(0, missing - len(tail))))
    if len(tail):
        yield tail
