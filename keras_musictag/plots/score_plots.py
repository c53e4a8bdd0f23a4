"""Plot scores: AUC per tag, probes per model, and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import COLOURS, FILL, INK, MARK, SMALL, finish, length, name_rows, new_axes, new_figure, require, row_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Metric -> title. Results are read by their attributes, so no class of results is imported.
TITLES = {"accuracy": "accuracy", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}


# === Bars with intervals ===


def plot_tag_scores(result: Any, ax: Axes | None = None, *, metric: str = "roc_auc") -> Axes:
    """Plot a bar per tag with its interval, the best at the top; the mean and the level of chance are marked.

    The number of positive clips is in brackets after the tag. Bars of a `Comparison` are differences, A minus B, and
    their mean and 0 are marked.

    Args:
        result: an `Evaluation` or a `Comparison`, of `evaluate`, `metrics.evaluate_scores` or `metrics.compare_scores`.
        ax: axes to draw into, `None` for a new figure.
        metric: `"roc_auc"` or `"pr_auc"`.

    Returns:
        The axes. Bars begin at 0, or at 0.5 if all ROC-AUCs are above it.

    Raises:
        PlotError: no such metric, or no tag has an area.
        MissingExtraError: Matplotlib is not installed.
    """
    known = ("roc_auc", "pr_auc")
    require(metric in known, f"metric must be one of {', '.join(map(repr, known))}; got {metric!r}.")
    rows = [row for row in result.rows if getattr(row, metric) is not None]
    require(len(rows) > 0, f"There is nothing to draw: none of {len(result.rows)} tags has a {TITLES[metric]}.")
    rows = sorted(rows, key=lambda row: -getattr(row, metric).value)[::-1]
    scores: list[Any] = [getattr(row, metric) for row in rows]
    ax = _bars([f"{row.tag} ({row.positives:,})" for row in rows], scores, ax, 0.22)
    mean: Any = getattr(result, metric)
    ax.axvline(mean.value, color=INK, linewidth=0.8, linestyle="--", zorder=3)
    if hasattr(result, "b"):  # a comparison of two models
        ax.axvline(0, color=MARK, linewidth=1.5, zorder=3)
        ax.set_xlabel(f"difference in {TITLES[metric]} (dashed: mean of tags, {mean:+.3f})")
        return finish(ax, f"{result.a.model} minus {result.b.model}", result.a.header(""), grid="x")
    roc = metric == "roc_auc"
    heights = np.arange(len(rows))
    chances = [0.5 if roc else row.positives / (row.positives + row.negatives) for row in rows]
    ax.vlines(chances, heights - 0.4, heights + 0.4, color=MARK, linewidth=1.5, zorder=3, clip_on=False)
    lowest = min(score.value if score.low is None else score.low for score in scores)
    ax.set_xlim(0.5 if roc and lowest >= 0.5 else 0, 1)
    ax.set_xlabel(f"{TITLES[metric]} (dashed: mean of tags, {mean:.3f}; orange: chance)")
    return finish(ax, result.model, result.header(""), grid="x")


def plot_probing(probing: Any, ax: Axes | None = None, *, metric: str | None = None) -> Axes:
    """Plot a bar per model with its interval, the best at the top; the level of chance is marked.

    Args:
        probing: a `Probing`, of `probe`.
        ax: axes to draw into, `None` for a new figure.
        metric: `"accuracy"`, `"roc_auc"` or `"pr_auc"`; by default the one that the models are ordered by.

    Returns:
        The axes, from 0 to 1.

    Raises:
        PlotError: no such metric, or no model could be probed.
        MissingExtraError: Matplotlib is not installed.
    """
    metric = metric or probing.metric
    models = [row for row in probing.models if not row.error][::-1]
    require(len(models) > 0, f"There is nothing to draw: none of {len(probing.models)} models could be probed.")
    known = [name for name in TITLES if getattr(models[0], name) is not None]
    require(metric in known, f"metric must be one of {', '.join(map(repr, known))}; got {metric!r}.")
    ax = _bars([row.model for row in models], [getattr(row, metric) for row in models], ax, 0.35)
    if metric != "pr_auc":
        ax.axvline(probing.chance if metric == "accuracy" else 0.5, color=MARK, linewidth=1.5, zorder=3)
    ax.set_xlim(0, 1)
    ax.set_xlabel(f"{TITLES[metric]}{'' if metric == 'pr_auc' else ' (orange: chance)'}")
    return finish(ax, *probing.title().split(", ", 1), grid="x")


def _bars(names: Sequence[str], scores: Sequence[Any], ax: Axes | None, height: float) -> Axes:
    """Draw bars from the bottom up, with a line for the interval if there is one."""
    if ax is None:
        ax = row_axes(names, height)
    ax.barh(range(len(scores)), [score.value for score in scores], color=FILL, zorder=2)
    spans = [
        (row, score.low, score.high)
        for row, score in enumerate(scores)
        if score.low is not None and score.high is not None
    ]
    if spans:
        ax.hlines(*np.transpose(spans), color=INK, linewidth=1.2, zorder=4)
    name_rows(ax, names)
    return ax


# === Confusions ===


def plot_confusion(counts: np.ndarray, tags: Sequence[str], ax: Axes | None = None) -> Axes:
    """Plot a confusion matrix: fractions of each row as colours, numbers of clips in the cells.

    Args:
        counts: int array `(tags, tags)`, rows are true tags, columns predicted ones.
        tags: names of the rows and columns.
        ax: axes to draw into, `None` for a new figure.

    Returns:
        The axes.

    Raises:
        PlotError: there are no tags, or their number differs from that of rows and columns.
        MissingExtraError: Matplotlib is not installed.
    """
    counts = np.asarray(counts)
    require(len(tags) > 0, "There is nothing to draw: no tags were given.")
    require(
        counts.shape == (len(tags), len(tags)),
        f"counts must have a row and a column for each of {len(tags)} tags; got the shape {counts.shape}.",
    )
    if ax is None:
        ax = new_axes(*_confusion_size(tags))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "black" if shares[row, column] > 0.5 else "white"
            ax.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=SMALL)
    name_rows(ax, tags)
    ax.set_ylim(len(tags) - 0.5, -0.5)
    ax.set_xticks(
        range(len(tags)), [label.get_text() for label in ax.get_yticklabels()], parse_math=False, rotation=45,
        ha="right", rotation_mode="anchor",
    )  # fmt: skip
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    return finish(ax, "Confusion matrix", frame=True)


def _confusion_size(tags: Sequence[str]) -> tuple[float, float]:
    """Return width and height in inches; names are at the left and, slanted, at the bottom."""
    return length(tags) + max(4.0, 1.9 + 0.35 * len(tags)), 1.5 + 0.75 * length(tags) + 0.3 * len(tags)


# === Both ===


def plot_report(report: Any) -> Figure:
    """Plot AUC per tag and, if each clip has one tag, the confusion matrix, side by side.

    Args:
        report: a `FineTuneReport`.

    Returns:
        A figure; if no tag could be scored, it says so.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    panels = [panel for panel in (report.evaluation, report.confusion) if panel is not None]
    wide, high = _confusion_size(report.tags)
    widths = [max(6.5, 4.8 + length(report.tags)) if not isinstance(panel, np.ndarray) else wide for panel in panels]
    figure = new_figure(sum(widths) or 7.0, max(high, 3.0))
    grid = figure.add_gridspec(1, max(1, len(panels)), width_ratios=widths or None)
    for number, panel in enumerate(panels):
        ax = figure.add_subplot(grid[number])
        if not isinstance(panel, np.ndarray):
            plot_tag_scores(panel, ax)
        else:
            plot_confusion(panel, report.tags, ax)
    if not panels:
        figure.suptitle(f"No tag could be scored on {report.dataset}, {report.split}, {report.n_clips:,} clips")
    return figure
