"""The command `evaluate`: accuracy of models on labelled data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..utils.tables import echo
from .common import (
    STDOUT,
    UsageProblem,
    check_output,
    check_plot,
    json_file_option,
    load_tagger_on,
    main,
    print_json,
    printable,
    suggest,
)
from .completers import complete_file, complete_scored
from .data_options import DATA_HELP, load_data
from .standard_error import progress_only

if TYPE_CHECKING:
    from ..evaluation.results import Comparison, Evaluation
    from ..evaluation.scores import Scores

_FILE = click.Path(path_type=Path, dir_okay=False)


@main.command(short_help="Measure the accuracy of models on labelled data.")
@click.argument("model", shell_complete=complete_scored)
@click.argument("model_b", required=False, shell_complete=complete_scored)
@click.option("--data", "-d", metavar="DATA", shell_complete=complete_file, help=DATA_HELP)
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test", "all"]),
    default="test",
    show_default=True,
    help="Split to measure on; all: every row.",
)
@click.option("--dataset", metavar="NAME", help="Name of the data  [default: name of its file or folder]")
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Number of bootstrap resamples; 0: no intervals.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the resamples.")
@json_file_option
@click.option("--csv", "csv_file", type=_FILE, help="Write a row per tag to this file.")
@click.option("--plot", type=click.Path(path_type=Path), help="Plot a bar per tag (png, svg, pdf).")
@click.option(
    "--metric",
    type=click.Choice(["roc_auc", "pr_auc"]),
    default="roc_auc",
    show_default=True,
    help="Metric of --plot.",
)
@click.option("--scores", "scores_file", type=_FILE, help="Save all probabilities: .npz to compare later, or .csv.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder of cached log-mels.")
@click.option(
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Number of files decoded at once."
)
@click.option("--strict", is_flag=True, help="Stop at the first file that cannot be tagged.")
def evaluate(
    model: str,
    model_b: str | None,
    data: str | None,
    split: str,
    dataset: str | None,
    bootstrap: int,
    seed: int,
    json_file: Path | None,
    csv_file: Path | None,
    plot: Path | None,
    metric: str,
    scores_file: Path | None,
    cache: Path | None,
    workers: int,
    strict: bool,
) -> None:
    """Measure how well MODEL tags labelled DATA: ROC-AUC and PR-AUC with intervals, macro and per tag.

    MODEL is a name, a saved folder, hf://org/repo@revision, or an .npz file that --scores wrote. With MODEL_B, both are
    measured on the same rows and compared. A file that cannot be tagged is reported and left out, and the exit code
    is 1.

    \b
    keras-musictag evaluate musicnn_mtt --data magnatagatune:FOLDER --json result.json
    keras-musictag evaluate ./mine musicnn_mtt --data test.csv --split all --plot difference.png
    """  # noqa: D301
    _check_outputs(json_file, csv_file, plot, scores_file)
    models = [model] if model_b is None else [model, model_b]
    if model == model_b:
        raise UsageProblem(f"{model} is given twice: there is nothing to compare.")
    scores = _load_or_measure(models, data, split, dataset, cache, workers, strict)
    if scores_file is not None:  # first, so that all the rest can be repeated from this file
        scores.save(scores_file)
        click.echo(f"Wrote {scores_file}.", err=True)
    for failure in scores.failed:
        click.echo(f"error: {failure.reason}", err=True)
    result: Evaluation | Comparison
    if len(scores.models) == 1:
        result = scores.evaluate(n_bootstrap=bootstrap, seed=seed)
        blocks = result.blocks()
    else:
        result = scores.compare(*scores.models, n_bootstrap=bootstrap, seed=seed)
        blocks = [*result.a.blocks(), "", *result.b.blocks(), "", *result.blocks()]
    if json_file == STDOUT:
        print_json(result.to_dict())
    else:
        echo(*blocks)
    _write(result, json_file, csv_file, plot, metric)
    if scores.failed:
        sys.exit(1)
    if data is not None and len(models) == 1 and json_file is None and csv_file is None:
        suggest("finetune", model, "--data", data)


# === What to measure ===


def _load_or_measure(
    models: list[str], data: str | None, split: str, dataset: str | None, cache: Path | None, workers: int, strict: bool
) -> Scores:
    """Return the scores of one or two models, read from files where given."""
    from ..evaluation.scores import Scores

    loaded = {name: Scores.load(name) for name in models if name.endswith(".npz")}
    fresh = [name for name in models if name not in loaded]
    if fresh:
        if data is None:
            raise UsageProblem(f"--data is missing: name the labelled data to measure {fresh[0]} on. {DATA_HELP}")
        manifest, name, grouped_by = load_data(data)
        # Load all before the work: the second may be missing.
        taggers = {name: load_tagger_on(name) for name in fresh}
        title = dataset or next((scores.dataset for scores in loaded.values()), name)
        from ..evaluation.measuring import score

        with progress_only():
            for model, tagger in taggers.items():
                loaded[model] = score(
                    tagger,
                    manifest,
                    dataset=title,
                    split=split,
                    cache=cache,
                    strict=strict,
                    grouped_by=grouped_by,
                    workers=workers,
                    progress=sys.stderr.isatty(),
                )
    scores = loaded[models[0]] if len(models) == 1 else _join([loaded[name] for name in models], models)
    if len(scores.models) > 2:
        raise UsageProblem(f"At most two models can be compared; got scores of {', '.join(scores.models)}.")
    return scores


def _join(parts: list[Scores], models: list[str]) -> Scores:
    """Join the scores of two models; if their names are equal, use those given on the command line."""
    import dataclasses

    if set(parts[0].models) & set(parts[1].models):
        parts = [
            dataclasses.replace(part, models=(name,)) if len(part.models) == 1 else part
            for part, name in zip(parts, models, strict=True)
        ]
    return parts[0].join(parts[1])


# === Output ===


def _check_outputs(json_file: Path | None, csv_file: Path | None, plot: Path | None, scores_file: Path | None) -> None:
    """Check before the work starts that all outputs can be written."""
    for option, path, suffixes in (
        ("--csv", csv_file, (".csv",)),
        ("--scores", scores_file, (".npz", ".csv")),
    ):
        if path is not None:
            check_output(option, path, suffixes)
    if plot is not None:
        check_plot(plot)
    paths = [path.absolute() for path in (json_file, csv_file, plot, scores_file) if path is not None]
    if len(set(paths)) < len(paths):
        raise UsageProblem("Two options name the same file. Give each its own file.")


def _write(
    result: Evaluation | Comparison, json_file: Path | None, csv_file: Path | None, plot: Path | None, metric: str
) -> None:
    if json_file not in (None, STDOUT):
        result.to_json(json_file)
    if csv_file is not None:
        result.to_csv(csv_file)
    if plot is not None:
        from ..plots import save_figure

        save_figure(result.plot(metric="pr_auc" if metric == "pr_auc" else "roc_auc"), plot)
    for path in (json_file, csv_file, plot):
        if path not in (None, STDOUT):
            click.echo(f"Wrote {printable(path)}.", err=True)
