"""The classifier of `probing`: logistic regression on standardised vectors, its penalty chosen by cross-validation.

Conventions: `x` is `(clips, features)`, targets are 0 or 1, `(clips, tags)`, `folds` are integers `(clips,)`. Where
tags exclude each other, one classifier chooses among them; else there is one for each tag, with equal weights for clips
with and without it. So a score means the same in every fold, however many of the clips with a tag are in the others.
Unweighted, a fold that holds more of them than its share is predicted from fewer, and areas over all folds come out too
low: noise as vectors of 120 clips, 6 tags of a tenth of them each and random folds gave a mean ROC-AUC of 0.37
unweighted and 0.48 weighted (12 repetitions, standard error 0.01), where 0.5 is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

STRENGTHS = 10.0 ** np.arange(-4, 2)  # C of scikit-learn, from the strongest penalty to the weakest

_MIDDLE = 0.01  # where there is one fold, so nothing to choose by
_ITERATIONS = 1000
_LEAST = 1e-7  # probability in a logarithm


def out_of_fold(
    x: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    inner: Sequence[np.ndarray],
    *,
    exclusive: bool,
    done: Callable[[], object] = lambda: None,
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Predict each fold from the others.

    Args:
        x, targets, folds: see the module.
        inner: for each fold, folds of the clips outside of it, by which C is chosen.
        exclusive: every clip has exactly one tag.
        done: called after each fold.

    Returns:
        float32 `(clips, tags)`, probabilities; and the C of each fold.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    probabilities = np.empty(targets.shape, "float32")
    strengths = []
    # Threads cost such small problems more than they save: 308 clips, 200 features and 9 tags took 64 s with two, 10 s
    # with one.
    with threadpool_limits(1):
        for fold, parts in enumerate(inner):
            learned, held_out = folds != fold, folds == fold
            strengths.append(_choose(x[learned], targets[learned], parts, exclusive))
            path = _predictions(x[learned], targets[learned], x[held_out], [strengths[-1]], exclusive)
            probabilities[held_out] = next(path)
            done()
    return probabilities, tuple(strengths)


def _choose(x: np.ndarray, targets: np.ndarray, folds: np.ndarray, exclusive: bool) -> float:
    """The C with the least loss on clips held out; the smallest of several that are as good."""
    if folds.max() == 0:
        return _MIDDLE
    guesses = np.empty((len(STRENGTHS), *targets.shape))
    for fold in range(folds.max() + 1):
        learned, held_out = folds != fold, folds == fold
        path = _predictions(x[learned], targets[learned], x[held_out], STRENGTHS.tolist(), exclusive)
        for number, guess in enumerate(path):
            guesses[number, held_out] = guess
    return float(STRENGTHS[np.argmin([_loss(targets, guess, exclusive) for guess in guesses])])


def _loss(targets: np.ndarray, guesses: np.ndarray, exclusive: bool) -> float:
    """Cross-entropy, with the weights that the classifier is fitted with."""
    right = -targets * np.log(np.maximum(guesses, _LEAST))
    if exclusive:
        return float(right.sum(axis=1).mean())
    wrong = -(1 - targets) * np.log(np.maximum(1 - guesses, _LEAST))
    positives = targets.sum(axis=0)
    both = right.sum(axis=0) / np.maximum(positives, 1) + wrong.sum(axis=0) / np.maximum(len(targets) - positives, 1)
    return float(both.mean())


def _predictions(
    x: np.ndarray, targets: np.ndarray, new: np.ndarray, strengths: list[float], exclusive: bool
) -> Iterator[np.ndarray]:
    """Probabilities `(new clips, tags)` for one C after the other, each fit starting from the one before."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    x, new = scaler.fit_transform(x.astype("float64")), scaler.transform(new.astype("float64"))
    # Of each classifier: what it tells apart. Where that is one thing, there is nothing to fit.
    labels = [targets.argmax(axis=1)] if exclusive else list(targets.T.astype(int))
    weights = None if exclusive else "balanced"
    models = [LogisticRegression(class_weight=weights, max_iter=_ITERATIONS, warm_start=True) for _ in labels]
    for strength in strengths:
        guesses = np.zeros((len(new), targets.shape[1]))
        for column, (label, model) in enumerate(zip(labels, models, strict=True)):
            known = np.unique(label)
            if len(known) > 1:
                found = model.set_params(C=strength).fit(x, label).predict_proba(new)
            else:
                found = np.ones((len(new), 1))
            if exclusive:
                guesses[:, known] = found
            elif 1 in known:
                guesses[:, column] = found[:, -1]
        yield guesses
