"""How good a fine-tuned tagger is, and where it is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...datasets import Manifest
from ...evaluation.bootstrap import estimate, group_ids, share_deviations
from ...evaluation.metrics import evaluate_scores
from ...evaluation.results import Estimate, Evaluation, EvaluationError, flat
from ...utils.files import write_atomically
from ...utils.tables import Block, Table, plain
from .labelled_data import FineTuneData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESAMPLES = 1000
_WORST = 10  # clips that are listed
_WIDEST = 12  # classes whose confusions are printed
_TITLE = 8  # characters of their names above the columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mistake:
    """A clip that the tagger got wrong.

    Attributes:
        file: its name and that of its folder.
        tag: what it has.
        probability: of that.
        predicted: the most probable of the tags it does not have.
        predicted_probability: of that.
    """

    file: str
    tag: str
    probability: float
    predicted: str
    predicted_probability: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FineTuneReport:
    """What came of fine-tuning.

    Attributes:
        dataset, split, n_clips: what the numbers are of, e.g. split `"validation, which also chose when to stop"`.
        kept: `"head"` or `"full"`, the stage whose network was kept.
        log_likelihood: of each stage on the validation clips; greater is better.
        evaluation: areas under curves per tag, with intervals; `None` where no tag is on some clips and not on others.
        accuracy: share of the clips whose most probable tag is right, where clips have one each.
        confusion: int `(tags, tags)`, rows are true tags, columns predicted ones; as `accuracy`.
        mistakes: the clips whose tag got the least probability, the worst first.
        tags: names, in the order of rows and columns.
        seconds: how long it all took.
        precision: in which the whole network was trained, at the end; `None` if only the head was fitted.
        notes: why `precision="auto"` chose as it did; from which step training went back, and to which, because its
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
        """Ready for `json.dump`."""
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
        """Accuracy and means of areas over tags, with the ends of their intervals, as `ModelSpec.metrics` has them."""
        found: dict[str, float | None] = flat("accuracy", self.accuracy)
        if self.evaluation is not None:
            found |= flat("roc_auc", self.evaluation.roc_auc) | flat("pr_auc", self.evaluation.pr_auc)
        return {name: value for name, value in found.items() if value is not None}

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` to a file; returns its path."""
        write_atomically(Path(path), (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
        return Path(path)

    def blocks(self) -> list[Block]:
        """Tables: scores per tag, the confusion matrix, and the worst clips."""
        blocks: list[Block] = []
        if self.accuracy is not None:
            blocks.append(f"accuracy {self.accuracy:.3f} on {self.dataset}, {self.split}, {self.n_clips:,} clips")
        if self.evaluation is not None:
            blocks += self.evaluation.blocks()
        if self.confusion is not None and len(self.tags) <= _WIDEST:
            titles = [tag[:_TITLE] for tag in self.tags]
            counts = [[count or "." for count in row] for row in self.confusion.tolist()]
            rows = [[tag, *row] for tag, row in zip(self.tags, counts, strict=True)]
            blocks += ["", Table(("true \\ predicted", *titles), rows, "<>")]
        if self.mistakes:
            blocks += ["", "least probable tags of clips that have them:"]
            blocks += [
                f"  {mistake.file}: {mistake.tag} {mistake.probability:.2f}, but {mistake.predicted} "
                f"{mistake.predicted_probability:.2f}"
                for mistake in self.mistakes
            ]
        scores = ", ".join(f"{stage} {score:.3f}" for stage, score in self.log_likelihood.items())
        told = f"; log-likelihood on validation clips: {scores}" if scores else ""
        return [*blocks, "", f"kept: {self.kept}{told}", *(f"note: {note}" for note in self.notes)]

    def __str__(self) -> str:
        """The same in plain text."""
        return plain(self.blocks())

    def plot(self) -> Figure:
        """Areas tag by tag and, where clips have one tag each, the confusion matrix.

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
    """Measure `probabilities` `(clips, tags)` on labelled clips."""
    targets = clips.targets()
    groups = np.array([row.group or str(row.path) for row in clips])
    enough = len(set(groups)) > 1
    evaluation = None
    with contextlib.suppress(EvaluationError):  # no tag is on some of the clips and not on others
        evaluation = evaluate_scores(
            targets > 0.5, probabilities, data.tags, dataset=data.origin.title, split=split, groups=groups,
            grouped_by=data.origin.grouped_by or ("group" if any(row.group for row in clips) else "track"),
            n_bootstrap=RESAMPLES if enough else 0, seed=seed, model=model,
        )  # fmt: skip
    accuracy = confusion = None
    if data.exclusive:
        true, predicted = targets.argmax(axis=1), probabilities.argmax(axis=1)
        confusion = np.zeros((len(data.tags), len(data.tags)), int)
        np.add.at(confusion, (true, predicted), 1)
        right = true == predicted
        deviations = share_deviations(right[None], group_ids(groups, len(right)), RESAMPLES if enough else 0, seed)
        accuracy = estimate(right.mean(), deviations[0], 0.95)
    return FineTuneReport(
        dataset=data.origin.title, split=split, n_clips=len(clips), kept=kept, log_likelihood=log_likelihood,
        tags=data.tags, evaluation=evaluation, accuracy=accuracy, confusion=confusion,
        mistakes=_mistakes(clips, targets, probabilities, data.tags), seconds=seconds,
    )  # fmt: skip


def _mistakes(
    clips: Manifest, targets: np.ndarray, probabilities: np.ndarray, tags: tuple[str, ...]
) -> tuple[Mistake, ...]:
    """The clips whose tag is least probable, as far as another tag, which they do not have, is more so."""
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
    return tuple(sorted(found, key=lambda mistake: mistake.probability)[:_WORST])
