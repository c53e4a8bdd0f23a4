"""The undo file: what is needed to give every file that tags were written into its old bytes again.

It has a JSON object per line, added and synced to disk before a file changes: the path, size, modification time and
sha256 of the old and the new content, and the edits that make the old from the new. Only bytes that differ are kept:
tags, not sound. A line for a change that did not take place, after a kill, does no harm: its file has the old content.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import mmap
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from ...utils.files import replacing
from .library_rows import LibraryError

Edit = tuple[int, int, bytes]  # start and stop in the new content, and the old bytes for there

_CHUNK = 2**22  # bytes compared at a time
_GAP = 64  # equal bytes between two edits, below which they are one


@dataclasses.dataclass(frozen=True)
class State:
    """A file's content: size in bytes, modification time in nanoseconds, sha256."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: str) -> Self:
        """The state of a file.

        Raises:
            OSError: it cannot be read.
        """
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            return cls(status.st_size, status.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())


@dataclasses.dataclass(frozen=True)
class Entry:
    """A change of a file.

    Attributes:
        path: of the file itself, no link.
        row: path as in `LibraryRow`, empty without a table.
        before, after: its content.
        edits: what makes the old content from the new one, in order.
    """

    path: str
    row: str
    before: State
    after: State
    edits: tuple[Edit, ...]

    def to_json(self) -> str:
        """One line; all in ASCII, as a path may hold bytes that are no UTF-8."""
        packed = [
            (start, stop, base64.b64encode(zlib.compress(data)).decode("ascii")) for start, stop, data in self.edits
        ]
        return json.dumps({**dataclasses.asdict(self), "edits": packed})

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """The entry of a line.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        record: dict[str, Any] = json.loads(line)
        before, after = (State(**record.pop(name)) for name in ("before", "after"))
        edits = [(start, stop, zlib.decompress(base64.b64decode(data))) for start, stop, data in record.pop("edits")]
        return cls(**record, before=before, after=after, edits=tuple(edits))


class UndoFile:
    """An undo file.

    Args:
        path: made by the first `append`.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is read or written yet."""
        self.path = path

    def append(self, entry: Entry) -> None:
        """Add a change that is about to take place; returns when it would survive a power cut.

        Raises:
            OSError: it cannot be written, so the change must not take place.
        """
        line = entry.to_json().encode() + b"\n"
        with self.path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) != len(line):
                    raise OSError(f"{self.path} cannot be written, the disk may be full")
                os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise

    def entries(self) -> Iterator[Entry]:
        """The changes, in the order they were made.

        Raises:
            LibraryError: the file is something else, or cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    try:
                        yield Entry.from_json(line)
                    except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
                        if not line.endswith(b"\n"):  # of a run that was killed; its change did not take place
                            return
                        raise LibraryError(
                            f"{self.path} is no undo file (line {number}). Give the one that a run with --write-tags "
                            "or --write named."
                        ) from error
        except OSError as error:
            raise LibraryError(
                f"The undo file {self.path} cannot be read ({error.strerror}). Was anything written into files?"
            ) from error

    def mend(self) -> None:
        """Cut off what a killed run left of its last line."""
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            end = 0
            for line in file:
                if line.endswith(b"\n"):
                    end += len(line)
            file.truncate(end)

    def keep(self, entries: list[Entry]) -> None:
        """Leave only these changes in the file; without any, remove it."""
        if not entries:
            self.path.unlink()
            return
        with replacing(self.path) as file:
            for entry in entries:
                file.write(entry.to_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


# === Restoring ===


@dataclasses.dataclass(frozen=True)
class Undone:
    """What became of the files of an undo file.

    Attributes:
        restored: files that have their old content again.
        unchanged: files that had it already.
        refused: path -> why a file was left as it is. Its changes stay in the undo file.
    """

    restored: tuple[str, ...]
    unchanged: int
    refused: dict[str, str]

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{len(self.restored):,} files restored; {self.unchanged:,} had their old content, "
            f"{len(self.refused):,} cannot be restored."
        )


def undo(file: UndoFile, done: Callable[[Entry], None] | None = None) -> Undone:
    """Restore the files of an undo file, the last change first.

    A file whose content is neither that before nor that after a change is left as it is.

    Args:
        file: the undo file. It is removed if all files were restored.
        done: called with each change whose file has the old content now.

    Raises:
        LibraryError: the undo file cannot be read.
    """
    restored: dict[str, None] = {}
    refused: dict[str, str] = {}
    kept: list[Entry] = []
    seen: set[str] = set()
    for entry in reversed(list(file.entries())):
        seen.add(entry.path)
        if entry.path not in refused:
            try:
                if _restore(entry):
                    restored[entry.path] = None
                if done is not None:
                    done(entry)
                continue
            except OSError as error:
                refused[entry.path] = f"{error.strerror or error}"
        kept.append(entry)
    file.keep(kept[::-1])
    complete = tuple(path for path in restored if path not in refused)
    return Undone(complete, len(seen - set(complete) - set(refused)), refused)


def _restore(entry: Entry) -> bool:
    """Undo a change; returns whether there was something to do."""
    path = Path(entry.path)
    now = State.of(entry.path)
    if now.sha256 == entry.before.sha256:
        return False
    if now.sha256 != entry.after.sha256:
        raise OSError("it was changed since tags were written into it")
    with replacing(path) as new:
        with open(path, "rb") as source:
            _apply(source, entry.edits, new)
        new.flush()
        if State.of(new.name).sha256 != entry.before.sha256:
            raise OSError("the undo file does not give its old content")
        copy_attributes(entry.path, new.name)
        os.utime(new.name, ns=(entry.before.mtime_ns, entry.before.mtime_ns))
        os.fsync(new.fileno())
    return True


def copy_attributes(source: str, target: str) -> None:
    """Give a file the permissions, owner and extended attributes of another."""
    status = os.stat(source)
    shutil.copystat(source, target)
    with contextlib.suppress(OSError, AttributeError):  # Windows has no owners, and not everybody may give away
        os.chown(target, status.st_uid, status.st_gid)


# === Edits ===


def edits(new: str, old: str) -> tuple[Edit, ...]:
    """What makes the content of one file from that of another; small if they share most of it."""
    a, b = _bytes(new), _bytes(old)
    most = min(len(a), len(b))
    first = _common(a, b, most)
    last = _common(a[::-1], b[::-1], most - first)
    longer = len(a) - len(b)  # negative if the new content is the shorter one
    start, stop = first + max(longer, 0), len(a) - last
    if not longer or _count(a, b, longer, start, stop) <= _count(a, b, 0, first, min(len(a), len(b))):
        # Bytes were put in or taken out at `first`: the rest is the same, read from the ends.
        front = [(first, start, b[first : start - longer].tobytes())] if longer else []
        return (*front, *_differing(a, b, longer, start, stop))
    shared = min(len(a), len(b))  # bytes were added or cut off at the end, and a size at the beginning is another
    return (*_differing(a, b, 0, first, shared), (shared, len(a), b[shared:].tobytes()))


def _bytes(path: str) -> np.ndarray:
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:  # cannot be mapped
            return np.zeros(0, "uint8")
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), "uint8")


def _common(a: np.ndarray, b: np.ndarray, most: int) -> int:
    """How many bytes at the beginning are the same, `most` at most."""
    for start in range(0, most, _CHUNK):
        stop = min(start + _CHUNK, most)
        different = np.flatnonzero(a[start:stop] != b[start:stop])
        if len(different):
            return start + int(different[0])
    return most


def _count(a: np.ndarray, b: np.ndarray, longer: int, first: int, end: int) -> int:
    """Bytes that differ between `a[first:end]` and `b`, which is read `longer` bytes before."""
    return sum(
        int(np.count_nonzero(a[start:stop] != b[start - longer : stop - longer]))
        for start in range(first, end, _CHUNK)
        for stop in (min(start + _CHUNK, end),)
    )


def _differing(a: np.ndarray, b: np.ndarray, longer: int, first: int, end: int) -> Iterator[Edit]:
    for start in range(first, end, _CHUNK):
        stop = min(start + _CHUNK, end)
        at = np.flatnonzero(a[start:stop] != b[start - longer : stop - longer]) + start
        for run in np.split(at, np.flatnonzero(np.diff(at) > _GAP) + 1):
            if len(run):
                begin, after = int(run[0]), int(run[-1]) + 1
                yield begin, after, b[begin - longer : after - longer].tobytes()


def _apply(new: BinaryIO, changes: tuple[Edit, ...], old: BinaryIO) -> None:
    at = 0
    for start, stop, data in changes:
        _copy(new, old, start - at)
        old.write(data)
        new.seek(stop)
        at = stop
    shutil.copyfileobj(new, old)


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count > 0:
        piece = source.read(min(count, _CHUNK))
        if not piece:
            return
        target.write(piece)
        count -= len(piece)
