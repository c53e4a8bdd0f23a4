"""Areas under ROC and precision-recall curves with bootstrap confidence intervals.

Conventions: targets are 0 or 1, weights count how often a clip occurs, NaN stands for an undefined area: all clips are
of one class.

Clips of one track, or of one artist, resemble each other, so whole groups are drawn with replacement (Field & Welsh,
"Bootstrapping clustered data", 2007). ROC-AUC is the probability that a positive outranks a negative, ties counting
half; PR-AUC is average precision, the sum of precision times the step in recall, as in scikit-learn.

The intervals are percentile intervals, shifted by twice the bias of the bootstrap. ROC-AUC has almost no bias. Average
precision is biased upwards in the sample, and by as much again in each resample, where duplicates of a positive raise
each other's precision. A mean over tags averages out the noise but keeps the bias. Coverage of the true macro PR-AUC,
simulated with 50 tags, 1-20 % positive, groups of 4, nominal 95 %: 97 % in 150 test sets of 4,000 clips and 84 % in 300
of 1,000 clips; without the shift 63 % and 18 %; with groups ignored 91 % and 77 %. Macro ROC-AUC: 98 % and 94 %. Single
tags reach 93 % and 90 % with and without the shift, the rarest (10 positives in 1,000 clips) 81-83 %: with few
positives, intervals are too short, so every row states the number of positives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .results import Estimate, EvaluationError, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Elements in a block of resampled weights: 1 MB of int32, which fits in a level-2 cache.
_BLOCK = 2**18


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


def deviations(rankings: Sequence[Ranking], groups: np.ndarray, n_bootstrap: int, seed: int) -> np.ndarray:
    """Compute the areas in resamples of groups, minus those of the sample.

    All rankings use the same resamples, so differences between columns are paired.

    Args:
        rankings: rankings of the same clips.
        groups: int array `(clips,)`: 0, 1, ... for the group a clip belongs to.
        n_bootstrap: number of resamples.
        seed: random seed.

    Returns:
        float64 array `(2, n_bootstrap, rankings)`: ROC-AUC, average precision; NaN if all clips are of one class.
    """
    resampled = np.empty((2, n_bootstrap, len(rankings)))
    sorted_groups = [groups[ranking.order] for ranking in rankings]
    start = 0
    for counts in group_counts(int(groups.max()) + 1, n_bootstrap, seed, max(1, _BLOCK // len(groups))):
        stop = start + len(counts)
        for column, ranking in enumerate(rankings):
            resampled[:, start:stop, column] = ranking.areas(np.take(counts, sorted_groups[column], axis=1))
        start = stop
    return resampled - point_areas(rankings)[:, None]


def group_counts(n_groups: int, n_bootstrap: int, seed: int, block: int) -> Iterator[np.ndarray]:
    """Draw groups with replacement: yields int32 arrays `(resamples, groups)` of counts, up to `block` rows each.

    The counts do not depend on `block`.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, n_bootstrap, block):
        size = min(block, n_bootstrap - start)
        counts = np.empty((size, n_groups), "int32")
        for row in counts:
            row[:] = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
        yield counts


def share_deviations(hits: np.ndarray, groups: np.ndarray, n_bootstrap: int, seed: int) -> np.ndarray:
    """Compute shares of hits in resamples of groups, minus those of the sample.

    Args:
        hits: bool array `(models, clips)`.
        groups: int array `(clips,)`: 0, 1, ... for the group a clip belongs to.
        n_bootstrap: number of resamples.
        seed: random seed.

    Returns:
        float64 array `(models, n_bootstrap)`.
    """
    count = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, weights=row, minlength=count) for row in hits])
    sizes = np.bincount(groups, minlength=count)
    resampled = [np.empty((0, len(sums)))]
    for drawn in group_counts(count, n_bootstrap, seed, 100):
        resampled.append(drawn @ sums.T / (drawn @ sizes)[:, None])
    return np.asarray((np.concatenate(resampled) - hits.mean(axis=1)).T)


def mean_defined(deviation: np.ndarray) -> np.ndarray:
    """Average deviations over the tags that are defined in a resample; NaN if none is.

    With areas instead of deviations, a missing tag would change the mean by how difficult the tag is.

    Args:
        deviation: float array `(resamples, tags)`.

    Returns:
        float array `(resamples,)`.

    Example:
        >>> mean_defined(np.array([[0.25, 0.75], [0.25, np.nan], [np.nan, np.nan]])).tolist()
        [0.5, 0.25, nan]
    """
    defined = ~np.isnan(deviation)
    count = defined.sum(axis=1)
    return np.where(defined, deviation, 0).sum(axis=1) / np.where(count > 0, count, np.nan)


def estimate(value: float, deviation: np.ndarray, confidence: float, least: float = 0.0) -> Estimate:
    """Compute the confidence interval of a value from the deviations of its resamples.

    Args:
        value: value in the sample.
        deviation: float array `(resamples,)`; NaN if not defined.
        confidence: level of the interval, in (0, 1).
        least: lowest possible value, 0 for an area and -1 for a difference; the highest is 1.

    Returns:
        `Estimate`; without an interval if no resample is defined.
    """
    defined = deviation[~np.isnan(deviation)]
    dropped = len(deviation) - len(defined)
    if not len(defined):
        return Estimate(float(value), dropped=dropped)
    bias = float(defined.mean())
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) + value - 2 * bias
    # Extend the interval to the estimate if it excludes it; this cannot reduce the coverage.
    low, high = min(max(low, least), value), max(min(high, 1.0), value)
    return Estimate(float(value), float(low), float(high), bias, dropped)


# === Validation ===


def as_matrix(name: str, given: ArrayLike) -> np.ndarray:
    """Convert to a float64 array `(clips, tags)`, whose values need not be finite.

    Raises:
        EvaluationError: wrong shape or type.
    """
    try:
        array = np.asarray(given)
    except ValueError as error:  # rows of different lengths
        raise EvaluationError(
            f"{name} must be an array (clips, tags), but cannot be converted to one: {error}."
        ) from error
    require(array.dtype.kind in "biuf", f"{name} must be numbers; got an array of dtype {array.dtype}.")
    require(
        array.ndim == 2 and array.size > 0,
        f"{name} must be an array (clips, tags) with at least one of each; got shape {array.shape}.",
    )
    return array.astype("float64")


def require_same_shape(name: str, array: np.ndarray, other: str, reference: np.ndarray) -> None:
    """Require two arrays to have the same shape."""
    require(
        array.shape == reference.shape,
        f"{name} and {other} must have the same clips and tags; got shapes {array.shape} and {reference.shape}.",
    )


def require_finite(name: str, array: np.ndarray, tags: Sequence[str]) -> None:
    """Require finite numbers."""
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        clip, column = bad[0]
        raise EvaluationError(
            f"{name} must be finite; {len(bad)} of {array.size} are not, the first at clip {clip}, tag "
            f"{tags[column]!r}: {array[clip, column]}. Leave out clips that could not be tagged."
        )


def tag_names(tags: Sequence[str], columns: int) -> tuple[str, ...]:
    """Require one distinct name per column; returns the names."""
    require(not isinstance(tags, str), f"tags must be a list of names; got the string {tags!r}.")
    names = tuple(tags)
    invalid = [tag for tag in names if not isinstance(tag, str) or not tag.strip()]
    require(not invalid, f"tags must be non-empty strings; got {invalid[:3]!r}.")
    require(len(names) == columns, f"There must be one tag per column; got {len(names)} tags for {columns} columns.")
    repeated = sorted({tag for tag in names if names.count(tag) > 1})
    require(not repeated, f"tags must be distinct; these occur more than once: {', '.join(repeated)}.")
    return names


def group_ids(groups: ArrayLike, clips: int) -> np.ndarray:
    """Number groups in order of appearance: int array `(clips,)`."""
    array = np.asarray(groups)
    require(array.shape == (clips,), f"groups must name one group per clip, shape ({clips},); got shape {array.shape}.")
    labels = array.tolist()
    unknown = [clip for clip, label in enumerate(labels) if label is None or label == "" or label != label]
    require(
        not unknown,
        f"groups must name a group for every clip; {len(unknown)} of {clips} are empty, the first is clip "
        f"{unknown[0] if unknown else None}. If the artist is not known, use the name of the track.",
    )
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels])


@dataclasses.dataclass(frozen=True)
class Sample:
    """Validated targets and ranked scores.

    Attributes:
        targets: int8 array `(clips, tags)`.
        rankings: for each set of scores, a `Ranking` for each tag that has both classes.
        scored: int array, the columns of these tags.
        tags: names of all columns.
        groups: int array `(clips,)`: 0, 1, ...
        grouped: whether groups were given.
    """

    targets: np.ndarray
    rankings: list[list[Ranking]]
    scored: np.ndarray
    tags: tuple[str, ...]
    groups: np.ndarray
    grouped: bool

    @classmethod
    def check(
        cls, targets: ArrayLike, scores: dict[str, ArrayLike], tags: Sequence[str], groups: ArrayLike | None
    ) -> Self:
        """Validate targets, scores, tags and groups, and rank the scores."""
        truth = as_matrix("targets", targets)
        names = tag_names(tags, truth.shape[1])
        wrong = np.unique(truth[(truth != 0) & (truth != 1)])
        require(
            not len(wrong),
            f"targets must be 0 or 1; got {', '.join(f'{v:g}' for v in wrong[:5])}{', ...' if len(wrong) > 5 else ''}. "
            f"Pass scores as the second argument; compare graded targets with a threshold first.",
        )
        values = {}
        for name, given in scores.items():
            values[name] = as_matrix(name, given)
            require_same_shape(name, values[name], "targets", truth)
            require_finite(name, values[name], names)
        positives = truth.sum(axis=0)
        scored = np.flatnonzero((positives > 0) & (positives < len(truth)))
        require(
            len(scored) > 0,
            f"No tag can be scored: each of the {len(names)} tags has only one class among these {len(truth)} clips. "
            f"Use more clips, or check that the columns of targets are in the order of the tags.",
        )
        rankings = [[Ranking(truth[:, column], value[:, column]) for column in scored] for value in values.values()]
        ids = np.arange(len(truth)) if groups is None else group_ids(groups, len(truth))
        return cls(truth.astype("int8"), rankings, scored, names, ids, groups is not None)

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return int(self.groups.max()) + 1

    def points(self) -> np.ndarray:
        """Compute the areas of the sample: array `(sets of scores, 2, scored tags)`."""
        return np.stack([point_areas(rankings) for rankings in self.rankings])

    def deviations(self, n_bootstrap: int, seed: int) -> np.ndarray:
        """Compute the deviations of resamples: array `(sets of scores, 2, n_bootstrap, scored tags)`."""
        flat = [ranking for rankings in self.rankings for ranking in rankings]
        return np.stack(np.split(deviations(flat, self.groups, n_bootstrap, seed), len(self.rankings), axis=2))
