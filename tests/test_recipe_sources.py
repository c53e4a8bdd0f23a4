"""What `data.source` of a recipe may name: a file beside it, or a published data set and its folder."""

import sys

import pytest
from published_miniatures import gtzan_folder

import keras_musictag.datasets  # noqa: F401 (registers the module that the next line looks up)
from keras_musictag.apps.recipes import Recipe, RecipeError, plan_recipe
from keras_musictag.apps.recipes.recipe_data import load, read
from keras_musictag.datasets import DataError

gtzan_module = sys.modules["keras_musictag.datasets.loaders.gtzan"]
SMALL = {"blues/blues.00029": "train", "rock/rock.00049": "valid", "jazz/jazz.00054": "train", "pop/pop.00006": "test"}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Make a recipe in a folder that has a miniature of GTZAN, and go elsewhere."""
    gtzan_folder(tmp_path / "recipes" / "sets" / "gtzan", SMALL)
    monkeypatch.setattr(gtzan_module, "filtered_split", lambda: SMALL)
    monkeypatch.chdir(tmp_path)

    def make(**data):
        return Recipe.from_dict({"task": "train", "model": "tiny", "data": data}, root=tmp_path / "recipes")

    return make


def test_a_published_data_set_beside_the_recipe(recipe):
    named = recipe(source="gtzan:sets/gtzan", tags=["jazz", "rock", "pop"])
    manifest, origin = read(None, named.data, root=named.root)
    assert manifest.split_sizes() == {"train": 2, "valid": 1, "test": 1} and manifest.tags == ("jazz", "rock", "pop")
    assert origin.title == "GTZAN, fault-filtered split"
    assert read("gtzan:recipes/sets/gtzan", named.data, root=named.root)[0] == manifest, "--data is relative to here"


def test_a_published_data_set_to_validate_on(recipe):
    named = recipe(source="sets/gtzan/genres", validation="gtzan:sets/gtzan")
    data = load(None, named.data, untagged=False, seed=0, root=named.root)
    assert [row.path.stem for row in data.valid] == ["rock.00049"] and not len(data.test)
    assert [problem.path.stem for problem in data.report.problems if problem.kind == "duplicate"] == ["rock.00049"]
    assert {"jazz.00054", "pop.00006"} < {row.path.stem for row in data.train}


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("gtzan:nowhere", RecipeError, r"The recipe's data do not exist: .*recipes/nowhere\. Give their path"),
        ("gtzna:sets/gtzan", DataError, r"There is no data set 'gtzna'\. Did you mean gtzan\?"),
        ("gtzan-2:sets/gtzan", DataError, r"GTZAN has no version '2'"),
        ("gtzan:", RecipeError, r"'gtzan:' names no folder\. Write gtzan:FOLDER"),
        ("C:/clips.csv", RecipeError, r"The recipe's data do not exist: .*clips\.csv"),
    ],
)
def test_a_source_that_cannot_be(recipe, source, error, message):
    with pytest.raises(error, match=message):
        plan_recipe(recipe(source=source))
