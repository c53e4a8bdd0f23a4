"""Which tags to return, given the probability of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ..models.spec import ModelSpec
from ..models.thresholds import auto_thresholds
from ..utils.checks import check_count

Threshold = float | Literal["auto"]


def check_threshold(spec: ModelSpec, threshold: Any) -> None:
    """Validate a threshold before any work is done.

    Raises:
        NoThresholdsError: it is `"auto"`, and the model has no thresholds.
        ValueError: it is another string.
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
    """Return the columns of the tags to return, most probable first.

    Args:
        spec: spec of the model.
        probabilities: array `(tags,)`.
        wanted: columns to choose from.
        top: largest number of columns.
        threshold: smallest probability; `"auto"` for the thresholds of the spec.
        unsure: with `"auto"`, return no column if no tag reaches its threshold, instead of the most probable one.

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
    chosen = [column for column in order if probabilities[column] >= least[column]]
    if not chosen and not unsure:
        chosen = order[:1]
    return chosen[:top]
