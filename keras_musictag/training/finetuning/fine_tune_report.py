"""Scores of a fine-tuned tagger, its confusion matrix and its worst mistakes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...datasets import Manifest
from ...evaluation.bootstrap import estimate, share_deviations
from ...evaluation.metrics import evaluate_scores
from ...evaluation.results import Estimate, Evaluation, EvaluationError, flat
from ...evaluation.sample import group_ids
from ...utils.files import write_atomically
from ...utils.tables import Block, Table, plain
from .labelled_data import FineTuneData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESAMPLES = 1000
_MAX_MISTAKES = 10  # clips that are listed
_MAX_PRINTED_TAGS = 12  # rows of a printed confusion matrix
_TITLE_LENGTH = 8  # characters of the column titles


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mistake:
    """A clip for which a wrong tag is more probable than a true one.

    Attributes:
        file: name of the folder and the file.
        tag: the least probable true tag.
        probability: its probability.
        predicted: the most probable wrong tag.
        predicted_probability: its probability.
    """

    file: str
    tag: str
    probability: float
    predicted: str
    predicted_probability: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FineTuneReport:
    """Report of fine-tuning.

    Attributes:
        dataset, split, n_clips: clips of the scores, e.g. split `"validation, which also chose when to stop"`.
        kept: `"head"` or `"full"`, the stage whose network was kept.
        log_likelihood: score of each stage on the validation clips; greater is better.
        evaluation: AUCs per tag, with intervals; `None` if no tag is on some clips and not on others.
        accuracy: share of the clips whose most probable tag is true, if clips have one tag each.
        confusion: confusion matrix, int `(tags, tags)`: rows are true tags, columns predicted tags; as `accuracy`.
        mistakes: the clips whose true tags are the least probable, the worst first.
        tags: names, in the order of rows and columns.
        seconds: duration of fine-tuning.
        precision: last precision in which the whole network was trained; `None` if only the head was fitted.
        notes: why `precision="auto"` chose its precision; from which step to which training went back because the
            loss or a weight was NaN or infinite.
    """

    dataset: str
    split: str
    n_clips: int
    kept: str
    log_likelihood: dict[str, float]
    tags: tuple[str, ...]
    evaluation: Evaluation | None = None
    accuracy: Estimate | None = None
    confusion: np.ndarray | None = None
    mistakes: tuple[Mistake, ...] = ()
    seconds: float = 0.0
    precision: str | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for `json.dump`."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "n_clips": self.n_clips,
            "kept": self.kept,
            "log_likelihood": self.log_likelihood,
            **flat("accuracy", self.accuracy),
            "tags": list(self.tags),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "mistakes": [dataclasses.asdict(mistake) for mistake in self.mistakes],
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "seconds": round(self.seconds, 1),
            "precision": self.precision,
            "notes": list(self.notes),
        }

    def scores(self) -> dict[str, float]:
        """Return accuracy and mean AUCs, with the ends of their intervals, as in `ModelSpec.metrics`."""
        scores: dict[str, float | None] = flat("accuracy", self.accuracy)
        if self.evaluation is not None:
            scores |= flat("roc_auc", self.evaluation.roc_auc) | flat("pr_auc", self.evaluation.pr_auc)
        return {name: value for name, value in scores.items() if value is not None}

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` to a file and return its path."""
        write_atomically(Path(path), (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
        return Path(path)

    def blocks(self) -> list[Block]:
        """Return text and tables: scores per tag, the confusion matrix, and the worst mistakes."""
        blocks: list[Block] = []
        if self.accuracy is not None:
            blocks.append(f"accuracy {self.accuracy:.3f} on {self.dataset}, {self.split}, {self.n_clips:,} clips")
        if self.evaluation is not None:
            blocks += self.evaluation.blocks()
        if self.confusion is not None and len(self.tags) <= _MAX_PRINTED_TAGS:
            titles = [tag[:_TITLE_LENGTH] for tag in self.tags]
            counts = [[count or "." for count in row] for row in self.confusion.tolist()]
            rows = [[tag, *row] for tag, row in zip(self.tags, counts, strict=True)]
            blocks += ["", Table(("true \\ predicted", *titles), rows, "<>")]
        if self.mistakes:
            blocks += ["", "true tags with the lowest probabilities:"]
            blocks += [
                f"  {mistake.file}: {mistake.tag} {mistake.probability:.2f}, but {mistake.predicted} "
                f"{mistake.predicted_probability:.2f}"
                for mistake in self.mistakes
            ]
        scores = ", ".join(f"{stage} {score:.3f}" for stage, score in self.log_likelihood.items())
        likelihoods = f"; log-likelihood on validation clips: {scores}" if scores else ""
        return [*blocks, "", f"kept: {self.kept}{likelihoods}", *(f"note: {note}" for note in self.notes)]

    def __str__(self) -> str:
        """`blocks` as plain text."""
        return plain(self.blocks())

    def plot(self) -> Figure:
        """Draw the AUCs tag by tag and, if clips have one tag each, the confusion matrix.

        Raises:
            MissingExtraError: Matplotlib is not installed.
        """
        from ...plots import plot_report

        return plot_report(self)


def make_report(
    data: FineTuneData,
    clips: Manifest,
    split: str,
    probabilities: np.ndarray,
    *,
    model: str,
    kept: str,
    log_likelihood: dict[str, float],
    seconds: float,
    seed: int = 0,
) -> FineTuneReport:
    """Make a report of `probabilities` `(clips, tags)` on labelled clips."""
    targets = clips.targets()
    groups = np.array([row.group or str(row.path) for row in clips])
    resamples = RESAMPLES if len(set(groups)) > 1 else 0
    evaluation = None
    with contextlib.suppress(EvaluationError):  # no tag is on some of the clips and not on others
        evaluation = evaluate_scores(
            targets > 0.5, probabilities, data.tags, dataset=data.origin.title, split=split, groups=groups,
            grouped_by=data.origin.grouped_by or ("group" if any(row.group for row in clips) else "track"),
            n_bootstrap=resamples, seed=seed, model=model,
        )  # fmt: skip
    accuracy = confusion = None
    if data.exclusive:
        true, predicted = targets.argmax(axis=1), probabilities.argmax(axis=1)
        confusion = np.zeros((len(data.tags), len(data.tags)), int)
        np.add.at(confusion, (true, predicted), 1)
        correct = true == predicted
        deviations = share_deviations(correct[None], group_ids(groups, len(correct)), resamples, seed)
        accuracy = estimate(correct.mean(), deviations[0], 0.95)
    return FineTuneReport(
        dataset=data.origin.title, split=split, n_clips=len(clips), kept=kept, log_likelihood=log_likelihood,
        tags=data.tags, evaluation=evaluation, accuracy=accuracy, confusion=confusion,
        mistakes=_mistakes(clips, targets, probabilities, data.tags), seconds=seconds,
    )  # fmt: skip


def _mistakes(
    clips: Manifest, targets: np.ndarray, probabilities: np.ndarray, tags: tuple[str, ...]
) -> tuple[Mistake, ...]:
    """Return the clips with a wrong tag that is more probable than a true one, the least probable true tags first."""
    found = []
    for row, target, given in zip(clips, targets, probabilities, strict=True):
        has = np.flatnonzero(target > 0.5)
        has_not = np.flatnonzero(target <= 0.5)
        if not len(has) or not len(has_not):
            continue
        missed, predicted = has[given[has].argmin()], has_not[given[has_not].argmax()]
        if given[predicted] > given[missed]:
            found.append(
                Mistake(
                    file="/".join(row.path.parts[-2:]), tag=tags[missed], probability=float(given[missed]),
                    predicted=tags[predicted], predicted_probability=float(given[predicted]),
                )
            )  # fmt: skip
    return tuple(sorted(found, key=lambda mistake: mistake.probability)[:_MAX_MISTAKES])
