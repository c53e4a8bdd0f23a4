"""The command `benchmark`: size, speed and accuracy of models on this machine."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..tagging.runtimes import runtimes
from ..utils.tables import echo
from .common import STDOUT, check_output, check_plot, json_file_option, json_flag, main, print_json, printable, suggest
from .completers import complete_file, complete_model
from .standard_error import progress_only

_FILE = click.Path(path_type=Path, dir_okay=False)


class _Group(click.Group):
    """Treat the words as names of models unless the first is a subcommand."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        completes_first_word = ctx.resilient_parsing and not args
        if not completes_first_word and not (args and args[0] in known):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        run = self.commands["run"]
        return [*super().shell_complete(ctx, incomplete), *run.params[0].shell_complete(ctx, incomplete)]


@main.group(cls=_Group, short_help="Measure size, speed and AUC of models, or compare two runs.")
def benchmark() -> None:
    """Measure models on this machine's CPU: parameters, file sizes, latency, throughput, memory, AUC.

    \b
    keras-musictag benchmark                               all pretrained models, on all installed runtimes
    keras-musictag benchmark musicnet_crnn vgg_mtt --quick
    keras-musictag benchmark compare before.json after.json

    `keras-musictag benchmark run --help` shows the options.
    """  # noqa: D301


def _split(_ctx: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


@benchmark.command(short_help="Measure models.")
@click.argument("models", metavar="[MODEL]...", nargs=-1, shell_complete=complete_model)
@click.option("--runtimes", callback=_split, help=f"Runtimes, from {','.join(runtimes())}  [default: those installed]")
@click.option("--precisions", callback=_split, help="Precisions, from float32,float16,int8  [default: all]")
@click.option("--threads", callback=_split, help="Numbers of CPU threads, such as 1,4  [default: one, and all cores]")
@click.option(
    "--data", shell_complete=complete_file, help="Labelled audio to measure the AUC on: a table, or a folder per tag."
)
@click.option("--dataset", default="", help="Name of the data.")
@click.option(
    "--split",
    default="test",
    show_default=True,
    type=click.Choice(["train", "valid", "test", "all"]),
    help="Split to measure on.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of audio files for calibrating int8.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that keeps the results of finished models, so that the same command resumes.",
)
@click.option("--quick", is_flag=True, help="Measure briefly: a few calls per model.")
@click.option("--profile", is_flag=True, help="Show where the time goes: decoding, resampling, features, network.")
@json_file_option
@click.option("--csv", "csv_file", type=_FILE, help="Write a row per measurement to this file.")
@click.option("--plot", type=click.Path(path_type=Path), help="Plot ROC-AUC against latency (png, svg, pdf).")
def run(models: tuple[str, ...], threads: tuple[str, ...] | None, **given: Any) -> None:
    """Measure MODELs, by default all pretrained ones, each in a separate process.

    A measurement that fails is reported, the others go on, and the exit code is 1.
    """
    from ..apps import benchmarking
    from ..apps.benchmarking.score_plot import plot_scores

    if given["csv_file"] is not None:
        check_output("--csv", given["csv_file"], (".csv",))
    if given["plot"] is not None:
        check_plot(given["plot"])
    if threads is not None and not all(count.isdigit() for count in threads):
        raise click.BadParameter(f"expected numbers such as 1,2; got {','.join(threads)!r}.", param_hint="--threads")
    folder = given["calibration"]
    with progress_only():
        measured = benchmarking.benchmark(
            models,
            runtimes=given["runtimes"],
            precisions=given["precisions"] or benchmarking.PRECISIONS,
            threads=None if threads is None else [int(count) for count in threads],
            data=given["data"],
            dataset=given["dataset"],
            split=given["split"],
            calibration=sorted(path for path in folder.rglob("*") if path.is_file()) if folder else (),
            quick=given["quick"],
            work=given["work"],
            command=shlex.join(["keras-musictag", *sys.argv[1:]]),
            progress=sys.stderr.isatty(),
        )
    if given["json_file"] not in (None, STDOUT):
        measured.to_json(given["json_file"])
    if given["csv_file"] is not None:
        measured.to_csv(given["csv_file"])
    if given["plot"] is not None:
        from ..plots import save_figure

        save_figure(plot_scores(measured), given["plot"])
    if given["json_file"] == STDOUT:
        print_json(measured.to_dict())
    else:
        echo(*([measured.profile_table()] if given["profile"] else measured.blocks()))
    for path in (given["json_file"], given["csv_file"], given["plot"]):
        if path not in (None, STDOUT):
            click.echo(f"Wrote {printable(path)}.", err=True)
    if measured.failed:
        sys.exit(1)
    if measured.rows and given["json_file"] is None and given["csv_file"] is None:
        fastest = min(measured.rows, key=lambda row: (row["precision"] != "float32", row["file"]["median_ms"]))
        suggest("tag", "SONG", "--model", fastest["model"], "--runtime", fastest["runtime"])


@benchmark.command(short_help="Compare two runs.")
@click.argument("before", type=_FILE)
@click.argument("after", type=_FILE)
@json_flag
def compare(before: Path, after: Path, as_json: bool) -> None:
    """Compare the timings of two runs; the exit code is 1 if any timing of the second is slower.

    A timing is slower if the ranges from the 10th to the 90th percentile do not overlap.
    """
    from ..apps import benchmarking

    compared = benchmarking.compare_runs(
        benchmarking.BenchmarkRun.from_json(before), benchmarking.BenchmarkRun.from_json(after)
    )
    if as_json:
        print_json(dataclasses.asdict(compared))
    else:
        echo(*compared.blocks())
    sys.exit(int(bool(compared.regressions)))
