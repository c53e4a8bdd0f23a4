"""Last stage: write rows as CSV or Parquet, as a complete file or not at all."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import importlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import MissingExtraError
from ...utils.files import replacing
from .library_rows import COLUMNS, LibraryError, LibraryRow

SUFFIXES = (".jsonl", ".csv", ".parquet")

_ROWS_PER_GROUP = 5_000  # rows in memory at a time


def check(out: Path) -> None:
    """Check before the work that an output can be written.

    Raises:
        LibraryError: the name has another ending, or the folder does not exist or is read-only.
        MissingExtraError: pyarrow is not installed (for Parquet).
    """
    if out.suffix not in SUFFIXES:
        raise LibraryError(f"The output must end in .jsonl, .csv or .parquet; got {str(out)!r}.")
    if not out.parent.is_dir():
        raise LibraryError(f"The folder {str(out.parent)!r} of the output does not exist. Create it first.")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        why = "is a folder" if out.is_dir() else "is in a read-only folder"
        raise LibraryError(f"The output {str(out)!r} {why}. Choose another.")
    if out.suffix == ".parquet":
        try:
            importlib.import_module("pyarrow")
        except ImportError as error:
            raise MissingExtraError("pyarrow", "parquet", "Writing Parquet") from error


def journal_path(out: Path) -> Path:
    """Return the path of the journal of an output; a `.jsonl` output is its own journal."""
    return out if out.suffix == ".jsonl" else out.with_name(f"{out.name}.rows.jsonl")


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that killed runs left beside a file; the file must be locked."""
    unfinished = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}\.part")  # as named by `files.replacing`
    for name in os.listdir(path.parent):
        if unfinished.fullmatch(name):
            with contextlib.suppress(OSError):
                path.with_name(name).unlink()


def write(rows: Iterable[LibraryRow], out: Path) -> None:
    """Write or replace a CSV or Parquet file.

    Args:
        rows: all rows; few are in memory at a time.
        out: file. CSV has `tags` and `embedding` as JSON; Parquet as map and list.

    Raises:
        OSError: the file cannot be written; the old one is kept.
    """
    with replacing(out) as file:
        (_write_csv if out.suffix == ".csv" else _write_parquet)(rows, file)
        file.flush()
        os.fsync(file.fileno())


def _write_csv(rows: Iterable[LibraryRow], file: BinaryIO) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in COLUMNS])
    text.detach()  # flushes, and leaves the file open


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _write_parquet(rows: Iterable[LibraryRow], file: BinaryIO) -> None:
    pa: Any = importlib.import_module("pyarrow")
    pq: Any = importlib.import_module("pyarrow.parquet")

    kinds = {
        "size": pa.int64(),
        "mtime": pa.float64(),
        "duration_s": pa.float64(),
        "start_s": pa.float64(),
        "tags": pa.map_(pa.string(), pa.float32()),
        "embedding": pa.list_(pa.float32()),
        "tagged_at": pa.timestamp("s", tz="UTC"),
    }
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    rows = iter(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(itertools.islice(rows, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist([_record(row) for row in group], schema=schema))


def _record(row: LibraryRow) -> dict[str, Any]:
    return {
        **dataclasses.asdict(row),
        "tags": None if row.tags is None else list(row.tags.items()),
        "tagged_at": datetime.datetime.fromisoformat(row.tagged_at),
    }
