"""First stage of fine-tuning: a linear classifier on embeddings, which becomes the head of the new tagger.

The problem is convex and solved by SciPy's L-BFGS. The strength of the L2 penalty is chosen by cross-validation over
folds of clips, from the strongest to the weakest, until the score gets worse. The penalty that separates tags best is
often too weak for calibrated probabilities, so each strength is scored, and the chosen one used, with the factor on its
linear outputs that suits the held-out clips best (temperature scaling; Guo et al., "On calibration of modern neural
networks", ICML 2017).

Conventions: embeddings are float `(clips, features)`, targets `(clips, tags)` in [0, 1].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ..models.layer_statistics import EPSILON
from .losses import balance_weights

# Strengths of the L2 penalty, relative to the mean loss of a clip.
STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)

_DEFAULT_STRENGTH = 0.1  # if nothing can be held out
_ITERATIONS = 200
_MIN_PROBABILITY = 1e-7  # in a logarithm


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """A linear classifier on standardised embeddings.

    Attributes:
        mean, variance: float32 `(features,)`, of the embeddings it was fitted to.
        kernel: float32 `(features, tags)`, for standardised embeddings.
        bias: float32 `(tags,)`.
        strength: strength of the penalty with the best score on held-out clips.
        factor: factor on the linear outputs with the best score on held-out clips; kernel and bias include it.
        held_out: float32 `(clips, tags)`, probabilities of each clip from a classifier that was not fitted to it.
    """

    mean: np.ndarray
    variance: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    factor: float
    held_out: np.ndarray


def fit_head(
    embeddings: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    *,
    exclusive: bool,
    balance: float = 0.5,
    previous: FittedHead | None = None,
) -> FittedHead:
    """Fit a linear classifier and choose the strength of its penalty by cross-validation.

    Args:
        embeddings: `(clips, features)`.
        targets: `(clips, tags)`.
        folds: integers `(clips,)`: clips of a fold are held out together. With a single fold the strength is 0.1.
        exclusive: one tag per clip (softmax) instead of any number (sigmoids).
        balance: 0 for equal weights of all clips and tags, 1 for equal shares of frequent and rare ones.
        previous: head fitted to part of the clips, whose strength and factor are used without cross-validation.

    Returns:
        `FittedHead`.

    Example:
        >>> x = np.array([[0.0, 1.0], [0.2, 1.0], [1.0, 1.0], [0.9, 1.0]])
        >>> head = fit_head(x, np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 1, 0, 1]), exclusive=False)
        >>> head.kernel.shape, bool(head.kernel[0, 0] > 0), (head.held_out.ravel() > 0.5).tolist()
        ((2, 1), True, [False, False, True, True])
    """
    embeddings = np.asarray(embeddings, "float64")
    mean, variance = embeddings.mean(axis=0), embeddings.var(axis=0)
    scaled = (embeddings - mean) / np.sqrt(variance + EPSILON)
    rotated, back = _rotate(scaled)
    targets = np.asarray(targets, "float64")
    clip_weights, tag_weights = weights_of(targets, exclusive, balance)
    loss = _Loss(exclusive, tag_weights)
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    start = np.zeros((rotated.shape[1] + 1, targets.shape[1]))
    chosen, factor = _DEFAULT_STRENGTH, 1.0
    strengths = STRENGTHS if len(parts) > 1 else ()
    if previous is not None:
        chosen, factor, strengths = previous.strength, previous.factor, ()
    held_out = np.tile(targets.mean(axis=0), (len(targets), 1))
    solutions, best = [start] * len(parts), np.inf
    for strength in strengths:
        outputs = np.empty_like(targets)
        for fold, part in enumerate(parts):
            rest = np.setdiff1d(np.arange(len(targets)), part)
            solutions[fold] = _solve(rotated[rest], targets[rest], clip_weights[rest], loss, strength, solutions[fold])
            outputs[part] = _linear(rotated[part], solutions[fold])
        score, scale = _calibrate(outputs, targets, clip_weights, loss)
        if score > best:
            break
        held_out, best, chosen, factor = loss.probabilities(scale * outputs), score, strength, scale
    solution = factor * _solve(rotated, targets, clip_weights, loss, chosen, start)
    return FittedHead(
        mean=mean.astype("float32"), variance=variance.astype("float32"),
        kernel=(back @ solution[:-1]).astype("float32"), bias=solution[-1].astype("float32"),
        strength=chosen, factor=factor, held_out=held_out.astype("float32"),
    )  # fmt: skip


def weights_of(targets: np.ndarray, exclusive: bool, balance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return weights of clips and of tags, with mean 1, that balance rare and frequent tags.

    If tags exclude each other, clips of rare tags weigh more. Otherwise the rare tags weigh more and their clips all
    the same, which keeps the probabilities calibrated.
    """
    count, tags = targets.shape
    if not exclusive:
        return np.ones(count), balance_weights(targets, balance).astype("float64")
    shares = np.maximum(targets.mean(axis=0), 1 / count)
    weights = targets @ shares**-balance
    return weights / weights.mean(), np.ones(tags)


def _rotate(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates in the space that the clips span, and the matrix from weights there back to all features.

    With fewer clips than features this is faster and has the same solution, since weights outside of the space would
    only be penalised.
    """
    clips, features = scaled.shape
    if clips >= features:
        return scaled, np.eye(features)
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    kept = values > 1e-9 * max(float(values[-1]), 1e-12)
    lengths = np.sqrt(values[kept])
    return vectors[:, kept] * lengths, scaled.T @ (vectors[:, kept] / lengths)


class _Loss:
    """Cross-entropy of linear outputs, by a softmax or by sigmoids, as a weighted sum over tags."""

    def __init__(self, exclusive: bool, tag_weights: np.ndarray) -> None:
        self.exclusive = exclusive
        # Halved, so that for two exclusive tags sigmoids have the same loss as a softmax.
        self.tag_weights = tag_weights if exclusive else tag_weights / 2

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        if not self.exclusive:
            return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def per_clip(self, p: np.ndarray, targets: np.ndarray) -> np.ndarray:
        losses = -targets * np.log(np.maximum(p, _MIN_PROBABILITY))
        if not self.exclusive:
            losses -= (1 - targets) * np.log(np.maximum(1 - p, _MIN_PROBABILITY))
        return np.asarray((losses * self.tag_weights).sum(axis=1))

    def gradient(self, p: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the derivative by the linear outputs."""
        return np.asarray((p - targets) * self.tag_weights)


def _linear(x: np.ndarray, solution: np.ndarray) -> np.ndarray:
    return np.asarray(x @ solution[:-1] + solution[-1])


def _calibrate(outputs: np.ndarray, targets: np.ndarray, clip_weights: np.ndarray, loss: _Loss) -> tuple[float, float]:
    """Return the least mean loss over factors on the linear outputs, and the factor."""
    from scipy.optimize import minimize_scalar

    def mean_loss(log_factor: float) -> float:
        p = loss.probabilities(np.exp(log_factor) * outputs)
        return float(np.average(loss.per_clip(p, targets), weights=clip_weights))

    found = minimize_scalar(mean_loss, bounds=(-3.0, 3.0), method="bounded")
    return float(found.fun), float(np.exp(found.x))


def _solve(
    x: np.ndarray, targets: np.ndarray, clip_weights: np.ndarray, loss: _Loss, strength: float, start: np.ndarray
) -> np.ndarray:
    """Return weights `(features + 1, tags)`, bias last, that minimise mean loss + strength / 2 * squared weights."""
    from scipy.optimize import minimize

    share = clip_weights / clip_weights.sum()

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        solution = flat.reshape(start.shape)
        p = loss.probabilities(_linear(x, solution))
        value = share @ loss.per_clip(p, targets) + 0.5 * strength * float((solution[:-1] ** 2).sum())
        error = loss.gradient(p, targets) * share[:, None]
        gradient = np.vstack([x.T @ error + strength * solution[:-1], error.sum(axis=0)])
        return float(value), gradient.ravel()

    objective: Callable[..., tuple[float, np.ndarray]] = value_and_gradient
    result = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    return np.asarray(result.x).reshape(start.shape)
