"""The undo file, which restores the bytes of every file that tags were written into.

It has one JSON object per line, written to disk before the file is changed: path; size, modification time and sha256 of
the old and the new content; and the edits that turn the new content into the old. Only bytes that differ are stored,
which are tags, not audio. A kill may leave a line for a change that was not made; its file has the old content.
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

Edit = tuple[int, int, bytes]  # start and stop in the new content, and the old bytes in their place

_CHUNK = 2**22  # bytes compared at a time
_GAP = 64  # two edits with fewer equal bytes between them are merged


@dataclasses.dataclass(frozen=True)
class State:
    """State of a file: size in bytes, modification time in nanoseconds, sha256 of the content."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: str) -> Self:
        """Return the state of a file.

        Raises:
            OSError: the file cannot be read.
        """
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            return cls(status.st_size, status.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())


@dataclasses.dataclass(frozen=True)
class Entry:
    """A change of a file.

    Attributes:
        path: path of the file, with links resolved.
        row: path as in `LibraryRow`; empty without a table.
        before, after: state of the file.
        edits: edits that turn the new content into the old, in order.
    """

    path: str
    row: str
    before: State
    after: State
    edits: tuple[Edit, ...]

    def to_json(self) -> str:
        """Return the entry as one line of ASCII: a path may hold bytes that are not UTF-8."""
        packed = [
            (start, stop, base64.b64encode(zlib.compress(data)).decode("ascii")) for start, stop, data in self.edits
        ]
        return json.dumps({**dataclasses.asdict(self), "edits": packed})

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Read the entry in a line.

        Raises:
            ValueError, TypeError, KeyError: the line is not an entry.
        """
        record: dict[str, Any] = json.loads(line)
        before, after = (State(**record.pop(name)) for name in ("before", "after"))
        edits = [(start, stop, zlib.decompress(base64.b64decode(data))) for start, stop, data in record.pop("edits")]
        return cls(**record, before=before, after=after, edits=tuple(edits))


class UndoFile:
    """An undo file.

    Args:
        path: path of the file, which the first `append` creates.
    """

    def __init__(self, path: Path) -> None:
        """Read and write nothing yet."""
        self.path = path

    def append(self, entry: Entry) -> None:
        """Add a change before it is made; return when the line would survive a power cut.

        Raises:
            OSError: the line cannot be written, so the change must not be made.
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
        """Yield the changes, in the order they were made.

        Raises:
            LibraryError: the file is not an undo file, or cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    try:
                        yield Entry.from_json(line)
                    except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
                        if not line.endswith(b"\n"):  # the run was killed; the change was not made
                            return
                        raise LibraryError(
                            f"{self.path} is not an undo file (line {number}). Give the one of a run with --write-tags "
                            "or --write."
                        ) from error
        except OSError as error:
            raise LibraryError(
                f"The undo file {self.path} cannot be read ({error.strerror}). Were tags written into files?"
            ) from error

    def remove_incomplete_line(self) -> None:
        """Remove an incomplete last line of a killed run."""
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            end = 0
            for line in file:
                if line.endswith(b"\n"):
                    end += len(line)
            file.truncate(end)

    def rewrite(self, entries: list[Entry]) -> None:
        """Keep only these changes in the file; without any, remove the file."""
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
    """Result of restoring files.

    Attributes:
        restored: files that were restored.
        unchanged: number of files that had their old content already.
        refused: path -> why a file could not be restored. Its changes stay in the undo file.
    """

    restored: tuple[str, ...]
    unchanged: int
    refused: dict[str, str]

    def __str__(self) -> str:
        """Return the result as one line."""
        return (
            f"{len(self.restored):,} files restored; {self.unchanged:,} had their old content, "
            f"{len(self.refused):,} cannot be restored."
        )


def undo(file: UndoFile, on_restored: Callable[[Entry], None] | None = None) -> Undone:
    """Restore the files in an undo file, the last change first.

    A file whose content is neither that before nor that after a change is not touched.

    Args:
        file: the undo file. It is removed if all files were restored.
        on_restored: called with each change that is undone.

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
                if on_restored is not None:
                    on_restored(entry)
                continue
            except OSError as error:
                refused[entry.path] = f"{error.strerror or error}"
        kept.append(entry)
    file.rewrite(kept[::-1])
    complete = tuple(path for path in restored if path not in refused)
    return Undone(complete, len(seen - set(complete) - set(refused)), refused)


def _restore(entry: Entry) -> bool:
    """Undo a change; return whether the file had to be restored."""
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
            raise OSError("the undo file does not restore its old content")
        copy_attributes(entry.path, new.name)
        os.utime(new.name, ns=(entry.before.mtime_ns, entry.before.mtime_ns))
        os.fsync(new.fileno())
    return True


def copy_attributes(source: str, target: str) -> None:
    """Copy permissions, owner and extended attributes from one file to another."""
    status = os.stat(source)
    shutil.copystat(source, target)
    with contextlib.suppress(OSError, AttributeError):  # not on Windows, and not everybody may change owners
        os.chown(target, status.st_uid, status.st_gid)


# === Edits ===


def edits(new: str, old: str) -> tuple[Edit, ...]:
    """Return edits that turn the content of `new` into that of `old`; small if they share most of it."""
    a, b = _map_bytes(new), _map_bytes(old)
    shared = min(len(a), len(b))
    first = _common_prefix(a, b, shared)
    last = _common_prefix(a[::-1], b[::-1], shared - first)
    longer = len(a) - len(b)  # negative if the new content is shorter
    start, stop = first + max(longer, 0), len(a) - last
    if not longer or _count_different(a, b, longer, start, stop) <= _count_different(a, b, 0, first, shared):
        # Bytes were inserted or removed at `first`: the rest is aligned at the end.
        front = [(first, start, b[first : start - longer].tobytes())] if longer else []
        return (*front, *_find_edits(a, b, longer, start, stop))
    # Bytes were added or removed at the end, and a size field at the beginning differs.
    return (*_find_edits(a, b, 0, first, shared), (shared, len(a), b[shared:].tobytes()))


def _map_bytes(path: str) -> np.ndarray:
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:  # an empty file cannot be mapped
            return np.zeros(0, "uint8")
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), "uint8")


def _common_prefix(a: np.ndarray, b: np.ndarray, most: int) -> int:
    """Return the number of equal bytes at the beginning, up to `most`."""
    for start in range(0, most, _CHUNK):
        stop = min(start + _CHUNK, most)
        different = np.flatnonzero(a[start:stop] != b[start:stop])
        if len(different):
            return start + int(different[0])
    return most


def _count_different(a: np.ndarray, b: np.ndarray, longer: int, first: int, end: int) -> int:
    """Return the number of bytes that differ between `a[first:end]` and `b` shifted by `longer`."""
    count = 0
    for start in range(first, end, _CHUNK):
        stop = min(start + _CHUNK, end)
        count += int(np.count_nonzero(a[start:stop] != b[start - longer : stop - longer]))
    return count


def _find_edits(a: np.ndarray, b: np.ndarray, longer: int, first: int, end: int) -> Iterator[Edit]:
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
