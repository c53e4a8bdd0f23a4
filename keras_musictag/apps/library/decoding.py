"""Second stage: a file in, its digest and blocks of windows out. Runs in this process or in any other."""

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
from ...tagging.base import windows_per_batch
from .listing import fault_of

HEADER = struct.Struct("<cQ")  # before a message in a pipe: `J` for JSON or `W` for windows, and bytes that follow

_CHUNK = 2**20  # bytes digested at a time


class ChangedError(AudioError):
    """A file that somebody writes to."""


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
        path: as the file system has it.
        known: sha256 of the content that a row is already there for; empty if there is none.
        replace: decode other content than that too, instead of only saying that it is other.
        file: that `path` is a part of; empty for a whole file.
        start, end: seconds of the part; an end of `None` is that of the file.
    """

    path: str
    known: str = ""
    replace: bool = True
    file: str = ""
    start: float = 0.0
    end: float | None = None


@dataclasses.dataclass(frozen=True)
class Opened:
    """First message: what the content is."""

    sha256: str
    size: int
    mtime: float


@dataclasses.dataclass(frozen=True)
class Ended:
    """Last message.

    Attributes:
        outcome: `"decoded"`, `"same"` as known, `"other"` than known and not to be replaced, or `"failed"`.
        duration_s: seconds of sound, if decoded.
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
    """Decode a file block by block; memory does not depend on its length.

    Args:
        job: the file.
        spec: front end and window policy.
        stream: what decodes, called like `audio.stream`.

    Yields:
        `Opened`, if the file can be read; float32 arrays `(windows, window_samples)`; `Ended`. Never raises for what is
        wrong with a file. Windows that came before a failure are worth nothing.
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
        yield from _decoded(path, job, opened, spec, stream)
    except Exception as error:  # whatever a decoder or a file system comes up with costs one file
        kind = next((kind for known, kind in _KINDS.items() if isinstance(error, known)), "decoder")
        if isinstance(error, AudioError):
            said = str(error)
        elif isinstance(error, OSError):
            said = f"{job.path!r} cannot be read ({error.strerror or error}). Check its permissions and the disk."
        elif isinstance(error, MemoryError):
            said = f"{job.path!r} makes its decoder ask for too much memory. Convert it, or get another copy."
        else:
            said = f"{job.path!r} makes its decoder fail ({type(error).__name__}: {error}). Get another copy."
        yield Ended("failed", error=said, kind=kind)


def _open(path: str) -> Opened:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return Opened(digest.hexdigest(), status.st_size, status.st_mtime)


def _decoded(path: str, job: Job, opened: Opened, spec: ModelSpec, stream: Stream) -> Iterator[Message]:
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
    """Raise if somebody wrote to the file meanwhile: neither sound nor fault would be that of the digest."""
    status = os.stat(path)
    if (status.st_size, status.st_mtime) != (opened.size, opened.mtime):
        raise ChangedError(f"{path!r} was written to while it was read. It will be tagged by the next run.")


def message_fields(message: Opened | Ended) -> dict[str, Any]:
    """A message without windows as a JSON object."""
    return {"is": type(message).__name__, **dataclasses.asdict(message)}


def message_from(fields: dict[str, Any]) -> Opened | Ended:
    """The inverse of `message_fields`."""
    kinds: dict[str, type[Opened] | type[Ended]] = {"Opened": Opened, "Ended": Ended}
    return kinds[fields.pop("is")](**fields)
