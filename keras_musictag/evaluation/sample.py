"""Targets and scores as users pass them, validated and ranked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .bootstrap import deviations
from .curve_areas import Ranking, point_areas
from .results import EvaluationError, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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
