"""When a tag is said: thresholds chosen on held-out clips, kept in the spec, used by `threshold="auto"`."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import f1_score, precision_score
from two_tags import two_tags

import keras_musictag as kmt
from keras_musictag.apps.library import LibraryError
from keras_musictag.cli import main
from keras_musictag.errors import NoThresholdsError, SpecError
from keras_musictag.models.spec import ModelSpec
from keras_musictag.models.thresholds import Thresholds, choose
from keras_musictag.training.finetuning import FineTuneSpec, fine_tune

MADE = {"dataset": "mine", "split": "validation"}


def noisy_scores(seed, clips=80):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(size=(clips, 3)) < (0.5, 0.2, 0.1)
    scores = np.clip(np.round(0.3 * targets + rng.uniform(0, 0.7, targets.shape), 2), 0, 1)  # with ties
    targets[:5] = True
    return targets, scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("floor", [0.0, 0.6])
def test_no_other_threshold_is_better(seed, floor):
    targets, scores = noisy_scores(seed)
    chosen = choose(targets, scores, "abc", **MADE, min_precision=floor).values
    for column, tag in enumerate("abc"):

        def f1(threshold, column=column):
            said = scores[:, column] >= threshold
            enough = precision_score(targets[:, column], said, zero_division=0) >= floor
            return f1_score(targets[:, column], said) if said.any() and enough else -1.0

        best = max(f1(threshold) for threshold in scores[:, column])
        assert f1(chosen[tag]) == pytest.approx(best) if tag in chosen else best <= 0


def test_tags_without_evidence_have_none():
    targets, scores = noisy_scores(0)
    targets[:, 1], targets[:4, 1] = False, True
    assert set(choose(targets, scores, "abc", **MADE).values) == {"a", "c"}
    assert choose(np.zeros((9, 1)), np.zeros((9, 1)), "a", **MADE) is None
    targets = np.tile([True, False], 10)[:, None]
    assert choose(targets, np.full((20, 1), 0.5), "a", **MADE, min_precision=0.9) is None  # cannot reach the floor


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thresholds")
    data = two_tags(folder / "clips", count=48)
    settings = FineTuneSpec(stages="head", min_precision=0.5)
    fine_tune(kmt.load("tiny"), data, folder=folder / "mine", cache=folder / "cache", settings=settings, progress=False)
    return folder


def test_fine_tuning_keeps_thresholds(tuned):
    spec = ModelSpec.from_folder(tuned / "mine")
    kept = spec.thresholds
    assert set(kept.values) == {"tonal", "noisy"}
    assert (kept.split, kept.n, kept.min_precision) == ("validation", 10, 0.5)
    assert ModelSpec.from_dict(spec.to_dict()).thresholds == kept
    assert spec.retrained().thresholds is None  # they are about these weights


def test_auto_says_what_reaches_its_threshold(tuned):
    tagger = kmt.load(tuned / "mine")
    path = tuned / "clips" / "0.wav"
    every = tagger.tag(path)
    least = tagger.spec.thresholds.values
    assert tagger.tag(path, threshold="auto") == {tag: p for tag, p in every.items() if p >= least[tag]}
    high = Thresholds(values={}, dataset="mine", split="validation", n=9)
    strict = tagger.like(dataclasses.replace(tagger.spec, thresholds=high), tagger.core)
    [most] = strict.tag(path, threshold="auto")
    assert most == next(iter(every))
    assert strict.tag(path, threshold="auto", unsure=True) == {}
    assert [result.tags for result in strict.tag_many([path], threshold="auto", unsure=True)] == [{}]


def test_on_the_command_line(tuned):
    song = str(tuned / "clips" / "0.wav")
    model = str(tuned / "mine")
    result = CliRunner().invoke(main, ["tag", song, "-m", model, "--threshold", "auto", "--unsure", "--json"])
    assert result.exit_code == 0 and '"tags"' in result.stdout
    result = CliRunner().invoke(main, ["tag", song, "-m", "tiny", "--threshold", "auto"])
    assert result.exit_code == 2 and "'tiny' has no thresholds for threshold='auto'" in result.stderr
    result = CliRunner().invoke(main, ["tag", song, "-m", "tiny", "--unsure"])
    assert result.exit_code == 2 and "--unsure needs --threshold auto" in result.stderr
    result = CliRunner().invoke(main, ["tag", song, "-m", "tiny", "--threshold", "high"])
    assert result.exit_code == 2 and "'high' is not a valid float range" in result.stderr


def test_in_a_library(tuned, tmp_path):
    """Rows keep what `tag` says, and another choice of tags is another revision of the rows."""
    tagger = kmt.load(tuned / "mine")
    songs, table = sorted((tuned / "clips").glob("?.wav")), tmp_path / "tags.jsonl"
    kmt.tag_library(songs, table, tagger, threshold="auto", unsure=True, workers=1)
    rows = {Path(row["path"]).name: row for row in map(json.loads, table.read_text().splitlines())}
    assert len(rows) == len(songs)
    for song in songs:
        said = tagger.tag(song, threshold="auto", unsure=True)
        assert rows[song.name]["tags"] == pytest.approx(said, abs=1e-5) and not rows[song.name]["error"]
    with pytest.raises(LibraryError, match="threshold"):
        kmt.tag_library(songs, table, tagger, threshold="auto", workers=1)
    with pytest.raises(NoThresholdsError, match="'tiny' has no thresholds for threshold='auto'"):
        kmt.tag_library(songs, tmp_path / "other.jsonl", "tiny", threshold="auto", workers=1)
    command = ["library", str(songs[0]), "-o", str(tmp_path / "one.csv"), "-m", str(tuned / "mine")]
    assert CliRunner().invoke(main, [*command, "--threshold", "auto", "--unsure"]).exit_code == 0
    result = CliRunner().invoke(main, [*command, "--unsure"])
    assert result.exit_code == 2 and "--unsure needs --threshold auto" in result.stderr


def test_out_of_fold_without_validation(tuned):
    data = two_tags(tuned / "clips", count=48)
    options = {"validation": None, "cache": tuned / "cache", "progress": False}
    result = fine_tune(kmt.load("tiny"), data, settings=FineTuneSpec(stages="head"), **options)
    assert result.tagger.spec.thresholds.split == "train, out of fold"


def test_what_is_refused():
    y = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    with pytest.raises(NoThresholdsError, match=r"none were chosen on held-out labelled clips\. Pass a number"):
        kmt.load("tiny").tag(y, 16_000, threshold="auto")
    with pytest.raises(ValueError, match="threshold must be a number or 'auto'; got 'high'"):
        kmt.load("tiny").tag(y, 16_000, threshold="high")
    with pytest.raises(SpecError, match=r"min_precision must be from 0 to 1; got 2"):
        FineTuneSpec(min_precision=2)
    with pytest.raises(SpecError, match=r"thresholds\.values\['a'\] must be from 0 to 1; got 7"):
        Thresholds(values={"a": 7}, n=1, **MADE)
    with pytest.raises(SpecError, match="thresholds names 'dub', which is not a tag of the model"):
        dataclasses.replace(kmt.model_info("tiny"), thresholds=Thresholds(values={"dub": 0.5}, n=1, **MADE))


def test_no_model_of_the_zoo_has_unjustified_thresholds():
    """The documentation says that none has any."""
    assert [name for name in kmt.list_models() if kmt.model_info(name).thresholds is not None] == []
