"""Split rows into train, valid and test by groups, see `Manifest.grouped_split`.

Groups are assigned one by one, starting with those that have the largest share of some tag, each to the split where it
reduces the distance to the wanted shares most: a greedy form of iterative stratification (Sechidis, Tsoumakas and
Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .copies import copies
from .rows import SPLITS, DataError, Row

if TYPE_CHECKING:
    from .manifest import Manifest


Fractions = Mapping[str, float] | Sequence[float]


def grouped_split(
    manifest: Manifest, fractions: Fractions, *, seed: int, by: Callable[[Row], str] | None
) -> tuple[Row, ...]:
    """Implement `Manifest.grouped_split`."""
    wanted = _fractions(fractions)
    groups = groups_of(manifest, by)
    if len(groups) < len(wanted):
        raise DataError(
            f"{len(wanted)} splits need at least as many groups; the {len(manifest)} rows form {len(groups)}. Use "
            "fewer splits, or smaller groups with by=."
        )
    targets = np.concatenate([manifest.targets(), np.ones((len(manifest), 1))], axis=1)  # last: the rows themselves
    sums = np.stack([targets[rows].sum(0) for rows in groups])
    chosen = _assign(sums, np.array(list(wanted.values())), np.random.default_rng(seed))
    names = list(wanted)
    split_of = {row: names[choice] for rows, choice in zip(groups, chosen, strict=True) for row in rows}
    return tuple(dataclasses.replace(row, split=split_of[number]) for number, row in enumerate(manifest))


def folds(manifest: Manifest, count: int, *, seed: int = 0) -> np.ndarray:
    """Divide rows evenly into folds for cross-validation: groups stay together, tags are divided about evenly.

    Args:
        manifest: rows and tags.
        count: number of folds; fewer if there are fewer groups.
        seed: random seed.

    Returns:
        int array `(rows,)`: the fold of each row, from 0.
    """
    groups = groups_of(manifest)
    count = min(count, len(groups))
    targets = np.concatenate([manifest.targets(), np.ones((len(manifest), 1))], axis=1)
    sums = np.stack([targets[rows].sum(0) for rows in groups])
    chosen = _assign(sums, np.full(count, 1 / count), np.random.default_rng(seed))
    fold = np.empty(len(manifest), int)
    for rows, choice in zip(groups, chosen, strict=True):
        fold[rows] = choice
    return fold


def _fractions(fractions: Fractions) -> dict[str, float]:
    """Validate fractions; returns split -> fraction, without fractions of 0."""
    if not isinstance(fractions, Mapping):
        if len(fractions) > len(SPLITS):
            raise DataError(f"fractions are for {', '.join(SPLITS)}; got {len(fractions)} numbers: {fractions!r}.")
        fractions = dict(zip(SPLITS, fractions, strict=False))
    unknown = sorted(set(fractions) - set(SPLITS))
    if unknown:
        raise DataError(f"fractions are for {', '.join(SPLITS)}; got {', '.join(map(repr, unknown))}.")
    shares = [float(share) for share in fractions.values()]
    if not all(0 <= share <= 1 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise DataError(f"fractions must not be negative and must add up to 1; got {dict(fractions)!r}.")
    return {split: float(fractions[split]) for split in SPLITS if fractions.get(split)}


def groups_of(manifest: Manifest, by: Callable[[Row], str] | None = None) -> list[list[int]]:
    """Return the row numbers of each group; the order of the groups does not depend on that of the rows.

    By default, groups that share a file or copies of a file are merged.
    """
    same = copies(row.path for row in manifest) if by is None else {}
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def keys(row: Row) -> list[tuple[str, str]]:
        if by is not None:
            return [("by", by(row))]
        file_key = ("file", str(same.get(row.path, row.path)))
        return [file_key, ("group", row.group)] if row.group else [file_key]

    for row in manifest:
        first, *others = (root(key) for key in keys(row))
        for other in others:
            first, other = max(first, other), min(first, other)
            parent[first] = other
    members: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(manifest):
        members.setdefault(root(keys(row)[0]), []).append(number)
    return [members[key] for key in sorted(members)]


def _assign(sums: np.ndarray, fractions: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Choose a split for every group.

    Args:
        sums: float array `(groups, tags + 1)`: sum of the targets of each tag, and number of rows, per group.
        fractions: float array `(splits,)`: wanted shares.
        random: breaks ties between groups.

    Returns:
        int array `(groups,)`: index of the split.
    """
    shares = sums / np.maximum(sums.sum(0), 1e-12)  # share of all rows with a tag, so that rare tags count equally
    weight = np.ones(shares.shape[1])
    weight[-1] = max(1, len(weight) - 1)  # the sizes of the splits count as much as all tags together
    has = np.zeros((len(fractions), shares.shape[1]))
    chosen = np.zeros(len(sums), int)
    order = random.permutation(len(sums))
    order = order[np.argsort(-shares[order].max(1), kind="stable")]
    for done, group in enumerate(order):
        share = shares[group]
        # Increase of (has - wanted)^2 to (has + share - wanted)^2, summed over tags.
        cost = (weight * share * (share + 2 * (has - fractions[:, None]))).sum(1)
        empty = has[:, -1] == 0
        if empty.sum() == len(order) - done:  # each empty split needs one of the remaining groups
            cost[~empty] = np.inf
        choice = int(np.argmin(cost))
        chosen[group] = choice
        has[choice] += share
    return chosen
