"""Learning the tags that people gave: it learns, it scores what `tag` says, and it refuses what cannot work."""

import dataclasses
import inspect

import keras
import numpy as np
import pytest
from two_tags import TAGS, two_tags

import keras_musictag as kmt
from keras_musictag.apps.recipes import Result
from keras_musictag.datasets import Manifest, Row
from keras_musictag.datasets.augment import Augmentation
from keras_musictag.datasets.batches import EvaluationWindows, FeatureCache
from keras_musictag.evaluation.metrics import evaluate_scores
from keras_musictag.loading import untrained
from keras_musictag.training.finetuning import FineTuned
from keras_musictag.training.loop import TrainingError, TrainingSpec
from keras_musictag.training.supervised import check_disjoint, row_outputs, train
from keras_musictag.training.training_spec import TrainingResult

SETTINGS = {
    "steps": 60, "validate_every": 20, "checkpoint_every": 20, "warmup_steps": 5, "learning_rate": 1e-2, "average": 0.9
}  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return two_tags(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return FeatureCache(tmp_path_factory.mktemp("mels"), kmt.model_info("tiny"))


@pytest.mark.contract
def test_it_learns_and_scores_what_tag_says(clips, cache, tmp_path):
    augment = Augmentation(mel=cache.spec.mel, gain_db=3.0, mel_masks=1, mel_mask_bands=4)
    result = train(
        untrained("tiny", TAGS), clips[:10], clips[10:], tmp_path / "run",
        cache=cache, training=TrainingSpec(**SETTINGS), batch_size=8, augment=augment, mixup=0.2, bn_momentum=0.8,
        progress=False,
    )  # fmt: skip
    tagger, state = result
    assert state.step == 60 and state.best > 0.9
    assert (result.finished, result.problems, result.folder) == (True, (), tmp_path / "run")
    header, *lines = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert header == "step,loss,waiting,pr_auc,roc_auc" and len(lines) == 3
    tags = [tagger.tag(row.path) for row in clips[10:]]
    scores = [[each[tag] for tag in TAGS] for each in tags]
    result = evaluate_scores(clips[10:].targets(), scores, TAGS, dataset="x", split="valid", n_bootstrap=0)
    assert result.pr_auc.value == pytest.approx(state.best)
    windows = EvaluationWindows(clips[10:], tagger.spec, cache)
    # Cached log-mels are float16: differences of 3e-4 were measured.
    np.testing.assert_allclose(row_outputs(tagger.core, windows), scores, atol=3e-3)
    assert tagger.spec.trained_on == "10 clips with labels"
    assert kmt.load(tagger.save(tmp_path / "saved")).tags == TAGS


def test_a_network_for_other_tags_claims_what_it_has():
    tagger = untrained("musicnet_crnn", TAGS)
    assert tagger.spec.claims == {
        "input_shape": [96, 1366], "num_tags": 2, "parameters": 396_946, "trainable_parameters": 396_234
    }  # fmt: skip
    spec = kmt.model_info("musicnet_crnn")
    assert untrained("musicnet_crnn", spec.tags).spec.claims == spec.claims
    tiny = untrained("tiny", kmt.model_info("tiny").tags).spec
    assert (tiny.weights, tiny.trained_on, tiny.license, tiny.metrics) == (None, "", "", ())
    first, second, other = (untrained("tiny", TAGS, seed=seed).core.get_weights()[0] for seed in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_all_ways_to_train_return_the_same_kind_of_result():
    functions = (kmt.train, kmt.distil, kmt.fine_tune, kmt.run_recipe)
    returned = [inspect.signature(function).return_annotation for function in functions]
    assert returned == ["TrainingResult[TaggerT, RunState]"] * 2 + ["FineTuned[TaggerT]", "Result"]
    for result in (TrainingResult, FineTuned, Result):
        fields = [field.name for field in dataclasses.fields(result)]
        assert issubclass(result, TrainingResult)
        assert fields[:5] == ["tagger", "report", "finished", "problems", "folder"]
    made = TrainingResult(tagger="a tagger", report="a report", finished=False)
    assert tuple(made) == ("a tagger", "a report") and (made.problems, made.folder) == ((), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: (a[:0], b), r"train has no clips\. Add some"),
        (lambda a, b: (a, b[:0]), r"validation has no clips"),
        (lambda a, b: (a[:7], b), r"train has 7 clips, fewer than a batch of 8\. Add clips, or lower batch_size"),
        (
            lambda a, b: (a.with_tags(TAGS[::-1]), b),
            r"train must have the tagger's tags, in its order; got 2 and 2, the first ones \('noisy', 'tonal'\) and \(",
        ),
        (lambda a, b: (a, b.with_tags(["tonal"])), r"validation must have .* got 1 and 2, .* manifest.with_tags"),
        (lambda a, b: (a, b[3:4]), r"No tag can be scored on validation: each of the 2 is on all of its 1 clips or on"),
        (lambda a, b: (a, b.concat(a[:1])), r"train and validation share 1 files, e\.g\. .*0\.wav, so scores"),
        (
            lambda a, b: (a, b.concat(Manifest((dataclasses.replace(b[0], group="artist 1"),), TAGS))),
            r"share 1 groups \(artists\), e\.g\. 'artist 1', .* or pass shared_groups=True",
        ),
        (
            lambda a, b: (a, b.concat(Manifest((Row(path=b[0].path, targets=(0.5, 1)),), TAGS))),
            r"Targets in validation must be 0 or 1; 1 of its 7 clips have other targets, the first one .*10",
        ),
        (
            lambda a, b: (a.concat(Manifest((Row(path="/nothing.wav"),), TAGS)), b),
            r"1 files cannot be used, the first one: '/nothing.wav' cannot be read",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(clips, cache, tmp_path, change, message):
    first, second = change(clips[:10], clips[10:])
    with pytest.raises(TrainingError, match=message):
        train(
            untrained("tiny", TAGS), first, second, tmp_path / "run",
            cache=cache, training=TrainingSpec(steps=1), batch_size=8, progress=False,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_score_that_is_not_one(clips, cache, tmp_path):
    with pytest.raises(TrainingError, match=r"monitor must be one of pr_auc, roc_auc; got 'loss'"):
        train(
            untrained("tiny", TAGS), clips[:10], clips[10:], tmp_path / "run",
            cache=cache, training=TrainingSpec(steps=1, monitor="loss"), batch_size=8,
        )  # fmt: skip


def test_shared_groups_can_be_meant(clips):
    parts = {"train": clips[:9], "test": clips[9:]}  # artist 4 is in both
    with pytest.raises(TrainingError, match=r"train and test share 1 groups \(artists\), e\.g\. 'artist 4'"):
        check_disjoint(parts)
    check_disjoint(parts, shared_groups=True)


def test_a_killed_run_goes_on(clips, cache, tmp_path):
    """As `fit` does (see test_training); here, that everything around it is the same the second time."""
    runs = []
    for name, interrupted in (("whole", False), ("parts", True)):
        seen, left = [], [30] if interrupted else []  # batches; after how many of them it breaks off, once

        def watched(x, y, rng, seen=seen, left=left):
            seen.append(1)
            if left and len(seen) == left[0]:
                left.clear()
                raise RuntimeError
            return x, y

        options = {"cache": cache, "batch_size": 8, "progress": False, "augment": watched}
        parts = (clips[:10], clips[10:], tmp_path / name)
        if interrupted:
            with pytest.raises(RuntimeError):
                train(untrained("tiny", TAGS), *parts, training=TrainingSpec(**SETTINGS), **options)
        tagger, state = train(
            untrained("tiny", TAGS, seed=int(interrupted)), *parts, training=TrainingSpec(**SETTINGS), **options
        )
        runs.append(np.concatenate([keras.ops.convert_to_numpy(v).ravel() for v in tagger.core.weights]))
        assert state.step == 60
    np.testing.assert_allclose(runs[0], runs[1], atol=1e-4)
