"""From which probability on a tag is said: one threshold per tag, chosen on clips that the tagger did not learn from.

A threshold maximises F1, the harmonic mean of precision and recall; with a floor on precision, among those thresholds
whose precision reaches the floor. Tags for which there is too little evidence have no threshold: they are never said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import NoThresholdsError
from ..utils.fields import require

if TYPE_CHECKING:
    from .spec import ModelSpec

LEAST_CLIPS = 5  # that have a tag, below which no threshold is chosen for it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Thresholds of a model, and what justifies them.

    Attributes:
        values: tag, as trained -> probability from which on it is said. Tags left out are never said.
        dataset: name of the labelled data they were chosen on.
        split: part of them, e.g. `"validation"`.
        n: how many clips that is.
        min_precision: the floor that was asked for; 0 for none.
    """

    values: Mapping[str, float]
    dataset: str
    split: str
    n: int
    min_precision: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        require(isinstance(self.values, Mapping), f"thresholds.values must be an object; got {self.values!r}.")
        for tag, value in self.values.items():
            require(
                isinstance(value, (int, float)) and 0 <= value <= 1,
                f"thresholds.values[{tag!r}] must be from 0 to 1; got {value!r}.",
            )
        for field in ("dataset", "split"):
            value = getattr(self, field)
            require(isinstance(value, str) and bool(value), f"thresholds.{field} must be text; got {value!r}.")
        require(isinstance(self.n, int) and self.n > 0, f"thresholds.n must be a number of clips; got {self.n!r}.")
        check_floor(self.min_precision)


def check_floor(min_precision: float) -> float:
    """The floor on precision, if it is one.

    Raises:
        SpecError: it is not from 0 to 1.
    """
    valid = isinstance(min_precision, (int, float)) and not isinstance(min_precision, bool) and 0 <= min_precision <= 1
    require(valid, f"min_precision must be from 0 to 1; got {min_precision!r}.")
    return min_precision


def choose(
    targets: np.ndarray,
    probabilities: np.ndarray,
    tags: Sequence[str],
    *,
    dataset: str,
    split: str,
    min_precision: float = 0.0,
) -> Thresholds | None:
    """Choose the threshold of each tag that has the best F1.

    Args:
        targets: bool `(clips, tags)`.
        probabilities: `(clips, tags)`, of clips that the tagger did not learn from.
        tags: names, as trained.
        dataset, split: what the clips are.
        min_precision: floor on precision. A tag that cannot reach it gets no threshold.

    Returns:
        `Thresholds`; `None` if there is enough evidence for no tag.

    Example:
        >>> targets = np.array([[0], [0], [0], [1], [1], [1], [1], [1]])
        >>> said = np.array([[0.1], [0.2], [0.6], [0.5], [0.7], [0.8], [0.9], [0.9]])
        >>> choose(targets, said, ["dub"], dataset="mine", split="validation").values
        {'dub': 0.35}
        >>> choose(targets, said, ["dub"], dataset="mine", split="validation", min_precision=0.95).values
        {'dub': 0.65}
    """
    check_floor(min_precision)
    values = {}
    for column, tag in enumerate(tags):
        value = _best_threshold(
            np.asarray(targets)[:, column] > 0.5, np.asarray(probabilities)[:, column], min_precision
        )
        if value is not None:
            values[tag] = value
    if not values:
        return None
    return Thresholds(values=values, dataset=dataset, split=split, n=len(targets), min_precision=min_precision)


def _best_threshold(has: np.ndarray, said: np.ndarray, floor: float) -> float | None:
    """Halfway between two probabilities, so that F1 is best; the higher threshold of equal ones."""
    if has.sum() < LEAST_CLIPS or not np.isfinite(said).all():
        return None
    order = np.argsort(-said, kind="stable")
    said, hits = said[order].astype("float64"), np.cumsum(has[order])
    count = np.arange(1, len(said) + 1)
    last = np.append(said[1:] < said[:-1], True)  # of clips with equal probabilities, the threshold takes all or none
    precision = hits / count
    f1 = np.where(last & (precision >= floor), 2 * hits / (count + has.sum()), -1.0)
    best = int(np.argmax(f1))
    if f1[best] <= 0:
        return None
    below = said[best + 1] if best + 1 < len(said) else 0.0
    middle = float((said[best] + below) / 2)
    return round(middle, 6) if below < round(middle, 6) <= said[best] else middle


def auto_thresholds(spec: ModelSpec) -> np.ndarray:
    """Threshold of each output `(tags,)`, infinite for tags that are never said.

    Raises:
        NoThresholdsError: the spec has none; the message says why.
    """
    if spec.thresholds is None:
        raise NoThresholdsError(
            f"{spec.name!r} has no thresholds for threshold='auto': they are kept only where they were chosen on "
            "labelled clips that the model did not learn from. Give a number, or fine-tune it on labelled clips of "
            f"your own, at least {LEAST_CLIPS} held-out clips per tag."
        )
    return np.array([spec.thresholds.values.get(tag, np.inf) for tag in spec.tags])
