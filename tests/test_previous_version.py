"""Files that an earlier layout of the package wrote: a saved tagger, an export, a library table and a recipe.

`golden/0.1.0-flat` was written by the package when its modules lay flat in one folder, with the model `tiny` and two
recordings of a second.
"""

import json
import shutil
from pathlib import Path

import pytest

import keras_musictag as kmt
from keras_musictag.apps.recipes import Recipe

OLD = Path(__file__).parent / "golden" / "0.1.0-flat"
TAGS = {"tone": 0.99567, "chord": 0.00427, "clicks": 0.00238, "sweep": 0.00088, "noise": 0.00060}  # printed then


def test_a_saved_tagger():
    tagger = kmt.load(OLD / "tagger")
    assert dict(tagger.tag(OLD / "music" / "a.wav")) == pytest.approx(TAGS, abs=1e-5)


def test_an_export():
    pytest.importorskip("onnxruntime")
    tagger = kmt.load(OLD / "export", runtime="onnxruntime")
    assert dict(tagger.tag(OLD / "music" / "a.wav")) == pytest.approx(TAGS, abs=1e-4)


def test_a_library_table_is_continued(tmp_path):
    shutil.copytree(OLD / "music", tmp_path / "music")
    shutil.copy(OLD / "music" / "a.wav", tmp_path / "music" / "c.wav")
    table = (OLD / "tags.jsonl").read_text().replace("FOLDER", tmp_path.as_posix())
    (tmp_path / "tags.jsonl").write_text(table)
    summary = kmt.tag_library([tmp_path / "music"], tmp_path / "tags.jsonl", "tiny")
    assert (summary.files, summary.tagged, summary.failed) == (3, 1, 0)
    rows = {row["path"]: row for row in map(json.loads, (tmp_path / "tags.jsonl").read_text().splitlines())}
    for before in map(json.loads, table.splitlines()):
        after = rows.pop(before["path"])
        del before["mtime"]  # that of the copy, whose content is known by its checksum
        assert {name: after[name] for name in before} == before
    assert [Path(path).name for path in rows] == ["c.wav"]


def test_a_recipe():
    recipe = Recipe.load(OLD / "recipe.toml")
    assert (recipe.task, recipe.model, recipe.data.source) == ("train", "musicnet_crnn", "clips.csv")
    assert recipe.training_spec(1000).steps == 18_704
