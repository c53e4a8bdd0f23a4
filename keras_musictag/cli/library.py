"""The command `library`: tag whole folders of music into one table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..models.vocabulary import KINDS
from .common import (
    STOPPED,
    UsageProblem,
    check_unsure,
    import_backend,
    json_flag,
    kind_option,
    load_tagger_on,
    main,
    model_option,
    print_json,
    runtime_option,
    suggest,
    threshold_option,
    unsure_option,
)
from .standard_error import progress_only
from .writing import as_record, print_changes, restore, take_options, write_options

if TYPE_CHECKING:
    from ..apps.library import LibrarySummary

# Defaults of `tag_library` and `tag_on_ray`, which are not imported for a help text.
_TIMEOUT, _RAY_WORKERS = 600.0, 2
_NICE = 10  # niceness; 19 is the lowest priority


@main.command(short_help="Tag whole folders of music into one table.")
@click.argument("sources", metavar="DIR...", nargs=-1, type=click.Path())
@click.option(
    "--out",
    "-o",
    required=True,
    type=click.Path(),
    help="Table to write: .parquet, .jsonl or .csv; on Ray a folder of Parquet files.",
)
@model_option
@runtime_option
@click.option("--top", "-n", type=click.IntRange(min=1), help="Number of tags per file.  [default: all]")
@threshold_option
@unsure_option
@kind_option
@click.option("--embeddings", is_flag=True, help="Also store embeddings.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help=f"Number of decoding processes.  [default: one per core; on Ray {_RAY_WORKERS} per actor]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=_TIMEOUT,
    show_default=True,
    help="Maximum seconds for decoding a file.",
)
@click.option("--max-cores", type=click.IntRange(min=1), help="Maximum number of cores to use (Linux).")
@click.option("--nice", is_flag=True, help="Run at low priority.")
@click.option("--pause-on-load", is_flag=True, help="Start no file while other programs use half of the cores (Linux).")
@click.option(
    "--import",
    "imports",
    multiple=True,
    type=click.Path(),
    help="Copy the rows of files with the same content from this .parquet or .jsonl table.",
)
@click.option("--chapters", is_flag=True, help="Write a row for each chapter of m4b, m4a, mp4 and mka files.")
@click.option(
    "--resume/--no-resume", default=True, help="Resume an existing table (default), or delete it and start over."
)
@click.option("--update", is_flag=True, help="Retag files that changed, failed, or were tagged by another model.")
@click.option("--write-tags", is_flag=True, help="Write tags into the files' metadata; with --no-dry-run, for real.")
@write_options
@click.option(
    "--write-kind",
    "write_kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Write only tags of this kind; repeatable.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Run on this machine, or on a Ray cluster; there, DIR and --out can also be URLs (s3://, gs://).",
)
@click.option(
    "--actors",
    type=click.IntRange(min=1),
    help="On Ray: maximum number of processes that run the model.  [default: as many as fit]",
)
@click.option("--gpus", type=click.FloatRange(min=0), help="On Ray: GPUs per actor, may be a fraction.  [default: 0]")
@json_flag
def library(
    sources: tuple[str, ...],
    out: str,
    model: str,
    write_tags: bool,
    dry_run: bool,
    undo: bool,
    undo_file: Path | None,
    write_kinds: tuple[str, ...],
    engine: str,
    actors: int | None,
    gpus: float | None,
    as_json: bool,
    kinds: tuple[str, ...],
    **options: Any,
) -> None:
    """Tag all audio files below DIR, or those in a list, into one table.

    Lists are .txt (a path per line), playlists (.m3u, .m3u8, .pls, .xspf), or tables as for --data. A file with a .cue
    sheet gets a row per track. A file that cannot be tagged gets a row with the error, and the exit code is 1. Run
    the command again to resume it after a stop.

    \b
    keras-musictag library ~/Music --out tags.parquet
    keras-musictag library ~/Music --out tags.parquet --update
    keras-musictag library ~/Music --out tags.parquet --runtime auto
    keras-musictag library ~/Music --out genres.csv --model mn04_audioset --kind genre --top 3
    keras-musictag library ~/Music --out tags.parquet --write-tags --no-dry-run
    keras-musictag library --out tags.parquet --undo
    keras-musictag library s3://music/all --out s3://music/tags --engine ray
    """  # noqa: D301
    if engine == "local" and (actors is not None or gpus is not None):
        raise UsageProblem("--actors and --gpus are for --engine ray.")
    if undo:
        _undo(out, undo_file, as_json)
        return
    if write_kinds and not write_tags:
        raise UsageProblem("--write-kind can only be used with --write-tags. Add it.")
    if not sources:
        raise UsageProblem("Missing DIR: give folders, audio files or lists.")
    writing = take_options(options, "--write-tags", write_tags, write_kinds)
    if engine == "ray" and writing is not None:
        raise UsageProblem("--write-tags works on this machine only. Leave it out, or --engine ray.")
    options["kinds"] = kinds or None
    check_unsure(options["unsure"], options["threshold"])
    if engine == "ray":
        names = ("max_cores", "nice", "pause_on_load", "imports", "chapters", "runtime")
        if any([options.pop(name) for name in names]):
            raise UsageProblem(
                "--max-cores, --nice, --pause-on-load, --import, --chapters and --runtime work on this machine only. "
                "Leave them out, or --engine ray."
            )
    try:
        if engine == "ray":
            summary = _tag_on_ray(sources, out, model, actors, gpus or 0.0, options)
        else:
            options |= {"write_tags": writing, "dry_run": dry_run, "undo_file": undo_file}
            summary = _tag_here(sources, out, model, options)
    except KeyboardInterrupt:
        click.echo("Stopped. Run the command again to resume.", err=True)
        sys.exit(STOPPED)
    if summary.written is not None:
        print_changes(summary.written, as_json)
    if as_json:
        facts = {**vars(summary), "out": str(summary.out), "failed": summary.failed}
        print_json({**facts, "written": None if summary.written is None else as_record(summary.written)})
    else:
        click.echo(summary)
        if engine == "local" and Path(out).suffix == ".parquet":
            suggest("search", out, "duration_s > 60")
    if summary.failed:
        sys.exit(1)


def _tag_here(sources: tuple[str, ...], out: str, model: str, options: dict[str, Any]) -> LibrarySummary:
    from ..apps.library import spare_resources, tag_library

    cores, nice = options.pop("max_cores"), options.pop("nice")
    if cores is not None:
        spare_resources.limit_cores(cores)
    if nice:
        spare_resources.lower_priority(_NICE)
    options["pause_on_load"] = spare_resources.half_the_cores() if options["pause_on_load"] else None
    tagger = load_tagger_on(model, options.pop("runtime"))
    with progress_only():
        return tag_library(sources, out, tagger, progress=True, **options)


def _tag_on_ray(
    sources: tuple[str, ...], out: str, model: str, actors: int | None, gpus: float, options: dict[str, Any]
) -> LibrarySummary:
    from ..apps.library import tag_on_ray

    import_backend()
    options["workers"] = options["workers"] or _RAY_WORKERS
    with progress_only():
        return tag_on_ray(sources, out, model, actors=actors, gpus=gpus, progress=True, **options)


def _undo(out: str, undo_file: Path | None, as_json: bool) -> None:
    from ..apps.library import undo_library

    restore(lambda: undo_library(out, undo_file), as_json)
