"""The command `keras-musictag`.

Results go to standard output, everything else to standard error. Exit codes: 0 all went well, 1 a file could not be
tagged or a check failed, 2 the command itself was wrong (unknown model, missing weights, bad option).
"""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from . import __version__
from .demo import demo_clip
from .errors import AudioError, MusicTagError
from .registry import DEFAULT_MODEL, list_models, model_info

if TYPE_CHECKING:
    from .tagger import Tagger, TagResult

_BAR = 24  # characters of a full bar
_FORMATS = click.Choice(["text", "json", "csv"])


class UsageProblem(click.ClickException):
    """An error of the command, not of a file: exit code 2."""

    exit_code = 2


class _Group(click.Group):
    """Turns this package's exceptions into one line on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AudioError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:  # `... | head`: click ends quietly
            raise
        except (MusicTagError, ImportError, OSError, ValueError) as error:
            raise UsageProblem(str(error)) from error


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        versions = []
        for name in ("keras", backend):
            try:
                versions.append(f"{name} {importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                versions.append(f"{name} not installed")
        click.echo(f"keras_musictag {__version__} ({', '.join(versions)}, Python {sys.version.split()[0]})")
        ctx.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show versions."
)
def main() -> None:
    """Tag music with Keras models: sound file in, tags with probabilities out.

    \b
    keras-musictag demo                      tag the bundled clip
    keras-musictag tag *.mp3 --top 5         tag files of your own
    keras-musictag taggram song.mp3          tags over time
    keras-musictag models                    what there is
    """  # noqa: D301 (click's mark is the character \\b, so the string must not be raw)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or pipe that knows no block characters gets "?"
            stream.reconfigure(errors="replace")


# === Options that several commands share ===

_model_option = click.option(
    "--model",
    "-m",
    default=DEFAULT_MODEL,
    show_default=True,
    help="Model name, saved folder, or hf://org/repo@revision.",
)
_format_option = click.option(
    "--format", "-f", "output", type=_FORMATS, default="text", show_default=True, help="How to print the result."
)
_json_option = click.option("--json", "output", flag_value="json", help="Same as --format json.")
_csv_option = click.option("--csv", "output", flag_value="csv", help="Same as --format csv.")
_offset_option = click.option("--offset", type=click.FloatRange(min=0), default=0.0, help="Seconds to skip.")
_duration_option = click.option("--duration", type=click.FloatRange(min=0, min_open=True), help="Seconds to use.")


# === Commands ===


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@_model_option
@click.option("--top", "-n", type=click.IntRange(min=1), default=10, show_default=True, help="Tags per file.")
@click.option(
    "--threshold", "-t", type=click.FloatRange(0, 1), default=0.0, help="Leave out tags below this probability."
)
@_offset_option
@_duration_option
@_format_option
@_json_option
@_csv_option
def tag(
    files: tuple[Path, ...],
    model: str,
    top: int,
    threshold: float,
    offset: float,
    duration: float | None,
    output: str,
) -> None:
    """Tag sound FILES.

    JSON output is one object per line and file; CSV has the columns file, tag, probability, error. A file that cannot
    be tagged is reported on standard error (and in the JSON or CSV), the others are tagged all the same, and the exit
    code is 1.
    """
    tagger = _load(model)
    results = tagger.tag_many(files, top=top, threshold=threshold, offset=offset, duration=duration)
    failed = _print_results(results, len(files), tagger.spec.name, output)
    if failed:
        if len(files) > 1:
            click.echo(f"{failed} of {len(files)} files could not be tagged.", err=True)
        sys.exit(1)


@main.command()
@_model_option
@click.option("--top", "-n", type=click.IntRange(min=1), default=8, show_default=True, help="Tags to show.")
def demo(model: str, top: int) -> None:
    """Tag the bundled clip: 16 seconds of synthesised instruments."""
    tagger = _load(model)
    if _print_results(tagger.tag_many([demo_clip()], top=top), 1, tagger.spec.name, "text"):
        sys.exit(1)
    click.echo("Now one of yours: keras-musictag tag SONG.mp3", err=True)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@_model_option
@click.option(
    "--hop", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="Seconds per step."
)
@click.option("--top", "-n", type=click.IntRange(min=1), default=10, show_default=True, help="Tags to show or draw.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it to this file (png, svg, pdf).")
@_offset_option
@_duration_option
@_format_option
@_json_option
@_csv_option
def taggram(
    file: Path, model: str, hop: float, top: int, plot: Path | None, offset: float, duration: float | None, output: str
) -> None:
    """Tags of FILE over time.

    Text shows the most probable tags; JSON and CSV hold all of them, one row per window, with the middle of the window
    in seconds.
    """
    if plot is not None:
        _check_plot(plot)
    tagger = _load(model)
    with _stderr_on_failure(expected=AudioError):
        result = tagger.taggram(file, hop_seconds=hop, offset=offset, duration=duration)
    if plot is not None:
        from .plots import save_figure

        save_figure(result.plot(top=top), plot)
        click.echo(f"Wrote {plot}.", err=True)
    if output == "json":
        click.echo(json.dumps({"file": str(file), **result.to_dict()}, ensure_ascii=False))
    elif output == "csv":
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(["time", *result.tags])
        for time, row in zip(result.times, result.probabilities, strict=True):
            rows.writerow([f"{time:.3f}", *(f"{p:.6f}" for p in row)])
    elif plot is None:
        _echo_taggram(result, top)


@main.command(short_help="List models.")
@click.argument("pattern", default="*")
@click.option("--pretrained", is_flag=True, help="Only models that have weights.")
@click.option("--json", "as_json", is_flag=True, help="Print specs as JSON, one per line.")
def models(pattern: str, pretrained: bool, as_json: bool) -> None:
    """List models whose name matches PATTERN (e.g. "*cnn*")."""
    names = list_models(pattern, pretrained=pretrained)
    if as_json:
        for name in names:
            click.echo(json.dumps(model_info(name).to_dict(), ensure_ascii=False))
        return
    if not names:
        click.echo(f"No model matches {pattern!r}.", err=True)
        return
    width = max(map(len, names))
    for name in names:
        spec = model_info(name)
        state = "" if spec.weights else "  [no weights yet]"
        click.echo(f"{name:<{width}}  {spec.claims.get('parameters', 0):>9,}  {spec.description}{state}")
    click.echo("\nMore about one of them: keras-musictag info NAME", err=True)


@main.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the spec as JSON.")
def info(name: str, as_json: bool) -> None:
    """Everything the spec of model NAME says."""
    from .cards import model_card

    spec = model_info(name)
    if as_json:
        click.echo(spec.to_json(), nl=False)
        return
    card = model_card(spec)
    click.echo(card[card.index("# ") :], nl=False)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--no-weights", is_flag=True, help="Do not fetch weights; check architecture and preprocessing only.")
@click.option("--json", "as_json", is_flag=True, help="Print one object per model and line.")
def validate(names: tuple[str, ...], no_weights: bool, as_json: bool) -> None:
    """Check models against what their specs claim: layers, shapes, parameters, reduction, preprocessing, weights.

    Without NAMES, every registered model is checked. Exit code 1 if a claim does not hold.
    """
    from .validation import validate as check_model

    _import_backend()
    failures = 0
    for name in names or list_models():
        checks = check_model(name, weights=not no_weights)
        failures += sum(not check.passed for check in checks)
        if as_json:
            click.echo(json.dumps({"model": name, "checks": [vars(check) for check in checks]}))
            continue
        click.echo(name)
        for check in checks:
            verdict = "ok  " if check.passed else "FAIL"
            detail = f"{check.actual}" if check.passed else f"expected {check.expected}, found {check.actual}"
            click.echo(f"  {verdict} {check.name}: {detail}")
        if model_info(name).weights is None:
            click.echo("  --   weights: none yet")
    if failures:
        click.echo(f"{failures} claims do not hold.", err=True)
        sys.exit(1)


# === Printing ===


def _print_results(results: Iterator[TagResult], total: int, model: str, output: str) -> int:
    """Print one result after another as they come; returns how many failed."""
    rows = csv.writer(sys.stdout, lineterminator="\n") if output == "csv" else None
    if rows is not None:
        rows.writerow(["file", "tag", "probability", "error"])
    failed = 0
    for result in _with_progress(results, total):
        name = _printable(result.source)
        error = None if result.error is None else str(result.error)
        if error is not None:
            failed += 1
            click.echo(f"error: {error}", err=True)
        if output == "json":
            body = {"tags": _rounded(result.tags)} if result.tags is not None else {"error": error}
            click.echo(json.dumps({"file": name, "model": model, **body}, ensure_ascii=False))
        elif rows is not None:
            for label, p in (result.tags or {}).items():
                rows.writerow([name, label, f"{p:.6f}", ""])
            if not result.tags:  # an error, or nothing above the threshold: no file goes unmentioned
                rows.writerow([name, "", "", error or ""])
        elif result.tags is not None:
            _echo_tags(name, result.tags)
    return failed


def _with_progress(results: Iterator[TagResult], total: int) -> Iterator[TagResult]:
    """Pass results on, with a progress bar where nobody sees them arrive, and without the decoders' own notes."""
    from tqdm.auto import tqdm

    unseen = total > 1 and sys.stderr.isatty() and not sys.stdout.isatty()
    with tqdm(total=total, unit="file", delay=2, disable=not unseen) as bar:
        for _ in range(total):
            with _stderr_on_failure():
                result = next(results)
            yield result
            bar.update()


def _rounded(tags: dict[str, float]) -> dict[str, float]:
    return {label: round(p, 6) for label, p in tags.items()}


def _printable(path: Path) -> str:
    """The path as text; bytes that are no UTF-8 become replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")


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
    """One line per window: its middle, and its most probable tags."""
    for time, row in zip(result.times, result.probabilities, strict=True):
        best = sorted(range(len(row)), key=lambda column: -row[column])[:top]
        click.echo(f"{time:7.1f} s  " + ", ".join(f"{result.tags[c]} {row[c]:.2f}" for c in best))


def _check_plot(path: Path) -> None:
    """Find out before the work, not after it, that the picture cannot be written."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageProblem(f"--plot {path}: the name must end in .png, .svg or .pdf.")
    if not path.absolute().parent.is_dir():
        raise UsageProblem(f"--plot {path}: there is no folder {path.absolute().parent}.")
    from .plots import new_axes

    new_axes(1, 1)


# === Loading ===


def _load(model: str) -> Tagger:
    _import_backend()
    from .loading import load

    return load(model)


def _import_backend() -> None:
    """Import Keras without the notices that TensorFlow prints about drivers and instruction sets."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _stderr_on_failure():
        import keras  # noqa: F401


@contextlib.contextmanager
def _stderr_on_failure(expected: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Hold back what C libraries write to file descriptor 2, and show it only if the block fails unexpectedly."""
    try:
        original = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    held: IO[bytes]
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        except expected:
            raise
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)


if __name__ == "__main__":
    main()
