"""The first stage of fine-tuning: a linear classifier on embeddings, which is the head of the new tagger.

The problem is convex: it is solved, not trained (L-BFGS of SciPy). What stands for early stopping is how strongly the
weights are pulled towards zero: each strength is tried on groups of clips that were held out, from the strongest to the
weakest, until it gets worse. The penalty that tells tags apart best is often too weak for probabilities that can be
believed, so each strength is judged, and the chosen one used, with the factor on its linear outputs that suits clips
held out best (temperature scaling; Guo et al., "On calibration of modern neural networks", ICML 2017).

Conventions: embeddings are float `(clips, features)`, targets `(clips, tags)` in [0, 1].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ..models.taps import EPSILON
from .losses import balance_weights

# Of the squared weights, relative to the mean loss of a clip.
STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)

_UNKNOWN = 0.1  # strength where nothing can be held out
_ITERATIONS = 200
_LEAST = 1e-7  # probability in a logarithm


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """A linear classifier on standardised embeddings.

    Attributes:
        mean, variance: float32 `(features,)`: of the embeddings it was fitted to.
        kernel: float32 `(features, tags)`, for embeddings that are standardised.
        bias: float32 `(tags,)`.
        strength: of the penalty, the one of `STRENGTHS` that did best on clips held out.
        factor: on the linear outputs, the one that did best on them; kernel and bias contain it.
        held_out: float32 `(clips, tags)`: probability of each clip from a classifier that was not fitted to it.
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
    known: FittedHead | None = None,
) -> FittedHead:
    """Fit a linear classifier, and find out how strong its penalty should be.

    Args:
        embeddings: `(clips, features)`.
        targets: `(clips, tags)`.
        folds: integers `(clips,)`: clips of a fold are held out together. With one fold there is nothing to choose by,
            and the strength is 0.1.
        exclusive: one tag per clip (softmax) instead of any number (sigmoids).
        balance: 0 for equal weights of all clips and tags, 1 for equal shares of frequent and rare ones.
        known: a head that was fitted to part of the clips: its strength and factor are used, nothing is held out.

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
    fitted = [np.zeros((rotated.shape[1] + 1, targets.shape[1])) for _ in parts]
    best, chosen, factor = np.inf, _UNKNOWN, 1.0
    if known is not None:
        chosen, factor = known.strength, known.factor
    held_out = np.tile(targets.mean(axis=0), (len(targets), 1))
    for trial in STRENGTHS if known is None and len(parts) > 1 else ():
        outputs = np.empty_like(targets)
        for at, part in enumerate(parts):
            rest = np.setdiff1d(np.arange(len(targets)), part)
            fitted[at] = _solve(rotated[rest], targets[rest], clip_weights[rest], loss, trial, fitted[at])
            outputs[part] = _linear(rotated[part], fitted[at])
        score, scale = _calibrated(outputs, targets, clip_weights, loss)
        if score > best:
            break
        held_out, best, chosen, factor = loss.probabilities(scale * outputs), score, trial, scale
    start = np.zeros((rotated.shape[1] + 1, targets.shape[1]))
    solution = factor * _solve(rotated, targets, clip_weights, loss, chosen, start)
    return FittedHead(
        mean=mean.astype("float32"), variance=variance.astype("float32"),
        kernel=(back @ solution[:-1]).astype("float32"), bias=solution[-1].astype("float32"),
        strength=chosen, factor=factor, held_out=held_out.astype("float32"),
    )  # fmt: skip


def weights_of(targets: np.ndarray, exclusive: bool, balance: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights of clips and of tags, with mean 1, that give rare tags their say.

    Where tags exclude each other, a clip of a rare tag counts more; else it is the tag that counts more, and all of its
    clips alike, so that its probabilities stay what they are.
    """
    count, tags = targets.shape
    if not exclusive:
        return np.ones(count), balance_weights(targets, balance).astype("float64")
    shares = np.maximum(targets.mean(axis=0), 1 / count)
    weights = targets @ shares**-balance
    return weights / weights.mean(), np.ones(tags)


def _rotate(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in the space that the clips span, and the matrix that takes weights there back to all features.

    With fewer clips than features, weights outside of that space would only be penalised: the solution is the same.
    """
    clips, features = scaled.shape
    if clips >= features:
        return scaled, np.eye(features)
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    kept = values > 1e-9 * max(float(values[-1]), 1e-12)
    lengths = np.sqrt(values[kept])
    return vectors[:, kept] * lengths, scaled.T @ (vectors[:, kept] / lengths)


class _Loss:
    """Cross-entropy of linear outputs: of a softmax, or the weighted mean of those of sigmoids."""

    def __init__(self, exclusive: bool, tag_weights: np.ndarray) -> None:
        self.exclusive = exclusive
        # Of a softmax it is the sum over tags, of sigmoids the mean: an error of one of them weighs alike.
        self.tag_weights = tag_weights if exclusive else tag_weights / 2

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        if not self.exclusive:
            return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def of_clips(self, p: np.ndarray, targets: np.ndarray) -> np.ndarray:
        losses = -targets * np.log(np.maximum(p, _LEAST))
        if not self.exclusive:
            losses -= (1 - targets) * np.log(np.maximum(1 - p, _LEAST))
        return np.asarray((losses * self.tag_weights).sum(axis=1))

    def slope(self, p: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Derivative by the linear outputs."""
        return np.asarray((p - targets) * self.tag_weights)


def _linear(x: np.ndarray, solution: np.ndarray) -> np.ndarray:
    return np.asarray(x @ solution[:-1] + solution[-1])


def _calibrated(outputs: np.ndarray, targets: np.ndarray, clip_weights: np.ndarray, loss: _Loss) -> tuple[float, float]:
    """The least mean loss that a factor on the linear outputs can lead to, and the factor."""
    from scipy.optimize import minimize_scalar

    def mean_loss(log_factor: float) -> float:
        p = loss.probabilities(np.exp(log_factor) * outputs)
        return float(np.average(loss.of_clips(p, targets), weights=clip_weights))

    found = minimize_scalar(mean_loss, bounds=(-3.0, 3.0), method="bounded")
    return float(found.fun), float(np.exp(found.x))


def _solve(
    x: np.ndarray, targets: np.ndarray, clip_weights: np.ndarray, loss: _Loss, strength: float, start: np.ndarray
) -> np.ndarray:
    """Weights `(features + 1, tags)`, the bias last, that minimise mean loss + strength / 2 * squared weights."""
    from scipy.optimize import minimize

    share = clip_weights / clip_weights.sum()

    def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        solution = flat.reshape(start.shape)
        p = loss.probabilities(_linear(x, solution))
        value = share @ loss.of_clips(p, targets) + 0.5 * strength * float((solution[:-1] ** 2).sum())
        error = loss.slope(p, targets) * share[:, None]
        slope = np.vstack([x.T @ error + strength * solution[:-1], error.sum(axis=0)])
        return float(value), slope.ravel()

    objective: Callable[..., tuple[float, np.ndarray]] = value_and_slope
    result = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    return np.asarray(result.x).reshape(start.shape)
