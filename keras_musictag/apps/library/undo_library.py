"""Restore files that tags were written into, byte for byte, and their rows."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import os
from pathlib import Path

from . import output
from .journal import Journal, OutputLock
from .library_rows import LibraryError, Revision
from .undo_file import Entry, UndoFile, Undone, undo
from .write_back import default_undo_file, with_state


def undo_library(out: str | os.PathLike[str], undo_file: str | os.PathLike[str] | None = None) -> Undone:
    """Restore all files that a run wrote tags into, and the rows of the table.

    If it is stopped, call it again to resume. Files that were changed since are not touched.

    Args:
        out: table of the run that wrote tags.
        undo_file: undo file of that run; by default `OUT.undo.jsonl`. It is removed when all files are restored.

    Returns:
        `Undone`.

    Raises:
        LibraryError: the undo file or the table cannot be read, or another run is writing the table.
    """
    out = Path(os.path.abspath(out))
    path = default_undo_file(out) if undo_file is None else Path(os.path.abspath(undo_file))
    journal_path = output.journal_path(out)
    if not journal_path.exists():
        raise LibraryError(f"{journal_path}, with the rows of {out.name}, does not exist. Give the table of the run.")
    with OutputLock(out), contextlib.closing(Journal(journal_path, Revision("", "", "", "", False))) as journal:
        rows = collections.defaultdict(set)
        for name, known in journal.entries.items():
            rows[known.sha256].add(name)

        def restore_rows(entry: Entry) -> None:
            for name in rows.pop(entry.after.sha256, set()):
                if name == entry.row or os.path.realpath(name) == entry.path:
                    journal.append(with_state(journal.row(name), entry.before))
                    rows[entry.before.sha256].add(name)
                else:  # another file with the same content
                    rows[entry.after.sha256].add(name)

        try:
            return _undo(path, restore_rows)
        finally:
            journal.finish()
            if journal_path != out:
                output.write(journal.rows(), out)


def undo_files(undo_file: str | os.PathLike[str]) -> Undone:
    """Restore all files in an undo file, without a table.

    Args:
        undo_file: undo file of a run. It is removed when all files are restored.

    Returns:
        `Undone`.

    Raises:
        LibraryError: the undo file cannot be read.
    """
    return _undo(Path(os.path.abspath(undo_file)), None)


def _undo(path: Path, on_restored: collections.abc.Callable[[Entry], None] | None) -> Undone:
    if not path.exists():
        raise LibraryError(f"The undo file {path} does not exist. Were tags written, or already undone?")
    with OutputLock(path):
        return undo(UndoFile(path), on_restored)
