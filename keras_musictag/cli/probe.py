"""The command `probe`: compare models as a base for fine-tuning."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..models.registry import list_models
from ..utils.tables import echo
from .common import (
    STDOUT,
    check_output,
    check_plot,
    import_backend,
    json_file_option,
    main,
    print_json,
    printable,
    suggest,
)
from .completers import complete_file, complete_model
from .data_options import DATA_HELP, load_data
from .standard_error import progress_only

if TYPE_CHECKING:
    from ..apps.probing.probe_result import Probing

_FILE = click.Path(path_type=Path, dir_okay=False)


@main.command(short_help="Compare models as a base for your own tags.")
@click.argument("models", metavar="[MODEL]...", nargs=-1, shell_complete=complete_model)
@click.option("--data", "-d", metavar="DATA", required=True, shell_complete=complete_file, help=DATA_HELP)
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test", "all"]),
    default="all",
    show_default=True,
    help="Split to probe on; all: every row.",
)
@click.option("--dataset", metavar="NAME", help="Name of the data  [default: name of its file or folder]")
@click.option(
    "--folds", type=click.IntRange(min=2), default=5, show_default=True, help="Number of cross-validation folds."
)
@click.option("--mfcc", is_flag=True, help="Also probe MFCC statistics, as a baseline.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder for log-mels and embeddings.")
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Number of bootstrap resamples; 0: no intervals.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the folds and resamples."
)
@json_file_option
@click.option("--csv", "csv_file", type=_FILE, help="Write a row per model to this file.")
@click.option("--plot", type=click.Path(path_type=Path), help="Plot a bar per model (png, svg, pdf).")
@click.option(
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Number of files decoded at once."
)
def probe(
    models: tuple[str, ...],
    data: str,
    split: str,
    dataset: str | None,
    folds: int,
    mfcc: bool,
    cache: Path | None,
    bootstrap: int,
    seed: int,
    json_file: Path | None,
    csv_file: Path | None,
    plot: Path | None,
    workers: int,
) -> None:
    """Compare MODELs by cross-validating a linear classifier on their embeddings of labelled DATA.

    A MODEL is a name, a saved folder, or hf://org/repo@revision (default: all pretrained models). Only the classifier
    is trained, so this takes minutes, and shows which model to fine-tune. A file that cannot be used is reported and
    left out, a MODEL that cannot be loaded is reported, and the exit code is 1.

    \b
    keras-musictag probe --data songs.csv --mfcc --cache features
    keras-musictag probe musicnet_crnn musicnn_msd --data gtzan:FOLDER --split train --plot models.png
    """  # noqa: D301
    if csv_file is not None:
        check_output("--csv", csv_file, (".csv",))
    if plot is not None:
        check_plot(plot)
    manifest, name, grouped_by = load_data(data)
    names = models or tuple(name for name in list_models(pretrained=True) if name != "tiny")  # which is for tests
    import_backend()
    from ..apps.probing import runner as probing

    with progress_only():
        result = probing.probe(
            names,
            manifest if split == "all" else manifest.split(split),
            dataset=dataset or name,
            folds=folds,
            mfcc=mfcc,
            cache=cache,
            n_bootstrap=bootstrap,
            seed=seed,
            grouped_by=grouped_by,
            workers=workers,
            progress=sys.stderr.isatty(),
        )
    _report(result, json_file, csv_file, plot)
    # Models that the user did not name may be unavailable; the table shows it.
    if result.scores.failed or (models and any(row.error for row in result.models)):
        sys.exit(1)
    best = next((row.model for row in result.models if row.features and row.model in names), None)
    if best is not None and json_file is None and csv_file is None:
        suggest("finetune", best, "--data", data)


def _report(result: Probing, json_file: Path | None, csv_file: Path | None, plot: Path | None) -> None:
    """Print the failures and the table or the JSON, and write the files."""
    for failure in result.scores.failed:
        click.echo(f"error: {failure.reason}", err=True)
    if json_file == STDOUT:
        print_json(result.to_dict())
    else:
        echo(*result.blocks())
    if json_file not in (None, STDOUT):
        result.to_json(json_file)
    if csv_file is not None:
        result.to_csv(csv_file)
    if plot is not None:
        from ..plots import save_figure

        save_figure(result.plot(), plot)
    for path in (json_file, csv_file, plot):
        if path not in (None, STDOUT):
            click.echo(f"Wrote {printable(path)}.", err=True)
