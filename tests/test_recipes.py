"""Recipes: wrong ones are refused by name, right ones make the same tagger again, and go on where they stopped."""

import dataclasses
import json
import logging
import os
import re
import shutil
import signal
import tomllib
from pathlib import Path

import numpy as np
import pytest
from two_tags import TAGS, two_tags

import keras_musictag as kmt
from keras_musictag.apps.recipes import Recipe, RecipeError, plan_recipe, run_recipe
from keras_musictag.apps.recipes.execution import carry_out
from keras_musictag.datasets import DataError, Manifest, Row
from keras_musictag.errors import CacheError, UnknownModelError
from keras_musictag.models import registry
from keras_musictag.training import supervised
from keras_musictag.utils.locks import locked

TOML = """
task = "train"
model = "tiny"
seed = 3
[data]
source = "clips.csv"
allow_untagged = true
[training]
steps = 30
learning_rate = 1e-2
average = 0.9
checkpoint_every = 10
[batches]
batch_size = 8
mixup = 0.2
[augment]
gain_db = 3
[network]
bn_momentum = 0.8
"""


@pytest.fixture
def folder(tmp_path):
    """`clips.csv` with twenty clips by ten artists, without splits, and `recipe.toml` beside it."""
    manifest = two_tags(tmp_path / "clips", 20)
    manifest.to_csv(tmp_path / "clips.csv")
    (tmp_path / "recipe.toml").write_text(TOML)
    return tmp_path


def basic(**tables):
    return {"task": "train", "model": "tiny", **tables}


# === Reading ===


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (basic(modell="x"), r"unknown key modell\. Did you mean 'model'\? Known here: task, model, teacher, seed"),
        (basic(steps=3), r"unknown key steps\. It belongs in \[training\]"),
        (basic(training={"stpes": 3}), r"unknown key training\.stpes\. Did you mean 'steps'\?"),
        (basic(training={"mixup": 0.1}), r"unknown key training\.mixup\. It belongs in \[batches\]"),
        (basic(batches={"task": 1}), r"unknown key batches\.task\. It belongs in the lines before the tables"),
        (basic(training={"seed": 3}), r"training\.seed is set at the top of the recipe\. Move or remove it"),
        (basic(augment={"mixup": 0.3}), r"augment\.mixup is set in \[batches\]"),
        (basic(training=3), r"\[training\] must be a table; got 3"),
        (basic(training={"steps": 10.5}), r"training\.steps must be a whole number; got 10\.5"),
        (basic(training={"steps": True}), r"training\.steps must be a whole number; got True"),
        (basic(training={"clip_norm": "no"}), r"training\.clip_norm must be a number; got 'no'"),
        (basic(data={"split": "half"}), r"data\.split must be one of 'full', 'clean'; got 'half'"),
        (basic(data={"tags": [1]}), r"data\.tags must be a list of names; got \(1,\)"),
        (basic(data={"allow_untagged": 1}), r"data\.allow_untagged must be true or false; got 1"),
        (basic(task="distill"), r"task must be one of 'train', 'distil'; got 'distill'"),
        ({"model": "tiny"}, r"does not state its task\. Add task = "),
        ({"task": "train"}, r"does not state its model"),
        (basic(task="distil"), r"does not state its teacher\. Add one, e\.g\. teacher = \"musicnn_mtt\""),
        (basic(task="distil", teacher=[1]), r"teacher must be text or a list of names; got \(1,\)"),
        (basic(task="distil", teacher=[]), r"does not state its teacher"),
        (basic(teacher="tiny"), r"With task = \"train\", teacher has no meaning\. Remove it, or set task = \"distil\""),
        (basic(distillation={}), r"With task = \"train\", \[distillation\] has no meaning"),
        (basic(task="distil", teacher="tiny", data={"tags": ["x"]}), r"the tags are those of the teacher\. Remove"),
        (basic(training={"steps": 0}), r"\[training\] steps must be a whole number of at least 1; got 0"),
        (basic(training={"learning_rate": 0.0}), r"training\.learning_rate must be above 0; got 0\.0"),
        (basic(training={"monitor": "score"}), r"monitor must be one of pr_auc, roc_auc for train; got 'score'"),
        (basic(augment={"gain_db": -1}), r"\[augment\] gain_db must be a number of dB, 0 or more; got -1"),
        (basic(batches={"mixup": 2.0}), r"\[batches\] mixup must be a probability from 0 to 1; got 2\.0"),
        (basic(batches={"batch_size": 0}), r"\[batches\] batch_size must be at least 1; got 0"),
        (basic(network={"dropout": -1}), r"\[network\] dropout must be 0 or more; got -1"),
        (basic(network={"bn_momentum": 1}), r"\[network\] bn_momentum must be at least 0 and below 1; got 1"),
        (basic(task="distil", teacher="t", distillation={"hop_seconds": 0}), r"hop_seconds must be above 0; got 0"),
        (basic(task="distil", teacher="t", distillation={"balance": -1}), r"balance must be 0 or more; got -1"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be(table, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(table)


def test_one_teacher_or_several():
    one = Recipe.from_dict(basic(task="distil", teacher="tiny"))
    assert one.teachers == ("tiny",) and one.teacher_names == "tiny" and one.to_dict()["teacher"] == "tiny"
    two = Recipe.from_dict(basic(task="distil", teacher=["tiny", "musicnn_mtt"]))
    assert two.teachers == ("tiny", "musicnn_mtt") and two.teacher_names == "tiny and musicnn_mtt"
    assert Recipe.from_dict(two.to_dict()) == two and Recipe.from_dict(basic()).teachers == ()


def test_files(tmp_path, folder):
    recipe = Recipe.load(folder / "recipe.toml")
    assert recipe.training == {"steps": 30, "learning_rate": 0.01, "average": 0.9, "checkpoint_every": 10}
    assert (
        recipe.data.source == "clips.csv" and recipe.root == folder and recipe.augmentation(kmt.MelSpec()).gain_db == 3
    )
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.changed({"seed": 4, "training.average": 0.5}).training_spec(9).average == 0.5
    with pytest.raises(RecipeError, match=r"'seed' is not a table of a recipe; tables are data, training"):
        recipe.changed({"seed.x": 4})
    with pytest.raises(
        RecipeError, match=r"recipe 'nothing' does not exist\. Give a TOML file, or .*musicnet_crnn/magna"
    ):
        Recipe.load("nothing")
    (tmp_path / "bad.toml").write_text("task = train")
    with pytest.raises(RecipeError, match=r"bad\.toml is not TOML: .*See docs/train\.md"):
        Recipe.load(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("tsk = 1")
    with pytest.raises(RecipeError, match=r"bad\.toml: The recipe has an unknown key tsk\. Did you mean 'task'\?"):
        Recipe.load(tmp_path / "bad.toml")
    with pytest.raises(RecipeError, match=r"The recipe .* cannot be read: Is a directory"):
        Recipe.load(tmp_path)


def test_what_is_not_stated_depends_on_the_data():
    recipe = Recipe.from_dict(basic())
    assert recipe.training_spec(100).steps == 1000 and recipe.training_spec(18_706).steps == 18_706
    short = recipe.changed({"training.steps": 20}).training_spec(100)
    assert (short.warmup_steps, short.validate_every, short.monitor, short.seed) == (2, 2, "pr_auc", 0)
    assert recipe.changed({"training.learning_rate": 1e-5}).training_spec(1).final_learning_rate == pytest.approx(1e-7)
    assert Recipe.from_dict(basic(task="distil", teacher="tiny")).training_spec(1).monitor == "score"
    assert recipe.augmentation(kmt.MelSpec()) is None


def test_the_recipe_in_the_manual():
    text = (Path(__file__).parents[1] / "docs" / "train.md").read_text()
    (example,) = re.findall("```toml\n(.*?)```", text, re.DOTALL)
    assert Recipe.from_dict(tomllib.loads(example)).training_spec(9).patience == 8


@pytest.mark.parametrize("model", ["musicnet_crnn", "baseline_cnn", "large_cnn"])
def test_the_recipes_of_the_zoo(model):
    path = registry.zoo_folder() / model / "magnatagatune.toml"
    recipe = Recipe.load(f"{model}/magnatagatune")
    assert (recipe.task, recipe.model, recipe.data.source, recipe.data.split) == (
        "train",
        model,
        "magnatagatune",
        "full",
    )
    header = path.read_text().partition("\n\n")[0]
    for said in (
        f"--recipe zoo/{model}/magnatagatune.toml",
        "time     not measured",
        "has not been run on the full data",
    ):
        assert said in header
    assert not kmt.model_info(model).metrics or "magnatagatune.toml" not in str(kmt.model_info(model).metrics)
    with pytest.raises(RecipeError, match=r"is for MagnaTagATune\. Give its folder \(--data,"):
        plan_recipe(recipe)


# === Planning ===


def test_data_without_splits_are_shared_out_by_artist(folder):
    plan = plan_recipe(Recipe.load(folder / "recipe.toml"))
    sizes = {name: len(part) for name, part in plan.data.parts.items()}
    assert sizes == {"train": 16, "valid": 2, "test": 2}
    groups = [{row.group for row in part} for part in plan.data.parts.values()]
    assert sum(map(len, groups)) == 10
    assert "the data have no splits: groups (artists), or else files, were split at random: 16 train" in str(plan)
    for said in (
        "train       tiny",
        "clips: 16 train, 2 valid, 2 test clips",
        "2: tonal, noisy",
        "30 of 8 windows: every",
    ):
        assert said in str(plan)


def with_splits(manifest, *names):
    names = [name for name in names for _ in range(2)]  # two clips per artist
    rows = [dataclasses.replace(row, split=name) for row, name in zip(manifest, names, strict=True)]
    return Manifest(tuple(rows), manifest.tags)


def test_splits_that_are_there_are_kept(folder):
    manifest = Manifest.load(folder / "clips.csv")
    recipe = Recipe.from_dict(basic(batches={"batch_size": 4}))
    plan = plan_recipe(recipe, with_splits(manifest, *["train"] * 7, "valid", "valid", "test"))
    assert plan.data.report.ok.split_sizes() == {"train": 14, "valid": 4, "test": 2} and plan.data.notes == ()
    plan = plan_recipe(recipe, with_splits(manifest, *["train"] * 10))
    assert {name: len(part) for name, part in plan.data.parts.items()} == {"train": 18, "valid": 2}
    assert (
        plan.data.notes
        == (
            "no clip is in the split test, so no score is measured",
            "no clip is in the split valid: 2 were taken from train",
        )[::-1]
    )
    with pytest.raises(
        RecipeError, match=r"2 of 20 clips have no split, the others have one\. Give every clip a split"
    ):
        plan_recipe(recipe, with_splits(manifest, *["train"] * 8, "valid", ""))
    with pytest.raises(RecipeError, match=r"No clip is in the split train; clips are: \{'valid': 10, 'test': 10\}"):
        plan_recipe(recipe, with_splits(manifest, *["valid"] * 5, *["test"] * 5))
    mixed = with_splits(manifest, *["train"] * 8, "valid", "test")
    mixed = Manifest(tuple(dataclasses.replace(row, group="one") for row in mixed), mixed.tags)
    with pytest.raises(RecipeError, match=r"train and valid share 1 groups.*or set data\.shared_groups = true"):
        plan_recipe(recipe, mixed)
    assert plan_recipe(recipe.changed({"data.shared_groups": True}), mixed).data.parts["train"][0].group == "one"


def test_clips_of_their_own_to_validate_on(folder):
    two_tags(folder / "other", 6, seed=1).to_csv(folder / "other.csv")
    recipe = Recipe.load(folder / "recipe.toml").changed({"data.validation": "other.csv", "data.shared_groups": True})
    assert {name: len(part) for name, part in plan_recipe(recipe).data.parts.items()} == {"train": 20, "valid": 6}


def test_chosen_tags(folder):
    manifest = Manifest.load(folder / "clips.csv")
    (folder / "named.csv").write_text(
        "file,title,noisy,artist\n" + "".join(f"{r.path},A,{int('noisy' in r.tags)},{r.group}\n" for r in manifest)
    )
    recipe = Recipe.load(folder / "recipe.toml").changed({"data.tags": ["noisy"]})
    assert (
        plan_recipe(recipe, folder / "named.csv").data.train.tags == plan_recipe(recipe).data.train.tags == ("noisy",)
    )
    assert plan_recipe(recipe, manifest).data.train.tags == ("noisy",)


def test_bad_clips_are_reported_and_left_out(folder):
    manifest = Manifest.load(folder / "clips.csv")
    manifest = manifest.concat(Manifest((Row(path=folder / "nothing.wav", tags=("tonal",)),), manifest.tags))
    recipe = Recipe.from_dict(basic(batches={"batch_size": 4}))
    plan = plan_recipe(recipe, manifest)
    assert "1 missing" in str(plan.data.report) and len(plan.data.report.ok) == 20
    with pytest.raises(DataError, match=r"The manifest has problems\. 21 rows: 20 fine, 1 problems \(1 missing\)"):
        plan_recipe(recipe, manifest, strict=True)
    shutil.rmtree(folder / "clips")
    with pytest.raises(RecipeError, match=r"No clip of the split train can be used\. 21 rows: 0 fine"):
        plan_recipe(recipe, manifest)


def test_plans_that_cannot_be(folder, monkeypatch):
    manifest = Manifest.load(folder / "clips.csv")
    without = dataclasses.replace(kmt.model_info("musicnet_crnn"), weights=None)
    monkeypatch.setitem(registry._specs, "musicnet_crnn", without)
    with pytest.raises(RecipeError, match=r"The recipe names no data\. Set data\.source, or give them \(--data"):
        plan_recipe(Recipe.from_dict(basic()))
    with pytest.raises(RecipeError, match=r"'magnatagatune:' names no folder\. Write magnatagatune:FOLDER"):
        plan_recipe(Recipe.from_dict(basic()), "magnatagatune:")
    with pytest.raises(UnknownModelError, match=r"Unknown model 'tine'\. Did you mean 'tiny'"):
        plan_recipe(Recipe.from_dict({"task": "train", "model": "tine"}), manifest)
    with pytest.raises(RecipeError, match=r"The teacher 'musicnet_crnn' has no weights\. Take one of .*musicnn_mtt"):
        plan_recipe(Recipe.from_dict(basic(task="distil", teacher="musicnet_crnn")), manifest)
    with pytest.raises(RecipeError, match=r"could not be split: 3 splits need .* data\.group_folders = 0 makes each"):
        (folder / "flat").mkdir()
        shutil.copytree(folder / "clips", folder / "flat" / "artist")
        plan_recipe(Recipe.from_dict(basic(task="distil", teacher="tiny")), folder / "flat")
    with pytest.raises(RecipeError, match=r"needs at least 3 clips in the split valid, .* got 2"):
        plan_recipe(Recipe.from_dict(basic(task="distil", teacher="tiny")), manifest)
    with pytest.raises(ValueError, match=r"train has 16 clips, fewer than a batch of 32"):
        plan_recipe(Recipe.from_dict(basic(batches={"batch_size": 32})), manifest)


# === Running ===


def run(recipe, data, folder, **options):
    return run_recipe(recipe, data, folder / "out", cache=folder / "mels", progress=False, **options)


def test_a_recipe_makes_a_tagger_that_says_where_it_is_from(folder):
    recipe = Recipe.load(folder / "recipe.toml")
    result = run(recipe, None, folder)
    out = folder / "out"
    assert result.finished and result.report.step == 30 and result.agreement is None and result.dropped == 0
    tagger = kmt.load(out)
    assert tagger.tags == TAGS and tagger.spec.name == "out"
    assert tagger.spec.trained_on.startswith("clips, 16 clips with labels; ")
    (data,) = tagger.spec.training_data
    assert (data.name, data.role, data.n, data.licence) == ("clips", "labelled", 16, "CC0-1.0")
    (metric,) = tagger.spec.metrics
    assert (metric["dataset"], metric["split"], metric["n"]) == ("clips", "test", 2)
    assert metric["roc_auc"] == pytest.approx(result.evaluation.roc_auc.value, abs=1e-4)
    assert json.loads((out / "evaluation.json").read_text())["n_clips"] == 2
    card = (out / "README.md").read_text()
    assert "| clips | test | 2 |" in card and 'keras_musictag.load("out")' in card
    assert len((out / "run" / "log.csv").read_text().splitlines()) == 11
    # Once more: nothing is trained, the same comes out.
    again = run(recipe, None, folder)
    assert again.tagger.spec.weights.sha256 == result.tagger.spec.weights.sha256
    # Another recipe, or other data, is not taken for this one.
    with pytest.raises(RecipeError, match=r"holds a run with training\.average 0\.9 instead of 0\.5\. Choose"):
        run(recipe.changed({"training.average": 0.5}), None, folder)
    manifest = Manifest.load(folder / "clips.csv")
    other = Manifest((*manifest.rows[:-1], dataclasses.replace(manifest[-1], duration=1.25)), manifest.tags)
    with pytest.raises(RecipeError, match=r"holds a run with other data\. Choose"):
        run(recipe, other, folder)
    # Where the data are does not matter.
    moved = folder.with_name("moved")
    folder.rename(moved)
    assert run(Recipe.load(moved / "recipe.toml"), None, moved).report.step == 30
    with (
        locked(moved / "out" / "run" / ".lock"),
        pytest.raises(RecipeError, match=r"Another call is training in .*Wait"),
    ):
        run(Recipe.load(moved / "recipe.toml"), None, moved)
    shutil.rmtree(moved / "out" / "run")
    with pytest.raises(
        CacheError, match=r"out holds spec\.json, .*not made by a run in this folder .*Choose another folder"
    ):
        run(Recipe.load(moved / "recipe.toml"), None, moved)


def test_it_stops_and_goes_on(folder, monkeypatch, caplog, ctrl_c):
    """Ctrl-C keeps what there is, and the rest of the run comes to the same as one without a pause."""
    recipe = Recipe.load(folder / "recipe.toml")
    whole = run_recipe(recipe, None, folder / "whole", cache=folder / "mels", progress=False)
    plan = plan_recipe(recipe)

    def stopping(outputs, targets, tags, calls=[]):  # noqa: B006 (it counts)
        calls.append(1)
        if len(calls) == 5:  # of ten validations
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does
        return scores(outputs, targets, tags)

    scores = supervised._scores
    monkeypatch.setattr(supervised, "_scores", stopping)
    stopped = carry_out(plan, folder / "out", cache=folder / "mels", progress=False)
    assert not stopped.finished and stopped.report.step == 15 and stopped.evaluation is None
    assert "Stopped at step 15 of 30" in caplog.text
    assert kmt.load(folder / "out").spec.metrics == ()
    caplog.set_level(logging.INFO, "keras_musictag")
    resumed = carry_out(plan, folder / "out", cache=folder / "mels", progress=False)
    assert "Resuming at step 15 of 30" in caplog.text and resumed.finished
    for one, other in zip(resumed.tagger.core.get_weights(), whole.tagger.core.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert resumed.evaluation.to_dict()["per_tag"] == whole.evaluation.to_dict()["per_tag"]


def test_sound_that_cannot_be_decoded_is_found_before_training(folder, caplog):
    """The header is fine: only decoding tells."""
    bad = folder / "clips" / "3.wav"
    bad.write_bytes(bad.read_bytes()[:30_000])
    recipe = Recipe.load(folder / "recipe.toml").changed({"training.steps": 2})
    message = r"1 of 20 files cannot be used, the first one: .*3\.wav' is truncated"
    with pytest.raises((RecipeError, DataError), match=message):
        run(recipe, None, folder, strict=True)
    result = run(recipe, None, folder)
    assert result.dropped == 1 and "They are left out" in caplog.text
    assert "3.wav' is truncated" in (folder / "out" / "run" / "problems.txt").read_text()


def test_a_student_needs_no_labels(folder):
    """A folder with an artist per folder, as people have them."""
    for row in Manifest.load(folder / "clips.csv"):
        artist = folder / "music" / row.group / "album"
        artist.mkdir(parents=True, exist_ok=True)
        row.path.rename(artist / row.path.name)
    two_tags(folder / "more", 20, seed=5)
    for number, path in enumerate(sorted((folder / "more").iterdir())):
        artist = folder / "music" / f"other {number}"
        artist.mkdir()
        path.rename(artist / path.name)
    recipe = Recipe.from_dict(
        basic(
            task="distil", teacher="tiny", training={"steps": 10, "learning_rate": 1e-2}, batches={"batch_size": 8},
            distillation={"hop_seconds": 0.5, "segment_weight": 0.0},
        )
    )  # fmt: skip
    result = run(recipe, folder / "music", folder)
    assert result.evaluation is None and result.agreement.n_clips == 4
    tagger = kmt.load(folder / "out")
    assert tagger.tags == kmt.load("tiny").tags
    assert "music, 32 clips without labels, distilled from tiny; " in tagger.spec.trained_on
    assert [data.role for data in tagger.spec.training_data][:2] == ["unlabelled", "teacher"]
    (metric,) = tagger.spec.metrics
    assert metric["note"] == "agreement with tiny" and metric["correlation"] == round(result.agreement.correlation, 4)
