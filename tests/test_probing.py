"""`probe`: nothing is learned from what is predicted, all models get the same clips, numbers are those of `Scores`."""

import csv
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import soundfile
from labelled_sounds import RATE, labelled_sounds
from sklearn.metrics import roc_auc_score

import keras_musictag as kmt
from keras_musictag.apps.probing import linear_probe as _linear_probe
from keras_musictag.apps.probing import probe_result as _probe_result
from keras_musictag.apps.probing.runner import probe
from keras_musictag.audio import reading as audio
from keras_musictag.datasets import Manifest, Row
from keras_musictag.errors import UnknownModelError
from keras_musictag.evaluation.results import EvaluationError
from keras_musictag.plots import PlotError
from keras_musictag.training.embedding_cache import EmbeddingCache

CLASSES = ("clicks", "noise", "tone")
MINE = {"dataset": "mine", "folds": 3, "n_bootstrap": 50, "progress": False}


@pytest.fixture(scope="module")
def one_each(tmp_path_factory):
    """24 sounds of three classes, three by each of eight artists."""
    folder = tmp_path_factory.mktemp("one_each")
    rng, t = np.random.default_rng(0), np.arange(RATE) / RATE
    rows = []
    for number in range(24):
        tag = CLASSES[number % 3]
        sounds = {
            "clicks": lambda: (np.arange(RATE) % round(RATE * rng.uniform(0.1, 0.3)) < 20) * 1.0,
            "noise": lambda: rng.uniform(-1, 1, RATE),
            "tone": lambda: np.sin(2 * np.pi * rng.uniform(150, 2000) * t),
        }
        y = rng.uniform(0.2, 0.9) * sounds[tag]() + 0.02 * rng.uniform(-1, 1, RATE)
        soundfile.write(folder / f"{number:02}.wav", y, RATE)
        rows.append(Row(path=folder / f"{number:02}.wav", tags=(tag,), group=f"artist {number // 3}"))
    return Manifest(tuple(rows), CLASSES)


@pytest.fixture(scope="module")
def any_number(tmp_path_factory):
    """40 sounds of 10 artists; nothing has a sweep."""
    return Manifest.from_csv(labelled_sounds(tmp_path_factory.mktemp("any_number")))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Sound is decoded once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def other():
    """A tagger with random weights."""
    keras.utils.set_random_seed(0)
    tagger = kmt.load("tiny", weights=None)
    return kmt.Tagger(dataclasses.replace(tagger.spec, name="other"), core=tagger.core)


@pytest.fixture(scope="module")
def classes(tiny, other, one_each, cache):
    return probe([other, tiny], one_each, mfcc=True, cache=cache, grouped_by="artist", **MINE)


@pytest.fixture(scope="module")
def tags(tiny, any_number, cache):
    return probe(tiny, any_number, mfcc=True, cache=cache, **MINE)


# === Numbers ===


def test_one_tag_per_clip(classes, one_each):
    assert (classes.metric, classes.scores.tags, classes.scores.models) == (
        "accuracy",
        CLASSES,
        ("other", "tiny", "mfcc"),
    )
    accuracies = {row.model: row.accuracy.value for row in classes.models}
    truth = one_each.targets().argmax(axis=1)
    for model, probabilities in zip(classes.scores.models, classes.scores.probabilities, strict=True):
        assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
        assert accuracies[model] == np.mean(probabilities.argmax(axis=1) == truth)
    assert classes["tiny"].accuracy.value > 0.9 > classes.chance == pytest.approx(1 / 3)
    assert list(accuracies.values()) == sorted(accuracies.values(), reverse=True)
    assert [row.features for row in (classes["tiny"], classes["mfcc"])] == [16, 80]
    assert classes["tiny"].weights_sha256 == kmt.model_info("tiny").weights.sha256
    assert classes["mfcc"].weights_sha256 == ""


def test_any_number_of_tags_per_clip(tags, any_number):
    """`sweep` is nowhere; clips without any tag count."""
    assert (tags.metric, tags.chance, tags["tiny"].accuracy) == ("roc_auc", 0.5, None)
    assert tags.excluded == {"sweep": "no clip has it"}
    assert tags.scores.tags == tuple(tag for tag in any_number.tags if tag != "sweep")
    truth = any_number.with_tags(tags.scores.tags).targets()
    assert tags.untagged == int((truth.sum(axis=1) == 0).sum()) > 0
    expected = np.mean([roc_auc_score(truth[:, k], tags.scores.probabilities[0][:, k]) for k in range(truth.shape[1])])
    assert tags["tiny"].roc_auc.value == pytest.approx(expected)
    assert tags["tiny"].roc_auc.value > 0.6


def test_areas_and_differences_are_those_of_the_scores(classes, tags):
    for result in (classes, tags):
        for row in result.models:
            evaluation = result.scores.evaluate(row.model, n_bootstrap=50)
            assert (row.roc_auc, row.pr_auc) == (evaluation.roc_auc, evaluation.pr_auc)
    best, second = tags.models
    expected = tags.scores.compare(second.model, best.model, n_bootstrap=50).roc_auc
    for name in ("value", "low", "high", "bias"):
        assert getattr(second.difference, name) == pytest.approx(getattr(expected, name), abs=1e-12)
    assert best.difference is None and tags.best is best


def test_accuracy_and_its_differences_are_paired_and_resample_groups(classes):
    first = classes.scores.probabilities[:1]
    twice = dataclasses.replace(
        classes.scores, models=("a", "b"), weights_sha256=("", ""), probabilities=np.concatenate([first, first])
    )
    a, b = _probe_result.measure(twice, "accuracy", 200, 0)
    assert a.accuracy == b.accuracy and (b.difference.value, b.difference.low, b.difference.high) == (0, 0, 0)
    each = [dataclasses.replace(row, group=row.file) for row in classes.scores.rows]
    wrong = np.repeat(np.arange(8) < 3, 3)  # three artists of eight
    scores = np.eye(3)[(classes.scores.targets.argmax(axis=1) + wrong) % 3][None]
    known = dataclasses.replace(classes.scores, models=("a",), weights_sha256=("",), probabilities=scores)
    grouped = _probe_result.measure(known, "accuracy", 500, 0)[0].accuracy
    alone = _probe_result.measure(dataclasses.replace(known, rows=tuple(each)), "accuracy", 500, 0)[0].accuracy
    assert grouped.value == alone.value == 15 / 24
    assert grouped.high - grouped.low > 1.4 * (alone.high - alone.low)  # three clips each: a factor of 1.7


def test_the_same_call_gives_the_same(tiny, one_each, classes, cache):
    again = probe([tiny], one_each, cache=cache, **MINE)
    assert np.array_equal(again.folds, classes.folds)
    assert np.array_equal(again.scores.probabilities[0], classes.scores.probabilities[1])
    assert not np.array_equal(probe([tiny], one_each, cache=cache, seed=1, **MINE).folds, again.folds)


def test_the_second_run_computes_no_embeddings(tiny, one_each, cache, classes, monkeypatch):
    monkeypatch.setattr(audio, "stream", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(EmbeddingCache, "_from_cache", lambda *_: pytest.fail("computed"))
    again = probe([tiny], one_each, mfcc=True, cache=cache, **MINE)
    assert again["tiny"].accuracy == classes["tiny"].accuracy


# === Folds ===


def test_groups_and_copies_are_never_on_two_sides(tiny, one_each, tmp_path):
    shutil.copy(one_each[0].path, tmp_path / "copy.wav")
    copy = Row(path=tmp_path / "copy.wav", tags=one_each[0].tags, group="somebody else")
    ours = [dataclasses.replace(row, group="" if number > 11 else row.group) for number, row in enumerate(one_each)]
    result = probe(tiny, Manifest((*ours, copy), CLASSES), cache=tmp_path / "cache", **MINE)
    folds = result.folds
    assert sorted(set(folds.tolist())) == [0, 1, 2]
    assert all(len(set(folds[start : start + 3])) == 1 for start in (0, 3, 6, 9))
    assert folds[-1] == folds[0] and len(set(folds[12:24].tolist())) == 3
    groups = [row.group for row in result.scores.rows]
    assert groups[0] == "artist 0" and groups[12].endswith("12.wav") and result.scores.grouped_by == "group"


def test_folds_are_as_even_as_groups_allow(one_each, classes):
    assert sorted(np.bincount(classes.folds)) == [6, 9, 9]
    assert all(
        sorted(np.bincount(classes.folds[one_each.targets()[:, column] == 1])) == [2, 3, 3] for column in range(3)
    )


@pytest.mark.parametrize("exclusive", [True, False])
def test_nothing_is_learned_from_what_is_predicted(exclusive):
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(60, 8)), np.arange(60) % 3
    folds = rng.permutation(60) % 4
    inner = [np.arange((folds != fold).sum()) % 3 for fold in range(4)]
    before, strengths = _linear_probe.out_of_fold(x, np.eye(3)[label], folds, inner, exclusive=exclusive)
    mine = folds == 2
    label[mine], x[folds == 2] = (label[mine] + 1) % 3, x[mine]
    after, _ = _linear_probe.out_of_fold(x, np.eye(3)[label], folds, inner, exclusive=exclusive)
    assert np.array_equal(before[mine], after[mine]) and not np.array_equal(before[~mine], after[~mine])
    assert len(strengths) == 4 and set(strengths) <= set(_linear_probe.STRENGTHS)


def test_what_says_nothing_is_worth_nothing_however_uneven_folds_are():
    """With clips weighted alike, a fold with more of a tag is predicted from fewer: areas sink below a half."""
    targets = np.zeros((40, 1))
    targets[[0, 1, 2, 3, 4, 10, 11, 20]] = 1
    folds = np.arange(40) // 10
    inner = [np.arange(30) % 3] * 4
    found, _ = _linear_probe.out_of_fold(np.ones((40, 5)), targets, folds, inner, exclusive=False)
    assert np.allclose(found, 0.5, rtol=0, atol=1e-3)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_tag_that_is_all_in_one_fold_is_predicted_by_nothing(exclusive):
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(40, 4)), np.arange(40) % 2
    folds = np.arange(40) // 10
    label[folds == 0] = 2
    inner = [np.zeros(30, int)] * 4  # one group: nothing to choose by
    found, strengths = _linear_probe.out_of_fold(x, np.eye(3)[label], folds, inner, exclusive=exclusive)
    assert np.isfinite(found).all() and (found[folds == 0][:, 2] == 0).all()
    assert set(strengths) == {0.01}


# === What is left out ===


def test_a_model_that_cannot_be_had_is_a_row_with_its_error(one_each, cache, monkeypatch):
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    result = probe(["musicnn_mtt", "tiny"], one_each, cache=cache, **MINE)
    assert [row.model for row in result.models] == ["tiny", "musicnn_mtt"]
    assert result.models[1].accuracy is None and "offline" in result.models[1].error.lower()
    assert "not probed: musicnn_mtt: " in str(result)
    with pytest.raises(EvaluationError, match=r"None of 1 models can be probed\. The first error: .*offline"):
        probe("musicnn_mtt", one_each, cache=cache, **MINE)


def test_a_model_whose_embeddings_are_not_finite_is_a_row_with_its_error(tiny, one_each, cache):
    bad = kmt.load("tiny", weights=None)
    layer = bad.core.get_layer("gru1")
    layer.set_weights([np.nan * values for values in layer.get_weights()])
    bad = kmt.Tagger(dataclasses.replace(bad.spec, name="bad"), core=bad.core)
    result = probe([bad, tiny], one_each, cache=cache, **MINE)
    assert result["bad"].error.startswith("The embeddings of bad are not finite") and not result["tiny"].error


def test_sounds_that_cannot_be_used_are_left_out_for_all_models(tiny, other, one_each, tmp_path):
    (tmp_path / "text.wav").write_text("not music\n" * 100)
    bad = (Row(path=tmp_path / "text.wav", tags=("tone",)), Row(path=tmp_path / "gone.wav", tags=("noise",)))
    manifest = Manifest((bad[0], *one_each.rows, bad[1]), CLASSES)
    result = probe([tiny, other], manifest, mfcc=True, cache=tmp_path / "cache", **MINE)
    assert len(result.scores.rows) == 24 and result.scores.probabilities.shape == (3, 24, 3)
    assert [(failure.model, failure.file.split("/")[-1]) for failure in result.scores.failed] == [
        ("tiny", "text.wav"),
        ("tiny", "gone.wav"),
    ]
    assert "clips left out, as they cannot be used: 2, first " in str(result)
    nothing = []
    for number in range(6):
        (tmp_path / f"{number}.wav").write_text(f"not music {number}\n" * 100)
        nothing.append(Row(path=tmp_path / f"{number}.wav", tags=(CLASSES[number % 2],)))
    with pytest.raises(EvaluationError, match=r"None of 6 clips can be used\. The first: .*is not a sound file"):
        probe(tiny, Manifest(nothing), cache=tmp_path / "cache", **MINE)


def test_tags_of_one_group_are_left_out(tiny, one_each, any_number, cache):
    rare = dataclasses.replace(one_each[0], tags=("rare",))
    result = probe(tiny, Manifest((rare, *one_each.rows[1:])), cache=cache, **MINE)
    assert result.excluded == {"rare": "only one group has it"} and result.metric == "accuracy"
    assert len(result.scores.rows) == 23 and "rare" not in result.scores.tags
    rows = [dataclasses.replace(row, tags=(*row.tags, "sound")) for row in any_number]
    result = probe(tiny, Manifest(rows), cache=cache, **MINE)
    assert result.excluded["sound"] == "every clip has it" and len(result.scores.rows) == 40
    assert "tags left out: " in str(result) and "sound (every clip has it)" in str(result)


# === Complaints ===


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 1}, "folds must be a whole number of at least 2; got 1"),
        ({"folds": 9}, r"9 folds need at least 9 groups .* the 24 clips make 8\. Use fewer folds"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"n_bootstrap": 1.5}, "n_bootstrap must be a whole number"),
        ({"dataset": " "}, "A result must name its dataset"),
        ({"models": []}, "There is no model to probe"),
        ({"models": ["tiny", "tiny"]}, "Each model must be given once, .*; repeated: tiny"),
        ({"models": ["mfcc"], "mfcc": True}, "'mfcc' is the name of the MFCC statistics"),
    ],
)
def test_settings_that_cannot_be(one_each, monkeypatch, changes, message):
    monkeypatch.setattr(audio, "stream", lambda *_, **__: pytest.fail("decoded"))
    given = {"models": ["tiny"], **MINE, **changes}
    with pytest.raises(EvaluationError, match=message):
        probe(given.pop("models"), one_each, **given)


def test_data_that_cannot_be(one_each, monkeypatch):
    monkeypatch.setattr(audio, "stream", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(EvaluationError, match="mine has no rows"):
        probe("tiny", Manifest(()), **MINE)
    soft = [dataclasses.replace(row, tags=(), targets=(0.5, 0.0, 1.0)) for row in one_each]
    with pytest.raises(EvaluationError, match="mine has targets between 0 and 1"):
        probe("tiny", Manifest(tuple(soft), CLASSES), **MINE)
    same = [dataclasses.replace(row, tags=("tone",)) for row in one_each]
    with pytest.raises(
        EvaluationError, match=r"too few tags to probe in mine: 0 of 1 tags .* tone \(every clip has it\)"
    ):
        probe("tiny", Manifest(same), **MINE)
    rare = [dataclasses.replace(row, tags=("tone" if number else "noise",)) for number, row in enumerate(one_each)]
    with pytest.raises(
        EvaluationError, match=r"0 of 2 tags can be probed\. Left out: noise \(only one group has it\), tone"
    ):
        probe("tiny", Manifest(rare), **MINE)


def test_a_name_that_is_unknown_is_a_mistake(one_each, monkeypatch):
    monkeypatch.setattr(audio, "stream", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(UnknownModelError, match="Unknown model 'musicnet'"):
        probe(["tiny", "musicnet"], one_each, **MINE)


def test_a_model_that_was_not_probed(classes):
    with pytest.raises(EvaluationError, match="'vgg' was not probed, only "):
        classes["vgg"]


# === What comes out ===


def test_table(classes, tags):
    lines = str(classes).splitlines()
    assert lines[0] == "linear probes on mine, 3-fold cross-validation, 24 clips in 8 artists, 3 tags, one each"
    assert lines[1].split("  ")[0] == "model" and lines[1].endswith("minus the best")
    best = classes.best
    assert lines[2].split() == [best.model, str(best.features), *f"{best.accuracy:.3f} {best.roc_auc:.3f}".split()]
    assert lines[3].endswith(f"{classes.models[1].difference:+.3f}")
    assert lines[5:] == ["chance: accuracy 0.333", "[low, high]: 95 % intervals from 50 resamples of artists"]
    assert "any number each" in str(tags) and f"which count as such: {tags.untagged}" in str(tags)


def test_files(classes, tags, tmp_path):
    data = json.loads(classes.to_json(tmp_path / "a.json").read_text())
    assert (data["dataset"], data["n_clips"], data["n_groups"], data["metric"]) == ("mine", 24, 8, "accuracy")
    assert [row["model"] for row in data["models"]] == [row.model for row in classes.models]
    assert data["models"][0]["accuracy_low"] == classes.best.accuracy.low and len(data["models"][0]["strengths"]) == 3
    with tags.to_csv(tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["model"] == tags.models[1].model and rows[1]["accuracy"] == ""
    assert float(rows[1]["difference"]) == tags.models[1].difference.value


def test_picture(classes, tags):
    pytest.importorskip("matplotlib")
    ax = classes.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == [row.model for row in classes.models][::-1]
    assert ax.patches[-1].get_width() == classes.best.accuracy.value and ax.get_xlabel() == "accuracy (orange: chance)"
    assert classes.plot(ax, metric="pr_auc") is ax
    with pytest.raises(PlotError, match="metric must be one of 'roc_auc', 'pr_auc'; got 'accuracy'"):
        tags.plot(metric="accuracy")
