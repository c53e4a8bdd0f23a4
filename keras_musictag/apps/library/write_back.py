"""Tags into the files' own metadata, in one field that no other program uses: `MUSICTAG`, as `guitar; folk`.

A file is copied, the copy is tagged, read again and decoded, and only if it sounds the same does it take the file's
place, in one step. So a file is at every moment the old one or the new one, whatever fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...audio import reading as audio
from ...errors import AudioError, MissingExtraError
from ...utils.files import replacing
from .journal import Journal
from .library_rows import LibraryRow, readable
from .listing import Listing

FIELD = "MUSICTAG"

_SR = 16_000  # Hz, at which two files are compared


@dataclasses.dataclass(frozen=True)
class WriteBack:
    """What became of the files' own metadata.

    Attributes:
        dry_run: whether nothing was written, only looked at.
        written: path -> text that was written, or would be.
        unchanged: files that had the right text already.
        refused: path -> why it was left as it was.
    """

    dry_run: bool
    written: Mapping[str, str]
    unchanged: int
    refused: Mapping[str, str]

    def __str__(self) -> str:
        """One line for people."""
        verb = "would be written to" if self.dry_run else "written to"
        left = f"{self.unchanged:,} had it, {len(self.refused):,} cannot have it"
        return f"{FIELD} {verb} {len(self.written):,} files; {left}."


class _RefusedError(Exception):
    """Why a file is left as it is."""


def check() -> None:
    """Find out before the work that metadata cannot be written.

    Raises:
        MissingExtraError: mutagen is not installed.
    """
    try:
        importlib.import_module("mutagen")
    except ImportError as error:
        raise MissingExtraError("mutagen", "tags", "Writing tags into files") from error


def write_back(
    journal: Journal, found: Listing, top: int, *, dry_run: bool = True, progress: bool = False
) -> WriteBack:
    """Write the tags of tagged files into them. Their rows get the new digests, so that they count as done.

    Args:
        journal: rows.
        found: the files; those without tags, or that have changed since, are left alone.
        top: this many of the most probable tags of a row.
        dry_run: write nothing.
        progress: show a progress bar on standard error.

    Returns:
        `WriteBack`.

    Raises:
        LibraryError: a row cannot be written.
    """
    from tqdm.auto import tqdm

    written: dict[str, str] = {}
    refused: dict[str, str] = {}
    unchanged = 0
    for listed in tqdm(found.files, desc="writing tags", unit="file", delay=2, disable=not progress):
        path = readable(listed.path)
        entry = journal.entries.get(path)
        if entry is None or entry.error_kind:
            continue
        row = journal.row(path)
        text = "; ".join(list(row.tags or ())[:top])
        try:
            new = _write(os.path.realpath(listed.path), row, text, dry_run)
        except _RefusedError as error:
            refused[path] = str(error)
        except Exception as error:  # whatever mutagen or a file system comes up with
            refused[path] = f"{type(error).__name__}: {error}"
        else:
            if new is None:
                unchanged += 1
                continue
            written[path] = text
            if new is not row:
                journal.append(new)
    return WriteBack(dry_run, written, unchanged, refused)


def _write(path: str, row: LibraryRow, text: str, dry_run: bool) -> LibraryRow | None:
    """Write to one file; returns its new row, or the old one in a dry run, or `None` if there is nothing to do."""
    mutagen: Any = importlib.import_module("mutagen")
    status = os.stat(path)
    if (status.st_size, status.st_mtime) != (row.size, row.mtime):
        raise _RefusedError("it has changed since it was tagged")
    if status.st_nlink > 1:
        raise _RefusedError("it has other names (hard links), which would keep the old content")
    if not (os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)):
        raise _RefusedError("it or its folder is read-only")
    opened = mutagen.File(path)
    if opened is None:
        raise _RefusedError("mutagen does not know its format")
    if _read(opened) == text:
        return None
    if dry_run:
        if opened.tags is None:
            opened.add_tags()
        _set(opened, text)  # refuses what it cannot do
        return row
    return _replace(path, status, row, text, type(opened))


def _replace(path: str, status: os.stat_result, row: LibraryRow, text: str, kind: Any) -> LibraryRow:
    with replacing(Path(path)) as file:
        with open(path, "rb") as source:
            shutil.copyfileobj(source, file)
        file.flush()
        if _digest(file.name) != row.sha256:
            raise _RefusedError("its content is another than was tagged")
        shutil.copystat(path, file.name)
        with contextlib.suppress(OSError, AttributeError):  # Windows has no owners, and not everybody may give away
            os.chown(file.name, status.st_uid, status.st_gid)
        os.utime(file.name)  # other programs have to notice
        _tag(file.name, text, kind)
        if _read(kind(file.name)) != text or _sound(file.name) != _sound(path):
            raise _RefusedError("it would not sound the same, or its tags could not be read")
        os.fsync(file.fileno())
        sha256, new = _digest(file.name), os.stat(file.name)
        now = os.stat(path)
        if (now.st_size, now.st_mtime, now.st_ino) != (status.st_size, status.st_mtime, status.st_ino):
            raise _RefusedError("it was written to meanwhile")
    return dataclasses.replace(row, sha256=sha256, size=new.st_size, mtime=new.st_mtime)


# === One field in many formats ===


def _tag(path: str, text: str, kind: Any) -> None:
    opened = kind(path)
    options = {}
    if opened.tags is None:
        opened.add_tags()
    elif getattr(opened.tags, "version", None) and opened.tags.version[:2] == (2, 3):  # ID3: left as old as it is
        opened, options = kind(path, translate=False), {"v2_version": 3}
    _set(opened, text)
    opened.save(**options)


def _set(opened: Any, text: str) -> None:
    tags = opened.tags
    name = _name(tags)
    if name.startswith("TXXX"):
        frames: Any = importlib.import_module("mutagen.id3")
        tags.setall(name, [frames.TXXX(encoding=frames.Encoding.UTF8, desc=FIELD, text=[text])])
    elif name.startswith("----"):
        tags[name] = [text.encode()]
    else:
        tags[name] = [text]


def _read(opened: Any) -> str:
    """What is in the field, empty if it is not there."""
    if opened.tags is None:
        return ""
    value = opened.tags.get(_name(opened.tags))
    if not value:
        return ""
    first = value.text[0] if hasattr(value, "text") else value[0]
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)


def _name(tags: Any) -> str:
    """What the field is called in a kind of metadata."""
    bases = {base.__name__ for base in type(tags).__mro__}
    if "ID3" in bases or "ID3Tags" in bases:
        return f"TXXX:{FIELD}"
    if "MP4Tags" in bases:
        return f"----:com.apple.iTunes:{FIELD}"
    if bases & {"VComment", "APEv2", "ASFTags"}:
        return FIELD
    raise _RefusedError(f"its metadata ({type(tags).__name__}) have no room for custom fields")


# === The same content ===


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sound(path: str) -> str:
    """Digest of what a file sounds like."""
    digest = hashlib.sha256()
    try:
        for block in audio.stream(path, target_sr=_SR):
            digest.update(block.tobytes())
    except AudioError as error:
        raise _RefusedError(f"it cannot be decoded: {error}") from error
    return digest.hexdigest()
