"""The models whose weights come with the package. Golden numbers: python tests/test_embedded.py."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_musictag as kmt
from keras_musictag.evaluation.metrics import agreement
from keras_musictag.models.registry import zoo_folder

TEACHERS = {
    "musicnet_crnn": "musicnn_mtt",
    "musicnet_crnn_fast": "musicnn_mtt",
    "musicnet_crnn_jamendo": "won_fcn_jamendo",
    "musicnet_crnn_msd": "won_fcn_msd",
    "baseline_cnn": "musicnn_mtt",
    "large_cnn": "musicnn_mtt",
}
STUDENTS = tuple(TEACHERS)
JOINT = {  # teachers of one training that made several models
    "musicnet_crnn": ("musicnn_mtt", "won_fcn_jamendo", "won_fcn_msd"),
    "musicnet_crnn_jamendo": ("musicnn_mtt", "won_fcn_jamendo", "won_fcn_msd"),
    "musicnet_crnn_msd": ("musicnn_mtt", "vgg_mtt", "won_fcn_jamendo", "won_fcn_msd", "musicnn_msd"),
}
LEAST = {"musicnet_crnn_msd": 0.65}  # correlation; measured 0.742, the others have more than 0.75
GOLDEN = Path(__file__).parent / "golden" / "embedded.json"
SHARED = Path(__file__).parents[2] / "shared" / "data"
# Measured: TensorFlow, JAX and PyTorch differ by at most 1e-6.
TOLERANCE = 1e-5
# Emotify tracks of artists that training never heard (`zoo/distillation_data.py`, split test), five of each genre.
HELD_OUT = (
    "classical_35", "classical_41", "classical_45", "classical_48", "classical_6",
    "electronic_10", "electronic_17", "electronic_18", "electronic_24", "electronic_3",
    "pop_11", "pop_2", "pop_22", "pop_28", "pop_43",
    "rock_11", "rock_12", "rock_14", "rock_27", "rock_29",
)  # fmt: skip


@pytest.mark.contract
@pytest.mark.parametrize("name", STUDENTS)
def test_golden(name, monkeypatch):
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    expected = json.loads(GOLDEN.read_text())[name]
    assert kmt.load(name).tag(kmt.demo_clip()) == pytest.approx(expected, abs=TOLERANCE)


def test_they_are_small():
    sizes = [(zoo_folder() / name / "weights.safetensors").stat().st_size for name in STUDENTS]
    assert sum(sizes) <= 8_000_000
    assert sizes[0] < 2_000_000


def test_recipes_are_complete():
    from keras_musictag.apps.recipes import Recipe

    for name, teacher in TEACHERS.items():
        recipe = Recipe.load(f"{name}/recipe")
        expected = ("distil", kmt.model_info(name).architecture, JOINT.get(name, (teacher,)))
        assert (recipe.task, recipe.model, recipe.teachers) == expected
        header = (zoo_folder() / name / "recipe.toml").read_text().split("task =")[0]
        for line in ("# Command:", "# Time:", "# Score:"):
            assert line in header and "@" not in header


def test_a_recipe_without_its_data_says_so():
    from keras_musictag.apps.recipes import Recipe, RecipeError, plan_recipe

    with pytest.raises(RecipeError, match=r"The recipe's data do not exist: .*manifest\.csv\. Give their path"):
        plan_recipe(Recipe.load("musicnet_crnn/recipe"))


def test_the_readme_shows_what_the_specs_say():
    script = Path(__file__).parents[1] / "benchmarks" / "zoo_table.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def held_out():
    if not (SHARED / "index.csv").is_file():
        pytest.skip("development data is not here")
    with (SHARED / "index.csv").open(encoding="utf-8", newline="") as file:
        genres = {Path(row["file"]).stem: row["genre"] for row in csv.DictReader(file)}
    return [(SHARED / "music" / "emotify" / f"{stem}.opus", genres[stem]) for stem in HELD_OUT]


@pytest.fixture(scope="module")
def teachers_heard(held_out):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_MUSICTAG_MIRROR", str(SHARED / "weights"))
        return {name: scores(kmt.load(name), held_out) for name in set(TEACHERS.values())}


def scores(tagger, tracks):
    results = [tagger.tag(path) for path, _ in tracks]
    return np.asarray([[tags[tag] for tag in tagger.spec.vocabulary.names] for tags in results])


@pytest.mark.parametrize("name", STUDENTS)
def test_students_hear_what_their_teacher_hears(name, held_out, teachers_heard):
    """A guard against broken weights or front ends, which would give about 0; `benchmarks/agreement.py` measures."""
    heard = scores(kmt.load(name), held_out)
    assert agreement(heard, teachers_heard[TEACHERS[name]], kmt.model_info(name).tags).correlation > LEAST.get(
        name, 0.75
    )


def test_genres_come_first(held_out):
    """Of the tags classical, electronic, pop and rock, its own is the highest for its own tracks, on average."""
    tagger = kmt.load("musicnet_crnn")
    genres = sorted({genre for _, genre in held_out})
    heard = scores(tagger, held_out)[:, [tagger.tags.index(genre) for genre in genres]]
    own = np.asarray([genres.index(genre) for _, genre in held_out])
    for column, genre in enumerate(genres):
        assert heard[own == column, column].mean() > 1.5 * heard[own != column, column].mean(), genre


if __name__ == "__main__":
    golden = {name: {t: round(p, 6) for t, p in kmt.load(name).tag(kmt.demo_clip()).items()} for name in STUDENTS}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
