"""Import rows from other tables for files with the same content, so that two machines need not both analyse them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...errors import MissingExtraError
from .cue_and_chapters import file_of
from .library_rows import LibraryError, LibraryRow, Revision, readable
from .listing import Listed


class ImportedRows:
    """Find rows of other tables by content.

    Args:
        tables: `.parquet` or `.jsonl` files that `tag_library` wrote.
        revision: model and settings; other rows are ignored, and so are errors.

    Raises:
        LibraryError: a table cannot be read, or has no row of this revision.
        MissingExtraError: a table is Parquet and pyarrow is not installed.
    """

    def __init__(self, tables: Iterable[str | os.PathLike[str]], revision: Revision) -> None:
        """Read the tables."""
        self._rows: dict[tuple[str, str], LibraryRow] = {}
        self._sizes: set[int | None] = set()
        for table in tables:
            rows = [row for row in _read(Path(table)) if not row.error and row.sha256 and revision.matches(row)]
            if not rows:
                raise LibraryError(
                    f"{os.fspath(table)!r} has no rows of {revision.model} ({revision.weights_sha256[:12]}), tags "
                    f"{revision.tags_kept}, {'with' if revision.embeddings else 'without'} embeddings. Use the model "
                    "and the settings that made it, or leave it out."
                )
            for row in rows:
                self._rows[row.sha256, _segment_suffix(row.path) if row.start_s is not None else ""] = row
                self._sizes.add(row.size)

    def row(self, listed: Listed) -> LibraryRow | None:
        """Return the row of a file, with its path here, or `None`. Only files of a size in the tables are read."""
        try:
            status = os.stat(listed.file)
            if status.st_size not in self._sizes:
                return None
            with open(listed.file, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None  # reported when the file is tagged
        row = self._rows.get((digest, "" if listed.segment is None else _segment_suffix(listed.path)))
        if row is None:
            return None
        title = "" if listed.segment is None else listed.segment.title
        start = None if listed.segment is None else listed.segment.start
        return dataclasses.replace(
            row, path=readable(listed.path), size=status.st_size, mtime=status.st_mtime, title=title, start_s=start
        )


def _segment_suffix(path: str) -> str:
    return path[len(file_of(path)) :]


def _read(table: Path) -> Iterator[LibraryRow]:
    if table.suffix not in (".parquet", ".jsonl"):
        raise LibraryError(f"Rows can be imported from .parquet and .jsonl; got {str(table)!r}.")
    try:
        yield from (_parquet if table.suffix == ".parquet" else _jsonl)(table)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LibraryError(f"{str(table)!r} was not written by tag_library ({error}).") from error


def _jsonl(table: Path) -> Iterator[LibraryRow]:
    with table.open("rb") as file:
        yield from map(LibraryRow.from_json, file)


def _parquet(table: Path) -> Iterator[LibraryRow]:
    try:
        pq: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "Reading Parquet") from error
    for batch in pq.ParquetFile(table).iter_batches():
        for record in batch.to_pylist():
            if record["tags"] is not None:  # float32; the journal has six digits
                record["tags"] = {tag: round(p, 6) for tag, p in record["tags"]}
            if record["embedding"] is not None:
                record["embedding"] = [float(f"{value:.6g}") for value in record["embedding"]]
            yield LibraryRow(**{**record, "tagged_at": record["tagged_at"].isoformat(timespec="seconds")})
