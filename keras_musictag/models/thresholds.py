"""Decision thresholds: the minimum probability of each tag, chosen on held-out labelled clips.

A threshold maximises F1, the harmonic mean of precision and recall, optionally among the thresholds with a minimum
precision. Tags with too few clips have no threshold and are never predicted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import NoThresholdsError
from ..utils.fields import require

if TYPE_CHECKING:
    import numpy as np

    from .spec import ModelSpec

LEAST_CLIPS = 5  # minimum number of clips with a tag for a threshold


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Thresholds of a model and the data they were chosen on.

    Attributes:
        values: tag, by its name in the training data -> minimum probability. Other tags are never predicted.
        dataset: name of the labelled data set.
        split: split of the data set, e.g. `"validation"`.
        n: number of clips.
        min_precision: minimum precision of the thresholds; 0 for none.
    """

    values: Mapping[str, float]
    dataset: str
    split: str
    n: int
    min_precision: float = 0.0

    def __post_init__(self) -> None:
        """Validate the fields."""
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
    """Validate a minimum precision and return it.

    Raises:
        SpecError: the value is not from 0 to 1.
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
    """Choose the threshold with the best F1 for each tag.

    Args:
        targets: bool array `(clips, tags)`.
        probabilities: array `(clips, tags)` for clips that were not used in training.
        tags: names in the training data.
        dataset, split: names of the data set and its split.
        min_precision: minimum precision. A tag that cannot reach it gets no threshold.

    Returns:
        `Thresholds`; `None` if no tag has a threshold.

    Example:
        >>> import numpy as np
        >>> targets = np.array([[0], [0], [0], [1], [1], [1], [1], [1]])
        >>> predicted = np.array([[0.1], [0.2], [0.6], [0.5], [0.7], [0.8], [0.9], [0.9]])
        >>> choose(targets, predicted, ["dub"], dataset="mine", split="validation").values
        {'dub': 0.35}
        >>> choose(targets, predicted, ["dub"], dataset="mine", split="validation", min_precision=0.95).values
        {'dub': 0.65}
    """
    import numpy as np

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


def _best_threshold(labels: np.ndarray, scores: np.ndarray, min_precision: float) -> float | None:
    """Return the threshold with the best F1, halfway between two scores; the highest one if several are equal."""
    import numpy as np

    if labels.sum() < LEAST_CLIPS or not np.isfinite(scores).all():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order].astype("float64"), np.cumsum(labels[order])
    count = np.arange(1, len(scores) + 1)
    last = np.append(scores[1:] < scores[:-1], True)  # a threshold cannot separate equal scores
    precision = hits / count
    f1 = np.where(last & (precision >= min_precision), 2 * hits / (count + labels.sum()), -1.0)
    best = int(np.argmax(f1))
    if f1[best] <= 0:
        return None
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    middle = float((scores[best] + below) / 2)
    return round(middle, 6) if below < round(middle, 6) <= scores[best] else middle


def auto_thresholds(spec: ModelSpec) -> np.ndarray:
    """Return the threshold of each output, `(tags,)`; infinite for tags without a threshold.

    Raises:
        NoThresholdsError: the spec has no thresholds.
    """
    if spec.thresholds is None:
        raise NoThresholdsError(
            f"{spec.name!r} has no thresholds for threshold='auto', because none were chosen on held-out labelled "
            f"clips. Pass a number, or fine-tune the model on your own clips, with at least {LEAST_CLIPS} held-out "
            "clips per tag."
        )
    import numpy as np

    return np.array([spec.thresholds.values.get(tag, np.inf) for tag in spec.tags])
