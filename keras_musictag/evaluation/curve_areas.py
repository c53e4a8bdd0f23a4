"""Areas under ROC and precision-recall curves, also of samples with repeated clips.

Targets are 0 or 1, weights count how often a clip occurs, NaN stands for an undefined area: all clips are of one class.
ROC-AUC is the probability that a positive outranks a negative, ties counting half; PR-AUC is average precision, the sum
of precision times the step in recall, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Ranking:
    """Clips of one tag, sorted by score once and weighted many times.

    Both areas are sums over positive clips that depend only on the weights of the negatives above and tied with each.
    Clips are therefore sorted into segments, three for each distinct score of a positive from the highest down:
    negatives between it and the one before, negatives tied with it, and its positives; last come the negatives below
    all positives. A resample then costs one gather and one sum over segments.

    Attributes:
        order: int array `(clips,)`, the clips segment by segment.
    """

    def __init__(self, targets: np.ndarray, scores: np.ndarray) -> None:
        """Sort the clips.

        Args:
            targets: array `(clips,)` of 0 and 1.
            scores: float array `(clips,)`, finite.
        """
        positive = np.asarray(targets) == 1
        levels = np.unique(scores[positive])
        reached = np.searchsorted(levels, scores, side="right")  # number of levels that a clip's score reaches
        rank = len(levels) - reached
        tied = np.zeros(len(scores), bool)
        tied[reached > 0] = levels[reached[reached > 0] - 1] == scores[reached > 0]
        segment = 3 * rank + np.where(positive, 2, np.where(tied, 1, 0))
        self.order = np.argsort(segment, kind="stable")
        segment = segment[self.order]
        self._starts = np.flatnonzero(np.diff(segment, prepend=-1))
        self._segments = segment[self._starts]  # segments with clips; reduceat cannot sum empty ones
        self._levels = len(levels)

    def areas(self, weights: np.ndarray) -> np.ndarray:
        """Compute ROC-AUC and average precision for many weightings.

        Args:
            weights: array `(weightings, clips)`, not negative, clips in this ranking's `order`.

        Returns:
            float64 array `(2, weightings)`: ROC-AUC, average precision; both NaN if a class has no weight.
        """
        flat = np.zeros((len(weights), 3 * (self._levels + 1)))
        flat[:, self._segments] = np.add.reduceat(weights, self._starts, axis=1)
        sums = flat.reshape(len(weights), self._levels + 1, 3)
        between, tied, positives = (sums[:, :-1, part] for part in range(3))
        false = np.cumsum(between + tied, axis=1)  # negatives that score at least as high as this level
        true = np.cumsum(positives, axis=1)
        all_positives = positives.sum(axis=1)
        all_negatives = sums[:, :, :2].sum(axis=(1, 2))
        outranked = all_negatives[:, None] - false + tied / 2
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=positives > 0)
        pairs = np.where(all_positives * all_negatives > 0, all_positives * all_negatives, np.nan)
        roc_auc = (positives * outranked).sum(axis=1) / pairs
        pr_auc = (positives * precision).sum(axis=1) * all_negatives / pairs
        return np.stack([roc_auc, pr_auc])


def areas(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Compute ROC-AUC and average precision of one tag.

    Args:
        targets: array `(clips,)` of 0 and 1.
        scores: float array `(clips,)`, finite.
        weights: array `(clips,)`, not negative; `None` for equal ones.

    Returns:
        `(roc_auc, pr_auc)`; both NaN if a class has no weight.

    Example:
        >>> import numpy as np
        >>> roc_auc, pr_auc = areas(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
        >>> round(roc_auc, 3), round(pr_auc, 3)
        (0.75, 0.833)
    """
    ranking = Ranking(targets, scores)
    weights = np.ones(len(targets)) if weights is None else np.asarray(weights)
    roc_auc, pr_auc = ranking.areas(weights[None, ranking.order])
    return float(roc_auc[0]), float(pr_auc[0])


def point_areas(rankings: Sequence[Ranking]) -> np.ndarray:
    """Compute the areas with every clip counted once: float64 array `(2, rankings)`."""
    return np.concatenate([ranking.areas(np.ones((1, len(ranking.order)))) for ranking in rankings], axis=1)
