"""Recipes: a tagger from a file of settings and a folder of sound, the same each time.

`Recipe.load("recipe.toml").run("music/", "out")` is all; `recipe` says what a recipe holds.
"""

from ...datasets.opening import DataSettings
from .recipe import Recipe
from .recipe_tables import BatchSettings, DistillationSettings, NetworkSettings, RecipeError

__all__ = ["BatchSettings", "DataSettings", "DistillationSettings", "NetworkSettings", "Recipe", "RecipeError"]
