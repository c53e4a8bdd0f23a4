"""The command `search`: find files in a table written by `library`."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..models.registry import DEFAULT_MODEL
from ..utils.tables import Table, echo
from .common import (
    UsageProblem,
    check_output,
    csv_option,
    format_option,
    import_backend_for,
    json_option,
    main,
    print_json,
    printable,
    suggest,
)
from .completers import complete_model
from .standard_error import progress_only

if TYPE_CHECKING:
    from ..apps.library import Found

_DASH_HINT = "A tag that begins with a dash goes in double quotation marks: '\"-guitar\" > 0.5'."


class _SearchCommand(click.Command):
    """A command whose argument WHERE may be mistaken for an option: `-guitar > 0.5`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; an error says how to write a tag that begins with a dash."""
        dashed = any(arg.startswith("-") and len(arg) > 2 and arg[1] != "-" for arg in args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if not dashed:
                raise
            raise click.UsageError(f"{error.format_message()} {_DASH_HINT}", ctx) from error


@main.command(cls=_SearchCommand, short_help="Find files in a table written by `library`.")
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("where", default="")
@click.option(
    "--like",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Sort by similarity to this audio file (needs embeddings); repeatable.",
)
@click.option(
    "--unlike",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Sort by dissimilarity to this audio file (needs embeddings); repeatable.",
)
@click.option("--m3u", type=click.Path(path_type=Path), help="Write the files found to this playlist, .m3u8 or .m3u.")
@click.option(
    "--model",
    "-m",
    shell_complete=complete_model,
    help="Model of the embeddings.  [default: the one named in the table]",
)
@click.option(
    "--limit", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="Maximum number of files."
)
@format_option
@json_option
@csv_option
def search(
    table: Path,
    where: str,
    like: tuple[Path, ...],
    unlike: tuple[Path, ...],
    m3u: Path | None,
    model: str | None,
    limit: int,
    output: str,
) -> None:
    """Find the files in TABLE, a Parquet file that `library` wrote, that meet the condition WHERE.

    WHERE is a condition on tags and on the table's columns, as in SQL. A tag alone means a probability of at least 0.5.
    Put a tag that begins with a dash or is a word of SQL in double quotation marks.

    \b
    keras-musictag search tags.parquet "guitar>0.5 and not vocals"
    keras-musictag search tags.parquet "techno and duration_s<300" --like song.mp3
    keras-musictag search tags.parquet --like a.mp3 --unlike b.mp3 --limit 50 --m3u out.m3u8
    """  # noqa: D301
    if model is not None and not like and not unlike:  # or a condition such as -metal, which is read as -m etal
        raise UsageProblem(f"--model {model} is only used with --like and --unlike. Leave it out. {_DASH_HINT}")
    from ..apps.library import search, write_m3u

    if m3u is not None:
        check_output("--m3u", m3u, (".m3u8", ".m3u"))
    if like or unlike:
        import_backend_for([model or DEFAULT_MODEL])
    with progress_only():
        found = search(table, where, like=like, unlike=unlike, tagger=model, limit=limit)
    if m3u is not None:
        for path in write_m3u(found, m3u):
            click.echo(f"{path}: left out: a playlist cannot hold this name", err=True)
        click.echo(f"Wrote {printable(m3u)}.", err=True)
    if not found:
        click.echo("No file was found.", err=True)
    if output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["path", "duration_s", "similarity", "tags"])
        for file in found:
            tags = json.dumps(file.tags, ensure_ascii=False)
            writer.writerow([file.path, file.duration_s, file.similarity, tags])
        return
    if output == "json":
        for file in found:
            print_json(dataclasses.asdict(file))
    elif found:
        echo(_table(found, bool(like or unlike)))
        suggest("taggram", found[0].path)


def _table(found: Sequence[Found], with_similarity: bool) -> Table:
    rows = []
    for file in found:
        tags = ", ".join(f"{tag} {probability:.2f}" for tag, probability in file.tags.items())
        rows.append((f"{file.similarity:.3f}", file.path, tags) if with_similarity else (file.path, tags))
    titles = ("similarity", "path", "tags") if with_similarity else ("path", "tags")
    return Table(titles, rows, header=False)
