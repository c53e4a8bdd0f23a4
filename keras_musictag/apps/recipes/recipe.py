"""Recipes: TOML files with all settings for training a tagger, checked before anything is computed.

    # A comment: the tagger, the command, the training time and the scores.
    task = "train"                # or "distil"
    model = "musicnet_crnn"
    teacher = "musicnn_mtt"       # for "distil" only; or a list, whose mean is learned
    seed = 0
    [data]
    source = "clips.csv"          # `DataSettings`
    [training]
    steps = 20_000                # `TrainingSpec`
    [batches]
    batch_size = 16               # `BatchSettings`
    [augment]
    gain_db = 6.0                 # `Augmentation`
    [network]
    dropout = 0.5                 # `NetworkSettings`
    [distillation]
    hop_seconds = 1.0             # `DistillationSettings`, for "distil" only

An unknown key is an error. Missing keys have the default of their class. `plan_recipe` checks a recipe, `run_recipe`
runs it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ...datasets.augment import Augmentation
from ...datasets.opening import DataSettings
from ...models.spec import MelSpec
from ...training.loop import TrainingSpec
from .recipe_tables import (
    TABLES,
    TOP,
    BatchSettings,
    DistillationSettings,
    NetworkSettings,
    as_tuple,
    attempt,
    read_table,
    require_known,
    require_type,
)
from .recipe_tables import RecipeError as RecipeError

# Default number of steps: passes through the training clips, and minimum number of steps.
PASSES, MIN_STEPS = 16, 1000

_MONITORS = {"train": ("pr_auc", "roc_auc"), "distil": ("score", "roc_auc_top_tenth")}


# === Recipe ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings for training a tagger.

    Attributes:
        task: `"train"` on labels, or `"distil"` from a teacher.
        model: model whose network is trained: a name, folder or Hub address.
        teacher: model whose probabilities are the targets, for distillation; or several, for their mean.
        seed: random seed.
        data, batches, network, distillation: the tables.
        training, augment: the given fields of `TrainingSpec` and `Augmentation`.
        root: folder that relative paths are relative to.

    Raises:
        RecipeError: settings that contradict each other.

    Example:
        >>> recipe = Recipe.from_dict({"task": "train", "model": "tiny", "training": {"steps": 100}})
        >>> recipe.training_spec(clips=500).steps, recipe.changed({"batches.batch_size": 4}).batches.batch_size
        (100, 4)
        >>> Recipe.from_dict({"task": "train", "model": "tiny", "training": {"step": 100}})
        Traceback (most recent call last):
        keras_musictag.apps.recipes.recipe_tables.RecipeError: The recipe has an unknown key training.step. ...
    """

    task: Literal["train", "distil"]
    model: str
    teacher: str | tuple[str, ...] = ""
    seed: int = 0
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    batches: BatchSettings = dataclasses.field(default_factory=BatchSettings)
    network: NetworkSettings = dataclasses.field(default_factory=NetworkSettings)
    distillation: DistillationSettings = dataclasses.field(default_factory=DistillationSettings)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    augment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    root: Path | None = dataclasses.field(default=None, compare=False, repr=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a TOML file; `"musicnet_crnn/magnatagatune"` is one that comes with the zoo.

        Raises:
            RecipeError: the file does not exist or is not TOML; or the first invalid key.
        """
        path = _find(path)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(f"The recipe {path} cannot be read: {error.strerror or error}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"The recipe {path} is not TOML: {error}. See docs/train.md for an example.") from error
        try:
            return cls.from_dict(table, root=path.absolute().parent)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], *, root: Path | None = None) -> Recipe:
        """Make a recipe from the content of a TOML file.

        Raises:
            RecipeError: a key is unknown, missing or of the wrong type, or a value is out of range.
        """
        require_known(table, (*TOP, *TABLES), "")
        top = {name: as_tuple(table[name]) for name in TOP if name in table}
        hints = typing.get_type_hints(cls)
        for name, value in top.items():
            require_type(name, value, hints[name])
        for name in ("task", "model"):
            if not top.get(name):
                raise RecipeError(f"The recipe does not state its {name}. Add {name} = ... at the top.")
        tables = {name: read_table(name, table[name]) for name in TABLES if name in table}
        recipe = cls(**top, **tables, root=root)
        if recipe.task == "distil" and not recipe.teachers:
            raise RecipeError('The recipe does not state its teacher. Add one, e.g. teacher = "musicnn_mtt".')
        if recipe.task == "train" and (recipe.teachers or "distillation" in table):
            unused = "teacher" if recipe.teachers else "[distillation]"
            raise RecipeError(f'With task = "train", {unused} has no meaning. Remove it, or set task = "distil".')
        if recipe.task == "distil" and recipe.data.tags:
            raise RecipeError('With task = "distil", the tags are those of the teacher. Remove data.tags.')
        recipe.training_spec(clips=1)
        attempt("augment", lambda: recipe.augmentation(MelSpec()))
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe for `from_dict`, with all defaults except those of `training` and `augment`."""
        settings = dataclasses.asdict(self)
        for name in ("root", *(("teacher", "distillation") if self.task == "train" else ())):
            del settings[name]
        settings["data"]["tags"] = list(self.data.tags)
        if isinstance(self.teacher, tuple):
            settings["teacher"] = list(self.teacher)
        return settings

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """Return the recipe with some values changed; keys are `"seed"` or `"training.steps"`.

        Raises:
            RecipeError: as `from_dict`.
        """
        return Recipe.from_dict(merged(self.to_dict(), changes), root=self.root)

    # --- Derived settings ---

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers; empty for training on labels."""
        return self.teacher if isinstance(self.teacher, tuple) else tuple(filter(None, [self.teacher]))

    @property
    def teacher_names(self) -> str:
        """The teachers as text."""
        return " and ".join(self.teachers)

    def training_spec(self, clips: int) -> TrainingSpec:
        """Return the settings of the training loop; warm-up and validation of short runs are shortened in proportion.

        Raises:
            RecipeError: a value is out of range.
        """
        given = dict(self.training)
        steps = given.setdefault("steps", max(MIN_STEPS, math.ceil(PASSES * clips / self.batches.batch_size)))
        given.setdefault("monitor", _MONITORS[self.task][0])
        if given["monitor"] not in _MONITORS[self.task]:
            known = ", ".join(_MONITORS[self.task])
            raise RecipeError(f"training.monitor must be one of {known} for {self.task}; got {given['monitor']!r}.")
        if isinstance(steps, int):
            given.setdefault("warmup_steps", min(100, steps // 10))
            given.setdefault("validate_every", min(200, max(1, steps // 10)))
        if not given.get("learning_rate", 1) > 0:
            raise RecipeError(f"training.learning_rate must be above 0; got {given['learning_rate']!r}.")
        if "learning_rate" in given:
            given.setdefault("final_learning_rate", given["learning_rate"] / 100)
        spec: TrainingSpec = attempt("training", lambda: TrainingSpec(**given, seed=self.seed))
        return spec

    def augmentation(self, mel: MelSpec) -> Augmentation | None:
        """Return the augmentation for a model's log-mels, or `None`."""
        return Augmentation(mel=mel, **self.augment) if any(self.augment.values()) else None


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of a recipe with some values set; keys are `"seed"` or `"training.steps"`.

    Example:
        >>> merged({"seed": 0, "training": {"steps": 5}}, {"training.average": 0.9})
        {'seed': 0, 'training': {'steps': 5, 'average': 0.9}}
    """
    result = {name: dict(value) if isinstance(value, Mapping) else value for name, value in table.items()}
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        target = result.setdefault(section, {}) if section else result
        if not isinstance(target, dict):
            raise RecipeError(f"{section!r} is not a table of a recipe; tables are {', '.join(TABLES)}.")
        target[name] = value
    return result


def _find(path: str | os.PathLike[str]) -> Path:
    from ...models.registry import zoo_folder

    given = Path(path)
    if given.exists():
        return given
    in_zoo = zoo_folder() / f"{given}.toml"
    if in_zoo.is_file():
        return in_zoo
    names = (found.relative_to(zoo_folder()).with_suffix("") for found in zoo_folder().glob("*/*.toml"))
    raise RecipeError(
        f"The recipe {str(given)!r} does not exist. Give a TOML file, or one of the zoo's: "
        f"{', '.join(sorted(map(str, names))) or 'none'}."
    )
