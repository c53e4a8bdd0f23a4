"""Write tags into the files' metadata, in the fields that players read.

A file is copied, and the copy is tagged, read again and decoded. It replaces the file in one step, if it has the same
audio and all other metadata, and after the undo file is written. So at any moment a file is the old or the new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ...audio import reading as audio
from ...errors import AudioError, MissingExtraError
from ...utils.files import replacing
from .journal import OutputLock
from .library_rows import LibraryRow, readable
from .tag_fields import FIELDS, FileTags, UnwritableError, open_tags
from .tag_plans import Change, WriteOptions, changes, check_known, wanted
from .undo_file import Entry, State, UndoFile, copy_attributes, edits

if TYPE_CHECKING:
    from ...models.vocabulary import Vocabulary
    from .journal import Journal
    from .listing import Listing

_SR = 16_000  # Hz; audio is compared at this rate


@dataclasses.dataclass(frozen=True)
class WriteBack:
    """Result of writing tags into files.

    Attributes:
        dry_run: whether changes were only planned.
        written: path -> changes made or planned.
        unchanged: number of files that need no change.
        refused: path -> why a file could not be written.
        undo_file: file to undo the changes from; `None` in a dry run.
    """

    dry_run: bool
    written: Mapping[str, tuple[Change, ...]]
    unchanged: int
    refused: Mapping[str, str]
    undo_file: Path | None = None

    def __str__(self) -> str:
        """Return the result as one line."""
        verb = "would be written to" if self.dry_run else "written to"
        left = f"{self.unchanged:,} need no change, {len(self.refused):,} cannot be written"
        return f"Tags {verb} {len(self.written):,} files; {left}."


@dataclasses.dataclass(frozen=True)
class FileToWrite:
    """A file and its tags.

    Attributes:
        path: path of the file; links are followed.
        tags: display name -> probability.
        row: row of the file; `None` without a table.
    """

    path: str
    tags: Mapping[str, float]
    row: LibraryRow | None = None


def check() -> None:
    """Check before the work that metadata can be written.

    Raises:
        MissingExtraError: mutagen is not installed.
    """
    try:
        importlib.import_module("mutagen")
    except ImportError as error:
        raise MissingExtraError("mutagen", "tags", "Writing tags into files") from error


def default_undo_file(out: Path) -> Path:
    """Return the undo file of a table, which is beside it: `tags.parquet.undo.jsonl`."""
    return out.with_name(f"{out.name}.undo.jsonl")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result for one file.

    Attributes:
        changes: changes made or planned; none if the file needs no change or was refused.
        refused: why the file could not be written; empty if it could.
        row: new row of the file, if the old one is out of date.
    """

    changes: tuple[Change, ...] = ()
    refused: str = ""
    row: LibraryRow | None = None


class TagWriter:
    """Write tags into files, one after the other; a context manager, which locks the undo file.

    Args:
        vocabulary: defines the kinds of tags.
        options: which tags to write.
        undo_file: file that records each change before it is made; `None`: only plan the changes.

    Raises:
        MissingExtraError: mutagen is not installed.
        ValueError: the options need kinds, and those of the model's tags are unknown.
    """

    def __init__(self, vocabulary: Vocabulary, options: WriteOptions, undo_file: Path | None) -> None:
        """Write nothing yet."""
        check()
        check_known(vocabulary, options)
        self._vocabulary, self._options = vocabulary, options
        self._undo = None if undo_file is None else UndoFile(undo_file)
        self._lock = contextlib.nullcontext() if undo_file is None else OutputLock(undo_file)
        self._written: dict[str, tuple[Change, ...]] = {}
        self._refused: dict[str, str] = {}
        self._unchanged = 0
        self._done: dict[str, Entry] = {}  # real path -> change by this writer; a second link to the file finds it here

    def __enter__(self) -> Self:
        """Lock the undo file.

        Raises:
            LibraryError: it cannot be written, or another run is writing it.
        """
        self._lock.__enter__()
        if self._undo is not None:
            self._undo.remove_incomplete_line()
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock the undo file."""
        self._lock.__exit__(None, None, None)

    @property
    def result(self) -> WriteBack:
        """The result so far."""
        undo_file = None if self._undo is None else self._undo.path
        return WriteBack(self._undo is None, dict(self._written), self._unchanged, dict(self._refused), undo_file)

    def write(self, file: FileToWrite) -> Outcome:
        """Write tags into a file, or note why it cannot be written."""
        name, path = readable(file.path), os.path.realpath(file.path)
        try:
            made, entry = self._write(path, file)
        except UnwritableError as error:
            self._refused[name] = str(error)
        except Exception as error:  # of mutagen or a file system
            self._refused[name] = f"{type(error).__name__}: {error}"
        else:
            if made:
                self._written[name] = made
            else:
                self._unchanged += 1
            if entry is None or file.row is None:
                return Outcome(made)
            return Outcome(made, row=with_state(file.row, entry.after))
        return Outcome(refused=self._refused[name])

    # --- Internals ---

    def _write(self, path: str, file: FileToWrite) -> tuple[tuple[Change, ...], Entry | None]:
        """Write tags; return the changes, and the entry of the undo file if they were made."""
        if file.row is not None and file.row.start_s is not None:
            raise UnwritableError("it is a part of a file, which has one set of tags")
        status = os.stat(path)
        row, done = file.row, self._done.get(path)
        if row is not None and done is not None and row.sha256 == done.before.sha256:
            return (), done  # a link to a file that was already written
        if row is not None and (status.st_size, status.st_mtime) != (row.size, row.mtime):
            raise UnwritableError("it has changed since it was tagged")
        if status.st_nlink > 1:
            raise UnwritableError("it has other names (hard links), which would keep the old content")
        writable = os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)
        if not writable or not status.st_mode & 0o222:  # root may write read-only files
            raise UnwritableError("it or its folder is read-only")
        tags = open_tags(path)
        found = {field: tags.get(field) for field in FIELDS}
        made = tuple(changes(found, wanted(file.tags, self._vocabulary, self._options), self._options))
        if not made:
            return (), None
        tags.check()
        if self._undo is None:
            for change in made:
                tags.set(change.field, change.after)  # raises if the format cannot hold it
            return made, None
        entry = self._replace(path, status, row, made, tags)
        self._done[path] = entry
        return made, entry

    def _replace(
        self, path: str, status: os.stat_result, row: LibraryRow | None, made: tuple[Change, ...], old: FileTags
    ) -> Entry:
        assert self._undo is not None
        with replacing(Path(path)) as file:
            with open(path, "rb") as source:
                shutil.copyfileobj(source, file)
            file.flush()
            digest = State.of(file.name).sha256
            if row is not None and digest != row.sha256:
                raise UnwritableError("its content differs from what was tagged")
            before = State(status.st_size, status.st_mtime_ns, digest)
            copy_attributes(path, file.name)
            os.utime(file.name)  # so that other programs notice the change
            _tag_copy(file.name, path, made, old)
            if _audio_digest(file.name) != _audio_digest(path):
                raise UnwritableError("its audio would change")
            os.fsync(file.fileno())
            after = State.of(file.name)
            entry = Entry(path, "" if row is None else row.path, before, after, edits(file.name, path))
            now = os.stat(path)
            if (now.st_size, now.st_mtime, now.st_ino) != (status.st_size, status.st_mtime, status.st_ino):
                raise UnwritableError("it was changed meanwhile")
            self._undo.append(entry)
        return entry


def with_state(row: LibraryRow, state: State) -> LibraryRow:
    """Return the row of a file whose content has changed, but not its audio."""
    seconds, nanoseconds = divmod(state.mtime_ns, 10**9)
    mtime = seconds + 1e-9 * nanoseconds  # computed like st_mtime, which later runs compare it with
    return dataclasses.replace(row, sha256=state.sha256, size=state.size, mtime=mtime)


def _tag_copy(copy: str, path: str, made: Iterable[Change], old: FileTags) -> None:
    """Write fields into the copy of a file, and check that they, and all other tags, read back correctly."""
    new = open_tags(copy, path)
    for change in made:
        new.set(change.field, change.after)
    new.save()
    again = open_tags(copy, path)
    for change in made:
        if again.get(change.field) != list(change.after):
            raise UnwritableError(f"its {change.field} could not be read again")
    if again.rest() != old.rest():
        raise UnwritableError("its other tags would change")


def _audio_digest(path: str) -> str:
    """Return a digest of the decoded audio of a file."""
    digest = hashlib.sha256()
    try:
        for block in audio.stream(path, target_sr=_SR):
            digest.update(block.tobytes())
    except AudioError as error:
        raise UnwritableError(f"it cannot be decoded: {error}") from error
    return digest.hexdigest()


# === Rows of a table ===


def write_rows(
    journal: Journal,
    found: Listing,
    vocabulary: Vocabulary,
    options: WriteOptions,
    undo_file: Path | None,
    *,
    progress: bool = False,
) -> WriteBack:
    """Write the tags of files into them, and update their rows, so that they count as done.

    Args:
        journal: rows of the files.
        found: the files; those without tags, or that have changed since, are not touched.
        vocabulary: vocabulary of the model in the rows.
        options: which tags to write.
        undo_file: as in `TagWriter`.
        progress: show a progress bar on standard error.

    Returns:
        `WriteBack`.

    Raises:
        LibraryError: a row cannot be written.
        ValueError: the options need kinds, and those of the model's tags are unknown.
    """
    from tqdm.auto import tqdm

    with TagWriter(vocabulary, options, undo_file) as writer:
        for listed in tqdm(found.files, desc="writing tags", unit="file", delay=2, disable=not progress):
            entry = journal.entries.get(readable(listed.path))
            if entry is None or entry.error_kind:
                continue
            row = journal.row(readable(listed.path))
            new = writer.write(FileToWrite(listed.path, row.tags or {}, row)).row
            if new is not None:
                journal.append(new)
        return writer.result


def update_written_rows(journal: Journal, undo_file: Path) -> None:
    """Update the rows of files that a killed run wrote to.

    Raises:
        LibraryError: the undo file is not an undo file.
    """
    if not undo_file.exists():
        return
    for change in UndoFile(undo_file).entries():
        known = journal.entries.get(change.row)
        if known is None or known.sha256 != change.before.sha256:
            continue
        try:
            status = os.stat(change.path)
        except OSError:
            continue
        if (status.st_size, status.st_mtime_ns) == (change.after.size, change.after.mtime_ns):
            journal.append(with_state(journal.row(change.row), change.after))
