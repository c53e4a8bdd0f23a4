"""Commands that tag: `tag`, `taggram`, `demo`."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..audio.demo import SECTIONS, demo_clip
from ..errors import AudioError
from .common import (
    UsageProblem,
    check_plot,
    check_unsure,
    csv_option,
    duration_option,
    format_option,
    json_option,
    kind_option,
    load_tagger_on,
    main,
    model_arguments,
    model_option,
    offset_option,
    print_json,
    printable,
    runtime_option,
    suggest,
    threads_option,
    threshold_option,
    unsure_option,
)
from .standard_error import stderr_on_failure
from .writing import restore_files, tag_and_write, take_options, write_options

if TYPE_CHECKING:
    from ..tagger import TagResult


_BAR = 24  # characters of a full bar


@main.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@model_option
@click.option("--top", "-n", type=click.IntRange(min=1), default=10, show_default=True, help="Number of tags per file.")
@threshold_option
@unsure_option
@click.option("--plot", type=click.Path(path_type=Path), help="Plot the tags of one file (png, svg, pdf).")
@kind_option
@click.option("--write", is_flag=True, help="Write tags into the files' metadata; with --no-dry-run, for real.")
@write_options
@runtime_option
@threads_option
@offset_option
@duration_option
@format_option
@json_option
@csv_option
def tag(
    files: tuple[Path, ...],
    model: str,
    top: int,
    threshold: float | Literal["auto"],
    unsure: bool,
    plot: Path | None,
    kinds: tuple[str, ...],
    offset: float,
    duration: float | None,
    output: str,
    runtime: str | None,
    threads: int | None,
    write: bool,
    dry_run: bool,
    undo: bool,
    undo_file: Path | None,
    **options: Any,
) -> None:
    """Tag audio FILES.

    JSON output has one object per file and line; CSV has the columns file, tag, probability, error. A file that cannot
    be tagged is reported on standard error and in the JSON or CSV, and the exit code is 1; the others are tagged.

    \b
    keras-musictag tag song.mp3
    keras-musictag tag *.mp3 --write --only-missing --no-dry-run
    keras-musictag tag --undo
    """  # noqa: D301
    if undo:
        if files:
            raise UsageProblem("--undo restores all files in the undo file. Leave FILES out.")
        restore_files(undo_file, output)
        return
    if not files:
        raise UsageProblem("Missing FILES: give audio files.")
    writing = take_options(options, "--write", write, kinds)
    if writing is not None:
        tagger, excerpt = load_tagger_on(model, runtime, threads), {"offset": offset, "duration": duration}
        tag_and_write(tagger, files, writing, dry_run=dry_run, undo_file=undo_file, output=output, **excerpt)
        return
    check_unsure(unsure, threshold)
    if plot is not None:
        check_plot(plot)
        if len(files) > 1:
            raise UsageProblem(f"--plot takes one file; got {len(files)} files. Run the command for each.")
    tagger = load_tagger_on(model, runtime, threads)
    results = tagger.tag_many(
        files, top=top, threshold=threshold, unsure=unsure, kinds=kinds or None, offset=offset, duration=duration
    )
    for_plot = None
    if plot is not None:
        results, for_plot = itertools.tee(results)
    failed = _print_results(results, len(files), tagger.spec.name, output)
    if failed:
        if len(files) > 1:
            click.echo(f"{failed} of {len(files)} files could not be tagged.", err=True)
        sys.exit(1)
    if plot is not None and for_plot is not None:
        _plot_tags(next(for_plot), tagger.spec.name, plot)
    if output == "text":
        suggest("taggram", files[0], *model_arguments(model))


@main.command()
@model_option
@click.option("--top", "-n", type=click.IntRange(min=1), default=4, show_default=True, help="Tags per section.")
@runtime_option
@threads_option
def demo(model: str, top: int, runtime: str | None, threads: int | None) -> None:
    """Tag the bundled clip section by section: a violin with strings, a classical guitar, techno."""
    tagger = load_tagger_on(model, runtime, threads)
    click.echo(printable(demo_clip()))
    for section in SECTIONS:
        with stderr_on_failure():
            tags = tagger.tag(demo_clip(), offset=section.offset, duration=section.duration, top=top)
        end = section.offset + section.duration
        _echo_tags(f"{section.name} ({section.offset:.1f} to {end:.1f} s)", tags)
    suggest("tag", "SONG.mp3", *model_arguments(model), always=True)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@model_option
@click.option(
    "--hop", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="Step in seconds."
)
@click.option(
    "--window",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds of audio per window.  [default: the model's window, 6 at most]",
)
@click.option("--top", "-n", type=click.IntRange(min=1), default=10, show_default=True, help="Tags to show or plot.")
@click.option("--plot", type=click.Path(path_type=Path), help="Plot the taggram (png, svg, pdf).")
@kind_option
@runtime_option
@threads_option
@offset_option
@duration_option
@format_option
@json_option
@csv_option
def taggram(
    file: Path,
    model: str,
    hop: float,
    window: float | None,
    top: int,
    plot: Path | None,
    kinds: tuple[str, ...],
    offset: float,
    duration: float | None,
    output: str,
    runtime: str | None,
    threads: int | None,
) -> None:
    """Show the tags of FILE over time.

    Text shows the most probable tags; JSON and CSV hold all tags. Each row is a window; its time is the center in
    seconds.
    """
    if plot is not None:
        check_plot(plot)
    tagger = load_tagger_on(model, runtime, threads)
    with stderr_on_failure(expected=AudioError):
        result = tagger.taggram(
            file, hop_seconds=hop, window_seconds=window, kinds=kinds or None, offset=offset, duration=duration
        )
    _echo_notes(printable(file), result.notes)
    if plot is not None:
        from ..plots import save_figure

        save_figure(result.plot(top=top), plot)
        click.echo(f"Wrote {plot}.", err=True)
    if output == "json":
        print_json({"file": printable(file), **result.to_dict()})
    elif output == "csv":
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(["time", *result.tags])
        for time, row in zip(result.times, result.probabilities, strict=True):
            rows.writerow([f"{time:.3f}", *(f"{p:.6f}" for p in row)])
    elif plot is None:
        _echo_taggram(result, top)
        suggest("taggram", file, *model_arguments(model), "--plot", "taggram.png")


def _plot_tags(result: TagResult, model: str, path: Path) -> None:
    from ..plots import plot_top_tags, save_figure

    title = f"{printable(Path(result.source.name))}, {model}"
    save_figure(plot_top_tags(result.tags or {}, top=None, title=title), path)
    click.echo(f"Wrote {path}.", err=True)


# === Printing ===


def _print_results(results: Iterator[TagResult], total: int, model: str, output: str) -> int:
    """Print results as they arrive; return the number of failures."""
    rows = csv.writer(sys.stdout, lineterminator="\n") if output == "csv" else None
    if rows is not None:
        rows.writerow(["file", "tag", "probability", "error"])
    failed = 0
    for result in _with_progress(results, total):
        name = printable(result.source)
        error = None if result.error is None else str(result.error)
        if error is not None:
            failed += 1
            click.echo(f"error: {error}", err=True)
        _echo_notes(name, result.notes)
        if output == "json":
            body: dict[str, Any] = {"tags": _rounded(result.tags)} if result.tags is not None else {"error": error}
            if result.notes:
                body["notes"] = result.notes
            print_json({"file": name, "model": model, **body})
        elif rows is not None:
            for label, p in (result.tags or {}).items():
                rows.writerow([name, label, f"{p:.6f}", ""])
            if not result.tags:  # an error, or no tag above the threshold: every file has a row
                rows.writerow([name, "", "", error or ""])
        elif result.tags is not None:
            _echo_tags(name, result.tags)
    return failed


def _with_progress(results: Iterator[TagResult], total: int) -> Iterator[TagResult]:
    """Yield results without the decoders' messages; show a progress bar if they are not printed to a terminal."""
    from tqdm.auto import tqdm

    show_bar = total > 1 and sys.stderr.isatty() and not sys.stdout.isatty()
    with tqdm(total=total, unit="file", delay=2, disable=not show_bar) as bar:
        for _ in range(total):
            with stderr_on_failure():
                result = next(results)
            yield result
            bar.update()


def _echo_notes(name: str, notes: tuple[str, ...]) -> None:
    for note in notes:
        click.echo(f"note: {name}: {note}", err=True)


def _rounded(tags: dict[str, float]) -> dict[str, float]:
    return {label: round(p, 6) for label, p in tags.items()}


def _echo_tags(name: str, tags: dict[str, float]) -> None:
    click.echo(click.style(name, bold=True))
    if not tags:
        click.echo("  (no tag reaches the threshold)")
    width = max(map(len, tags), default=0)
    for label, p in tags.items():
        click.echo(f"  {label:<{width}}  {p:.3f}  {click.style(_bar(p), fg='cyan')}".rstrip())


def _bar(p: float) -> str:
    eighths = round(p * _BAR * 8)
    return "\N{FULL BLOCK}" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]


def _echo_taggram(result: Any, top: int) -> None:
    """Print a line per window: its center in seconds and its most probable tags."""
    for time, row in zip(result.times, result.probabilities, strict=True):
        best = sorted(range(len(row)), key=lambda column: -row[column])[:top]
        click.echo(f"{time:7.1f} s  " + ", ".join(f"{result.tags[c]} {row[c]:.2f}" for c in best))
