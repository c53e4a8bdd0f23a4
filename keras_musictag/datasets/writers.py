"""Write a `Manifest` as CSV or JSON lines; reading the file gives an equal manifest.

Paths below the folder of the file are written relative to it, others as absolute paths.
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.files import write_atomically
from .readers import RESERVED, TAG_PREFIX
from .rows import DataError, Row

if TYPE_CHECKING:
    from .manifest import Manifest


_TEXTS = ("split", "group", "source", "licence")


def write_csv(manifest: Manifest, path: Path) -> None:
    """Implement `Manifest.to_csv`, with a column per tag to keep the order of the tags."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "start", "duration", *_TEXTS, *map(_column, manifest.tags)])
    folder = _folder(path)
    for row in manifest:
        if row.targets is None:
            _require_known_tags(row, manifest)
            has = set(row.tags)
            values = ["1" if tag in has else "0" for tag in manifest.tags]
        else:
            values = [repr(value) for value in row.targets]
        duration = "" if row.duration is None else repr(row.duration)
        texts = [getattr(row, name) for name in _TEXTS]
        writer.writerow([_relative(row.path, folder), repr(row.start), duration, *texts, *values])
    write_atomically(path, _encode(text.getvalue(), path))


def write_jsonl(manifest: Manifest, path: Path) -> None:
    """Implement `Manifest.to_jsonl`. The first line has the tags in order; empty fields of a row are left out."""
    lines = [json.dumps({"tags": list(manifest.tags)}, ensure_ascii=False)]
    folder = _folder(path)
    for row in manifest:
        record: dict[str, object] = {"file": _relative(row.path, folder)}
        if row.start:
            record["start"] = row.start
        if row.duration is not None:
            record["duration"] = row.duration
        if row.targets is None:
            record["tags"] = list(row.tags)
        else:
            record["targets"] = list(row.targets)
        record |= {name: getattr(row, name) for name in _TEXTS if getattr(row, name)}
        lines.append(json.dumps(record, ensure_ascii=False))
    write_atomically(path, _encode("\n".join(lines) + "\n", path))


def _column(tag: str) -> str:
    return TAG_PREFIX + tag if tag.lower() in RESERVED or tag.startswith(TAG_PREFIX) else tag


def _require_known_tags(row: Row, manifest: Manifest) -> None:
    unknown = set(row.tags) - set(manifest.tags)
    if unknown:
        raise DataError(
            f"{row.where or row.path} has tags that the manifest does not have: "
            f"{', '.join(map(repr, sorted(unknown)))}. Use validate().ok, with_tags(), or to_jsonl, which keeps them."
        )


def _folder(path: Path) -> Path:
    return Path(os.path.abspath(path)).parent


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _encode(text: str, path: Path) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:  # a file name that is not UTF-8
        line = text.count("\n", 0, error.start) + 1
        raise DataError(
            f"{path} was not written: line {line} has a file name that is not valid UTF-8. Rename that file."
        ) from error
