"""The command `finetune`: a tagger for your own tags."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..models.registry import DEFAULT_MODEL
from ..training.training_spec import PRECISIONS
from ..utils.files import slug
from ..utils.name_lists import split_names
from ..utils.tables import echo
from .common import (
    STOPPED,
    UsageProblem,
    import_backend,
    json_flag,
    load_tagger,
    loadable,
    main,
    print_json,
    printable,
    suggest_tagging,
)
from .completers import complete_file, complete_model
from .data_options import DATA_HELP, describe_plan
from .standard_error import progress_only

if TYPE_CHECKING:
    from ..tagger import Tagger
    from ..training.finetuning import FineTuned
    from ..training.finetuning.fine_tune_run import FineTunePlan

AUTO = "auto"  # value of --base
_SETTINGS = ("stages", "epochs", "learning_rate", "precision", "min_precision", "seed")


@main.command(short_help="Fine-tune a model on your own tags.")
@click.argument("model", required=False, shell_complete=complete_model)
@click.option(
    "--base",
    metavar="MODEL|auto",
    shell_complete=complete_model,
    help="The same as MODEL; auto: choose the best of a few models with a quick probe.",
)
@click.option("--data", "-d", metavar="DATA", required=True, shell_complete=complete_file, help=DATA_HELP)
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder of the result  [default: MODEL-DATA]")
@click.option(
    "--tags",
    metavar="A,B,...",
    help='Tags to learn, in the order of the outputs; one with a comma as "A, B"  [default: all]',
)
@click.option(
    "--validation",
    metavar="SHARE|DATA|none",
    default="0.2",
    show_default=True,
    shell_complete=complete_file,
    help="Fraction of the groups to hold out, data to validate on, or none.",
)
@click.option(
    "--stages", type=click.Choice(["head", "full"]), help="Train only a new head, or the full network  [default: full]"
)
@click.option("--epochs", type=click.IntRange(min=1), help="Maximum number of epochs in the second stage.")
@click.option(
    "--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Peak learning rate of the second stage."
)
@click.option("--precision", type=click.Choice(PRECISIONS), help="Arithmetic of the second stage  [default: float32]")
@click.option(
    "--min-precision",
    type=click.FloatRange(0, 1),
    help="Minimum precision of the thresholds kept for --threshold auto  [default: best F1 alone]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Random seed.")
@click.option(
    "--single-label/--multi-label",
    default=None,
    help="One tag per clip (softmax), or any number (sigmoid)  [default: one if every clip has exactly one]",
)
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder for log-mels and embeddings.")
@click.option("--strict", is_flag=True, help="Stop if any clip has a problem, instead of leaving it out.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, and stop.")
@json_flag
def finetune(model: str | None, base: str | None, data: str, **given: Any) -> None:
    """Fine-tune MODEL (default: musicnet_crnn) on the tags of labelled DATA.

    Which model is the best base depends on the data. `--base auto` fits a head to each of a few models whose weights
    are on this machine, compares them on held-out clips, and prints the table and the choice.

    First a new head is fitted, then the full network is trained, which is kept if it does better on held-out clips. Run
    the command again to resume it after a stop. Bad files are reported and left out.

    \b
    keras-musictag finetune --data songs/ --out mine --dry-run
    keras-musictag finetune --base auto --data songs/ --out mine
    keras-musictag finetune musicnn_msd --data songs.csv --tags dub,garage --out mine
    keras-musictag finetune --data train.csv --validation valid.csv --stages head
    """  # noqa: D301
    if model is not None and base is not None:
        raise UsageProblem(f"Name the model to start from once; got {model} and --base {base}.")
    options = {
        "tags": _tags(given["tags"]),
        "validation": _validation(given["validation"]),
        "settings": {name: given[name] for name in _SETTINGS if given[name] is not None},
        "single_label": given["single_label"],
        "strict": given["strict"],
    }
    if base == AUTO:
        prepared = _plan_with_best_base(data, options, given)
    else:
        prepared = _plan(load_tagger(model or base or DEFAULT_MODEL), data, options)
    from ..training.finetuning.fine_tune_run import carry_out

    model = model or (prepared.base.spec.name if base == AUTO else base) or DEFAULT_MODEL
    with progress_only():
        summary = str(prepared)
    report = prepared.data.report
    if not report.passed or report.notes:
        click.echo(str(report), err=True)
    out = given["out"] or Path(slug(f"{model}-{prepared.data.origin.name}"))
    click.echo(f"{summary}\nfolder: {printable(out)}", err=given["as_json"] or not given["dry_run"])
    if given["dry_run"]:
        if given["as_json"]:
            print_json(describe_plan(out, prepared.data))
        sys.exit(int(any(problem.row is not None for problem in report.problems)))
    try:
        with progress_only():
            result = carry_out(
                prepared, out, cache=given["cache"], strict=given["strict"], progress=sys.stderr.isatty()
            )
    except KeyboardInterrupt:
        click.echo("Stopped before a tagger was saved. Run the command again to resume.", err=True)
        sys.exit(STOPPED)
    _print_result(result, out, given["as_json"])


def _plan(tagger: Tagger, data: str, options: dict[str, Any]) -> FineTunePlan[Tagger]:
    from ..training.finetuning import FineTuneSpec
    from ..training.finetuning.fine_tune_run import plan

    with progress_only():
        return plan(tagger, data, **{**options, "settings": FineTuneSpec(**options["settings"])})


def _plan_with_best_base(data: str, options: dict[str, Any], given: dict[str, Any]) -> FineTunePlan[Tagger]:
    """Choose a base, print the comparison, and plan with it."""
    import_backend()
    from ..apps.probing.base_choice import choose_base
    from ..training.finetuning import FineTuneSpec
    from ..training.finetuning.fine_tune_run import FineTunePlan
    from ..training.finetuning.labelled_data import prepare

    settings = FineTuneSpec(**options["settings"])
    with progress_only():
        ready = prepare(data, seed=settings.seed, **{name: options[name] for name in options if name != "settings"})
        choice = choose_base(ready, settings=settings, cache=given["cache"], progress=sys.stderr.isatty())
    click.echo(f"{choice}\n", err=True)
    return FineTunePlan(base=load_tagger(choice.model), data=ready, settings=settings)


def _tags(text: str | None) -> list[str] | None:
    if text is None:
        return None
    try:
        return split_names(text)
    except ValueError as error:
        raise UsageProblem(f"--tags: {error}") from error


def _validation(text: str) -> float | str | None:
    """Parse `--validation`: a fraction, `None` for none, or the name of data."""
    try:
        return None if text == "none" else float(text)
    except ValueError:
        return text


def _print_result(result: FineTuned[Tagger], folder: Path, as_json: bool) -> None:
    """Print the result on standard output."""
    if as_json:
        print_json({"folder": printable(folder), "finished": result.finished, **result.report.to_dict()})
    else:
        echo(*result.report.blocks())
        suggest_tagging(folder)
    if not result.finished:
        click.echo(f"Stopped early: {loadable(folder)} has the best so far. Run the command again to resume.", err=True)
        sys.exit(STOPPED)
