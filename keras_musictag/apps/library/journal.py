"""Fourth stage: rows on disk as they come, one JSON object per line, and what is known of those of earlier runs.

A row is one write at the end of the file. What a kill, a power cut or a full disk leaves behind of an unfinished write
is no valid line and is passed over. A file that is tagged again gets a second line; the later one counts, and `finish`
takes out the earlier one. So the journal is right at every moment, and anything else can be made from it.
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
    """Keeps a second run away from an output: a lock of the system, which ends with the process however that ends.

    Args:
        out: the output; the lock is on a hidden file beside it, which stays.

    Raises:
        LibraryError: another run has it, or the folder cannot be written.
    """

    def __init__(self, out: Path) -> None:
        """Nothing is locked yet."""
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
    """What decides whether the row of a file has to be made again."""

    sha256: str
    size: int | None
    mtime: float | None
    error_kind: str
    current: bool  # whether the row is of this run's revision


@dataclasses.dataclass(slots=True)
class Entry(Known):
    """And where the row is in the journal."""

    offset: int
    length: int


class RowStore(Protocol):
    """Where a run puts its rows: a `Journal`, or `Parts`."""

    @property
    def entries(self) -> Mapping[str, Known]:
        """Path as in `LibraryRow` -> what is known of it."""

    def append(self, row: LibraryRow) -> None:
        """Add the row of a file; it takes the place of one that is there."""

    def touch(self, path: str, size: int, mtime: float) -> None:
        """Give a row a new size and modification time, for a file whose content is the same."""

    def sync(self) -> None:
        """Secure the rows that have come."""


class Journal:
    """The rows of an output.

    Args:
        path: file, made if it is not there.
        revision: of the rows that are to come.
        fresh: delete what was written before.

    Attributes:
        entries: path as in `LibraryRow` -> what is known of it.

    Raises:
        LibraryError: the file is something else, or cannot be read or written.
    """

    def __init__(self, path: Path, revision: Revision, *, fresh: bool = False) -> None:
        """Read what was written before."""
        self.path, self._revision = path, revision
        self.entries: dict[str, Entry] = {}
        self._stale = False  # whether there are lines that do not count
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
        """Add the row of a file; it takes the place of one that is there.

        Raises:
            LibraryError: it cannot be written, e.g. because the disk is full. The rows before are all there.
        """
        line = row.to_json().encode() + b"\n"
        offset = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            if written != len(line):  # a full disk takes a part; asking it for the rest brings the reason
                self._file.write(line[written:])
                raise OSError(f"{written} of {len(line)} bytes were written")
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(offset)
            raise LibraryError(
                f"{self.path} cannot be written ({error.strerror or error}). The rows of {len(self.entries)} files are "
                "kept. Make room, then run the same again."
            ) from error
        self._enter(row, offset, len(line))

    def touch(self, path: str, size: int, mtime: float) -> None:
        """Write a row again with a new modification time, for a file whose content is the same."""
        self.append(dataclasses.replace(self.row(path), size=size, mtime=mtime))

    def sync(self) -> None:
        """Return when all rows would survive a power cut."""
        os.fsync(self._file.fileno())

    def row(self, path: str) -> LibraryRow:
        """The row of a file in `entries`."""
        return LibraryRow.from_json(self._line(self.entries[path]))

    def rows(self) -> Iterator[LibraryRow]:
        """The rows that count, in the order they were written."""
        for entry in self._ordered():
            yield LibraryRow.from_json(self._line(entry))

    def finish(self, drop: Iterable[str] = ()) -> None:
        """Leave one line per file.

        Args:
            drop: paths of rows to take out.

        Raises:
            OSError: the new file cannot be written; the old one is as it was.
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
            self._file.close()  # Windows replaces no open file
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
        """Find the lines that count. Only a crash of the machine can leave a broken one that is not the last."""
        offset = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    self._file.truncate(offset)
                    break
                try:
                    self._enter(LibraryRow.from_json(line), offset, len(line))
                except TypeError as error:
                    raise self._foreign(offset) from error
                except ValueError as error:
                    if b"\0" not in line and not self.entries:
                        raise self._foreign(offset) from error
                    self._stale = True
                offset += len(line)

    def _foreign(self, offset: int) -> LibraryError:
        return LibraryError(
            f"{self.path} holds something else than a library's rows (at byte {offset}). Choose another output."
        )

    def _enter(self, row: LibraryRow, offset: int, length: int) -> None:
        self._stale |= row.path in self.entries
        self.entries[row.path] = Entry(
            row.sha256, row.size, row.mtime, row.error_kind, self._revision.made(row), offset, length
        )

    def _reindex(self) -> None:
        self.entries, self._stale = {}, False
        self._read()


def _sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
