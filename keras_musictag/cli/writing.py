"""Writing tags into files, for `library --write-tags` and `tag --write`: options and output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import UsageProblem, print_json, printable
from .standard_error import progress_only

if TYPE_CHECKING:
    from ..apps.library import WriteOptions
    from ..apps.library.undo_file import Undone
    from ..apps.library.write_back import WriteBack
    from ..tagging.base_tagger import BaseTagger

_MOST, _MIN_PROB = 3, 0.5  # as in `apps.library`, which is not imported for a help text
_UNDO_FILE = Path("keras-musictag.undo.jsonl")  # default of `tag`, in the current folder

_OPTIONS = (
    click.option(
        "--most",
        type=click.IntRange(min=1),
        help=f"Write at most this many tags per kind.  [default: {_MOST}]",
    ),
    click.option(
        "--min-prob", type=click.FloatRange(0, 1), help=f"Write no tag below this probability.  [default: {_MIN_PROB}]"
    ),
    click.option("--only-missing", is_flag=True, help="Write only into empty fields."),
    click.option("--replace", is_flag=True, help="Replace values in the files instead of adding tags."),
    click.option(
        "--comment", metavar="TEMPLATE", help='Also write a comment: "{genre} | {mood}", or other kinds, or {tags}.'
    ),
    click.option("--dry-run/--no-dry-run", default=True, help="Only show the changes (default), or write them."),
    click.option("--undo", is_flag=True, help="Restore the files as they were before, byte for byte."),
    click.option(
        "--undo-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"File with the changes, for --undo.  [default: OUT.undo.jsonl; tag: {_UNDO_FILE}]",
    ),
)
_NAMES = ("most", "min_prob", "only_missing", "replace", "comment")


def write_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of writing tags into files."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_options(given: dict[str, Any], flag: str, wanted: bool, kinds: tuple[str, ...] = ()) -> WriteOptions | None:
    """Move the options that say what is written out of the options of a command.

    Args:
        given: options of the command.
        flag: name of the option that turns on writing.
        wanted: whether that option was given.
        kinds: kinds of tags to write; none for all.

    Raises:
        UsageProblem: such options were given without `flag`.
    """
    values = {name: given.pop(name) for name in _NAMES}
    names = [f"--{name.replace('_', '-')}" for name, value in values.items() if value not in (None, False)]
    if not wanted:
        if names:
            raise UsageProblem(f"{' and '.join(names)} can only be used with {flag}. Add it.")
        return None
    from ..apps.library import WriteOptions

    return WriteOptions(**{name: value for name, value in values.items() if value is not None}, kinds=kinds or None)


def print_changes(written: WriteBack, as_json: bool) -> None:
    """Print the changes made or planned, and why some files are unchanged."""
    if not as_json:
        for path, changes in written.written.items():
            click.echo("\n".join([path, *map(str, changes)]))
    for path, reason in written.refused.items():
        click.echo(f"{path}: left as it is: {reason}", err=True)
    if written.dry_run and written.written:
        click.echo("Dry run: no file was changed. To write the tags, add --no-dry-run.", err=True)
    elif written.written:
        click.echo(f"To restore the files: --undo ({written.undo_file})", err=True)


def as_record(written: WriteBack) -> dict[str, Any]:
    """Return the changes made or planned, for JSON."""
    changes = {path: [vars(change) for change in some] for path, some in written.written.items()}
    undo_file = None if written.undo_file is None else str(written.undo_file)
    return {**vars(written), "written": changes, "undo_file": undo_file}


def restore(undo: Callable[[], Undone], as_json: bool) -> None:
    """Undo changes and print the outcome; exit with 1 if a file could not be restored."""
    with progress_only():
        undone = undo()
    for path, reason in undone.refused.items():
        click.echo(f"{path}: left as it is: {reason}", err=True)
    if as_json:
        print_json(vars(undone))
    else:
        click.echo(undone)
    if undone.refused:
        sys.exit(1)


# === Single files ===


def restore_files(undo_file: Path | None, output: str) -> None:
    """Undo the changes of `tag --write`."""
    from ..apps.library import undo_files

    restore(lambda: undo_files(undo_file or _UNDO_FILE), output == "json")


def tag_and_write(
    tagger: BaseTagger,
    files: Iterable[Path],
    options: WriteOptions,
    *,
    dry_run: bool,
    undo_file: Path | None,
    output: str,
    **excerpt: Any,
) -> None:
    """Tag files and write the tags into them; exit with 1 if a file could not be tagged or written.

    Args:
        tagger: tags the files.
        files: paths.
        options: what to write.
        dry_run: only show the changes.
        undo_file: file that `--undo` reads.
        output: `text`, or `json` for one object per file.
        excerpt: `offset` and `duration`, as in `Tagger.tag`.
    """
    from ..apps.library.write_back import FileToWrite, TagWriter

    if output == "csv":
        raise UsageProblem("Changes of files cannot be printed as CSV. Choose --json, or leave --csv out.")
    path = None if dry_run else (undo_file or _UNDO_FILE).absolute()
    failed = 0
    with TagWriter(tagger.spec.vocabulary, options, path) as writer:
        for result in tagger.tag_many(files, **excerpt):
            if result.tags is None:
                failed += 1
                click.echo(f"error: {result.error}", err=True)
                record: dict[str, Any] = {"error": str(result.error)}
            else:
                outcome = writer.write(FileToWrite(os.fspath(result.source), result.tags))
                record = {"changes": [vars(change) for change in outcome.changes]}
                if outcome.refused:
                    record["refused"] = outcome.refused
            if output == "json":
                print_json({"file": printable(result.source), **record})
        written = writer.result
    print_changes(written, output == "json")
    if output != "json":
        click.echo(written)
    if failed or written.refused:
        sys.exit(1)
