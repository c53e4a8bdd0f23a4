"""Which tags are said of a sound, given the probability of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ..models.spec import ModelSpec
from ..models.thresholds import auto_thresholds
from ..utils.checks import check_count

Threshold = float | Literal["auto"]


def check_threshold(spec: ModelSpec, threshold: Any) -> None:
    """Raise before any work is done if a threshold cannot be used.

    Raises:
        NoThresholdsError: it is `"auto"`, and the model has none.
        ValueError: it is another text.
    """
    if threshold == "auto":
        auto_thresholds(spec)
    elif isinstance(threshold, str):
        raise ValueError(f"threshold must be a number or 'auto'; got {threshold!r}.")


def chosen_columns(
    spec: ModelSpec,
    probabilities: np.ndarray,
    wanted: Sequence[int],
    *,
    top: int | None,
    threshold: Threshold,
    unsure: bool,
) -> list[int]:
    """Columns of the tags that are said, most probable first.

    Args:
        spec: of the model.
        probabilities: array `(tags,)`.
        wanted: columns to choose from.
        top: how many at most.
        threshold: from which probability on; `"auto"` for the thresholds of the spec.
        unsure: with `"auto"`: say nothing where no tag reaches its threshold, instead of the most probable tag.

    Raises:
        NoThresholdsError, ValueError: as `check_threshold`.
    """
    if top is not None:
        check_count("top", top)
    check_threshold(spec, threshold)
    order = sorted(wanted, key=lambda column: -probabilities[column])
    if threshold != "auto":
        return [column for column in order[:top] if probabilities[column] >= threshold]
    least = auto_thresholds(spec)
    said = [column for column in order if probabilities[column] >= least[column]]
    return (said or ([] if unsure else order[:1]))[:top]
