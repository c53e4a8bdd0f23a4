"""Result of `probing.probe`: a table of models, the best first.

Conventions: all numbers are from out-of-fold predictions. Differences are a model minus the best, on the same resamples
of whole groups, so their intervals are narrower than those of the two models suggest.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...evaluation.bootstrap import estimate, mean_defined, share_deviations
from ...evaluation.results import Estimate, flat, require, write_csv, write_json
from ...evaluation.sample import Sample, group_ids
from ...evaluation.scores import Scores
from ...plots.score_plots import TITLES
from ...utils.tables import Block, Table, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ProbeMetric = Literal["accuracy", "roc_auc", "pr_auc"]

CONFIDENCE = 0.95  # level of the intervals


# === Results ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbedModel:
    """One row of the table.

    Attributes:
        model: name of the model.
        weights_sha256: sha256 of the file of its weights; empty if there is none.
        features: length of its embeddings.
        strengths: the C of each fold (inverse strength of the penalty), chosen on the other folds.
        accuracy: share of clips whose most probable tag is correct; `None` if clips may have several tags.
        roc_auc, pr_auc: means over tags.
        difference: this model minus the best, in `Probing.metric`; `None` for the best.
        error: why the model could not be probed; then there are no numbers.
    """

    model: str
    weights_sha256: str = ""
    features: int | None = None
    strengths: tuple[float, ...] = ()
    accuracy: Estimate | None = None
    roc_auc: Estimate | None = None
    pr_auc: Estimate | None = None
    difference: Estimate | None = None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the row as a flat dictionary."""
        row: dict[str, Any] = {name: getattr(self, name) for name in ("model", "weights_sha256", "features")}
        for name in (*TITLES, "difference"):
            row |= flat(name, getattr(self, name))
        return {**row, "error": self.error}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Probing:
    """Comparison of models by linear probes. Made by `probe`.

    Attributes:
        models: a `ProbedModel` each, the best first; last, those that could not be probed.
        scores: out-of-fold probabilities of all clips, as `Scores`, which can be saved, and evaluated tag by tag with
            `scores.evaluate(model)` and `scores.compare(a, b)`.
        folds: int array `(rows,)`: the fold that each row of `scores` was held out in.
        metric: metric that orders the models: `"accuracy"` if every clip has exactly one tag, else `"roc_auc"`.
        n_bootstrap, seed: number of resamples for 95 % intervals (0: none), random seed.
        excluded: tag -> why it could not be probed.
        untagged: number of rows without any tag.
    """

    models: tuple[ProbedModel, ...]
    scores: Scores
    folds: np.ndarray
    metric: ProbeMetric
    n_bootstrap: int
    seed: int
    excluded: dict[str, str]
    untagged: int

    @property
    def best(self) -> ProbedModel:
        """The best model."""
        return self.models[0]

    @property
    def chance(self) -> float:
        """Value of `metric` for guessing: the share of the most frequent tag, or one half."""
        return float(self.scores.targets.mean(axis=0).max()) if self.metric == "accuracy" else 0.5

    @property
    def n_groups(self) -> int:
        """Number of groups that folds and resamples keep together."""
        return len({row.group for row in self.scores.rows})

    def __getitem__(self, model: str) -> ProbedModel:
        """Return a model by its name."""
        names = [row.model for row in self.models]
        require(model in names, f"{model!r} was not probed, only {', '.join(names)}.")
        return self.models[names.index(model)]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON; flat, except for the lists `models` and `failed`."""
        scores = self.scores
        return {
            "dataset": scores.dataset,
            "split": scores.split,
            "n_clips": len(scores.rows),
            "n_groups": self.n_groups,
            "grouped_by": scores.grouped_by,
            "n_bootstrap": self.n_bootstrap,
            "confidence": CONFIDENCE,
            "seed": self.seed,
            "metric": self.metric,
            "chance": self.chance,
            "tags": list(scores.tags),
            "excluded": self.excluded,
            "n_untagged": self.untagged,
            "n_failed": len(scores.failed),
            "failed": [dataclasses.asdict(failure) for failure in scores.failed],
            "models": [{**row.to_dict(), "strengths": list(row.strengths)} for row in self.models],
        }

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` to a file; return its path."""
        return write_json(path, self.to_dict())

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a row per model to a file, each with data set, split and number of clips; return its path."""
        scores = self.scores
        measured = {"dataset": scores.dataset, "split": scores.split, "n_clips": len(scores.rows)}
        return write_csv(path, [{**measured, **row.to_dict()} for row in self.models])

    def plot(self, ax: Axes | None = None, *, metric: ProbeMetric | None = None) -> Axes:
        """Plot a bar per model with its interval, see `plots.plot_probing`."""
        from ...plots import plot_probing

        return plot_probing(self, ax, metric=metric)

    def blocks(self) -> list[Block]:
        """Return title, table and notes, for printing."""
        metrics = self._metrics()[:2]
        several = any(row.difference for row in self.models)
        titles = ("model", "features", *(TITLES[name] for name in metrics), *(["minus the best"] if several else []))
        lines = []
        for row in self.models:
            if not row.error:
                numbers = [f"{getattr(row, name):.3f}" for name in metrics]
                behind = f"{row.difference:+.3f}" if row.difference else ""
                lines.append((row.model, row.features, *numbers, behind)[: len(titles)])
        return [self.title(), Table(titles, lines, "<><"), *self._notes()]

    def __str__(self) -> str:
        """Return title, table and notes as plain text."""
        return plain(self.blocks())

    def _metrics(self) -> list[ProbeMetric]:
        """Return the available metrics, the one that orders the models first."""
        return ["accuracy", "roc_auc", "pr_auc"] if self.metric == "accuracy" else ["roc_auc", "pr_auc"]

    def title(self) -> str:
        """Return a line with the data and the number of clips."""
        scores = self.scores
        each = "one each" if self.metric == "accuracy" else "any number each"
        return (
            f"linear probes on {scores.dataset}, {scores.split}, {len(scores.rows):,} clips in {self.n_groups:,} "
            f"{scores.grouped_by}s, {len(scores.tags)} tags, {each}"
        )

    def _notes(self) -> Iterator[str]:
        yield f"chance: {TITLES[self.metric]} {self.chance:.3f}"
        if self.n_bootstrap:
            level = f"{100 * CONFIDENCE:g} % intervals"
            yield f"[low, high]: {level} from {self.n_bootstrap:,} resamples of {self.scores.grouped_by}s"
        for row in self.models:
            if row.error:
                yield f"not probed: {row.model}: {row.error}"
        if self.excluded:
            yield f"tags left out: {', '.join(f'{tag} ({reason})' for tag, reason in self.excluded.items())}"
        if self.untagged:
            yield f"clips without any tag, which count as such: {self.untagged:,}"
        if failed := self.scores.failed:
            yield f"clips left out, as they cannot be used: {len(failed):,}, first {failed[0].file}"


# === Measuring ===


def measure(
    scores: Scores, metric: ProbeMetric, n_bootstrap: int, seed: int, *, against: str | None = None
) -> list[ProbedModel]:
    """Measure models from their scores; the best comes first.

    Args:
        scores: predictions.
        metric: metric that orders the models; `"accuracy"` only if every row has exactly one tag.
        n_bootstrap, seed: as in `metrics.evaluate_scores`, which gives the same areas.
        against: reference model of the differences; by default, the best.

    Returns:
        A `ProbedModel` each, with names and estimates only.
    """
    groups = [row.group for row in scores.rows]
    named = dict(zip(scores.models, scores.probabilities, strict=True))
    sample = Sample.check(scores.targets, named, scores.tags, groups)
    points, deviations = sample.points(), sample.deviations(n_bootstrap, seed)
    values: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # (models,), (models, resamples)
    for number, name in enumerate(("roc_auc", "pr_auc")):
        values[name] = points[:, number].mean(axis=1), np.stack([mean_defined(item[number]) for item in deviations])
    if metric == "accuracy":
        values["accuracy"] = _accuracies(scores, groups, n_bootstrap, seed)
    main, moved = values[metric]
    order = np.argsort(-main, kind="stable").tolist()
    other, rows = order[0] if against is None else scores.models.index(against), []
    for at in order:
        found = {name: estimate(value[at], move[at], CONFIDENCE) for name, (value, move) in values.items()}
        difference = estimate(main[at] - main[other], moved[at] - moved[other], CONFIDENCE, least=-1)
        rows.append(
            ProbedModel(
                model=scores.models[at],
                accuracy=found.get("accuracy"),
                roc_auc=found["roc_auc"],
                pr_auc=found["pr_auc"],
                difference=None if at == other else difference,
            )
        )
    return rows


def _accuracies(scores: Scores, groups: Sequence[str], n_bootstrap: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return accuracies `(models,)`, and the deviations of the resamples from them `(models, resamples)`."""
    correct = scores.probabilities.argmax(axis=2) == scores.targets.argmax(axis=1)
    return correct.mean(axis=1), share_deviations(correct, group_ids(groups, len(scores.rows)), n_bootstrap, seed)
