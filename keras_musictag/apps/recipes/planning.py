"""Plan a recipe: make all checks that need no computation."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ...datasets.opening import Source
from ...training.loop import TrainingSpec
from ...training.supervised import check_labels
from . import recipe_data as recipe_data
from .recipe import Recipe
from .recipe_data import RecipeData
from .recipe_tables import RecipeError

_SHOWN = 10  # number of tags to print


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe with its data, ready to run. Made by `plan_recipe`.

    Attributes:
        recipe: the recipe.
        data: clips for training, validation and test.
        training: settings of the training loop.
    """

    recipe: Recipe
    data: RecipeData
    training: TrainingSpec

    def __str__(self) -> str:
        """Return a summary of the plan."""
        recipe, data, training = self.recipe, self.data, self.training
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in data.parts.items())
        passes = training.steps * recipe.batches.batch_size / len(data.train)
        stop = f", at most {training.patience} times without a better score" if training.patience else ""
        lines = {
            recipe.task: f"{recipe.model} from {recipe.teacher_names}" if recipe.teachers else recipe.model,
            "data": f"{data.origin.title}: {sizes} clips",
            "tags": self._tags(),
            "steps": f"{training.steps:,} of {recipe.batches.batch_size} windows: every clip {passes:.1f} times",
            "validation": f"every {training.validate_every:,} steps by {training.monitor}{stop}",
        }
        width = max(map(len, lines))
        notes = [f"note: {note}" for note in data.notes]
        return "\n".join([*(f"{name:<{width}}  {text}" for name, text in lines.items()), *notes])

    def _tags(self) -> str:
        tags = self.data.train.tags
        if self.recipe.task == "distil":
            return f"those of {self.recipe.teacher_names}"
        return f"{len(tags)}: {', '.join(tags[:_SHOWN])}{', ...' if len(tags) > _SHOWN else ''}"


def plan_recipe(
    recipe: Recipe | str | os.PathLike[str],
    data: Source | None = None,
    *,
    strict: bool = False,
    workers: int = 2,
) -> Plan:
    """Load and check a recipe and its data, before anything is computed.

    Args:
        recipe: a `Recipe`, or an argument for `Recipe.load`.
        data: replaces `data.source`: a manifest, or an argument for `datasets.opening.open_data`.
        strict: reject data with any problem, instead of leaving bad clips out.
        workers: number of files checked at once.

    Returns:
        `Plan`: `str` describes it, and `execution.carry_out` runs it.

    Raises:
        RecipeError, DataError, TrainingError: the recipe cannot be run.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    _require_model(recipe.model)
    distil = recipe.task == "distil"
    for name in recipe.teachers:
        _require_model(name, weights=True)
    clips = recipe_data.load(
        data, recipe.data, untagged=distil, seed=recipe.seed, root=recipe.root, strict=strict, workers=workers
    )
    if distil and len(clips.valid) < 3:
        raise RecipeError(
            f"Distillation needs at least 3 clips in the split valid, to measure agreement; got {len(clips.valid)}."
        )
    if not distil:
        check_labels(clips.train.tags, clips.train, clips.valid, recipe.batches.batch_size)
    return Plan(recipe=recipe, data=clips, training=recipe.training_spec(len(clips.train)))


def _require_model(name: str, weights: bool = False) -> None:
    """Raise if a model does not exist; folders and Hub addresses are checked when they are loaded."""
    from ...models.registry import list_models, model_info

    if name not in list_models() and (name.startswith("hf://") or os.sep in name or Path(name).is_dir()):
        return
    if model_info(name).weights is None and weights:
        raise RecipeError(
            f"The teacher {name!r} has no weights. Take one of {', '.join(list_models(pretrained=True))}."
        )
