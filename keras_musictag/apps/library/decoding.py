"""Second stage: read a file, and yield its digest and blocks of windows. Runs in this process or in another one."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...audio import reading as audio
from ...errors import (
    AudioError,
    AudioNotFoundError,
    AudioTooShortError,
    InvalidSamplesError,
    SilentAudioError,
    TruncatedAudioError,
    UnsupportedAudioError,
)
from ...models import windows
from ...models.spec import ModelSpec
from ...tagging.base_tagger import windows_per_batch
from .listing import fault_of

HEADER = struct.Struct("<cQ")  # before each message in a pipe: `J` (JSON) or `W` (windows), number of bytes

_CHUNK = 2**20  # bytes digested at a time


class ChangedError(AudioError):
    """A file was written to while it was read."""


_KINDS: dict[type[Exception], str] = {
    ChangedError: "changed",
    AudioNotFoundError: "unreadable",
    AudioTooShortError: "too short",
    InvalidSamplesError: "invalid samples",
    SilentAudioError: "silent",
    TruncatedAudioError: "truncated",
    UnsupportedAudioError: "unsupported",
    MemoryError: "memory",
    OSError: "unreadable",
}

Stream = Callable[..., Iterator[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Job:
    """A file to decode.

    Attributes:
        path: path on disk; of a part of a file, as in `Segment.path`.
        known: sha256 of the content that already has a row; empty if there is none.
        replace: decode the file if its content is not `known`, instead of only reporting it.
        file: the file that `path` is a part of; empty for a whole file.
        start, end: seconds of the part; `None` is the end of the file.
    """

    path: str
    known: str = ""
    replace: bool = True
    file: str = ""
    start: float = 0.0
    end: float | None = None


@dataclasses.dataclass(frozen=True)
class Opened:
    """First message: identity of the content."""

    sha256: str
    size: int
    mtime: float


@dataclasses.dataclass(frozen=True)
class Ended:
    """Last message.

    Attributes:
        outcome: `"decoded"`; `"same"`: content is `known`; `"other"`: content is not `known`, and `replace` is not
            set; or `"failed"`.
        duration_s: seconds of audio, if decoded.
        error, kind: as in `LibraryRow`, if failed.
        notes: as in `LibraryRow`, if decoded.
    """

    outcome: str
    duration_s: float | None = None
    error: str = ""
    kind: str = ""
    notes: str = ""


Message = Opened | Ended | np.ndarray


def decode(job: Job, spec: ModelSpec, stream: Stream = audio.stream) -> Iterator[Message]:
    """Decode a file block by block; memory use does not depend on its length.

    Args:
        job: the file.
        spec: front end and window policy.
        stream: function that decodes, with the arguments of `audio.stream`.

    Yields:
        `Opened`, if the file can be read; float32 arrays `(windows, window_samples)`; `Ended`. Errors of a file are not
        raised but reported in `Ended`; the windows of a file that failed must be discarded.
    """
    try:
        path = job.file or job.path
        fault = fault_of(path)
        if fault is not None:
            yield Ended("failed", error=fault[0], kind=fault[1])
            return
        opened = _open(path)
        yield opened
        if job.known and (opened.sha256 == job.known or not job.replace):
            yield Ended("same" if opened.sha256 == job.known else "other")
            return
        yield from _decode_windows(path, job, opened, spec, stream)
    except Exception as error:  # of any decoder or file system: only this file fails
        kind = next((kind for known, kind in _KINDS.items() if isinstance(error, known)), "decoder")
        if isinstance(error, AudioError):
            reason = str(error)
        elif isinstance(error, OSError):
            reason = f"{job.path!r} cannot be read ({error.strerror or error}). Check its permissions and the disk."
        elif isinstance(error, MemoryError):
            reason = f"{job.path!r} makes its decoder ask for too much memory. Convert it, or get another copy."
        else:
            reason = f"{job.path!r} makes its decoder fail ({type(error).__name__}: {error}). Get another copy."
        yield Ended("failed", error=reason, kind=kind)


def _open(path: str) -> Opened:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return Opened(digest.hexdigest(), status.st_size, status.st_mtime)


def _decode_windows(path: str, job: Job, opened: Opened, spec: ModelSpec, stream: Stream) -> Iterator[Message]:
    samples = 0
    notes: list[str] = []
    options: dict[str, Any] = {"target_sr": spec.audio.sr, "resampler": spec.audio.resampler, "notes": notes}
    if job.file:
        options |= {"offset": job.start, "duration": None if job.end is None else job.end - job.start}

    def counted() -> Iterator[np.ndarray]:
        nonlocal samples
        for block in stream(path, **options):
            samples += len(block)
            yield block

    try:
        for batch in windows.cut(counted(), spec, batch_size=windows_per_batch(spec), name=audio.describe(path)):
            yield batch.samples
    except Exception:
        _check_unchanged(path, opened)
        raise
    _check_unchanged(path, opened)
    yield Ended("decoded", duration_s=round(samples / spec.audio.sr, 3), notes=" ".join(notes))


def _check_unchanged(path: str, opened: Opened) -> None:
    """Raise if the file was written to meanwhile: then the digest does not belong to the audio or the error."""
    status = os.stat(path)
    if (status.st_size, status.st_mtime) != (opened.size, opened.mtime):
        raise ChangedError(f"{path!r} was written to while it was read. It will be tagged by the next run.")


def message_fields(message: Opened | Ended) -> dict[str, Any]:
    """Convert a message without windows to a JSON object."""
    return {"is": type(message).__name__, **dataclasses.asdict(message)}


def message_from(fields: dict[str, Any]) -> Opened | Ended:
    """Convert a JSON object back to a message; the inverse of `message_fields`."""
    kinds: dict[str, type[Opened] | type[Ended]] = {"Opened": Opened, "Ended": Ended}
    return kinds[fields.pop("is")](**fields)
