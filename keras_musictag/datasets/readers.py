"""Read tables of labelled audio files into rows and tags.

Each reader turns its format into records (column name -> cell), which `_table` converts to rows. All lines that cannot
be read are reported in one error. `Manifest.from_csv`, `from_jsonl` and `from_parquet` describe the formats.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from ..errors import MissingExtraError
from .cells import is_blank, number_of, text_of
from .rows import SPLITS, DataError, Row, Table

Record = tuple[str, Mapping[str, Any]]  # file and line, and column -> cell
_Path = str | os.PathLike[str] | None

# Field -> possible names of its column; the first one present is used.
COLUMNS = {
    "file": ("file", "path", "filename", "filepath", "audio"),
    "start": ("start", "offset"),
    "duration": ("duration",),
    "split": ("split", "subset"),
    "tags": ("tags", "tag", "labels", "label"),
    "targets": ("targets",),
    "group": ("group", "artist", "album"),
    "source": ("source",),
    "licence": ("licence", "license"),
}
RESERVED = {name for names in COLUMNS.values() for name in names}
TAG_PREFIX = "tag:"  # marks the column of a tag whose name is reserved
TAG_SEPARATOR = "|"

SPLIT_NAMES = {
    "": "",
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_SHOWN = 20  # problems listed in a message

_KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def kind_of(path: Path) -> str:
    """Return the format of a table, `"csv"`, `"jsonl"` or `"parquet"`, from the suffix of its file.

    Raises:
        DataError: the suffix is unknown.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise DataError(
            f"A manifest must be a folder of folders or a file that ends in {', '.join(_KINDS)}; got {str(path)!r}. "
            "Save it as one of these (a spreadsheet: as CSV UTF-8), or call the from_ method of its format."
        )
    return kind


# === CSV ===


def read_csv(path: Path, *, tags: Sequence[str] | None, root: _Path, encoding: str, untagged: bool) -> Table:
    """Implement `Manifest.from_csv`."""
    text = decode_text(path, encoding)
    first, _, rest = text.partition("\n")
    first, skipped = first.rstrip("\r"), 0
    if first.lower().startswith("sep=") and len(first) == 5:  # written by Excel
        delimiter, text, skipped = first[4], rest, 1
    else:
        delimiter = _delimiter(first, path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        records = list(_csv_records(reader, columns, path, skipped))
    except csv.Error as error:
        raise DataError(
            f"{path} line {reader.line_num + skipped} is malformed: {error}. A common cause is a quotation mark that "
            "is not closed; inside a quoted cell, write it twice."
        ) from error
    return _table(path, columns, records, tags, root, untagged, decimal_comma=delimiter != ",")


def decode_text(path: Path, encoding: str) -> str:
    """Read and decode a text file.

    Raises:
        DataError: the file cannot be read or decoded; the message names the line and suggests an encoding.
    """
    data = _read(path)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") and encoding == "utf-8-sig":
        encoding = "utf-16"  # a byte order mark, as in Excel's "Unicode text"
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise DataError(f"There is no encoding {encoding!r}. Try 'utf-8', 'cp1252' or 'utf-16'.") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        # These bytes are undefined in cp1252; every byte is defined in ISO Latin-1.
        guess = "latin-1" if set(data) & {0x81, 0x8D, 0x8F, 0x90, 0x9D} else "cp1252"
        wanted = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise DataError(
            f"{path} line {line} is not {wanted}: byte 0x{data[error.start]:02x}. Save the file as UTF-8 (Excel: CSV "
            f"UTF-8), or try encoding={guess!r}."
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"{path} line {line} has a zero byte, so it is not text. If it is UTF-16, pass encoding='utf-16'."
        )
    return text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path} cannot be read ({reason}). Check the path and the permissions.") from error


def _delimiter(header: str, path: Path) -> str:
    """Detect the separator: the one that gives the most columns and a column for the file in the header."""
    best = ("", 0)
    for delimiter in ("\t", ";", ",") if path.suffix.lower() == ".tsv" else (",", ";", "\t"):
        try:
            cells = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:
            continue
        if len(cells) > best[1] and {cell.strip().lower() for cell in cells} & set(COLUMNS["file"]):
            best = (delimiter, len(cells))
    if not best[1]:
        raise DataError(
            f"{path} has no column for the file: its first line is {header.strip()[:200]!r}. The first line must name "
            "the columns, separated by commas, semicolons or tabs, e.g. file,tags."
        )
    return best[0]


def _csv_records(reader: Any, columns: list[str], path: Path, skipped: int) -> Iterator[Record]:
    problems = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path.name}:{reader.line_num + skipped}"
        if len(cells) != len(columns):
            problems.append(f"{where}: {len(cells)} cells for {len(columns)} columns")
            continue
        yield where, dict(zip(columns, cells, strict=True))
    _raise(path, problems)


# === JSON lines and Parquet ===


def read_jsonl(path: Path, *, tags: Sequence[str] | None, root: _Path, untagged: bool) -> Table:
    """Implement `Manifest.from_jsonl`."""
    text = decode_text(path, "utf-8-sig")
    records: list[Record] = []
    problems = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"{where}: not JSON ({error})")
            continue
        if not isinstance(record, dict):
            problems.append(f"{where}: a JSON object is expected, not {type(record).__name__}")
        elif not records and set(record) == {"tags"}:  # the first line, which states the order of the tags
            if tags is None and not untagged:
                tags = record["tags"]
        else:
            records.append((where, record))
            columns.update(dict.fromkeys(record))
    _raise(path, problems)
    if not records and tags is None and not untagged:
        raise DataError(
            f'{path} is empty. Write a line for each audio file, e.g. {{"file": "a.wav", "tags": ["rock"]}}.'
        )
    return _table(path, list(columns), records, tags, root, untagged)


def read_parquet(path: Path, *, tags: Sequence[str] | None, root: _Path, untagged: bool) -> Table:
    """Implement `Manifest.from_parquet`."""
    try:
        arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "Reading Parquet files") from error
    data = _read(path)
    try:
        table = parquet.read_table(io.BytesIO(data))
    except (arrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: {error}. Write it again.") from error
    records = [(f"{path.name} row {number}", record) for number, record in enumerate(table.to_pylist())]
    return _table(path, list(table.column_names), records, tags, root, untagged)


# === Records -> rows ===


def _table(
    path: Path,
    columns: list[str],
    records: Iterable[Record],
    tags: Sequence[str] | None,
    root: _Path,
    untagged: bool,
    *,
    decimal_comma: bool = False,
) -> Table:
    """Convert records to rows and tags; `columns` are the columns of all records."""
    if untagged and tags is not None:
        raise DataError(
            f"{path} is read either with tags or untagged; got the tags {list(tags)[:5]!r} and untagged=True. Leave "
            "one out."
        )
    base = Path(os.path.abspath(path.parent if root is None else root))
    fields = _fields(path, columns)
    if untagged:
        fields = {field: column for field, column in fields.items() if field not in ("tags", "targets")}
    in_columns = bool(columns) and not untagged and not {"tags", "targets"} & set(fields)
    tag_columns = _tag_columns(path, columns, fields, tags) if in_columns else {}
    names = tuple(tag_columns) if in_columns else tuple(tags or ())
    parsed, problems = [], []
    for where, record in records:
        try:
            row = _common(record, fields, base, decimal_comma) | {"where": where}
            if in_columns:
                row["targets"] = [number_of(record[column], tag, decimal_comma) for tag, column in tag_columns.items()]
            else:
                row["tags"], row["targets"] = _tags_of(record, fields)
            parsed.append(row)
        except DataError as error:
            problems.append(f"{where}: {error}")
    _raise(path, problems)
    if in_columns and all(value in (0, 1) for row in parsed for value in row["targets"]):
        for row in parsed:  # store tags instead of targets of 0 and 1
            row["tags"] = tuple(tag for tag, value in zip(names, row.pop("targets"), strict=True) if value)
    elif not in_columns:
        names = _align(parsed, names, path)
        if parsed and not names and not untagged:
            raise DataError(
                f"{path} has no tag in any of its {len(parsed)} rows. Fill its column "
                f"{fields.get('tags', 'tags')!r}; if no tags are needed, pass untagged=True."
            )
    rows = []
    for row in parsed:
        try:
            rows.append(Row(**row))
        except DataError as error:
            problems.append(f"{row['where']}: {error}")
    _raise(path, problems)
    return tuple(rows), names


def _raise(path: Path, problems: Sequence[str]) -> None:
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise DataError(
            "\n  ".join([f"{path} has {len(problems)} line(s) that cannot be used:", *problems[:_SHOWN], *more])
            + "\nNothing was loaded. Correct them and try again."
        )


def _fields(path: Path, columns: list[str]) -> dict[str, str]:
    """Return field -> name of its column."""
    duplicates = sorted({name for name in columns if name and columns.count(name) > 1})
    if duplicates:
        raise DataError(
            f"{path} has columns of the same name: {', '.join(map(repr, duplicates))}. Rename or remove one."
        )
    known = {column.strip().lower(): column for column in columns}
    fields = {}
    for field, names in COLUMNS.items():
        found = [name for name in names if name in known]
        if found:
            fields[field] = known[found[0]]
    if "file" not in fields and columns:
        raise DataError(
            f"{path} has no column for the file; its columns are {', '.join(map(repr, columns[:10]))}. Name one 'file'."
        )
    return fields


def _tag_columns(
    path: Path, columns: list[str], fields: Mapping[str, str], tags: Sequence[str] | None
) -> dict[str, str]:
    """Return tag -> name of its column, in the order of the tags."""
    found = {}
    for column in columns:
        if column.startswith(TAG_PREFIX):
            found[column.removeprefix(TAG_PREFIX)] = column
        elif column and column not in fields.values() and (tags is not None or column.lower() not in RESERVED):
            found.setdefault(column, column)
    if tags is None:
        tags = tuple(found)
    missing = [tag for tag in tags if tag not in found]
    if missing or not tags:
        wanted = f"for the tags {', '.join(map(repr, missing[:10]))}" if missing else "with tags"
        raise DataError(
            f"{path} has no column {wanted}; its columns are {', '.join(map(repr, columns[:10]))}. Add a column "
            "'tags', with | between tags, or a column per tag"
            + (". If no tags are needed, pass untagged=True." if not missing else ".")
        )
    return {tag: found[tag] for tag in tags}


def _common(record: Mapping[str, Any], fields: Mapping[str, str], base: Path, decimal_comma: bool) -> dict[str, Any]:
    """Return the fields other than tags as arguments of `Row`."""
    cells = {field: record.get(column) for field, column in fields.items()}
    file = text_of(cells.get("file"))
    if not file:
        raise DataError("the file is missing")
    split = text_of(cells.get("split"))
    if split.lower() not in SPLIT_NAMES:
        raise DataError(f"the split must be {', '.join(SPLITS)} or empty; got {split!r}")
    row: dict[str, Any] = {"path": _located(file, base), "split": SPLIT_NAMES[split.lower()]}
    for field in ("start", "duration"):
        if not is_blank(cells.get(field)):
            row[field] = number_of(cells[field], field, decimal_comma, most=math.inf)
    return row | {field: text_of(cells.get(field)) for field in ("group", "source", "licence")}


def _located(file: str, base: Path) -> Path:
    """Return the path of a file named in a table; expands `~` and converts the separators of Windows."""
    if "\\" in file and os.sep == "/" and not PureWindowsPath(file).drive and not os.path.exists(base / file):
        file = file.replace("\\", "/")
    return base / (os.path.expanduser(file) if file.startswith("~/") else file)


def _tags_of(record: Mapping[str, Any], fields: Mapping[str, str]) -> tuple[tuple[str, ...], Any]:
    """Return the tags of a record, and its soft targets: `None`, a list, or a dictionary by tag."""
    targets = record.get(fields["targets"]) if "targets" in fields else None
    if targets is not None:
        if isinstance(targets, dict):
            return (), {tag: number_of(value, tag) for tag, value in targets.items()}
        if isinstance(targets, list):
            return (), [number_of(value, f"target {at}") for at, value in enumerate(targets)]
        raise DataError(f"targets must be numbers by tag, or a list of numbers; got {targets!r}")
    tags = record.get(fields["tags"]) if "tags" in fields else None
    if is_blank(tags):
        return (), None
    names = tags.split(TAG_SEPARATOR) if isinstance(tags, str) else tags
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"tags must be names with {TAG_SEPARATOR} between them, or a list of names; got {tags!r}")
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip())), None


def _align(rows: list[dict[str, Any]], names: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Convert targets given by tag to lists in the order of the tags; returns that order."""
    by_tag = [row for row in rows if isinstance(row["targets"], dict)]
    if not names:
        names = tuple(sorted({tag for row in by_tag for tag in row["targets"]} | {t for r in rows for t in r["tags"]}))
    problems = []
    for row in by_tag:
        unknown = [tag for tag in row["targets"] if tag not in names]
        if unknown:
            problems.append(f"{row['where']}: targets for unknown tags {', '.join(map(repr, unknown))}")
        row["targets"] = [row["targets"].get(tag, 0.0) for tag in names]
    _raise(path, problems)
    return names
