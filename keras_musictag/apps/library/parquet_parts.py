"""Store rows in a folder of Parquet files (parts), local or remote; used in place of `journal` on a cluster.

Only the process that drives the run writes. Rows are collected into a part, which is rewritten every half minute until
it is full, under a temporary name that is then changed. So a part is always complete, and a kill loses at most the rows
of half a minute. Of two rows of a file, the one in the later part counts; `finish` removes the earlier one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...errors import MissingExtraError
from . import output
from .journal import Known
from .library_rows import LibraryError, LibraryRow, Revision
from .storage import is_url, open_url

_ROWS = 5_000  # rows of a full part; they are in memory until then
_SECONDS = 30.0  # seconds between two writes

_NAME = re.compile(r"part-(\d{5})-[0-9a-f]{8}-\d{5}\.parquet")  # number of the run, its random name, number of the part
_UNFINISHED = re.compile(r"\.part-.*\.parquet\.[0-9a-f]{32}\.part")  # as named by `files.replacing`

# Columns that decide whether a file has to be tagged again.
_INDEXED = ("path", "sha256", "size", "mtime", "model", "weights_sha256", "spec_digest", "tags_kept", "error_kind")


@dataclasses.dataclass(slots=True)
class Entry(Known):
    """`Known`, and the part that holds the row."""

    part: str


class Parts:
    """The rows of an output.

    Args:
        out: folder or its URL, created if missing.
        revision: revision of the rows of this run.
        fresh: delete the existing rows.

    Attributes:
        entries: path as in `LibraryRow` -> `Entry`.

    Raises:
        LibraryError: the folder holds other Parquet files, or cannot be read or written.
        MissingExtraError: fsspec or pyarrow is not installed.
    """

    def __init__(self, out: str, revision: Revision, *, fresh: bool = False) -> None:
        """Read the existing rows."""
        try:
            self._parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise MissingExtraError("pyarrow", "ray", "Writing Parquet") from error
        self._out, self._revision = out, revision
        self._filesystem, self._root = open_url(out)
        self.entries: dict[str, Entry] = {}
        self._stale: set[str] = set()  # parts with rows to remove or update
        self._rows: list[LibraryRow] = []  # of the current part
        self._written, self._last_write = 0, time.monotonic()  # how many of them are written, and when
        names = self._list_parts(fresh)
        for name in names:
            self._read(name)
        run = max((int(name[5:10]) for name in names), default=0) + 1
        self._run, self._number = f"part-{run:05d}-{uuid.uuid4().hex[:8]}", 0

    def append(self, row: LibraryRow) -> None:
        """Add or replace the row of a file."""
        self._rows.append(row)
        self._index(row, self._current_part)

    def touch(self, path: str, size: int, mtime: float) -> None:
        """Update the size and modification time of a row whose file has the same content."""
        entry = self.entries[path]
        entry.size, entry.mtime = size, mtime
        self._stale.add(entry.part)

    def sync(self) -> None:
        """Write the new rows, if the part is full or half a minute has passed.

        Raises:
            LibraryError: they cannot be written.
        """
        if len(self._rows) >= _ROWS or time.monotonic() - self._last_write >= _SECONDS:
            self._flush()

    def finish(self, drop: Iterable[str] = ()) -> None:
        """Write all rows, and remove those that do not count.

        Args:
            drop: paths of rows to remove as well.

        Raises:
            LibraryError: a part cannot be written; the existing rows are kept.
        """
        self._flush()
        for path in drop:
            self._stale.add(self.entries.pop(path).part)
        for name in sorted(self._stale):
            rows = list(self._current_rows(name))
            if rows:
                self._write(rows, name)
            else:
                with self._library_errors(name):
                    self._filesystem.rm_file(self._path(name))
        self._stale = set()

    # --- Internals ---

    @property
    def _current_part(self) -> str:
        return f"{self._run}-{self._number:05d}.parquet"

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _list_parts(self, fresh: bool) -> list[str]:
        """Return the names of the parts in order; remove temporary files of killed runs."""
        with self._library_errors(self._out):
            self._filesystem.makedirs(self._root, exist_ok=True)
            self._filesystem.invalidate_cache()
            names = sorted(os.path.basename(path) for path in self._filesystem.ls(self._root, detail=False))
        parts = [name for name in names if _NAME.fullmatch(name)]
        foreign = [name for name in names if name.endswith(".parquet") and name not in parts]
        if foreign:
            raise LibraryError(f"{self._out} holds {foreign[0]}, which is no part of a library. Choose another output.")
        for name in names:
            if _UNFINISHED.fullmatch(name) or (fresh and name in parts):
                with self._library_errors(name):
                    self._filesystem.rm_file(self._path(name))
        return [] if fresh else parts

    def _read(self, name: str) -> None:
        """Index the rows of a part."""
        try:
            with self._filesystem.open(self._path(name), "rb") as file:
                for batch in self._parquet.ParquetFile(file).iter_batches(columns=[*_INDEXED, "error", "embedding"]):
                    embedded = batch.column("embedding").is_valid().to_pylist()
                    records = batch.select([*_INDEXED, "error"]).to_pylist()
                    for record, has_it in zip(records, embedded, strict=True):
                        self._index(LibraryRow(**record, embedding=[] if has_it else None, tagged_at=""), name)
        except Exception as error:  # Arrow and each file system raise their own
            raise LibraryError(
                f"{name} in {self._out} cannot be read ({type(error).__name__}: {error}). If it is damaged, remove it; "
                "its files are then tagged again."
            ) from error

    def _current_rows(self, name: str) -> Iterator[LibraryRow]:
        """Yield the rows of a part that count, with their current size and modification time."""
        with self._library_errors(name), self._filesystem.open(self._path(name), "rb") as file:
            records = self._parquet.read_table(file).to_pylist()
        for record in records:
            entry = self.entries.get(record["path"])
            if entry is not None and entry.part == name:
                tags = None if record["tags"] is None else dict(record["tags"])
                tagged_at = record["tagged_at"].isoformat(timespec="seconds")
                about = {"tags": tags, "tagged_at": tagged_at, "size": entry.size, "mtime": entry.mtime}
                yield LibraryRow(**{**record, **about})

    def _index(self, row: LibraryRow, name: str) -> None:
        before = self.entries.get(row.path)
        if before is not None:
            self._stale.add(before.part)
        current = self._revision.matches(row)
        self.entries[row.path] = Entry(row.sha256, row.size, row.mtime, row.error_kind, current, name)

    def _flush(self) -> None:
        if self._written < len(self._rows):
            self._write(self._rows, self._current_part)
            self._written = len(self._rows)
        self._last_write = time.monotonic()
        if len(self._rows) >= _ROWS:
            self._rows, self._written, self._number = [], 0, self._number + 1

    def _write(self, rows: list[LibraryRow], name: str) -> None:
        with self._library_errors(name):
            if not is_url(self._out):
                output.write(rows, Path(self._path(name)))
                return
            with tempfile.TemporaryDirectory() as folder:
                here = Path(folder, name)
                output.write(rows, here)
                temporary = self._path(f".{name}.{uuid.uuid4().hex}.part")
                self._filesystem.put_file(str(here), temporary)
            self._filesystem.mv(temporary, self._path(name))

    @contextlib.contextmanager
    def _library_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each file system raises its own
            raise LibraryError(
                f"{name} cannot be written or read in {self._out} ({type(error).__name__}: {error}). Existing parts "
                "are kept. Check permissions and free space, then run the command again."
            ) from error
