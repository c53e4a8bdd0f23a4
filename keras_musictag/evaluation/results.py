"""Results of measuring a tagger: `Evaluation`, `Comparison` and `Agreement`, made by `metrics`.

All are frozen dataclasses that can be printed and converted to plain dictionaries with `to_dict`. Areas lie in [0, 1],
differences in [-1, 1].
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import MusicTagError
from ..utils.checks import check_count
from ..utils.tables import Block, Table, plain

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

Metric = Literal["roc_auc", "pr_auc"]


class EvaluationError(MusicTagError, ValueError):
    """Targets, scores or settings that cannot be evaluated."""


def require(condition: bool, message: str) -> None:
    """Raise `EvaluationError` unless the condition holds."""
    if not condition:
        raise EvaluationError(message)


def require_count(name: str, value: object, least: int) -> None:
    """Require a whole number of at least `least`."""
    check_count(name, value, least, kind=int, error=EvaluationError)


def require_named(dataset: str, split: str) -> None:
    """Require names of the data set and the split."""
    for name, value, example in (("dataset", dataset, "magnatagatune"), ("split", split, "test")):
        named = isinstance(value, str) and bool(value.strip())
        require(named, f"A result must name its {name}; got {value!r}. Pass a name, e.g. {name}={example!r}.")


# === Results ===


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with a confidence interval.

    Attributes:
        value: value for all clips, each counted once.
        low, high: confidence interval, which always contains `value`; `None` if none was requested or none exists.
        bias: mean of the resamples minus `value`; the interval is corrected for it, `value` is not.
        dropped: resamples left out because the tag had only one class in them.
    """

    value: float
    low: float | None = None
    high: float | None = None
    bias: float | None = None
    dropped: int = 0

    def __format__(self, spec: str) -> str:
        """Format the value and its interval, each with `spec`.

        Example:
            >>> f"{Estimate(0.9071, 0.901, 0.913):.3f}"
            '0.907 [0.901, 0.913]'
        """
        if self.low is None or self.high is None:
            return format(self.value, spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def flat(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """Return `{name: value, name_low: ..., name_high: ...}`, all `None` without an estimate."""
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


@dataclasses.dataclass(frozen=True)
class TagScore:
    """Scores of one tag.

    Attributes:
        tag: name of the tag.
        positives, negatives: number of clips with and without the tag.
        positive_groups: number of groups with at least one positive clip; with few, the intervals are unreliable.
        roc_auc, pr_auc: `Estimate`s (of differences, in a `Comparison`); `None` if all clips are of one class.
    """

    tag: str
    positives: int
    negatives: int
    positive_groups: int
    roc_auc: Estimate | None
    pr_auc: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Return a flat dictionary; `dropped` counts the resamples in which the tag has only one class."""
        counts = {name: getattr(self, name) for name in ("tag", "positives", "negatives", "positive_groups")}
        dropped = self.roc_auc.dropped if self.roc_auc else None
        return {**counts, **flat("roc_auc", self.roc_auc), **flat("pr_auc", self.pr_auc), "dropped": dropped}


@dataclasses.dataclass(frozen=True)
class Failure:
    """A row that could not be tagged.

    Attributes:
        model: name of the tagger that failed.
        file: audio file.
        start: offset in seconds.
        reason: message of the exception.
    """

    model: str
    file: str
    start: float
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of one tagger on one set of clips. Made by `evaluate` and `evaluate_scores`.

    Attributes:
        dataset, split: names of the data set and the split.
        n_clips, n_groups: number of clips, and of groups that the intervals resample.
        grouped_by: what a group is: `"clip"`, `"track"`, `"artist"`, ...
        rows: a `TagScore` per tag, in the order of the columns.
        roc_auc, pr_auc: `Estimate`s of the mean over the tags that have an area.
        n_bootstrap, confidence, seed: number of resamples (0: no intervals), level of the intervals, random seed.
        model, weights_sha256: name of the tagger and checksum of its weights.
        missing_tags: tags of the data that the tagger does not have; not included in the scores.
        failed: rows that could not be tagged; not included in the scores.
    """

    dataset: str
    split: str
    n_clips: int
    n_groups: int
    rows: tuple[TagScore, ...]
    roc_auc: Estimate
    pr_auc: Estimate
    grouped_by: str = "clip"
    n_bootstrap: int = 0
    confidence: float = 0.95
    seed: int = 0
    model: str = ""
    weights_sha256: str = ""
    missing_tags: tuple[str, ...] = ()
    failed: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        """Validate names and counts."""
        require_named(self.dataset, self.split)
        for name in ("n_clips", "n_groups"):
            require_count(name, getattr(self, name), 1)
        require(len(self.rows) > 0, "A result must have rows, one per tag; got none.")

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of all tags, in the order of the columns."""
        return tuple(row.tag for row in self.rows)

    @property
    def excluded(self) -> dict[str, str]:
        """Tag -> reason, for the tags that have no area and are not in the macro values."""
        return {
            row.tag: "no clip has it" if row.positives == 0 else "every clip has it"
            for row in self.rows
            if row.roc_auc is None
        }

    def to_dict(self) -> dict[str, Any]:
        """Return a flat dictionary for `json.dump`; `per_tag` is a list of flat rows."""
        return {
            **self._settings(),
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            **flat("roc_auc", self.roc_auc),
            **flat("pr_auc", self.pr_auc),
            "n_tags": len(self.rows),
            "n_tags_scored": len(self.rows) - len(self.excluded),
            "excluded": self.excluded,
            "missing_tags": list(self.missing_tags),
            "n_failed": len(self.failed),
            "failed": [dataclasses.asdict(failure) for failure in self.failed],
            "per_tag": [row.to_dict() for row in self.rows],
        }

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` to a JSON file; returns its path."""
        return write_json(path, self.to_dict())

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a row per tag, with data set, split and number of clips, to a CSV file; returns its path."""
        measured = {"dataset": self.dataset, "split": self.split, "n_clips": self.n_clips, "model": self.model}
        return write_csv(path, [{**measured, **row.to_dict()} for row in self.rows])

    def plot(self, ax: Axes | None = None, *, metric: Metric = "roc_auc") -> Axes:
        """Plot a bar per tag with its interval, see `plots.plot_tag_scores`."""
        from ..plots import plot_tag_scores

        return plot_tag_scores(self, ax, metric=metric)

    def blocks(self) -> list[Block]:
        """Return a header, a table with the macro values and a row per tag, and notes, to be printed."""
        return [self.header(), _table(self.rows, self.roc_auc, self.pr_auc, ".3f"), *self._notes()]

    def __str__(self) -> str:
        """Return `blocks` as plain text."""
        return plain(self.blocks())

    def _settings(self) -> dict[str, Any]:
        names = ("dataset", "split", "n_clips", "n_groups", "grouped_by", "n_bootstrap", "confidence", "seed")
        return {name: getattr(self, name) for name in names}

    def header(self, what: str | None = None) -> str:
        """Return a line with `what` was measured (by default the model), the data set and the number of clips."""
        what = self.model if what is None else what
        subject = f"{what} on " if what else ""
        groups = "" if self.grouped_by == "clip" else f" in {self.n_groups:,} {self.grouped_by}s"
        return f"{subject}{self.dataset} {self.split}, {self.n_clips:,} clips{groups}"

    def _notes(self) -> list[str]:
        notes = []
        if self.n_bootstrap:
            level = f"{100 * self.confidence:g} % intervals"
            notes.append(f"[low, high]: {level} from {self.n_bootstrap:,} resamples of {self.grouped_by}s")
        if self.excluded:
            named = ", ".join(f"{tag} ({reason})" for tag, reason in self.excluded.items())
            notes.append(f"not scored, {len(self.excluded)} of {len(self.rows)} tags: {named}")
        if self.missing_tags:
            notes.append(f"tags of the data that the tagger does not have: {', '.join(self.missing_tags)}")
        if self.failed:
            first = self.failed[0]
            rows = self.n_clips + len(self.failed)
            notes.append(f"left out, {len(self.failed):,} of {rows:,} rows could not be tagged, first {first.file}")
        return notes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences in the scores of two taggers on the same clips, A minus B. Made by `compare_scores`.

    Attributes:
        a, b: `Evaluation`s of the two taggers.
        rows: a `TagScore` of differences per tag.
        roc_auc, pr_auc: `Estimate`s of the difference in macro values. Their intervals are narrower than those of `a`
            and `b` suggest, since both taggers are measured on the same resamples.
    """

    a: Evaluation
    b: Evaluation
    rows: tuple[TagScore, ...]
    roc_auc: Estimate
    pr_auc: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for `json.dump`; `per_tag` is a list of flat rows, `a` and `b` are dictionaries."""
        sides: dict[str, Any] = {}
        for side, evaluation in (("a", self.a), ("b", self.b)):
            for name in ("model", "weights_sha256"):
                sides[f"{name}_{side}"] = getattr(evaluation, name)
            for metric in ("roc_auc", "pr_auc"):
                sides |= flat(f"{metric}_{side}", getattr(evaluation, metric))
        return {
            **self.a._settings(),
            **sides,
            **flat("roc_auc_delta", self.roc_auc),
            **flat("pr_auc_delta", self.pr_auc),
            "excluded": self.a.excluded,
            "per_tag": [row.to_dict() for row in self.rows],
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
        }

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` to a JSON file; returns its path."""
        return write_json(path, self.to_dict())

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a row per tag, with the areas of A, of B and their difference, to a CSV file; returns its path."""
        a = self.a
        measured = {"dataset": a.dataset, "split": a.split, "n_clips": a.n_clips}
        measured |= {"model_a": a.model, "model_b": self.b.model}
        rows: list[dict[str, Any]] = []
        for parts in zip(a.rows, self.b.rows, self.rows, strict=True):
            counts = {name: getattr(parts[0], name) for name in ("tag", "positives", "negatives", "positive_groups")}
            rows.append({**measured, **counts})
            for metric in ("roc_auc", "pr_auc"):
                for side, part in zip(("a", "b", "delta"), parts, strict=True):
                    rows[-1] |= flat(f"{metric}_{side}", getattr(part, metric))
        return write_csv(path, rows)

    def plot(self, ax: Axes | None = None, *, metric: Metric = "roc_auc") -> Axes:
        """Plot the difference per tag with its interval, see `plots.plot_tag_scores`."""
        from ..plots import plot_tag_scores

        return plot_tag_scores(self, ax, metric=metric)

    def blocks(self) -> list[Block]:
        """Return a header, a table with the differences of the macro values and per tag, and notes, to be printed."""
        title = self.a.header(f"{self.a.model} minus {self.b.model}")
        return [title, _table(self.rows, self.roc_auc, self.pr_auc, "+.3f"), *self.a._notes()]

    def __str__(self) -> str:
        """Return `blocks` as plain text."""
        return plain(self.blocks())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of a student with its teacher. Made by `agreement`.

    Attributes:
        n_clips: number of clips.
        correlations: tag -> Pearson correlation of the scores of student and teacher over clips.
        correlation: mean of `correlations`.
        roc_aucs: tag -> ROC-AUC of the student for the tenth of the clips that the teacher scores highest.
        roc_auc: mean of `roc_aucs`.
        excluded: tags for which the teacher's scores are constant; left out of all of the above.
    """

    n_clips: int
    correlations: dict[str, float]
    correlation: float
    roc_aucs: dict[str, float]
    roc_auc: float
    excluded: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for `json.dump`."""
        return {**dataclasses.asdict(self), "excluded": list(self.excluded)}

    def __str__(self) -> str:
        """Return a one-line summary, and the tags left out."""
        text = (
            f"agreement with the teacher on {self.n_clips:,} clips, {len(self.correlations)} tags: "
            f"correlation {self.correlation:.3f}, ROC-AUC for the teacher's top tenth {self.roc_auc:.3f}"
        )
        left_out = f"\nnot scored, the teacher is constant: {', '.join(self.excluded)}" if self.excluded else ""
        return text + left_out


# === Writing ===


def _table(rows: Sequence[TagScore], roc_auc: Estimate, pr_auc: Estimate, number: str) -> Table:
    """Make a table with the columns tag, positives, ROC-AUC and PR-AUC; the macro values come first."""
    scored = sum(row.roc_auc is not None for row in rows)
    cells = [(f"mean, {scored} of {len(rows)} tags", "", f"{roc_auc:{number}}", f"{pr_auc:{number}}")]
    for row in rows:
        if row.roc_auc is not None and row.pr_auc is not None:
            cells.append((row.tag, f"{row.positives:,}", f"{row.roc_auc:{number}}", f"{row.pr_auc:{number}}"))
    return Table(("tag", "positives", "ROC-AUC", "PR-AUC"), cells, "<><")


def write_json(path: str | os.PathLike[str], data: dict[str, Any]) -> Path:
    """Write a JSON file atomically; returns its path."""
    return _write(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | os.PathLike[str], rows: list[dict[str, Any]]) -> Path:
    """Write rows that have the same keys to a CSV file atomically; returns its path."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return _write(path, text.getvalue())


def _write(path: str | os.PathLike[str], text: str) -> Path:
    """Write text atomically; bytes of file names that are not UTF-8 become question marks."""
    from ..utils.files import write_atomically

    path = Path(path)
    write_atomically(path, text.encode("utf-8", "replace"))
    return path
