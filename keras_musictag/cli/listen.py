"""The command `listen`: tag live audio."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidSamplesError
from .common import (
    UsageProblem,
    kind_option,
    load_tagger_on,
    main,
    model_option,
    print_json,
    runtime_option,
    threads_option,
)
from .standard_error import quietly

if TYPE_CHECKING:
    import numpy as np

    from ..tagging.base_tagger import BaseTagger


@main.command(short_help="Tag live audio, from a pipe or a microphone.")
@model_option
@click.option("--sr", type=click.IntRange(min=1), help="Sample rate in Hz  [required for pipes; default: the device's]")
@click.option(
    "--format",
    "sample_format",
    type=click.Choice(["f32le", "s16le"]),
    default="f32le",
    show_default=True,
    help="Format of the samples in the pipe: 32-bit floats or 16-bit integers.",
)
@click.option("--channels", type=click.IntRange(1, 32), default=1, show_default=True, help="Interleaved channels.")
@click.option("--microphone", is_flag=True, help="Record instead of reading from standard input.")
@click.option("--device", help="Number or name of the microphone; python -m sounddevice lists them.")
@click.option(
    "--hop", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="Step in seconds."
)
@click.option(
    "--window",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds of audio per window.  [default: the model's window, 6 at most]",
)
@click.option("--top", "-n", type=click.IntRange(min=1), default=5, show_default=True, help="Number of tags to show.")
@kind_option
@runtime_option
@threads_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per window, with all tags.")
def listen(
    model: str,
    sr: int | None,
    sample_format: str,
    channels: int,
    microphone: bool,
    device: str | None,
    hop: float,
    window: float | None,
    top: int,
    kinds: tuple[str, ...],
    runtime: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Tag live audio, until the pipe ends or Ctrl-C.

    \b
    ffmpeg -i URL -f f32le -ac 1 -ar 44100 - | keras-musictag listen --sr 44100
    keras-musictag listen --microphone

    A window is shown when it is complete: on a terminal in one line that is refreshed, otherwise in a line per window.
    A pipe that ends in the middle of a sample is reported, and the exit code is 1.
    """  # noqa: D301
    microphone = microphone or device is not None
    if not microphone:
        if sys.stdin.isatty():
            raise UsageProblem("listen reads raw samples from a pipe; pipe some in, or record with --microphone.")
        if sr is None:
            raise UsageProblem("--sr is missing: raw samples carry no sample rate. Give it, for example --sr 44100.")
    from ..audio.microphone import recording
    from ..audio.pcm import read_pcm

    notes: list[str] = []
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        tagger = load_tagger_on(model, runtime, threads)
        blocks: Iterator[np.ndarray]
        if microphone:
            sr, blocks = stack.enter_context(recording(sr, channels=channels, device=device, notes=notes))
            click.echo(f"Recording at {sr} Hz (Ctrl-C stops it)", err=True)
        else:
            blocks = read_pcm(sys.stdin.buffer, sample_format, channels, notes=notes)
        assert sr is not None
        rows = tagger.stream(blocks, sr, hop_seconds=hop, window_seconds=window, kinds=kinds or None, notes=notes)
        stack.enter_context(_end_of_line(refresh := sys.stdout.isatty() and not as_json))
        try:
            _print_rows(rows, tagger, kinds, top, as_json, refresh)
        except InvalidSamplesError as error:
            hint = "" if microphone else f" Or the samples in the pipe are not {sample_format}: check --format."
            raise InvalidSamplesError(f"{error}{hint}") from error
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if any(note.startswith("The pipe ended in the middle") for note in notes):
        sys.exit(1)


@contextlib.contextmanager
def _end_of_line(refresh: bool) -> Iterator[None]:
    """End the refreshed line after the block, also after an error."""
    try:
        yield
    finally:
        if refresh:
            click.echo()


def _print_rows(rows: Any, tagger: BaseTagger, kinds: tuple[str, ...], top: int, as_json: bool, refresh: bool) -> None:
    names = [tagger.names[column] for column in tagger.spec.vocabulary.columns(kinds=kinds or None)]
    for time, row in quietly(rows):
        order = (-row).argsort(kind="stable")
        if as_json:
            tags = {names[column]: round(float(row[column]), 6) for column in order}
            print_json({"time": round(time, 3), "tags": tags})
        else:
            line = f"{time:7.1f} s  " + ", ".join(f"{names[column]} {row[column]:.2f}" for column in order[:top])
            click.echo(f"\r\033[2K{line[: _columns() - 1]}" if refresh else line, nl=not refresh)
        sys.stdout.flush()


def _columns() -> int:
    import shutil

    return max(20, shutil.get_terminal_size().columns)
