"""The commands `train` and `distil`: run a recipe from a file or from options."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..training.training_spec import PRECISIONS
from ..utils.files import slug
from .common import STOPPED, UsageProblem, import_backend, json_flag, main, print_json, printable, suggest_tagging
from .completers import complete_file, complete_model, complete_recipe
from .data_options import DATA_HELP, describe_plan
from .standard_error import progress_only

if TYPE_CHECKING:
    from ..apps.recipes import Plan, Recipe
    from ..apps.recipes.execution import Result

# Option -> key of the recipe
_KEYS = {
    "teacher": "teacher",
    "seed": "seed",
    "validation": "data.validation",
    "steps": "training.steps",
    "learning_rate": "training.learning_rate",
    "precision": "training.precision",
    "batch_size": "batches.batch_size",
}

_OPTIONS = (
    click.option("--data", "-d", metavar="DATA", shell_complete=complete_file, help=DATA_HELP),
    click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder of the result  [default: MODEL-DATA]"),
    click.option(
        "--recipe", "-r", metavar="FILE", shell_complete=complete_recipe,
        help="TOML file with all settings; other options override it."
    ),
    click.option("--steps", type=click.IntRange(min=1), help="Number of optimizer steps."),
    click.option("--batch-size", type=click.IntRange(min=1), help="Number of windows per step."),
    click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Peak of the cosine schedule."),
    click.option("--seed", type=click.IntRange(min=0), help="Random seed."),
    click.option(
        "--validation", metavar="DATA", shell_complete=complete_file,
        help="Data to validate on, instead of the split valid."
    ),
    click.option("--precision", type=click.Choice(PRECISIONS), help="Arithmetic of training steps  [default: float32]"),
    click.option("--data-parallel", is_flag=True, help="Split each batch across all devices (JAX)."),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a recipe key: augment.gain_db=6."),
    click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder of cached log-mels."),
    click.option("--strict", is_flag=True, help="Stop if any clip has a problem, instead of leaving it out."),
    click.option("--dry-run", is_flag=True, help="Check everything, print the plan, and stop."),
    json_flag,
)  # fmt: skip


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


# === Commands ===


@main.command(short_help="Train a model on labelled clips.")
@click.argument("model", required=False, shell_complete=complete_model)
@_options
def train(model: str | None, **given: Any) -> None:
    """Train the network of MODEL on labelled DATA, or run a recipe.

    At the end the tagger is evaluated on the split test. Run the command again to resume it after a stop. Bad
    files are reported and left out.

    \b
    keras-musictag train musicnet_crnn --data clips.csv --out mine
    keras-musictag train --recipe musicnet_crnn/magnatagatune --data FOLDER --out mine
    keras-musictag train musicnet_crnn --data clips.csv --set augment.gain_db=6 --set data.allow_untagged=true
    """  # noqa: D301
    _run("train", model, given)


@main.command(short_help="Distil a model from another one, without labels.")
@click.argument("student", required=False, shell_complete=complete_model)
@click.option(
    "--teacher",
    metavar="MODEL",
    multiple=True,
    callback=lambda _context, _option, names: names[0] if len(names) == 1 else [*names] or None,
    shell_complete=complete_model,
    help="Model whose probabilities are the targets, such as musicnn_mtt. Give several for their mean.",
)
@_options
def distil(student: str | None, **given: Any) -> None:
    """Train the network of STUDENT on the teacher's probabilities for DATA; a folder of music is enough.

    Run the command again to resume it after a stop. Bad files are reported and left out.

    \b
    keras-musictag distil musicnet_crnn --teacher musicnn_mtt --data music/ --out mine
    """  # noqa: D301
    _run("distil", student, given)


# === Steps ===


def _run(task: str, model: str | None, given: dict[str, Any]) -> None:
    from ..apps.recipes import plan_recipe
    from ..apps.recipes.execution import carry_out

    recipe = _recipe(task, model, given)
    with progress_only():
        plan = plan_recipe(recipe, given["data"], strict=given["strict"])
    report = plan.data.report
    if not report.passed or report.notes:
        click.echo(str(report), err=True)
    out = given["out"] or Path(slug(f"{recipe.model}-{plan.data.origin.name}"))
    click.echo(f"{plan}\nfolder: {printable(out)}", err=given["as_json"] or not given["dry_run"])
    if given["dry_run"]:
        if given["as_json"]:
            print_json(describe_plan(out, plan.data))
        sys.exit(int(any(problem.row is not None for problem in report.problems)))
    click.echo(f"log: {printable(out / 'run' / 'log.csv')}", err=True)
    import_backend()
    if given["data_parallel"]:
        from ..training.loop import data_parallel

        click.echo(f"devices: {data_parallel(recipe.batches.batch_size)}", err=True)
    with progress_only():
        result = carry_out(plan, out, cache=given["cache"], strict=given["strict"], progress=sys.stderr.isatty())
    _print_result(plan, result, given["as_json"])


def _recipe(task: str, model: str | None, given: dict[str, Any]) -> Recipe:
    """Make a recipe from the options, or load one and apply the options."""
    from ..apps.recipes import Recipe
    from ..apps.recipes.recipe import merged

    changes = {key: given[option] for option, key in _KEYS.items() if given.get(option) is not None}
    if given["validation"] is not None:
        changes["data.validation"] = str(Path(given["validation"]).absolute())
    if model is not None:
        changes["model"] = model
    changes |= dict(map(_setting, given["settings"]))
    if given["recipe"] is None:
        if model is None:
            raise UsageProblem(f"Name a model (e.g. {task} musicnet_crnn), or a recipe with --recipe.")
        return Recipe.from_dict(merged({"task": task}, changes))
    recipe = Recipe.load(given["recipe"])
    if task == "distil" and recipe.task != "distil":
        raise UsageProblem(f"{given['recipe']} is a recipe for {recipe.task}. Run it with train --recipe.")
    return recipe.changed(changes)


def _setting(text: str) -> tuple[str, Any]:
    """Parse `--set KEY=VALUE`; a value that is not valid TOML is text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageProblem(f"--set {text}: write KEY=VALUE, e.g. training.average=0.999.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def _print_result(plan: Plan, result: Result, as_json: bool) -> None:
    """Print the result on standard output."""
    state, folder = result.report, printable(result.folder)
    if as_json:
        print_json(_facts(plan, result))
    if not result.finished:
        kept = f" {folder} has the best weights so far, of step {state.best_step:,}." if state.best_step else ""
        click.echo(
            f"Stopped at step {state.step:,} of {plan.training.steps:,}.{kept} Run the command again to resume.",
            err=True,
        )
        sys.exit(STOPPED)
    if as_json:
        return
    for note in state.notes:
        click.echo(f"note: {note}")
    click.echo(f"best {plan.training.monitor} {state.best:.4f} at step {state.best_step:,} of {state.step:,}")
    if result.evaluation is not None:
        scored = result.evaluation
        click.echo(f"{scored.header()}: ROC-AUC {scored.roc_auc:.4f}, PR-AUC {scored.pr_auc:.4f}")
    if result.agreement is not None:
        agreed = result.agreement
        click.echo(
            f"agreement with {plan.recipe.teacher_names} on {plan.data.origin.title}, test, {agreed.n_clips:,} clips: "
            f"correlation {agreed.correlation:.4f}, ROC-AUC of its top tenth {agreed.roc_auc:.4f}"
        )
    suggest_tagging(result.folder)


def _facts(plan: Plan, result: Result) -> dict[str, Any]:
    state = result.report
    return {
        "folder": printable(result.folder),
        "finished": result.finished,
        "step": state.step,
        "steps": plan.training.steps,
        "monitor": plan.training.monitor,
        "best": state.best if state.best_step else None,
        "best_step": state.best_step,
        "precision": state.precision,
        "notes": state.notes,
        "dropped": result.dropped,
        "evaluation": None if result.evaluation is None else result.evaluation.to_dict(),
        "agreement": None if result.agreement is None else result.agreement.to_dict(),
    }
