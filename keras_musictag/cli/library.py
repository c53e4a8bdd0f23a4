"""The command `library`: whole folders of music into one table."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..library.run import TIMEOUT
from ..library.write_back import WriteBack
from ._shared import STOPPED, load_tagger, main, model_option, progress_only


@main.command(short_help="Tag whole folders of music into one table.")
@click.argument("sources", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", "-o", required=True, type=click.Path(path_type=Path), help="Table to write: .parquet, .jsonl or .csv."
)
@model_option
@click.option("--top", "-n", type=click.IntRange(min=1), help="Tags per file.  [default: all]")
@click.option(
    "--threshold", "-t", type=click.FloatRange(0, 1), default=0.0, help="Leave out tags below this probability."
)
@click.option("--embeddings", is_flag=True, help="Keep the embeddings too.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that decode.  [default: one per processor]")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=TIMEOUT,
    show_default=True,
    help="Seconds that decoding a file may take.",
)
@click.option(
    "--resume/--no-resume", default=True, help="Go on with what is there (default), or throw it away and begin anew."
)
@click.option("--update", is_flag=True, help="Tag again what has changed, failed, or is another model's.")
@click.option(
    "--write-tags",
    type=click.IntRange(min=1),
    metavar="N",
    help="Put the N most probable tags into the files' own metadata; shows what it would write.",
)
@click.option("--dry-run/--no-dry-run", default=True, help="With --write-tags: only show it (default), or do it.")
def library(
    sources: tuple[Path, ...],
    out: Path,
    model: str,
    top: int | None,
    threshold: float,
    embeddings: bool,
    workers: int | None,
    timeout: float,
    resume: bool,
    update: bool,
    write_tags: int | None,
    dry_run: bool,
) -> None:
    """Tag all sounds below DIR, or those that a list names, into one table.

    Lists are .txt and .m3u (a path per line), or tables as for --data. The same command goes on where it was stopped,
    by Ctrl-C or otherwise. A file that cannot be tagged gets a row that says why, and the exit code is 1.

    \b
    keras-musictag library ~/Music --out tags.parquet
    keras-musictag library ~/Music --out tags.parquet --update
    """  # noqa: D301
    from ..library import tag_library

    tagger = load_tagger(model)
    try:
        with progress_only():
            summary = tag_library(
                sources,
                out,
                tagger,
                top=top,
                threshold=threshold,
                embeddings=embeddings,
                workers=workers,
                timeout=timeout,
                resume=resume,
                update=update,
                write_tags=write_tags,
                dry_run=dry_run,
                progress=True,
            )
    except KeyboardInterrupt:
        click.echo("Stopped. The same command goes on.", err=True)
        sys.exit(STOPPED)
    if summary.written is not None:
        _tell(summary.written)
    click.echo(summary)
    if summary.failed:
        sys.exit(1)


def _tell(written: WriteBack) -> None:
    """What was written, or would be; and why some files are left as they are."""
    for path, text in written.written.items():
        click.echo(f"{path}: {text}")
    for path, reason in written.refused.items():
        click.echo(f"{path}: left as it is: {reason}", err=True)
    if written.dry_run and written.written:
        click.echo("Nothing was written into files. To do it: --no-dry-run", err=True)
