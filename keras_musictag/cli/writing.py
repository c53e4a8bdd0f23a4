"""Options of `library --write-tags` and `tag --write`, and what they print."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import UsageProblem, print_json, printable, progress_only

if TYPE_CHECKING:
    from ..apps.library import WriteOptions
    from ..apps.library.undo import Undone
    from ..apps.library.write_back import WriteBack
    from ..tagging.base import BaseTagger

_MOST, _MIN_PROB = 3, 0.5  # the library's own; it is not imported for a help text
_UNDO_FILE = Path("keras-musictag.undo.jsonl")  # of `tag`, in the current folder

_OPTIONS = (
    click.option(
        "--most", type=click.IntRange(min=1), help=f"Write at most so many tags of a kind per file.  [default: {_MOST}]"
    ),
    click.option(
        "--min-prob", type=click.FloatRange(0, 1), help=f"Write no tags below this probability.  [default: {_MIN_PROB}]"
    ),
    click.option("--only-missing", is_flag=True, help="Write no fields that have a value."),
    click.option("--replace", is_flag=True, help="Replace values in the files; by default they are kept."),
    click.option(
        "--comment", metavar="TEMPLATE", help='Write a comment too: "{genre} | {mood}", or other kinds, or {tags}.'
    ),
    click.option(
        "--dry-run/--no-dry-run", default=True, help="Only show the changes to files (default), or write them."
    ),
    click.option("--undo", is_flag=True, help="Restore the files that tags were written into, byte for byte."),
    click.option(
        "--undo-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"What --undo needs.  [default: OUT.undo.jsonl; of tag, {_UNDO_FILE}]",
    ),
)
_NAMES = ("most", "min_prob", "only_missing", "replace", "comment")


def write_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of writing tags into files."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options_of(given: dict[str, Any], flag: str, wanted: bool, kinds: tuple[str, ...] = ()) -> WriteOptions | None:
    """Take the options of `write_options` from those of a command, except `dry_run`, `undo` and `undo_file`.

    Args:
        given: options of the command; those that are taken are removed.
        flag: the option that asks for writing.
        wanted: whether it was given.
        kinds: of tags to write; none for all.

    Raises:
        UsageProblem: there are such options, but `flag` was not given.
    """
    values = {name: given.pop(name) for name in _NAMES}
    told = [f"--{name.replace('_', '-')}" for name, value in values.items() if value not in (None, False)]
    if not wanted:
        if told:
            raise UsageProblem(f"{' and '.join(told)} say what is written into files. Add {flag}.")
        return None
    from ..apps.library import WriteOptions

    return WriteOptions(**{name: value for name, value in values.items() if value is not None}, kinds=kinds or None)


def tell(written: WriteBack, as_json: bool) -> None:
    """Print what was or would be written, and why some files are unchanged."""
    for path, changes in () if as_json else written.written.items():
        click.echo("\n".join([path, *map(str, changes)]))
    for path, reason in written.refused.items():
        click.echo(f"{path}: left as it is: {reason}", err=True)
    if written.dry_run and written.written:
        click.echo("Nothing was written into files. To do it: --no-dry-run", err=True)
    elif written.written:
        click.echo(f"To undo it: --undo ({written.undo_file})", err=True)


def as_record(written: WriteBack) -> dict[str, Any]:
    """What was or would be written, for JSON."""
    changes = {path: [vars(change) for change in some] for path, some in written.written.items()}
    undo_file = None if written.undo_file is None else str(written.undo_file)
    return {**vars(written), "written": changes, "undo_file": undo_file}


def restore(undo: Callable[[], Undone], as_json: bool) -> None:
    """Undo changes and print what became of the files; exits with 1 if one could not be restored."""
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
    """Undo what `tag --write` did."""
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
    **part: Any,
) -> None:
    """Tag files and write the tags into them; exits with 1 if one could not be tagged or written.

    Args:
        tagger: tags the files.
        files: paths.
        options: what is written.
        dry_run: only show it.
        undo_file: where changes can be undone from.
        output: `text` or `json`, an object per file.
        part: `offset` and `duration`, as in `Tagger.tag`.
    """
    from ..apps.library.write_back import FileToWrite, TagWriter

    if output == "csv":
        raise UsageProblem("Changes of files cannot be printed as CSV. Choose --json, or leave --csv out.")
    path = None if dry_run else (undo_file or _UNDO_FILE).absolute()
    failed = 0
    with TagWriter(tagger.spec.vocabulary, options, path) as writer:
        for result in tagger.tag_many(files, **part):
            if result.tags is None:
                failed += 1
                click.echo(f"error: {result.error}", err=True)
                said: dict[str, Any] = {"error": str(result.error)}
            else:
                outcome = writer.write(FileToWrite(os.fspath(result.source), result.tags))
                said = {"changes": [vars(change) for change in outcome.changes]}
                said |= {"refused": outcome.refused} if outcome.refused else {}
            if output == "json":
                print_json({"file": printable(result.source), **said})
        written = writer.result
    tell(written, output == "json")
    if output != "json":
        click.echo(written)
    if failed or written.refused:
        sys.exit(1)
