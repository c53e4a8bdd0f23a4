"""Plot of a run of the benchmark: ROC-AUC against latency."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .benchmark_results import BenchmarkError, BenchmarkRun, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_scores(run: BenchmarkRun, ax: Axes | None = None) -> Axes:
    """Plot ROC-AUC with its interval against the latency of the fastest float32 runtime, with areas by parameters.

    Shows the models with a score on the data that most models have one on, without `tiny`, which is for tests.

    Raises:
        BenchmarkError: no model has a score, or none was timed.
        MissingExtraError: Matplotlib is not installed.
    """
    from ...plots import plot_pareto

    data, points = shared_data(run), list[tuple[str, float, float, float, tuple[float, float] | None]]()
    for model in run.models:
        score = next((entry for entry in model["scores"] if data and _data(entry) == data), None)
        spent = [
            row["waveform"]["median_ms"]
            for row in run.rows
            if row["model"] == model["model"] and row["precision"] == "float32" and not row.get("error")
        ]
        if score and spent and model["model"] != "tiny":
            ends = score.get("roc_auc_low"), score.get("roc_auc_high")
            points.append(
                (
                    model["model"],
                    min(spent),
                    score["roc_auc"],
                    model.get("parameters", 1),
                    None if None in ends else ends,
                )
            )
    if not data or not points:
        raise BenchmarkError("There is nothing to draw: no model that was timed has a ROC-AUC.")
    names, times, scores, sizes, intervals = zip(*points, strict=True)
    return plot_pareto(
        names, times, scores, sizes, ax, intervals=intervals, score=f"ROC-AUC ({data[0]}, {data[1]}, n = {data[2]})",
        title=f"One clip of {run.clip_seconds:g} s on {run.machine['cores']} cores; area: parameters",
    )  # fmt: skip


def shared_data(run: BenchmarkRun) -> tuple[Any, ...] | None:
    """Return data set, split and n that most models have a ROC-AUC on, `None` if none has one."""
    every = Counter(
        key for model in run.models for key in {_data(score) for score in model["scores"] if "roc_auc" in score}
    )
    return max(every, key=lambda key: every[key]) if every else None


def _data(score: Row) -> tuple[Any, ...]:
    return (score.get("dataset"), score.get("split"), score.get("n"))
