"""What is known of a model's weights: the data behind them, how well they tag, how long that takes.

These parts of a `ModelSpec` are for people; `cards` shows them. Nothing in here is taken over by a network that was
trained further (`ModelSpec.retrained`).

Units: areas under curves in [0, 1], correlations in [-1, 1], times in milliseconds.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Container, Mapping
from typing import Any, Literal, get_args

from ..utils.fields import require, require_choice, require_count

Role = Literal["labelled", "unlabelled", "teacher", "teacher_data"]
Scope = Literal["log_mel", "waveform", "file"]

# Scores that an entry of `ModelSpec.metrics` may hold -> their lowest possible value. The highest is 1.
SCORES = {"accuracy": 0.0, "roc_auc": 0.0, "pr_auc": 0.0, "correlation": -1.0, "teacher_roc_auc": 0.0}
INTERVALS = ("accuracy", "roc_auc", "pr_auc")  # those that may come with `<score>_low` and `<score>_high`

_URL = re.compile(r"https?://\S+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Something that the weights learned from.

    Attributes:
        name: of the data set or the teacher.
        role: `"labelled"` sound whose labels were learned, `"unlabelled"` sound that a teacher answered for, the
            `"teacher"` itself, or `"teacher_data"` that the teacher had been trained on.
        licence: terms of sound and labels, or of the teacher's weights, as their source states them.
        n: number of recordings; `None` for a teacher.
        note: splits, artists, lengths, whatever one must know.
        url: where it is from.
    """

    name: str
    role: Role
    licence: str
    n: int | None = None
    note: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        """Refuse data that cannot be placed."""
        for field in ("name", "licence"):
            _require_text(f"training_data.{field}", getattr(self, field))
        require_choice("training_data.role", self.role, get_args(Role))
        if self.n is not None:
            require_count("training_data.n", self.n)
        _require_text("training_data.note", self.note, empty=True)
        _require_url("training_data.url", self.url)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """How long one call took from some input to tags, over many calls.

    Attributes:
        scope: where the clock starts: at a `"log_mel"`, at a `"waveform"` in memory, or at a `"file"`.
        batch: windows per call.
        median_ms, p10_ms, p90_ms: median and 10th and 90th percentile over the calls.
        repetitions: number of calls, after those that warmed up.
        machine: the processor.
        threads: processor threads that were available.
        backend: of Keras.
        date: of the measurement, `YYYY-MM-DD`.
        command: that measured it.
    """

    scope: Scope
    batch: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    repetitions: int
    machine: str
    threads: int
    backend: str
    date: str
    command: str

    def __post_init__(self) -> None:
        """Refuse times that nobody could measure again."""
        require_choice("latency.scope", self.scope, get_args(Scope))
        for field in ("batch", "repetitions", "threads"):
            require_count(f"latency.{field}", getattr(self, field))
        for field in ("machine", "backend", "command"):
            _require_text(f"latency.{field}", getattr(self, field))
        _require_date("latency.date", self.date)
        times = (self.p10_ms, self.median_ms, self.p90_ms)
        require(
            all(_is_number(time) for time in times) and 0 < times[0] <= times[1] <= times[2],
            f"latency must have 0 < p10_ms <= median_ms <= p90_ms; got {', '.join(map(repr, times))}.",
        )


def check_metric(model: str, metric: Any) -> None:
    """Refuse a score that cannot be placed or cannot be.

    Args:
        model: name, for messages.
        metric: an entry of `ModelSpec.metrics`. Keys that are not known are let through: cards do not show them.

    Raises:
        SpecError: data set, split, n or source is missing, or a value is impossible.
    """
    require(isinstance(metric, Mapping), f"A metric of {model!r} must be an object; got {metric!r}.")
    missing = {"dataset", "split", "n", "source"} - set(metric)
    require(not missing, f"A metric of {model!r} does not say its {', '.join(sorted(missing))}: {dict(metric)!r}.")
    for key in ("dataset", "split", "source"):
        _require_text(f"metrics.{key}", metric[key])
    require_count("metrics.n", metric["n"])
    for key in ("machine", "note"):
        _require_text(f"metrics.{key}", metric.get(key, ""), empty=True)
    _require_url("metrics.url", metric.get("url", ""))
    if metric.get("date"):
        _require_date("metrics.date", metric["date"])
    for key, least in SCORES.items():
        _require_score(f"metrics.{key}", metric.get(key), least)
    for key in INTERVALS:
        bounds = [metric.get(f"{key}_low"), metric.get(f"{key}_high")]
        if bounds == [None, None]:
            continue
        for end, bound in zip(("low", "high"), bounds, strict=True):
            _require_score(f"metrics.{key}_{end}", bound, SCORES[key], optional=False)
        require(
            metric.get(key) is not None and bounds[0] <= metric[key] <= bounds[1],
            f"metrics.{key} must lie between {key}_low and {key}_high; got {metric.get(key)!r} and "
            f"{bounds[0]!r} to {bounds[1]!r}.",
        )
    for key in ("roc_auc_per_tag", "pr_auc_per_tag"):
        per_tag = metric.get(key) or {}
        require(isinstance(per_tag, Mapping), f"metrics.{key} must be an object, tag to score; got {per_tag!r}.")
        for tag, score in per_tag.items():
            _require_score(f"metrics.{key}[{tag!r}]", score, 0.0)


def check_example(tags: Container[str], example: Any) -> None:
    """Refuse an example (`ModelSpec.example`) that is no answer of a model with these tags.

    Raises:
        SpecError: it is neither `None` nor an object from some of the tags to probabilities.
    """
    require(example is None or isinstance(example, Mapping), f"example must be an object; got {example!r}.")
    for tag, probability in (example or {}).items():
        require(tag in tags, f"example names {tag!r}, which is no tag of the model.")
        _require_score(f"example[{tag!r}]", probability, 0.0, optional=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require_score(what: str, value: Any, least: float, *, optional: bool = True) -> None:
    absent = optional and value is None
    require(
        absent or (_is_number(value) and least <= value <= 1),
        f"{what} must be a number from {least:g} to 1; got {value!r}.",
    )


def _require_text(what: str, value: Any, *, empty: bool = False) -> None:
    kind = "text" if empty else "text that is not empty"
    require(isinstance(value, str) and (empty or bool(value.strip())), f"{what} must be {kind}; got {value!r}.")


def _require_url(what: str, value: Any) -> None:
    require(
        value == "" or (isinstance(value, str) and _URL.fullmatch(value) is not None),
        f"{what} must be a web address or empty; got {value!r}.",
    )


def _require_date(what: str, value: Any) -> None:
    try:
        valid = datetime.date.fromisoformat(value).isoformat() == value
    except (TypeError, ValueError):
        valid = False
    require(valid, f"{what} must be a date such as 2026-01-31; got {value!r}.")
