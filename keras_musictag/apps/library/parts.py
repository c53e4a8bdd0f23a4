"""Rows as a folder of Parquet files, its parts, here or elsewhere; the counterpart of `journal` for a run on a cluster.

Only the process that drives the run writes. Rows are collected into a part, which is written again, under a temporary
name and then renamed, every half minute until it is full; so a part is never half written, and a kill costs at most
half a minute's rows. Of two rows of one file the one in the later part counts; `finish` takes out the earlier one.
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

_ROWS = 5_000  # rows of a part, all of which are in memory while it grows
_SECONDS = 30.0  # between two writes

_NAME = re.compile(r"part-(\d{5})-[0-9a-f]{8}-\d{5}\.parquet")  # number of the run, its random name, number of the part
_UNFINISHED = re.compile(r"\.part-.*\.parquet\.[0-9a-f]{32}\.part")  # as `files.replacing` calls it

# What says whether a row has to be made again.
_ABOUT = ("path", "sha256", "size", "mtime", "model", "weights_sha256", "spec_digest", "tags_kept", "error_kind")


@dataclasses.dataclass(slots=True)
class Entry(Known):
    """And which part the row is in."""

    part: str


class Parts:
    """The rows of an output.

    Args:
        out: folder or its URL, made if it is not there.
        revision: of the rows that are to come.
        fresh: delete what was written before.

    Attributes:
        entries: path as in `LibraryRow` -> what is known of it.

    Raises:
        LibraryError: the folder holds something else, or cannot be read or written.
        MissingExtraError: fsspec or pyarrow is not installed.
    """

    def __init__(self, out: str, revision: Revision, *, fresh: bool = False) -> None:
        """Read what was written before."""
        try:
            self._parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise MissingExtraError("pyarrow", "ray", "Writing Parquet") from error
        self._out, self._revision = out, revision
        self._filesystem, self._root = open_url(out)
        self.entries: dict[str, Entry] = {}
        self._stale: set[str] = set()  # parts with rows that do not count as they are there
        self._rows: list[LibraryRow] = []  # of the part that grows
        self._written, self._when = 0, time.monotonic()  # how many of them are in the file, and since when
        names = self._swept(fresh)
        for name in names:
            self._read(name)
        run = max((int(name[5:10]) for name in names), default=0) + 1
        self._run, self._number = f"part-{run:05d}-{uuid.uuid4().hex[:8]}", 0

    def append(self, row: LibraryRow) -> None:
        """Add the row of a file; it takes the place of one that is there."""
        self._rows.append(row)
        self._enter(row, self._growing)

    def touch(self, path: str, size: int, mtime: float) -> None:
        """Give a row a new size and modification time, for a file whose content is the same."""
        entry = self.entries[path]
        entry.size, entry.mtime = size, mtime
        self._stale.add(entry.part)

    def sync(self) -> None:
        """Write the rows that have come, if it is time to.

        Raises:
            LibraryError: they cannot be written.
        """
        if len(self._rows) >= _ROWS or time.monotonic() - self._when >= _SECONDS:
            self._flush()

    def finish(self, drop: Iterable[str] = ()) -> None:
        """Write all rows, and leave one per file.

        Args:
            drop: paths of rows to take out.

        Raises:
            LibraryError: something cannot be written; the rows that were there are there.
        """
        self._flush()
        for path in drop:
            self._stale.add(self.entries.pop(path).part)
        for name in sorted(self._stale):
            rows = list(self._counting(name))
            if rows:
                self._write(rows, name)
            else:
                with self._explained(name):
                    self._filesystem.rm_file(self._path(name))
        self._stale = set()

    # --- Internals ---

    @property
    def _growing(self) -> str:
        return f"{self._run}-{self._number:05d}.parquet"

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _swept(self, fresh: bool) -> list[str]:
        """Names of the parts, in their order; what killed runs left of unfinished ones is removed."""
        with self._explained(self._out):
            self._filesystem.makedirs(self._root, exist_ok=True)
            self._filesystem.invalidate_cache()
            names = sorted(os.path.basename(path) for path in self._filesystem.ls(self._root, detail=False))
        parts = [name for name in names if _NAME.fullmatch(name)]
        foreign = [name for name in names if name.endswith(".parquet") and name not in parts]
        if foreign:
            raise LibraryError(f"{self._out} holds {foreign[0]}, which is no part of a library. Choose another output.")
        for name in names:
            if _UNFINISHED.fullmatch(name) or (fresh and name in parts):
                with self._explained(name):
                    self._filesystem.rm_file(self._path(name))
        return [] if fresh else parts

    def _read(self, name: str) -> None:
        """Enter the rows of a part."""
        try:
            with self._filesystem.open(self._path(name), "rb") as file:
                for batch in self._parquet.ParquetFile(file).iter_batches(columns=[*_ABOUT, "error", "embedding"]):
                    embedded = batch.column("embedding").is_valid().to_pylist()
                    records = batch.select([*_ABOUT, "error"]).to_pylist()
                    for record, has in zip(records, embedded, strict=True):
                        self._enter(LibraryRow(**record, embedding=[] if has else None, tagged_at=""), name)
        except Exception as error:  # Arrow and each storage have errors of their own
            raise LibraryError(
                f"{name} in {self._out} cannot be read ({type(error).__name__}: {error}). If it is damaged, remove it; "
                "its files will be tagged again."
            ) from error

    def _counting(self, name: str) -> Iterator[LibraryRow]:
        """The rows of a part that count, as they are to be."""
        with self._explained(name), self._filesystem.open(self._path(name), "rb") as file:
            records = self._parquet.read_table(file).to_pylist()
        for record in records:
            entry = self.entries.get(record["path"])
            if entry is not None and entry.part == name:
                tags = None if record["tags"] is None else dict(record["tags"])
                tagged_at = record["tagged_at"].isoformat(timespec="seconds")
                about = {"tags": tags, "tagged_at": tagged_at, "size": entry.size, "mtime": entry.mtime}
                yield LibraryRow(**{**record, **about})

    def _enter(self, row: LibraryRow, name: str) -> None:
        before = self.entries.get(row.path)
        if before is not None:
            self._stale.add(before.part)
        made = self._revision.made(row)
        self.entries[row.path] = Entry(row.sha256, row.size, row.mtime, row.error_kind, made, name)

    def _flush(self) -> None:
        if self._written < len(self._rows):
            self._write(self._rows, self._growing)
            self._written = len(self._rows)
        self._when = time.monotonic()
        if len(self._rows) >= _ROWS:
            self._rows, self._written, self._number = [], 0, self._number + 1

    def _write(self, rows: list[LibraryRow], name: str) -> None:
        with self._explained(name):
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
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each storage has errors of its own
            raise LibraryError(
                f"{name} cannot be written or read in {self._out} ({type(error).__name__}: {error}). The parts that "
                "are there are kept. Check permissions and room, then run the same again."
            ) from error
