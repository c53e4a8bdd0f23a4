"""Last stage: rows as CSV or Parquet, complete or not at all."""

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

_GROUP = 5_000  # rows in memory at a time


def check(out: Path) -> None:
    """Find out before the work, not after it, that an output cannot be written.

    Raises:
        LibraryError: its name has another ending, or it cannot be where it is to be.
        MissingExtraError: Parquet is wanted and pyarrow is not installed.
    """
    if out.suffix not in SUFFIXES:
        raise LibraryError(f"The output must end in .jsonl, .csv or .parquet; got {str(out)!r}.")
    if not out.parent.is_dir():
        raise LibraryError(f"There is no folder {str(out.parent)!r} for the output. Make it first.")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        why = "is a folder" if out.is_dir() else "is in a folder that cannot be written"
        raise LibraryError(f"The output {str(out)!r} {why}. Choose another.")
    if out.suffix == ".parquet":
        try:
            importlib.import_module("pyarrow")
        except ImportError as error:
            raise MissingExtraError("pyarrow", "parquet", "Writing Parquet") from error


def journal_path(out: Path) -> Path:
    """Where the rows of an output are kept while they come: the output itself, if that has a row per line."""
    return out if out.suffix == ".jsonl" else out.with_name(f"{out.name}.rows.jsonl")


def sweep(path: Path) -> None:
    """Remove what killed runs have left of a file that they were writing to replace it; only under its lock."""
    unfinished = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}\.part")  # as `files.replacing` calls it
    for name in os.listdir(path.parent):
        if unfinished.fullmatch(name):
            with contextlib.suppress(OSError):
                path.with_name(name).unlink()


def write(rows: Iterable[LibraryRow], out: Path) -> None:
    """Write or replace a CSV or Parquet file.

    Args:
        rows: all of them; few are in memory at a time.
        out: file. CSV has `tags` and `embedding` as JSON; Parquet as map and list.

    Raises:
        OSError: it cannot be written; the old one is as it was.
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
        while group := list(itertools.islice(rows, _GROUP)):
            writer.write_table(pa.Table.from_pylist([_record(row) for row in group], schema=schema))


def _record(row: LibraryRow) -> dict[str, Any]:
    return {
        **dataclasses.asdict(row),
        "tags": None if row.tags is None else list(row.tags.items()),
        "tagged_at": datetime.datetime.fromisoformat(row.tagged_at),
    }
