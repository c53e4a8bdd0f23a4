"""Recipes: train a tagger reproducibly, from a file of settings and a folder of audio.

`run_recipe("recipe.toml", "music/", "out")` trains, evaluates and saves; `recipe` documents the file format.
"""

from ...datasets.opening import DataSettings
from .execution import Result, run_recipe
from .planning import Plan, plan_recipe
from .recipe import Recipe
from .recipe_tables import BatchSettings, DistillationSettings, NetworkSettings, RecipeError

__all__ = [
    "BatchSettings",
    "DataSettings",
    "DistillationSettings",
    "NetworkSettings",
    "Plan",
    "Recipe",
    "RecipeError",
    "Result",
    "plan_recipe",
    "run_recipe",
]
