"""Fourth stage: write rows to disk as they come, one JSON object per line, and index the rows of earlier runs.

Each row is one write at the end of the file. A write that a kill, a power cut or a full disk interrupts leaves an
invalid line, which is ignored. A file that is tagged again gets a second line; the later one counts, and `finish`
removes the earlier one. So the journal is valid at any moment, and the other formats are made from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol, Self

from ...utils.files import replacing
from .library_rows import LibraryError, LibraryRow, Revision

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class OutputLock:
    """Lock an output against a second run; the system releases the lock when the process ends.

    Args:
        out: the output. A hidden file beside it is locked, and is not removed.

    Raises:
        LibraryError: another run holds the lock, or the folder cannot be written.
    """

    def __init__(self, out: Path) -> None:
        """Lock nothing yet."""
        self._out = out
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Lock."""
        path = self._out.with_name(f".{self._out.name}.lock")
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise LibraryError(f"{path} cannot be written ({error.strerror}). Choose another output.") from error
        try:
            if sys.platform == "win32":
                self._file.seek(0)
                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise LibraryError(
                f"Another run is writing {self._out}. Wait until it has ended, or choose another output."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock."""
        if self._file is not None:
            self._file.close()


@dataclasses.dataclass(slots=True)
class Known:
    """The fields of a row that decide whether its file has to be tagged again."""

    sha256: str
    size: int | None
    mtime: float | None
    error_kind: str
    current: bool  # whether the row matches this run's revision


@dataclasses.dataclass(slots=True)
class Entry(Known):
    """`Known`, and the position of the row in the journal."""

    offset: int
    length: int


class RowStore(Protocol):
    """Storage for the rows of a run: a `Journal`, or `Parts`."""

    @property
    def entries(self) -> Mapping[str, Known]:
        """Path as in `LibraryRow` -> what is known of it."""

    def append(self, row: LibraryRow) -> None:
        """Add or replace the row of a file."""

    def touch(self, path: str, size: int, mtime: float) -> None:
        """Update the size and modification time of a row whose file has the same content."""

    def sync(self) -> None:
        """Write the rows to disk."""


class Journal:
    """The rows of an output.

    Args:
        path: file, created if missing.
        revision: revision of the rows of this run.
        fresh: delete the existing rows.

    Attributes:
        entries: path as in `LibraryRow` -> `Entry`.

    Raises:
        LibraryError: the file is not a journal, or cannot be read or written.
    """

    def __init__(self, path: Path, revision: Revision, *, fresh: bool = False) -> None:
        """Read the existing rows."""
        self.path, self._revision = path, revision
        self.entries: dict[str, Entry] = {}
        self._stale = False  # whether there are lines to remove
        try:
            self._file = path.open("w+b" if fresh else "a+b", buffering=0)
            try:
                if not fresh:
                    self._read()
                _sync_folder(path.parent)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise LibraryError(f"{path} cannot be used ({error.strerror}). Choose another output.") from error

    def append(self, row: LibraryRow) -> None:
        """Add or replace the row of a file.

        Raises:
            LibraryError: it cannot be written, e.g. because the disk is full. All earlier rows are kept.
        """
        line = row.to_json().encode() + b"\n"
        offset = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            if written != len(line):  # a full disk takes a part; writing the rest raises the reason
                self._file.write(line[written:])
                raise OSError(f"{written} of {len(line)} bytes were written")
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(offset)
            raise LibraryError(
                f"{self.path} cannot be written ({error.strerror or error}). The rows of {len(self.entries)} files are "
                "kept. Free some space, then run the command again."
            ) from error
        self._index(row, offset, len(line))

    def touch(self, path: str, size: int, mtime: float) -> None:
        """Update the size and modification time of a row whose file has the same content."""
        self.append(dataclasses.replace(self.row(path), size=size, mtime=mtime))

    def sync(self) -> None:
        """Write all rows to disk, where they survive a power cut."""
        os.fsync(self._file.fileno())

    def row(self, path: str) -> LibraryRow:
        """Read the row of a path in `entries`."""
        return LibraryRow.from_json(self._line(self.entries[path]))

    def rows(self) -> Iterator[LibraryRow]:
        """Yield the row of each file, in the order they were written."""
        for entry in self._ordered():
            yield LibraryRow.from_json(self._line(entry))

    def finish(self, drop: Iterable[str] = ()) -> None:
        """Remove the lines that do not count.

        Args:
            drop: paths of rows to remove as well.

        Raises:
            OSError: the new file cannot be written; the old one is kept.
        """
        for path in drop:
            del self.entries[path]
            self._stale = True
        if not self._stale:
            self.sync()
            return
        with replacing(self.path) as file:
            for entry in self._ordered():
                file.write(self._line(entry))
            file.flush()
            os.fsync(file.fileno())
            self._file.close()  # Windows cannot replace an open file
        _sync_folder(self.path.parent)
        self._file = self.path.open("a+b", buffering=0)
        self._reindex()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # --- Internals ---

    def _ordered(self) -> list[Entry]:
        return sorted(self.entries.values(), key=lambda entry: entry.offset)

    def _line(self, entry: Entry) -> bytes:
        self._file.seek(entry.offset)
        return self._file.read(entry.length)

    def _read(self) -> None:
        """Index the valid lines. Only a crash of the machine can leave an invalid line that is not the last."""
        offset = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    self._file.truncate(offset)
                    break
                try:
                    self._index(LibraryRow.from_json(line), offset, len(line))
                except TypeError as error:
                    raise self._not_a_journal(offset) from error
                except ValueError as error:
                    if b"\0" not in line and not self.entries:
                        raise self._not_a_journal(offset) from error
                    self._stale = True
                offset += len(line)

    def _not_a_journal(self, offset: int) -> LibraryError:
        return LibraryError(f"{self.path} does not hold rows of a library (at byte {offset}). Choose another output.")

    def _index(self, row: LibraryRow, offset: int, length: int) -> None:
        self._stale |= row.path in self.entries
        self.entries[row.path] = Entry(
            row.sha256, row.size, row.mtime, row.error_kind, self._revision.matches(row), offset, length
        )

    def _reindex(self) -> None:
        self.entries, self._stale = {}, False
        self._read()


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk, if the system supports it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
