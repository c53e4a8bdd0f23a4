"""Areas under ROC and precision-recall curves, for one set of clips and for a thousand resamples of it.

Conventions: targets are 0 or 1, weights count how often a clip occurs, NaN stands for "not defined": a tag that has
only one class among the clips.

Clips of one track, or of one artist, resemble each other, so whole groups are drawn with replacement (Field & Welsh,
"Bootstrapping clustered data", 2007). ROC-AUC is the probability that a positive outranks a negative, ties counting
half; PR-AUC is average precision, the sum of precision times the step in recall, as in scikit-learn.

The intervals are percentile intervals moved by twice the bootstrap's own bias. ROC-AUC has next to none. Average
precision is biased upwards, in the sample and again by as much in each resample of it, where a positive drawn twice
helps itself; in a mean over tags the noise averages out and this bias does not. Simulated with 50 tags, 1-20 %
positive, groups of 4, nominal 95 %: plain percentile intervals held the true macro PR-AUC in 63 % of 150 test sets of
4,000 clips and 18 % of 300 of 1,000 clips; moved, in 97 % and 84 %, and with groups ignored in 91 % and 77 %. Macro
ROC-AUC: 98 % and 94 %. Single tags come to 93 % and 90 % either way, the rarest (10 positives in 1,000 clips) to
81-83 %: few positives make intervals too short, which is why every row says how many there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .results import Estimate, EvaluationError, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Elements of a block of resampled weights: 1 MB of int32, which fits in a level-2 cache.
_BLOCK = 2**18


class Ranking:
    """The clips of one tag in the order of their scores, sorted once and weighted many times.

    Only positive clips add to either area, and only through the weight of the negatives above them and level with
    them. So clips are sorted into segments, three for each distinct score of a positive from the highest down:
    negatives between it and the one before, negatives tied with it, and its positives; last come the negatives below
    all. Then a resample costs one gather and one sum over segments.

    Attributes:
        order: int array `(clips,)`, the clips segment by segment.
    """

    def __init__(self, targets: np.ndarray, scores: np.ndarray) -> None:
        """Sort.

        Args:
            targets: array `(clips,)` of 0 and 1.
            scores: float array `(clips,)`, finite.
        """
        positive = np.asarray(targets) == 1
        levels = np.unique(scores[positive])
        reached = np.searchsorted(levels, scores, side="right")  # levels that a clip's score is not below
        rank = len(levels) - reached
        tied = np.zeros(len(scores), bool)
        tied[reached > 0] = levels[reached[reached > 0] - 1] == scores[reached > 0]
        segment = 3 * rank + np.where(positive, 2, np.where(tied, 1, 0))
        self.order = np.argsort(segment, kind="stable")
        segment = segment[self.order]
        self._starts = np.flatnonzero(np.diff(segment, prepend=-1))
        self._segments = segment[self._starts]  # those that have clips; reduceat cannot sum empty ones
        self._levels = len(levels)

    def areas(self, weights: np.ndarray) -> np.ndarray:
        """ROC-AUC and average precision under many weightings.

        Args:
            weights: array `(weightings, clips)`, not negative, clips in this ranking's `order`.

        Returns:
            float64 array `(2, weightings)`: ROC-AUC, average precision; both NaN where a class has no weight.
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
    """ROC-AUC and average precision of one tag.

    Args:
        targets: array `(clips,)` of 0 and 1.
        scores: float array `(clips,)`, finite.
        weights: array `(clips,)`, not negative; `None` for equal ones.

    Returns:
        `(roc_auc, pr_auc)`; both NaN where a class has no weight.

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
    """Areas with every clip counted once: float64 array `(2, rankings)`."""
    return np.concatenate([ranking.areas(np.ones((1, len(ranking.order)))) for ranking in rankings], axis=1)


def deviations(rankings: Sequence[Ranking], groups: np.ndarray, n_bootstrap: int, seed: int) -> np.ndarray:
    """How far the areas in resamples of groups lie from those of the sample.

    Every ranking sees the same resamples, so differences between columns are paired.

    Args:
        rankings: of the same clips.
        groups: int array `(clips,)`: 0, 1, ... for the group a clip belongs to.
        n_bootstrap: number of resamples.
        seed: of the random generator.

    Returns:
        float64 array `(2, n_bootstrap, rankings)`: ROC-AUC, average precision; NaN where a tag has one class.
    """
    resampled = np.empty((2, n_bootstrap, len(rankings)))
    where = [groups[ranking.order] for ranking in rankings]
    start = 0
    for counts in group_counts(int(groups.max()) + 1, n_bootstrap, seed, max(1, _BLOCK // len(groups))):
        stop = start + len(counts)
        for column, ranking in enumerate(rankings):
            resampled[:, start:stop, column] = ranking.areas(np.take(counts, where[column], axis=1))
        start = stop
    return resampled - point_areas(rankings)[:, None]


def group_counts(n_groups: int, n_bootstrap: int, seed: int, block: int) -> Iterator[np.ndarray]:
    """How often each group is drawn: int32 arrays `(up to block, groups)`. One draw per row: blocks don't matter."""
    rng = np.random.default_rng(seed)
    for start in range(0, n_bootstrap, block):
        size = min(block, n_bootstrap - start)
        counts = np.empty((size, n_groups), "int32")
        for row in counts:
            row[:] = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
        yield counts


def mean_defined(deviation: np.ndarray) -> np.ndarray:
    """Mean over the tags that are defined in a resample; NaN where none is.

    A mean of deviations, not of areas: an area that is missing would move the mean by how hard its tag is.

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
    """Interval around a value from the deviations of its resamples.

    Args:
        value: from the sample.
        deviation: float array `(resamples,)`; NaN where not defined.
        confidence: probability that the interval shall cover, in (0, 1).
        least: lowest possible value, 0 for an area and -1 for a difference; the highest is 1.

    Returns:
        `Estimate`; without an interval where no resample is defined.
    """
    defined = deviation[~np.isnan(deviation)]
    dropped = len(deviation) - len(defined)
    if not len(defined):
        return Estimate(float(value), dropped=dropped)
    bias = float(defined.mean())
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) + value - 2 * bias
    # An interval that excludes its own estimate would be read as an error; a wider one covers no less.
    low, high = min(max(low, least), value), max(min(high, 1.0), value)
    return Estimate(float(value), float(low), float(high), bias, dropped)


# === Checked arrays ===


def as_matrix(name: str, given: ArrayLike) -> np.ndarray:
    """Finite or not, a float64 array `(clips, tags)`."""
    try:
        array = np.asarray(given)
    except ValueError as error:  # rows of different lengths
        raise EvaluationError(
            f"{name} must be an array (clips, tags); NumPy cannot make one of it: {error}."
        ) from error
    require(array.dtype.kind in "biuf", f"{name} must be numbers; got an array of dtype {array.dtype}.")
    require(
        array.ndim == 2 and array.size > 0,
        f"{name} must be an array (clips, tags) with at least one of each; got shape {array.shape}.",
    )
    return array.astype("float64")


def require_same_shape(name: str, array: np.ndarray, other: str, reference: np.ndarray) -> None:
    """Require two arrays to be about the same clips and tags."""
    require(
        array.shape == reference.shape,
        f"{name} and {other} must be of the same clips and tags; got shapes {array.shape} and {reference.shape}.",
    )


def require_finite(name: str, array: np.ndarray, tags: Sequence[str]) -> None:
    """Require numbers that can be ranked."""
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        clip, column = bad[0]
        raise EvaluationError(
            f"{name} must be finite; {len(bad)} of {array.size} are not, the first at clip {clip}, tag "
            f"{tags[column]!r}: {array[clip, column]}. Leave out clips that could not be tagged."
        )


def tag_names(tags: Sequence[str], columns: int) -> tuple[str, ...]:
    """One distinct name per column."""
    require(not isinstance(tags, str), f"tags must be a list of names; got the string {tags!r}.")
    names = tuple(tags)
    strange = [tag for tag in names if not isinstance(tag, str) or not tag.strip()]
    require(not strange, f"tags must be non-empty strings; got {strange[:3]!r}.")
    require(len(names) == columns, f"There must be one tag per column; got {len(names)} tags for {columns} columns.")
    twice = sorted({tag for tag in names if names.count(tag) > 1})
    require(not twice, f"tags must be distinct; these occur more than once: {', '.join(twice)}.")
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
        f"{unknown[0] if unknown else None}. Where the artist is not known, put the track's name there.",
    )
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels])


@dataclasses.dataclass(frozen=True)
class Sample:
    """Checked arrays.

    Attributes:
        targets: int8 array `(clips, tags)`.
        rankings: per set of scores, one for each tag that has both classes.
        scored: int array, the columns of those tags.
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
        """Check everything that is not a setting, and sort."""
        truth = as_matrix("targets", targets)
        names = tag_names(tags, truth.shape[1])
        wrong = np.unique(truth[(truth != 0) & (truth != 1)])
        require(
            not len(wrong),
            f"targets must be 0 or 1; got {', '.join(f'{v:g}' for v in wrong[:5])}{', ...' if len(wrong) > 5 else ''}. "
            f"Scores belong in the second argument; compare graded targets with a threshold first.",
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
            f"There is nothing to measure: each of the {len(names)} tags has only one class among these {len(truth)} "
            f"clips. Use more clips, or check that the targets' columns are in the order of the tags.",
        )
        rankings = [[Ranking(truth[:, column], value[:, column]) for column in scored] for value in values.values()]
        ids = np.arange(len(truth)) if groups is None else group_ids(groups, len(truth))
        return cls(truth.astype("int8"), rankings, scored, names, ids, groups is not None)

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return int(self.groups.max()) + 1

    def points(self) -> np.ndarray:
        """Areas of the sample: array `(sets of scores, 2, scored tags)`."""
        return np.stack([point_areas(rankings) for rankings in self.rankings])

    def deviations(self, n_bootstrap: int, seed: int) -> np.ndarray:
        """Deviations of resamples: array `(sets of scores, 2, n_bootstrap, scored tags)`."""
        every = [ranking for rankings in self.rankings for ranking in rankings]
        together = deviations(every, self.groups, n_bootstrap, seed)
        return np.stack(np.split(together, len(self.rankings), axis=2))
