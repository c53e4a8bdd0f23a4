"""`evaluate` and `score`: taggers on labelled sounds, and what is kept of it."""

import csv
import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from labelled_sounds import TAGS, labelled_sounds
from sklearn.metrics import average_precision_score, roc_auc_score

import keras_musictag as kmt
from keras_musictag.datasets import DataError, Manifest, Row
from keras_musictag.datasets.log_mel_cache import FeatureCache
from keras_musictag.errors import AudioError, AudioNotFoundError, CacheError, SpecError
from keras_musictag.evaluation.measuring import Scores, score
from keras_musictag.evaluation.results import EvaluationError

KNOWN = ("tone", "noise", "clicks", "sweep")  # those of TAGS that `tiny` has, in its order
MINE = {"dataset": "mine", "progress": False}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """40 labelled sounds of 10 artists."""
    return Manifest.from_csv(labelled_sounds(tmp_path_factory.mktemp("sounds")))


@pytest.fixture(scope="module")
def other(tiny):
    """A tagger of another name that is wrong more often."""
    tagger = kmt.load("tiny")
    weights = tagger.core.get_layer("head").weights[0]
    weights.assign(weights + np.random.default_rng(0).normal(size=weights.shape))
    return kmt.Tagger(dataclasses.replace(tiny.spec, name="other"), core=tagger.core)


@pytest.fixture(scope="module")
def scores(tiny, other, sounds):
    return score([tiny, other], sounds, **MINE)


def replaced(manifest, number, **changes):
    """The manifest with other values in one row."""
    rows = list(manifest)
    rows[number] = dataclasses.replace(rows[number], **changes)
    return Manifest(tuple(rows), manifest.tags)


# === Numbers ===


@pytest.mark.contract
def test_areas_equal_those_of_tag(tiny, sounds):
    result = kmt.evaluate(tiny, sounds, n_bootstrap=100, **MINE)
    said = [tiny.tag(row.path) for row in sounds]
    for row in result.rows[:3]:
        truth = [row.tag in sound.tags for sound in sounds]
        given = [tags[row.tag] for tags in said]
        assert row.roc_auc.value == pytest.approx(roc_auc_score(truth, given), abs=1e-12)
        assert row.pr_auc.value == pytest.approx(average_precision_score(truth, given), abs=1e-12)
        assert row.positives == sum(truth) and row.roc_auc.low < row.roc_auc.value < row.roc_auc.high
    assert result.roc_auc.value == pytest.approx(np.mean([row.roc_auc.value for row in result.rows[:3]]))
    assert (result.model, result.dataset, result.split, result.n_clips) == ("tiny", "mine", "test", 40)
    assert result.weights_sha256 == tiny.spec.weights.sha256


@pytest.mark.contract
def test_probabilities_are_those_of_tag_with_and_without_a_cache(tiny, sounds, tmp_path):
    """Measured on TensorFlow: log-mels in float16 move probabilities by up to 3.1e-3, in float32 by 1.2e-7."""
    expected = np.array([[tiny.tag(row.path)[tag] for tag in KNOWN] for row in sounds])
    assert np.array_equal(score(tiny, sounds, **MINE).probabilities[0], expected.astype("float32"))
    exact = FeatureCache(tmp_path / "exact", tiny.spec)
    exact.dtype = np.dtype("<f4")
    for cache, tolerance in ((tmp_path, 1e-2), (FeatureCache(tmp_path, tiny.spec), 1e-2), (exact, 1e-5)):
        cached = score(tiny, sounds, cache=cache, batch_size=7, **MINE)
        assert cached.probabilities[0] == pytest.approx(expected, abs=tolerance)
        assert [row.file for row in cached.rows] == [row.path.name for row in sounds]


def test_a_row_that_is_a_part_of_a_file(tiny, sounds, tmp_path):
    path = sounds[3].path
    rows = [Row(path=path, start=0.5, duration=1.25, tags=("tone",)), Row(path=path, tags=("noise",))]
    expected = [tiny.tag(path, offset=0.5, duration=1.25), tiny.tag(path)]
    options = {"split": "all", **MINE}
    direct = score(tiny, Manifest(tuple(rows)), **options)
    assert direct.probabilities[0].tolist() == [[row[tag] for tag in ("tone", "noise")] for row in expected]
    cached = score(tiny, Manifest(tuple(rows)), cache=tmp_path, **options)
    assert cached.probabilities[0, 0] == pytest.approx(direct.probabilities[0, 0], abs=1e-2)  # measured 1.6e-4
    assert cached.probabilities[0, 1] == pytest.approx(direct.probabilities[0, 1], abs=1e-2)


def test_intervals_resample_artists_where_they_are_known_and_files_where_not(tiny, sounds):
    artists = kmt.evaluate(tiny, sounds, n_bootstrap=50, grouped_by="artist", **MINE)
    assert (artists.n_groups, artists.grouped_by) == (10, "artist")
    assert kmt.evaluate(tiny, sounds, n_bootstrap=50, **MINE).grouped_by == "group"
    unknown = Manifest(tuple(dataclasses.replace(row, group="") for row in sounds), sounds.tags)
    tracks = kmt.evaluate(tiny, unknown, n_bootstrap=50, grouped_by="artist", **MINE)
    assert (tracks.n_groups, tracks.grouped_by) == (40, "track")
    assert tracks.roc_auc.value == artists.roc_auc.value and tracks.roc_auc.low != artists.roc_auc.low
    some = replaced(replaced(sounds, 0, group=""), 1, group="")
    assert kmt.evaluate(tiny, some, n_bootstrap=0, **MINE).n_groups == 12


def test_the_same_seed_gives_the_same_result(tiny, sounds):
    first, again, another = (kmt.evaluate(tiny, sounds, seed=seed, n_bootstrap=20, **MINE) for seed in (1, 1, 2))
    assert first == again != another


# === Tags ===


def test_tags_are_matched_by_name(tiny, sounds):
    """`guitar` is the data's alone and listed; `chord` is the tagger's alone and no negative; `sweep` has no clip."""
    result = kmt.evaluate(tiny, sounds, n_bootstrap=0, **MINE)
    assert sounds.tags == TAGS and result.tags == KNOWN
    assert result.missing_tags == ("guitar",) and result.excluded == {"sweep": "no clip has it"}
    assert result.to_dict()["n_tags_scored"] == 3 and result.to_dict()["missing_tags"] == ["guitar"]
    assert "tags of the data that the tagger does not have: guitar" in str(result)
    other_order = sounds.with_tags(["guitar", "sweep", "tone", "clicks", "noise"])
    assert kmt.evaluate(tiny, other_order, n_bootstrap=0, **MINE) == result


def test_no_tag_in_common(tiny, sounds):
    strange = Manifest((Row(path=sounds[0].path, tags=("Tone",)), Row(path=sounds[1].path)))
    with pytest.raises(EvaluationError, match=r"no tag in common: mine has 'Tone'; tiny has 'tone', .* rename"):
        kmt.evaluate(tiny, strange, split="all", **MINE)
    with pytest.raises(EvaluationError, match="no tag in common: mine has none"):
        kmt.evaluate(tiny, Manifest((Row(path=sounds[0].path),)), split="all", **MINE)


# === Rows ===


def test_splits(tiny, sounds):
    half = Manifest(
        tuple(dataclasses.replace(row, split="test" if n < 20 else "valid") for n, row in enumerate(sounds)),
        sounds.tags,
    )
    sizes = {
        split: kmt.evaluate(tiny, half, split=split, n_bootstrap=0, **MINE).n_clips
        for split in ("test", "valid", "all")
    }
    assert sizes == {"test": 20, "valid": 20, "all": 40}
    with pytest.raises(DataError, match="no rows in the split 'train'"):
        kmt.evaluate(tiny, half, split="train", **MINE)
    undecided = Manifest(tuple(dataclasses.replace(row, split="") for row in sounds), sounds.tags)
    with pytest.raises(EvaluationError, match=r"no splits, so there is no 'test' among its 40 rows\. Pass split='all'"):
        kmt.evaluate(tiny, undecided, **MINE)
    with pytest.raises(EvaluationError, match="no rows, so there is nothing to measure"):
        kmt.evaluate(tiny, Manifest((), ("tone",)), **MINE)


@pytest.fixture
def damaged(sounds, tmp_path):
    """Row 5 is no sound, row 9 is not there, row 11 begins after its end."""
    (tmp_path / "text.wav").write_text("not music\n" * 100)
    manifest = replaced(sounds, 5, path=tmp_path / "text.wav")
    return replaced(replaced(manifest, 9, path=tmp_path / "gone.wav"), 11, start=60.0)


@pytest.mark.parametrize("cached", [False, True])
def test_bad_files_are_left_out_counted_and_listed(tiny, sounds, damaged, tmp_path, caplog, cached):
    cache = tmp_path / "log-mels" if cached else None
    with caplog.at_level(logging.WARNING):
        result = kmt.evaluate(tiny, damaged, n_bootstrap=0, cache=cache, **MINE)
    assert [record.getMessage() for record in caplog.records] == ["3 of 40 rows could not be tagged and are left out."]
    assert result.n_clips == 37
    assert [Path(failure.file).name for failure in result.failed] == ["text.wav", "gone.wav", "11.wav"]
    for failure, reason in zip(
        result.failed, ("not a sound file", "does not exist", "no samples from 60"), strict=True
    ):
        assert reason in failure.reason and failure.model == "tiny"
    assert result.failed[2].start == 60
    assert result.to_dict()["n_failed"] == 3 and result.to_dict()["failed"][1]["model"] == "tiny"
    assert "left out, 3 of 40 rows could not be tagged, first " in str(result)
    good = Manifest(tuple(row for n, row in enumerate(sounds) if n not in (5, 9, 11)), sounds.tags)
    expected = kmt.evaluate(tiny, good, n_bootstrap=0, cache=cache, **MINE)
    assert result.rows == expected.rows


@pytest.mark.parametrize("cached", [False, True])
def test_strict_raises(tiny, damaged, tmp_path, cached):
    with pytest.raises(AudioError, match="not a sound file"):
        kmt.evaluate(tiny, damaged, strict=True, cache=tmp_path / "log-mels" if cached else None, **MINE)


def test_nothing_could_be_tagged(tiny, tmp_path):
    rows = tuple(Row(path=tmp_path / f"{n}.wav", tags=("tone",) * n) for n in range(2))
    with pytest.raises(EvaluationError, match=r"None of 2 rows could be tagged\. The first error: .*does not exist"):
        kmt.evaluate(tiny, Manifest(rows), split="all", **MINE)
    with pytest.raises(AudioNotFoundError):
        kmt.evaluate(tiny, Manifest(rows), split="all", strict=True, **MINE)


def test_errors_are_raised_before_any_file_is_decoded(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(kmt.Tagger, "tag", lambda *_, **__: pytest.fail("decoded"))
    row = Row(path=tmp_path / "a.wav", tags=("tone",), group="a")
    one_class = Manifest((row, row))
    graded = Manifest((dataclasses.replace(row, tags=(), targets=(0.25,)), row), ("tone",))
    one_group = Manifest((row, dataclasses.replace(row, tags=())), ("tone",))
    for manifest, options, message in (
        (one_class, {}, "each of the 1 tags has only one class"),
        (graded, {}, r"mine has targets between 0 and 1, e\.g\. 0\.25"),
        (one_group, {}, "Intervals need at least 2 groups"),
        (one_group, {"n_bootstrap": -1}, "n_bootstrap must be a whole number"),
        (one_group, {"n_bootstrap": 0, "workers": 0}, "workers must be a whole number of at least 1; got 0"),
        (one_group, {"n_bootstrap": 0, "batch_size": 0}, "batch_size must be a whole number of at least 1; got 0"),
        (one_group, {"dataset": " "}, "must name its dataset"),
    ):
        with pytest.raises(EvaluationError, match=message):
            kmt.evaluate(tiny, manifest, split="all", **{**MINE, **options})


def test_a_cache_of_another_front_end_and_one_that_cannot_be_written(tiny, sounds, tmp_path):
    foreign = FeatureCache(tmp_path, kmt.model_info("musicnn_mtt"))
    with pytest.raises(SpecError, match="The cache is for the front end of"):
        score(tiny, sounds, cache=foreign, **MINE)
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot be written"):
        score(tiny, sounds, cache=tmp_path / "file", **MINE)


# === Several taggers, and files ===


def test_two_taggers_on_the_same_rows(scores, tiny, other, sounds):
    assert scores.models == ("tiny", "other")
    alone = kmt.evaluate(other, sounds, n_bootstrap=50, **MINE)
    result = scores.compare("tiny", "other", n_bootstrap=50)
    assert result.b == alone == scores.evaluate("other", n_bootstrap=50)
    assert result.roc_auc.value == pytest.approx(result.a.roc_auc.value - alone.roc_auc.value)
    data = result.to_dict()
    assert data["a"] == result.a.to_dict() and data["b"]["model"] == "other"
    with pytest.raises(EvaluationError, match=r"There are 2 taggers: tiny, other\. Name one"):
        scores.evaluate()
    with pytest.raises(EvaluationError, match="no scores of 'third', only of tiny, other"):
        scores.compare("tiny", "third")
    with pytest.raises(EvaluationError, match="distinct names; got 'tiny' more than once"):
        score([tiny, tiny], sounds, **MINE)
    with pytest.raises(EvaluationError, match="no tagger to measure"):
        score([], sounds, **MINE)
    with pytest.raises(EvaluationError, match="a name per tagger"):
        score([tiny, other], sounds, names=["one"], **MINE)


def test_a_random_network_has_no_sha256(sounds):
    assert score(kmt.load("tiny", weights=None), sounds, **MINE).weights_sha256 == ("",)


def test_scores_survive_a_file(scores, tmp_path):
    path = scores.save(tmp_path / "both.npz")
    again = Scores.load(path)
    assert again.compare("tiny", "other", n_bootstrap=50) == scores.compare("tiny", "other", n_bootstrap=50)
    assert again.rows == scores.rows and again.rows[0].file == "00.wav"
    assert again.probabilities.dtype == "float32" and np.array_equal(again.probabilities, scores.probabilities)
    assert [file.name for file in tmp_path.iterdir()] == ["both.npz"]


def test_scores_as_a_table(scores, tmp_path):
    with scores.save(tmp_path / "both.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and list(rows[0])[:6] == [
        "file",
        "start",
        "duration",
        "group",
        "target:tone",
        "target:noise",
    ]
    assert (rows[0]["file"], rows[0]["start"], rows[0]["duration"], rows[0]["group"]) == (
        "00.wav",
        "0.0",
        "",
        "artist 0",
    )
    assert [float(row["other:noise"]) for row in rows] == pytest.approx(scores.probabilities[1, :, 1], rel=1e-5)
    assert [int(row["target:tone"]) for row in rows] == scores.targets[:, 0].tolist()


def test_files_that_hold_no_scores(scores, tmp_path):
    with pytest.raises(EvaluationError, match=r"saved as \.npz or \.csv; got .*both\.txt"):
        scores.save(tmp_path / "both.txt")
    (tmp_path / "text.npz").write_text("no scores")
    np.savez(tmp_path / "arrays.npz", x=np.zeros(3))
    path = scores.save(tmp_path / "cut.npz")
    path.write_bytes(path.read_bytes()[:-100])
    for name in ("gone", "text", "arrays", "cut"):
        with pytest.raises(EvaluationError, match=rf"{name}\.npz cannot be read as scores: .* --scores"):
            Scores.load(tmp_path / f"{name}.npz")


def test_scores_of_separate_passes_are_joined(scores, tiny, other, sounds, damaged, tmp_path):
    """As on two machines: the folders differ, one pass lost rows, and one was asked about fewer tags."""
    folder = shutil.copytree(sounds[0].path.parent, tmp_path / "elsewhere")
    moved = Manifest.from_csv(folder / "manifest.csv").with_tags(["tone", "clicks", "guitar"])
    a = score(tiny, replaced(sounds, 3, start=60.0), **MINE)
    b = score(other, moved, **MINE)
    joined = a.join(b)
    assert joined.models == ("tiny", "other") and joined.tags == ("tone", "clicks")
    assert set(joined.missing_tags) == {"guitar", "noise", "sweep"}
    assert len(joined.rows) == 39 and [failure.file for failure in joined.failed] == ["03.wav"]
    kept = [n for n in range(40) if n != 3]
    assert np.array_equal(joined.probabilities, scores.probabilities[:, kept][:, :, [0, 2]])
    assert joined.compare("tiny", "other", n_bootstrap=10).a.n_clips == 39
    with pytest.raises(EvaluationError, match="Scores on mine test and on mine all cannot be compared"):
        a.join(score(other, sounds, split="all", **MINE))
    with pytest.raises(EvaluationError, match="1 of 39 rows have different labels"):
        a.join(score(other, replaced(sounds, 0, tags=()), **MINE))
    strangers = Manifest(tuple(dataclasses.replace(row, start=0.25) for row in sounds), sounds.tags)
    with pytest.raises(EvaluationError, match="0 rows and 4 tags in common"):
        a.join(score(other, strangers, **MINE))


def test_the_same_row_twice_stays_twice(tiny, other, sounds):
    twice = Manifest((*sounds, sounds[0]), sounds.tags)
    joined = score(tiny, twice, **MINE).join(score(other, twice, **MINE))
    assert len(joined.rows) == 41


def test_scores_whose_parts_do_not_belong_together(scores):
    with pytest.raises(
        EvaluationError, match=r"2 taggers, 40 rows and 4 tags need probabilities of shape \(2, 40, 4\)"
    ):
        dataclasses.replace(scores, probabilities=scores.probabilities[:1])


# === Output ===


def test_a_comparison_as_table_and_picture(scores, tmp_path):
    result = scores.compare("tiny", "other", n_bootstrap=20)
    with result.to_csv(tmp_path / "difference.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tag"] for row in rows] == list(KNOWN)
    first = rows[0]
    assert (first["model_a"], first["model_b"], first["n_clips"]) == ("tiny", "other", "40")
    assert float(first["roc_auc_delta"]) == pytest.approx(float(first["roc_auc_a"]) - float(first["roc_auc_b"]))
    assert rows[3]["roc_auc_delta"] == ""
    pytest.importorskip("matplotlib")
    ax = result.plot(metric="pr_auc")
    assert sorted(bar.get_width() for bar in ax.patches) == sorted(row.pr_auc.value for row in result.rows[:3])
    assert ax.get_title() == "tiny minus other\nmine test, 40 clips in 10 groups"
    assert "PR-AUC" in ax.get_xlabel()


def test_bars_of_roc_auc_begin_at_chance_or_at_0(tiny, sounds):
    pytest.importorskip("matplotlib")
    result = kmt.evaluate(tiny, sounds.with_tags(["tone"]), n_bootstrap=0, **MINE)
    assert result.plot().get_xlim() == (0.5, 1) and result.plot(metric="pr_auc").get_xlim() == (0, 1)
    row = dataclasses.replace(result.rows[0], roc_auc=dataclasses.replace(result.rows[0].roc_auc, value=0.4))
    assert dataclasses.replace(result, rows=(row,)).plot().get_xlim() == (0, 1)


def test_results_are_written_in_full_or_not_at_all(tiny, sounds, tmp_path):
    result = kmt.evaluate(tiny, sounds, n_bootstrap=0, **MINE)
    (tmp_path / "result.json").mkdir()
    with pytest.raises(CacheError, match=r"result\.json cannot be written"):
        result.to_json(tmp_path / "result.json")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
