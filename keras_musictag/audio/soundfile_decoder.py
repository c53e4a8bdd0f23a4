"""The first decoder, libsndfile: WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, ...; with FFmpeg for the MP3 it gives up on.

See `decoding` for what a decoder is.
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

UNKNOWN_FRAMES = 2**62  # libsndfile says 2**63 - 1 of a FLAC written to a pipe

# Of an MP3, by which a length guessed from its first frames may be short without more being looked for.
_GUESS_SECONDS = 0.1
# Of an MP3 that is damaged somewhere in the middle, the share that may be missing.
_MOST_LOST = 0.1

# libsndfile cuts the length of a PCM file down to what is there; its log keeps what the header said. WAV: "data",
# AIFF: "SSND", AU: "Data Size", W64: "riff", the whole file.
_CUT_DOWN = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_CUT_DOWN_RF64 = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")


# === libsndfile ===


@contextlib.contextmanager
def soundfile_decoder(path: Any, offset: float, duration: float | None, notes: list[str]) -> Decoded:
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
            patches, end = _patches(sound, path)
            if patches or end is not None:
                sound = stack.enter_context(_Sound(_Quiet(stack.enter_context(opened(path)), patches, end)))
        except (soundfile.LibsndfileError, TypeError, ValueError) as error:
            reason = getattr(error, "error_string", "") or str(error) or repr(error)
            if "not a regular file" in reason:  # its words for an MP3 without MPEG frames; the file is there
                reason = "no sound found"
            raise DecodeFailed(reason.rstrip(".")) from error
        blocks = _soundfile_blocks(sound, path, offset, duration, notes)
        if sound.format == "MP3":
            blocks = clipped(blocks, path, sound.samplerate, frames_in(offset, sound.samplerate), notes)
        yield sound.samplerate, blocks


def _patches(sound: _Sound, path: Any) -> tuple[dict[int, bytes], int | None]:
    """What libsndfile has to see to read all of the sound, and no more: other bytes, by position, and another end."""
    if sound.frames == 0 and sound.format in ("WAV", "WAVEX"):
        with opened(path) as file:
            position = unclosed_wav(file)
        return ({} if position is None else {position: b"\xff\xff\xff\xff"}), None  # a length taken as "up to the end"
    if sound.subtype == "OPUS":
        with opened(path) as file:
            return misdated_opus(file), None
    if sound.format == "FLAC" and sound.frames >= UNKNOWN_FRAMES:  # it takes what follows for a damaged frame
        with opened(path) as file:
            return {}, end_before_tags(file)
    return {}, None


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


def _soundfile_blocks(sound: _Sound, path: Any, offset: float, duration: float | None, notes: list[str]) -> Blocks:
    rate, declared = sound.samplerate, _declared_frames(sound, path)
    start, wanted = frames_in(offset, rate), wanted_frames(duration, rate)
    block = max(1, decoding.BLOCK_VALUES // sound.channels)
    there = min(wanted, sound.frames - start)  # libsndfile gives no more, but fills the rest of an array with zeros
    decoded, fault = 0, ""
    try:
        _seek(sound, start, block)
        while decoded < there:
            step = int(min(block, there - decoded))
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
                if fault or declared or end < sound.frames - _GUESS_SECONDS * rate:  # else the guess was short
                    at = (end + readable) / rate
                    notes.append(f"The file is damaged at {at:.1f} s; decoding continued after the damage.")
                return
    if fault:
        raise truncated(path, rate, start, decoded + readable, declared, fault)
    check_complete(path, rate, start, decoded, wanted, declared)


def _mp3_is_whole(sound: _Sound, path: Any, reached: int, declared: int) -> bool:
    """Whether libsndfile has come to the end of an MP3 with frame `reached`.

    If the header states no length (`declared` is 0), it guesses one from the first frames, and reads no further. Of a
    variable bit rate that may be a small part. So the frames are counted, unless the data ended a little before that.
    """
    tolerated = TOLERATED_SECONDS * sound.samplerate
    if declared:
        return declared - reached <= tolerated
    if sound.frames - tolerated <= reached < sound.frames:
        return True
    return mp3_length(path, sound.samplerate) - reached <= _GUESS_SECONDS * sound.samplerate


def _judge_mp3(rest: RestOfMP3, path: Any, start: int, decoded: int, wanted: float, declared: int) -> None:
    """Raise where a damaged MP3 ends before it should, or where too much of it is missing."""
    decoded += rest.decoded
    missing = min(wanted, declared - start) - decoded
    if missing <= TOLERATED_SECONDS * rest.rate:
        return
    with opened(path) as file:
        gone = mp3_bytes_missing(file, rest.end)
    per_frame = gone[1] / declared if gone else 0.0  # bytes
    if gone is None or gone[0] > TOLERATED_SECONDS * rest.rate * per_frame or missing > _MOST_LOST * declared:
        raise truncated(path, rest.rate, start, decoded, declared, "the data ends")


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
