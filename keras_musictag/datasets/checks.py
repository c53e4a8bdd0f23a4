"""Validate a manifest before training, see `Manifest.validate`.

Each row is checked first (tags, then the file), then rows against each other (the same file in two splits), then the
tags of the rows without problems.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..audio import reading as audio
from ..audio.mixing import ONE_STEP
from ..errors import AudioError, AudioTooShortError
from ..utils.parallel import parallel
from .copies import copies
from .report import Problem, Report
from .rows import DataError, Row

if TYPE_CHECKING:
    from .manifest import Manifest


_Part = tuple[Path, float, float | None]  # file, start, duration
_Fault = tuple[str, str]  # kind, reason
_Found = list[tuple[int, _Fault]]  # row, fault

_TOLERATED_SECONDS = 0.1  # encoder delay and padding can shorten a file by this
_DECODED_RATE = 16_000  # Hz; a low rate, as decoded audio is only checked

# A file in several splits is kept in the first of these, so that scores on evaluation sets stay comparable.
_KEEPS = ("test", "valid", "train")


def validate(
    manifest: Manifest, *, decode: bool, workers: int, strict: bool, allow_untagged: bool, min_rows: int
) -> Report:
    """Implement `Manifest.validate`."""
    if workers < 1:
        raise DataError(f"workers must be at least 1; got {workers!r}.")
    found: _Found = []
    for number, row in enumerate(manifest):
        found += [(number, fault) for fault in _tag_faults(row, manifest, allow_untagged)]
    parts = [(row.path, row.start, row.duration) for row in manifest]
    faults = parallel(lambda part: _file_fault(part, decode), parts, workers, "files")
    found += [(number, fault) for number, part in enumerate(parts) if (fault := faults[part]) is not None]
    readable = [number for number, part in enumerate(parts) if faults[part] is None]
    same = copies((manifest[number].path for number in readable), workers)
    found += _duplicates(manifest, readable, same)
    found += _listed_twice(manifest, sorted(set(readable) - {number for number, _ in found}))
    bad = {number for number, _ in found}
    ok = dataclasses.replace(manifest, rows=tuple(row for number, row in enumerate(manifest) if number not in bad))
    rows = [
        Problem(row=number, path=manifest[number].path, where=manifest[number].where, kind=fault[0], reason=fault[1])
        for number, fault in sorted(found, key=lambda pair: pair[0])
    ]
    tags = [Problem(kind=kind, reason=reason) for kind, reason in (*_same_names(manifest), *_tag_counts(ok, min_rows))]
    report = Report(
        checked=len(manifest), ok=ok, problems=(*rows, *tags), notes=(*_shared_groups(ok), *_copies(ok, same))
    )
    if strict and not report.passed:
        raise DataError(f"The manifest has problems. {report}\nCorrect them, or use validate().ok.")
    return report


# === Single rows ===


def _tag_faults(row: Row, manifest: Manifest, allow_untagged: bool) -> list[_Fault]:
    unknown = [tag for tag in row.tags if tag not in manifest.tags]
    if unknown:
        return [("unknown tag", f"tags that the manifest does not have: {', '.join(map(repr, unknown))}")]
    if manifest.tags and not allow_untagged and not row.tags and not any(row.targets or ()):
        return [("no tags", "it has none of the tags; if this is intended, pass allow_untagged=True")]
    return []


def _file_fault(part: _Part, decode: bool) -> _Fault | None:
    """Check that a file, or a part of it, can be used."""
    path, start, duration = part
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return "folder", "it is a folder, but an audio file is needed"
        if not stat.S_ISREG(status.st_mode):
            return "missing", "it is not a regular file (a pipe, a socket or a device)"
        with open(path, "rb") as file:
            file.read(1)
    except FileNotFoundError:
        hint = "; its name has backslashes: was the manifest made on Windows?" if "\\" in path.name else ""
        return "missing", f"there is no such file{hint}"
    except (OSError, ValueError) as error:  # ValueError: an embedded null character
        return "missing", f"it cannot be opened ({getattr(error, 'strerror', None) or error})"
    if status.st_size == 0:
        return "zero bytes", "the file is empty (0 bytes); get a complete copy"
    seconds = None if decode else audio.duration_of(path)
    if not seconds:  # the duration is not known without decoding
        return _decoded_fault(path, start, duration)
    return _length_fault(seconds, start, duration)


def _length_fault(seconds: float, start: float, duration: float | None) -> _Fault | None:
    if start >= seconds:
        return "too short", f"it lasts {seconds:.2f} s, but the part starts at {start:.2f} s"
    if duration is not None and start + duration > seconds + _TOLERATED_SECONDS:
        return "too short", f"it lasts {seconds:.2f} s, but the part ends at {start + duration:.2f} s"
    return None


def _decoded_fault(path: Path, start: float, duration: float | None) -> _Fault | None:
    """Check a part of a file by decoding it."""
    samples, peak = 0, 0.0
    try:
        for block in audio.stream(path, target_sr=_DECODED_RATE, resampler="soxr_qq", offset=start, duration=duration):
            samples += len(block)
            peak = max(peak, float(np.abs(block).max(initial=0)))
    except AudioTooShortError as error:
        return "too short", str(error)
    except AudioError as error:
        return "undecodable", str(error)
    if peak < ONE_STEP:
        return "silent", "it is silent: no sample reaches one 16-bit step"
    return None if duration is None else _length_fault(start + samples / _DECODED_RATE, start, duration)


# === Rows against each other ===


def _duplicates(manifest: Manifest, numbers: Iterable[int], same: Mapping[Path, Path]) -> _Found:
    """Find rows whose file, or a copy of it, is also in another split."""
    by_content: dict[Path, list[int]] = collections.defaultdict(list)
    for number in numbers:
        row = manifest[number]
        if row.split:
            by_content[same.get(row.path, row.path)].append(number)
    found: _Found = []
    for group in by_content.values():
        keeper = min(group, key=lambda number: (_KEEPS.index(manifest[number].split), number))
        kept = manifest[keeper]
        for number in group:
            split = manifest[number].split
            if split != kept.split:
                reason = (
                    f"the same file is also in the split {kept.split} (row {keeper}, {kept.path.name}); remove it from "
                    f"{split}"
                )
                found.append((number, ("duplicate", reason)))
    return found


def _listed_twice(manifest: Manifest, numbers: Iterable[int]) -> _Found:
    """Find rows with the same part of the same file: all but the first if their tags agree, otherwise all of them."""
    by_part: dict[_Part, list[int]] = collections.defaultdict(list)
    for number in numbers:
        row = manifest[number]
        by_part[row.path, row.start, row.duration].append(number)
    found: _Found = []
    for first, *others in by_part.values():
        if all(_labels(manifest[number]) == _labels(manifest[first]) for number in others):
            reason = f"row {first} has the same part and tags; remove one of them"
            found += [(number, ("listed twice", reason)) for number in others]
            continue
        for number in (first, *others):
            other = next(n for n in (first, *others) if _labels(manifest[n]) != _labels(manifest[number]))
            reason = (
                f"row {other} has other tags for it ({_shown(manifest[other])}; here {_shown(manifest[number])}); put "
                "all its tags into one row, or remove the wrong row"
            )
            found.append((number, ("contradiction", reason)))
    return found


def _labels(row: Row) -> tuple[frozenset[str], tuple[float, ...] | None]:
    return frozenset(row.tags), row.targets


def _shown(row: Row) -> str:
    return "soft targets" if row.targets is not None else ", ".join(map(repr, row.tags)) or "none"


# === Tags ===


def _same_names(manifest: Manifest) -> list[_Fault]:
    """Find tags that differ only in case, spaces or the encoding of accents."""
    written: dict[str, list[str]] = collections.defaultdict(list)
    for tag in dict.fromkeys((*manifest.tags, *(tag for row in manifest for tag in row.tags))):
        written[" ".join(unicodedata.normalize("NFKC", tag).casefold().split())].append(tag)
    return [
        ("tag case", f"the tags {', '.join(map(repr, tags))} differ only in how they are written; choose one spelling")
        for tags in written.values()
        if len(tags) > 1
    ]


def _tag_counts(manifest: Manifest, min_rows: int) -> list[_Fault]:
    """Find tags that cannot be learned from the valid rows; with `min_rows=0`, only those missing in train."""
    if not len(manifest):
        return []
    targets = manifest.targets()
    has = targets > 0
    split = np.array([row.split for row in manifest])
    learned = split == "train" if (split != "").any() else np.ones(len(split), bool)
    of = "in train" if (split != "").any() else "in all"
    faults = []
    for column, tag in enumerate(manifest.tags):
        rows = int(has[learned, column].sum())
        elsewhere = sorted({str(name) for name in split[~learned & has[:, column]] if name})
        if rows == 0 and elsewhere:
            faults.append(
                ("tag not in train", f"the tag {tag!r} is only in {' and '.join(elsewhere)}: it cannot be learned")
            )
        elif rows < min_rows:
            faults.append(
                (
                    "rare tag",
                    f"the tag {tag!r} has {rows} rows {of}, fewer than {min_rows} (min_rows); add "
                    "some, or leave the tag out",
                )
            )
        elif min_rows and (targets[learned, column] == 1).all():
            faults.append(
                (
                    "tag everywhere",
                    f"all {rows} rows {of} have the tag {tag!r}, so it cannot be learned; add rows without it, or "
                    "leave the tag out",
                )
            )
    return faults


# === Notes ===


def _shared_groups(manifest: Manifest) -> list[str]:
    """Note groups that are in several splits, as in some published splits."""
    splits: dict[str, set[str]] = collections.defaultdict(set)
    for row in manifest:
        if row.group and row.split:
            splits[row.group].add(row.split)
    shared = sorted(group for group, names in splits.items() if len(names) > 1)
    if not shared:
        return []
    return [
        f"{len(shared)} of {len(splits)} groups (artists, albums) are in more than one split, e.g. {shared[0]!r}; "
        "grouped_split() keeps each in one split"
    ]


def _copies(manifest: Manifest, same: Mapping[Path, Path]) -> list[str]:
    """Note copies of files, which count twice, and copies with different tags, which may be labelled wrong."""
    by_content: dict[Path, dict[Path, set[object]]] = collections.defaultdict(dict)  # content -> file -> parts and tags
    for row in manifest:
        if row.path in same:
            by_content[same[row.path]].setdefault(row.path, set()).add((row.start, row.duration, *_labels(row)))
    groups = [files for files in by_content.values() if len(files) > 1]
    if not groups:
        return []
    first, second, *_ = groups[0]
    extra = sum(len(files) - 1 for files in groups)
    notes = [f"copies of other files: {extra}, e.g. {second} of {first}; grouped_split() keeps copies in one split"]
    unlike = [list(files) for files in groups if len({frozenset(labels) for labels in files.values()}) > 1]
    if unlike:
        first, second, *_ = unlike[0]
        notes.append(f"copies with different tags: {len(unlike)}, e.g. {second} and {first}; one of them may be wrong")
    return notes
