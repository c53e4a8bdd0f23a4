"""What measuring a tagger gives: `Evaluation`, `Comparison` and `Agreement`, to read, to print and to save.

All are frozen, become plain dictionaries with `to_dict`, and say which clips their numbers are from. They are made by
`metrics`. Areas lie in [0, 1], differences in [-1, 1].
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
from ..utils.tables import Block, Table, plain

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

Metric = Literal["roc_auc", "pr_auc"]


class EvaluationError(MusicTagError, ValueError):
    """Targets, scores or settings that nothing can be measured with."""


def require(condition: bool, message: str) -> None:
    """Raise `EvaluationError` unless the condition holds."""
    if not condition:
        raise EvaluationError(message)


def require_count(name: str, value: object, least: int) -> None:
    """Require a whole number."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(whole, f"{name} must be a whole number of at least {least}; got {value!r}.")


def require_named(dataset: str, split: str) -> None:
    """Require the names without which no number can be placed."""
    for name, value, example in (("dataset", dataset, "magnatagatune"), ("split", split, "test")):
        named = isinstance(value, str) and bool(value.strip())
        require(
            named, f"A result must name its {name}; got {value!r}. Pass {name}={example!r}, or what yours is called."
        )


# === Results ===


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number, and how far to trust it.

    Attributes:
        value: from all clips, each counted once.
        low, high: confidence interval, `None` where none was asked for or none exists. Never excludes `value`.
        bias: mean of the resamples minus `value`; the interval is corrected for it, `value` is not.
        dropped: resamples left out because the tag had only one class in them.
    """

    value: float
    low: float | None = None
    high: float | None = None
    bias: float | None = None
    dropped: int = 0

    def __format__(self, spec: str) -> str:
        """The value and its interval, each in the format `spec`.

        Example:
            >>> f"{Estimate(0.9071, 0.901, 0.913):.3f}"
            '0.907 [0.901, 0.913]'
        """
        if self.low is None or self.high is None:
            return format(self.value, spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def flat(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """`{name: value, name_low: ..., name_high: ...}`, all `None` for no estimate."""
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


@dataclasses.dataclass(frozen=True)
class TagScore:
    """One tag.

    Attributes:
        tag: its name.
        positives, negatives: clips with and without it.
        positive_groups: groups with at least one positive clip; with a handful, an interval means little.
        roc_auc, pr_auc: `Estimate`s (of differences, in a `Comparison`); `None` where all clips are of one class.
    """

    tag: str
    positives: int
    negatives: int
    positive_groups: int
    roc_auc: Estimate | None
    pr_auc: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """One flat row; `dropped` counts the resamples in which the tag has one class only."""
        counts = {name: getattr(self, name) for name in ("tag", "positives", "negatives", "positive_groups")}
        dropped = self.roc_auc.dropped if self.roc_auc else None
        return {**counts, **flat("roc_auc", self.roc_auc), **flat("pr_auc", self.pr_auc), "dropped": dropped}


@dataclasses.dataclass(frozen=True)
class Failure:
    """A row that could not be tagged.

    Attributes:
        model: the tagger that could not.
        file: the sound.
        start: seconds into it.
        reason: the message of the exception.
    """

    model: str
    file: str
    start: float
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well one tagger does on one set of clips. Made by `evaluate` and `evaluate_scores`.

    Attributes:
        dataset, split: which clips.
        n_clips, n_groups: how many of them, and how many groups the intervals resample.
        grouped_by: what a group is: `"clip"`, `"track"`, `"artist"`, ...
        rows: a `TagScore` per tag, in the order of the columns.
        roc_auc, pr_auc: `Estimate`s of the mean over the tags that have an area.
        n_bootstrap, confidence, seed: number of resamples (0: no intervals), level of the intervals, random seed.
        model, weights_sha256: what was measured.
        missing_tags: tags of the data that the tagger does not have; they are in no number.
        failed: rows that could not be tagged; they are in no number.
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
        """Refuse numbers that nobody could place."""
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
        """Tag -> reason, for those that have no area and are not in the macro values."""
        return {
            row.tag: "no clip has it" if row.positives == 0 else "every clip has it"
            for row in self.rows
            if row.roc_auc is None
        }

    def to_dict(self) -> dict[str, Any]:
        """Flat and ready for `json.dump`, but for `per_tag`, a list of flat rows."""
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
        """Write `to_dict` to a file; returns its path."""
        return write_json(path, self.to_dict())

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a row per tag to a file, each with data set, split and number of clips; returns its path."""
        measured = {"dataset": self.dataset, "split": self.split, "n_clips": self.n_clips, "model": self.model}
        return write_csv(path, [{**measured, **row.to_dict()} for row in self.rows])

    def plot(self, ax: Axes | None = None, *, metric: Metric = "roc_auc") -> Axes:
        """Draw a bar per tag with its interval, see `plots.plot_tag_scores`."""
        from ..plots import plot_tag_scores

        return plot_tag_scores(self, ax, metric=metric)

    def blocks(self) -> list[Block]:
        """What was measured, a table with macro values and then tag by tag, notes."""
        return [self.header(), _table(self.rows, self.roc_auc, self.pr_auc, ".3f"), *self._notes()]

    def __str__(self) -> str:
        """The same in plain text."""
        return plain(self.blocks())

    def _settings(self) -> dict[str, Any]:
        names = ("dataset", "split", "n_clips", "n_groups", "grouped_by", "n_bootstrap", "confidence", "seed")
        return {name: getattr(self, name) for name in names}

    def header(self, what: str | None = None) -> str:
        """One line: what was measured (the model, unless given) on which clips."""
        what = self.model if what is None else what
        groups = "" if self.grouped_by == "clip" else f" in {self.n_groups:,} {self.grouped_by}s"
        return f"{what + ' on ' if what else ''}{self.dataset} {self.split}, {self.n_clips:,} clips{groups}"

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
    """Two taggers on the same clips. Made by `compare_scores`. All differences are A minus B.

    Attributes:
        a, b: an `Evaluation` of each.
        rows: a `TagScore` of differences per tag.
        roc_auc, pr_auc: `Estimate`s of the difference in macro values. Narrower than the intervals of `a` and `b`
            suggest, since both are measured on the same resamples.
    """

    a: Evaluation
    b: Evaluation
    rows: tuple[TagScore, ...]
    roc_auc: Estimate
    pr_auc: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Flat and ready for `json.dump`, but for `per_tag`, a list of flat rows, and `a` and `b` in full."""
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
        """Write `to_dict` to a file; returns its path."""
        return write_json(path, self.to_dict())

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a row per tag to a file: areas of A, of B and their difference; returns its path."""
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
        """Draw the difference per tag with its interval, see `plots.plot_tag_scores`."""
        from ..plots import plot_tag_scores

        return plot_tag_scores(self, ax, metric=metric)

    def blocks(self) -> list[Block]:
        """What was measured, a table with differences of the macro values and then tag by tag, notes."""
        title = self.a.header(f"{self.a.model} minus {self.b.model}")
        return [title, _table(self.rows, self.roc_auc, self.pr_auc, "+.3f"), *self.a._notes()]

    def __str__(self) -> str:
        """The same in plain text."""
        return plain(self.blocks())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a student repeats its teacher. Made by `agreement`.

    Attributes:
        n_clips: number of clips.
        correlations: tag -> Pearson correlation of the two scores over clips.
        correlation: their mean.
        roc_aucs: tag -> ROC-AUC of the student for the tenth of the clips that the teacher scores highest.
        roc_auc: their mean.
        excluded: tags that the teacher gives the same score everywhere, left out of all of the above.
    """

    n_clips: int
    correlations: dict[str, float]
    correlation: float
    roc_aucs: dict[str, float]
    roc_auc: float
    excluded: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for `json.dump`."""
        return {**dataclasses.asdict(self), "excluded": list(self.excluded)}

    def __str__(self) -> str:
        """One line, and the tags left out."""
        text = (
            f"agreement with the teacher on {self.n_clips:,} clips, {len(self.correlations)} tags: "
            f"correlation {self.correlation:.3f}, ROC-AUC for the teacher's top tenth {self.roc_auc:.3f}"
        )
        left_out = f"\nnot scored, the teacher is constant: {', '.join(self.excluded)}" if self.excluded else ""
        return text + left_out


# === Writing ===


def _table(rows: Sequence[TagScore], roc_auc: Estimate, pr_auc: Estimate, number: str) -> Table:
    """Columns tag, positives, ROC-AUC, PR-AUC; the macro values first."""
    scored = sum(row.roc_auc is not None for row in rows)
    cells = [(f"mean, {scored} of {len(rows)} tags", "", f"{roc_auc:{number}}", f"{pr_auc:{number}}")]
    for row in rows:
        if row.roc_auc is not None and row.pr_auc is not None:
            cells.append((row.tag, f"{row.positives:,}", f"{row.roc_auc:{number}}", f"{row.pr_auc:{number}}"))
    return Table(("tag", "positives", "ROC-AUC", "PR-AUC"), cells, "<><")


def write_json(path: str | os.PathLike[str], data: dict[str, Any]) -> Path:
    """Write JSON, atomically; returns the path."""
    return _write(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | os.PathLike[str], rows: list[dict[str, Any]]) -> Path:
    """Write rows with the same keys as CSV, atomically; returns the path."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return _write(path, text.getvalue())


def _write(path: str | os.PathLike[str], text: str) -> Path:
    """All of it or nothing; bytes of a file name that are no UTF-8 become question marks."""
    from ..utils.files import write_atomically

    path = Path(path)
    write_atomically(path, text.encode("utf-8", "replace"))
    return path
