"""The first stage solves the problem that scikit-learn's logistic regression solves."""

import dataclasses
import functools

import numpy as np
import pytest
import scipy.optimize
from sklearn.linear_model import LogisticRegression

from keras_musictag.datasets import Manifest, Row
from keras_musictag.datasets.splitting import folds
from keras_musictag.models.layer_statistics import EPSILON
from keras_musictag.training import head_fitting as head_fitting
from keras_musictag.training.head_fitting import STRENGTHS, fit_head, weights_of

CLASSES = 3


def clips(count=90, features=6, exclusive=True, seed=0):
    """Embeddings on very different scales, targets that depend on them, and five folds."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (count, features))
    evidence = x @ rng.normal(0, 1, (features, CLASSES)) + rng.normal(0, 1.0, (count, CLASSES)) - [0.0, 0.5, 1.0]
    targets = np.eye(CLASSES)[evidence.argmax(axis=1)] if exclusive else (evidence > 0) * 1.0
    return x * 10.0 ** rng.uniform(-1, 2, features) + rng.uniform(-50, 50, features), targets, np.arange(count) % 5


def standardised(x, head):
    return (x - head.mean) / np.sqrt(head.variance + EPSILON)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_one_tag_per_clip_is_multinomial_regression(balance):
    x, targets, parts = clips()
    head = fit_head(x, targets, parts, exclusive=True, balance=balance)
    weights, _ = weights_of(targets, True, balance)
    theirs = LogisticRegression(C=1 / (head.strength * len(x)), tol=1e-8, max_iter=5000)
    theirs.fit(standardised(x, head), targets.argmax(axis=1), sample_weight=weights)
    # L-BFGS stops where the loss is flat, measured within 0.002 of the solution.
    kernel, bias = head.kernel / head.factor, head.bias / head.factor
    np.testing.assert_allclose(kernel, theirs.coef_.T, atol=0.01)
    np.testing.assert_allclose(bias - bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=0.01)
    assert head.strength in STRENGTHS


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_any_number_of_tags_is_a_regression_each(balance):
    x, targets, parts = clips(exclusive=False)
    head = fit_head(x, targets, parts, exclusive=False, balance=balance)
    _, weights = weights_of(targets, False, balance)
    for column in range(CLASSES):
        theirs = LogisticRegression(C=weights[column] / 2 / (head.strength * len(x)), tol=1e-8, max_iter=5000)
        theirs.fit(standardised(x, head), targets[:, column])
        np.testing.assert_allclose(head.kernel[:, column] / head.factor, theirs.coef_[0], atol=0.01)
        np.testing.assert_allclose(head.bias[column] / head.factor, theirs.intercept_[0], atol=0.01)


@pytest.mark.parametrize("exclusive", [True, False])
def test_with_few_clips_the_turned_problem_has_the_same_solution(monkeypatch, exclusive):
    """To the end: the usual tolerance stops the two on different ways to it."""
    solve = functools.partial(scipy.optimize.minimize, tol=1e-12)
    monkeypatch.setattr(scipy.optimize, "minimize", lambda *args, options, **given: solve(*args, **given))
    x, targets, parts = clips(count=30, features=80, exclusive=exclusive)
    turned = fit_head(x, targets, parts, exclusive=exclusive)
    monkeypatch.setattr(head_fitting, "_rotate", lambda scaled: (scaled, np.eye(scaled.shape[1])))
    plain = fit_head(x, targets, parts, exclusive=exclusive)
    assert turned.strength == plain.strength and turned.kernel.shape == (80, CLASSES)
    np.testing.assert_allclose(turned.kernel, plain.kernel, atol=1e-4)
    np.testing.assert_allclose(turned.held_out, plain.held_out, atol=1e-4)


def test_turning_loses_nothing():
    scaled = np.random.default_rng(0).normal(0, 1, (12, 40))
    turned, back = head_fitting._rotate(scaled)
    np.testing.assert_allclose(turned @ back.T, scaled, atol=1e-10)  # the clips themselves
    np.testing.assert_allclose(back.T @ back, np.eye(turned.shape[1]), atol=1e-6)  # lengths of weights are kept
    constant, _ = head_fitting._rotate(np.zeros((5, 9)))  # every clip the same
    assert np.isfinite(constant).all()


def test_what_is_held_out_was_not_learned_from():
    """Targets that nothing explains: fitted to them the classifier is good, on clips held out it cannot be."""
    rng = np.random.default_rng(0)
    x, targets, parts = rng.normal(0, 1, (60, 40)), np.eye(2)[np.arange(60) % 2], np.arange(60) // 2 % 5
    head = fit_head(x, targets, parts, exclusive=True)
    assert head.strength == max(STRENGTHS), "the less it dares the better"
    assert 0.3 < (head.held_out.argmax(axis=1) == targets.argmax(axis=1)).mean() < 0.7
    np.testing.assert_allclose(head.held_out.sum(axis=1), 1, atol=1e-6)
    clear = fit_head(targets @ rng.normal(0, 3, (2, 40)) + 0.1 * x, targets, parts, exclusive=True)
    assert clear.strength < head.strength and (clear.held_out.argmax(axis=1) == targets.argmax(axis=1)).all()


def test_one_fold_chooses_nothing():
    x, targets, _ = clips()
    head = fit_head(x, targets, np.zeros(len(x), int), exclusive=True)
    assert head.strength == 0.1
    np.testing.assert_allclose(head.held_out, np.tile(targets.mean(axis=0), (len(x), 1)), atol=1e-6)


def test_rare_tags_count_more():
    targets = np.eye(2)[[0] * 9 + [1]]
    clip_weights, tag_weights = weights_of(targets, True, 1.0)
    assert clip_weights[-1] == pytest.approx(9 * clip_weights[0]) and clip_weights.mean() == pytest.approx(1)
    assert (tag_weights == 1).all()
    clip_weights, tag_weights = weights_of(np.array([[1.0, 0], [0, 0], [1, 1], [0, 0]]), False, 1.0)
    assert (clip_weights == 1).all() and tag_weights[1] > tag_weights[0] and tag_weights.mean() == pytest.approx(1)
    assert (weights_of(targets, True, 0.0)[0] == 1).all()


def test_a_feature_that_never_changes_is_no_feature():
    x, targets, parts = clips()
    x[:, 0] = 7.0
    head = fit_head(x, targets, parts, exclusive=True)
    assert np.abs(head.kernel[0]).max() < 1e-6 and all(
        np.isfinite(value).all() for value in (head.kernel, head.bias, head.held_out)
    )


# === Folds ===


def rows(count=40, per_group=3):
    made = [
        Row(path=f"/{number}.wav", tags=("a" if number % 4 else "b",), group=f"artist {number // per_group}")
        for number in range(count)
    ]
    return Manifest(tuple(made), ("a", "b"))


def test_folds_keep_groups_together_and_spread_tags():
    manifest = rows()
    found = folds(manifest, 5, seed=1)
    assert sorted(set(found.tolist())) == [0, 1, 2, 3, 4]
    for group in {row.group for row in manifest}:
        assert len({fold for row, fold in zip(manifest, found, strict=True) if row.group == group}) == 1
    sizes = np.bincount(found)
    assert sizes.min() >= 6 and sizes.max() <= 10
    assert np.bincount(found, weights=manifest.targets()[:, 1]).min() >= 1, "each fold has some of the rare tag"
    np.testing.assert_array_equal(found, folds(manifest, 5, seed=1))


def test_fewer_groups_than_folds():
    manifest = rows(count=6, per_group=3)
    assert sorted(set(folds(manifest, 5).tolist())) == [0, 1]
    alone = Manifest(tuple(dataclasses.replace(row, group="one") for row in manifest), manifest.tags)
    assert set(folds(alone, 5).tolist()) == {0}
