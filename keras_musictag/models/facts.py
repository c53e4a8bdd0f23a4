"""Facts about a model's weights: training data, scores and latency.

Model cards (`cards`) show these parts of a `ModelSpec`. `ModelSpec.retrained` drops them.

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

# Scores of an entry of `ModelSpec.metrics` -> lowest possible value. The highest is 1.
SCORES = {"accuracy": 0.0, "roc_auc": 0.0, "pr_auc": 0.0, "correlation": -1.0, "teacher_roc_auc": 0.0}
INTERVALS = ("accuracy", "roc_auc", "pr_auc")  # scores that may have `<score>_low` and `<score>_high`

_URL = re.compile(r"https?://\S+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """A data set or teacher that the weights were trained with.

    Attributes:
        name: name of the data set or the teacher.
        role: `"labelled"` audio, `"unlabelled"` audio with a teacher's predictions as targets, the `"teacher"`, or
            `"teacher_data"`, the training data of the teacher.
        licence: terms of audio and labels, or of the teacher's weights, as their source states them.
        n: number of recordings; `None` for a teacher.
        note: further details, e.g. splits, artists and lengths.
        url: web address of the source.
    """

    name: str
    role: Role
    licence: str
    n: int | None = None
    note: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        """Validate the fields."""
        for field in ("name", "licence"):
            _require_text(f"training_data.{field}", getattr(self, field))
        require_choice("training_data.role", self.role, get_args(Role))
        if self.n is not None:
            require_count("training_data.n", self.n)
        _require_text("training_data.note", self.note, empty=True)
        _require_url("training_data.url", self.url)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Time of one call from input to tags, over many calls.

    Attributes:
        scope: input of the call: a `"log_mel"`, a `"waveform"` in memory, or a `"file"`.
        batch: windows per call.
        median_ms, p10_ms, p90_ms: median, 10th and 90th percentile over the calls, in ms.
        repetitions: number of calls, without warm-up calls.
        machine: name of the processor.
        threads: number of processor threads available.
        backend: version and backend of Keras.
        date: date of the measurement, `YYYY-MM-DD`.
        command: command that measured it.
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
        """Validate the fields."""
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
    """Validate an entry of `ModelSpec.metrics`.

    Args:
        model: name of the model, for messages.
        metric: the entry. Unknown keys are allowed; cards do not show them.

    Raises:
        SpecError: data set, split, n or source is missing, or a value is out of range.
    """
    require(isinstance(metric, Mapping), f"A metric of {model!r} must be an object; got {metric!r}.")
    missing = {"dataset", "split", "n", "source"} - set(metric)
    require(not missing, f"A metric of {model!r} lacks {', '.join(sorted(missing))}; got {dict(metric)!r}.")
    for key in ("dataset", "split", "source"):
        _require_text(f"metrics.{key}", metric[key])
    require_count("metrics.n", metric["n"])
    for key in ("machine", "note"):
        _require_text(f"metrics.{key}", metric.get(key, ""), empty=True)
    _require_url("metrics.url", metric.get("url", ""))
    if metric.get("date"):
        _require_date("metrics.date", metric["date"])
    for key, minimum in SCORES.items():
        _require_score(f"metrics.{key}", metric.get(key), minimum)
    for key in INTERVALS:
        low, high = metric.get(f"{key}_low"), metric.get(f"{key}_high")
        if low is None and high is None:
            continue
        _require_score(f"metrics.{key}_low", low, SCORES[key], optional=False)
        _require_score(f"metrics.{key}_high", high, SCORES[key], optional=False)
        require(
            metric.get(key) is not None and low <= metric[key] <= high,
            f"metrics.{key} must lie between {key}_low and {key}_high; got {metric.get(key)!r} and {low!r} to "
            f"{high!r}.",
        )
    for key in ("roc_auc_per_tag", "pr_auc_per_tag"):
        per_tag = metric.get(key) or {}
        require(isinstance(per_tag, Mapping), f"metrics.{key} must be an object from tags to scores; got {per_tag!r}.")
        for tag, score in per_tag.items():
            _require_score(f"metrics.{key}[{tag!r}]", score, 0.0)


def check_example(tags: Container[str], example: Any) -> None:
    """Validate `ModelSpec.example`.

    Raises:
        SpecError: the example is neither `None` nor an object from some of the tags to probabilities.
    """
    require(example is None or isinstance(example, Mapping), f"example must be an object; got {example!r}.")
    for tag, probability in (example or {}).items():
        require(tag in tags, f"example names {tag!r}, which is not a tag of the model.")
        _require_score(f"example[{tag!r}]", probability, 0.0, optional=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require_score(field: str, value: Any, minimum: float, *, optional: bool = True) -> None:
    if optional and value is None:
        return
    require(
        _is_number(value) and minimum <= value <= 1,
        f"{field} must be a number from {minimum:g} to 1; got {value!r}.",
    )


def _require_text(field: str, value: Any, *, empty: bool = False) -> None:
    kind = "text" if empty else "non-empty text"
    require(isinstance(value, str) and (empty or bool(value.strip())), f"{field} must be {kind}; got {value!r}.")


def _require_url(field: str, value: Any) -> None:
    require(
        value == "" or (isinstance(value, str) and _URL.fullmatch(value) is not None),
        f"{field} must be a web address or empty; got {value!r}.",
    )


def _require_date(field: str, value: Any) -> None:
    try:
        valid = datetime.date.fromisoformat(value).isoformat() == value
    except (TypeError, ValueError):
        valid = False
    require(valid, f"{field} must be a date such as 2026-01-31; got {value!r}.")
