"""The first decoder, libsndfile: WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, ...; FFmpeg continues a damaged MP3.

`decoding` describes the interface of a decoder.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

import soundfile

from . import decoding
from .containers import (
    Patched,
    end_before_tags,
    misdated_opus,
    mp3_bytes_missing,
    mp3_states_length,
    opened,
    unclosed_wav,
)
from .decoding import (
    TOLERATED_SECONDS,
    Blocks,
    Decoded,
    DecodeFailed,
    check_complete,
    clipped,
    frames_in,
    truncated,
    wanted_frames,
)
from .pyav_decoder import RestOfMP3, mp3_length

UNKNOWN_FRAMES = 2**62  # lengths from here on are unknown; libsndfile gives 2**63 - 1 for a FLAC written to a pipe

_GUESS_SECONDS = 0.1  # how much too short a length estimated from the first frames of an MP3 may be
_MAX_LOST = 0.1  # share of an MP3 damaged in the middle that may be missing

# libsndfile reduces the length of a truncated PCM file to the data present; its log has the length that the header
# states. WAV: "data", AIFF: "SSND", AU: "Data Size", W64: "riff", the whole file.
_CUT_DOWN = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_CUT_DOWN_RF64 = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")


# === libsndfile ===


@contextlib.contextmanager
def soundfile_decoder(path: Any, offset: float, duration: float | None, notes: list[str]) -> Decoded:
    """Decode WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, ... with libsndfile."""
    with contextlib.ExitStack() as stack:
        try:
            sound = stack.enter_context(_open_soundfile(path))
            if sound.format == "RAW":  # libsndfile accepts any content in a file named .au, .snd or .vox
                raise DecodeFailed("raw samples without a header")
            if sound.subtype == "VORBIS" and offset:  # libsndfile crashes on a seek if the headers are damaged
                if not len(sound.read(1)):
                    raise DecodeFailed("its headers are damaged")
                sound = stack.enter_context(_open_soundfile(path))  # after a read, seeks are slightly inaccurate
            patches, end = _patches(sound, path)
            if patches or end is not None:
                sound = stack.enter_context(_Sound(_Quiet(stack.enter_context(opened(path)), patches, end)))
        except (soundfile.LibsndfileError, TypeError, ValueError) as error:
            reason = getattr(error, "error_string", "") or str(error) or repr(error)
            if "not a regular file" in reason:  # libsndfile's message for an MP3 without MPEG frames
                reason = "no audio found"
            raise DecodeFailed(reason.rstrip(".")) from error
        blocks = _soundfile_blocks(sound, path, offset, duration, notes)
        if sound.format == "MP3":
            blocks = clipped(blocks, path, sound.samplerate, frames_in(offset, sound.samplerate), notes)
        yield sound.samplerate, blocks


def _patches(sound: _Sound, path: Any) -> tuple[dict[int, bytes], int | None]:
    """Return bytes by position, and the end of the file, that libsndfile needs to read exactly the audio."""
    if sound.frames == 0 and sound.format in ("WAV", "WAVEX"):
        with opened(path) as file:
            position = unclosed_wav(file)
        return (
            {} if position is None else {position: b"\xff\xff\xff\xff"}
        ), None  # the length "to the end of the file"
    if sound.subtype == "OPUS":
        with opened(path) as file:
            return misdated_opus(file), None
    if sound.format == "FLAC" and sound.frames >= UNKNOWN_FRAMES:  # libsndfile takes tags at the end for damage
        with opened(path) as file:
            return {}, end_before_tags(file)
    return {}, None


class _Quiet(Patched):
    """A file that ignores impossible seeks: libsndfile makes them in damaged files and cannot handle an exception."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return self.tell()


class _Sound(soundfile.SoundFile):
    """A `SoundFile` that is read from its current position only.

    After every read, soundfile seeks to the current position if the file is seekable, which fails at the end of a FLAC
    of unknown length (one written to a pipe).
    """

    def seekable(self) -> bool:
        return False


def native_path(path: Any) -> Any:
    """Return a path as libsndfile takes it: bytes, as names need not be UTF-8, and text on Windows."""
    return os.fsdecode(path) if os.name == "nt" else os.fsencode(path)


def _open_soundfile(path: Any) -> _Sound:
    if not hasattr(path, "read"):
        return _Sound(native_path(path))
    path.seek(0)
    return _Sound(_Quiet(path))


def _soundfile_blocks(sound: _Sound, path: Any, offset: float, duration: float | None, notes: list[str]) -> Blocks:
    rate, declared = sound.samplerate, _declared_frames(sound, path)
    start, wanted = frames_in(offset, rate), wanted_frames(duration, rate)
    block = max(1, decoding.BLOCK_VALUES // sound.channels)
    available = min(wanted, sound.frames - start)  # beyond this, libsndfile fills arrays with zeros
    decoded, fault = 0, ""
    try:
        _seek(sound, start, block)
        while decoded < available:
            step = int(min(block, available - decoded))
            y = sound.read(step, dtype="float32", always_2d=True)
            if len(y):
                decoded += len(y)
                yield y.T
            if len(y) < step:
                break
    except soundfile.LibsndfileError as error:
        fault = error.error_string
    readable = _readable(sound, start + decoded) if fault else 0
    if sound.format == "MP3" and decoded < wanted:
        end = start + decoded
        if fault or not _mp3_is_whole(sound, path, end, declared):
            rest = RestOfMP3(path, rate, end)
            yield from rest.blocks(wanted - decoded)
            if rest.decoded:
                _judge_mp3(rest, path, start, decoded, wanted, declared)
                if fault or declared or end < sound.frames - _GUESS_SECONDS * rate:  # else the estimate was too short
                    at = (end + readable) / rate
                    notes.append(f"The file is damaged at {at:.1f} s; decoding continued after the damage.")
                return
    if fault:
        raise truncated(path, rate, start, decoded + readable, declared, fault)
    check_complete(path, rate, start, decoded, wanted, declared)


def _mp3_is_whole(sound: _Sound, path: Any, reached: int, declared: int) -> bool:
    """Return whether libsndfile has read an MP3 to its end, which was at frame `reached`.

    If the header states no length (`declared` is 0), libsndfile estimates one from the first frames and reads no
    further; with a variable bit rate, that may be a small part. The frames are then counted, unless the data ended
    shortly before the estimate.
    """
    tolerated = TOLERATED_SECONDS * sound.samplerate
    if declared:
        return declared - reached <= tolerated
    if sound.frames - tolerated <= reached < sound.frames:
        return True
    return mp3_length(path, sound.samplerate) - reached <= _GUESS_SECONDS * sound.samplerate


def _judge_mp3(rest: RestOfMP3, path: Any, start: int, decoded: int, wanted: float, declared: int) -> None:
    """Raise if a damaged MP3 is truncated, or if too much of it is missing."""
    decoded += rest.decoded
    missing = min(wanted, declared - start) - decoded
    if missing <= TOLERATED_SECONDS * rest.rate:
        return
    with opened(path) as file:
        gone = mp3_bytes_missing(file, rest.end)
    per_frame = gone[1] / declared if gone else 0.0  # bytes
    if gone is None or gone[0] > TOLERATED_SECONDS * rest.rate * per_frame or missing > _MAX_LOST * declared:
        raise truncated(path, rest.rate, start, decoded, declared, "the data ends")


def _readable(sound: _Sound, frame: int) -> int:
    """Count the frames that can be read from `frame` on after reading a whole block failed, for the message."""
    reached = sound.tell()
    if reached > frame:  # the FLAC decoder has advanced to the damage and cannot go back
        return reached - frame
    step = 1 + sound.samplerate // 20
    with contextlib.suppress(soundfile.LibsndfileError):
        reached = sound.seek(frame)
        while len(sound.read(step, dtype="float32")) == step:
            reached += step
    return max(0, reached - frame)


def _seek(sound: _Sound, frame: int, block: int) -> None:
    """Seek to `frame`, at most to the end; decode up to it if the format cannot seek."""
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
    """Return the number of frames that the header declares, 0 if it declares none or is not to be trusted."""
    if sound.format == "MP3":
        with opened(path) as file:
            if not mp3_states_length(file):  # `sound.frames` is an estimate
                return 0
    cut_down = _CUT_DOWN.search(sound.extra_info)
    if cut_down is not None:
        declared, actual = int(cut_down[1]), int(cut_down[2])
        # A program that writes to a pipe cannot fill in the length; it writes 0, 2**31, 2**32 or slightly less (sox).
        streamed = declared == 0 or 0x7FFF0000 <= declared <= 0x80000000 or 0xFFFF0000 <= declared < 2**32
        streamed = streamed or declared >= UNKNOWN_FRAMES
        if not streamed and actual > 0:
            return sound.frames * declared // actual
    cut_down = _CUT_DOWN_RF64.search(sound.extra_info)
    if cut_down is not None:
        return int(cut_down[2])
    return sound.frames if sound.frames < UNKNOWN_FRAMES else 0
