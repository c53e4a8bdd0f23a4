"""What a recipe will do, with every check that can be made before anything is computed."""

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

_SHOWN = 10  # tags that are named


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done. Made by `plan_recipe`.

    Attributes:
        recipe: the recipe.
        data: clips to train, to validate and to test on.
        training: settings of the loop.
    """

    recipe: Recipe
    data: RecipeData
    training: TrainingSpec

    def __str__(self) -> str:
        """What a person wants to know before it starts."""
        recipe, data, training = self.recipe, self.data, self.training
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in data.parts.items())
        passes = training.steps * recipe.batches.batch_size / len(data.train)
        stop = f", at most {training.patience} times without a better score" if training.patience else ""
        lines = {
            recipe.task: f"{recipe.model} from {recipe.teacher}" if recipe.teacher else recipe.model,
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
            return f"those of {self.recipe.teacher}"
        return f"{len(tags)}: {', '.join(tags[:_SHOWN])}{', ...' if len(tags) > _SHOWN else ''}"


def plan_recipe(
    recipe: Recipe | str | os.PathLike[str],
    data: Source | None = None,
    *,
    strict: bool = False,
    workers: int = 2,
) -> Plan:
    """Load and check the data of a recipe: everything that can be checked before anything is computed.

    Args:
        recipe: a `Recipe`, or what `Recipe.load` reads.
        data: replaces `data.source`: a manifest, or what `datasets.opening.open_data` reads.
        strict: refuse data with any problem, instead of leaving bad clips out.
        workers: number of files checked at once.

    Returns:
        `Plan`, which `str` describes and `execution.carry_out` runs.

    Raises:
        RecipeError, DataError, TrainingError: why it cannot be carried out.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    _require_model(recipe.model)
    distil = recipe.task == "distil"
    if distil:
        _require_model(recipe.teacher, weights=True)
    clips = recipe_data.load(
        data, recipe.data, untagged=distil, seed=recipe.seed, root=recipe.root, strict=strict, workers=workers
    )
    if distil and len(clips.valid) < 3:
        raise RecipeError(
            f"Agreement with the teacher is a correlation over clips; {len(clips.valid)} to validate on are too few."
        )
    if not distil:
        check_labels(clips.train.tags, clips.train, clips.valid, recipe.batches.batch_size)
    return Plan(recipe=recipe, data=clips, training=recipe.training_spec(len(clips.train)))


def _require_model(name: str, weights: bool = False) -> None:
    """Raise if a name is no model's; folders and Hub addresses are looked at when they are loaded."""
    from ...models.registry import list_models, model_info

    if name not in list_models() and (name.startswith("hf://") or os.sep in name or Path(name).is_dir()):
        return
    if model_info(name).weights is None and weights:
        raise RecipeError(
            f"The teacher {name!r} has no weights. Take one of {', '.join(list_models(pretrained=True))}."
        )
