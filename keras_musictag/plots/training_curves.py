"""Plot the loss and the validation score of a training run over steps."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MissingExtraError
from .style import INK, LINE, MARK, SMALL, TEXT, PlotError, finish, new_axes, require, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_log = logging.getLogger(__name__)

LOG, PICTURE = "log.csv", "log.png"
_FIXED = ("step", "loss", "waiting")  # columns of every log; the others are validation scores
_TITLES = {"pr_auc": "PR-AUC", "roc_auc": "ROC-AUC", "log_likelihood": "log-likelihood"}

Rows = Sequence[Mapping[str, float]]


def plot_training(
    log: Rows | str | os.PathLike[str], ax: Axes | None = None, *, score: str | None = None, title: str = "Training"
) -> Axes:
    """Plot the mean training loss and a validation score over optimizer steps; the best score is marked.

    Args:
        log: folder that `train`, `distil` or `fine_tune` wrote, its `log.csv`, or the rows of one: mappings with
            `step`, `loss` (mean since the last validation) and scores.
        ax: axes to draw into, `None` for a new figure. The score has its own axis on the right.
        score: column to draw, higher is better; by default the first, which by default selects the weights of a run.
        title: title of the axes.

    Returns:
        The axes of the loss.

    Raises:
        PlotError: the log is missing, damaged or empty, or has no such column.
        MissingExtraError: Matplotlib is not installed.
    """
    rows = _read(Path(log)) if isinstance(log, (str, os.PathLike)) else log
    require(len(rows) > 0, "There is nothing to draw: the log has no rows; nothing was validated yet.")
    bad = next((row for row in rows if not {"step", "loss"} <= row.keys()), None)
    require(bad is None, f"Each row of a log must have step and loss; got {', '.join(bad or ()) or 'nothing'}.")
    known = [name for name in rows[-1] if name not in _FIXED]
    require(score is None or score in known, f"The log has no score {score!r}, only {', '.join(known) or 'none'}.")
    if ax is None:
        ax = new_axes(7, 4)
    from matplotlib.ticker import MaxNLocator

    steps = _column(rows, "step")
    _curve(ax, steps, _column(rows, "loss"), LINE, "loss in training (solid)", "s-" if len(steps) == 1 else "-")
    ax.set_xlim(0, float(steps.max()) * 1.03)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("optimizer step")
    best = _score(ax, steps, rows, score or known[0]) if known else ""
    return finish(ax, title, best, grid="y")


def save_training(folder: str | os.PathLike[str], *, score: str | None = None) -> None:
    """Plot `log.csv` in the folder of a run to `log.png`, if the log exists and Matplotlib is installed.

    Args:
        folder: folder of the run.
        score: as in `plot_training`.

    Raises:
        CacheError: the plot cannot be written.
    """
    folder = Path(folder)
    if not (folder / LOG).is_file():
        return
    try:
        save_figure(plot_training(folder / LOG, score=score), folder / PICTURE)
    except (MissingExtraError, PlotError) as error:
        _log.info("%s was not plotted: %s", folder / LOG, error)


def _score(ax: Axes, steps: np.ndarray, rows: Rows, name: str) -> str:
    """Draw a score on an axis at the right; returns a text with its best value.

    Of equal values, the last is marked: its weights are kept.
    """
    values, score = _column(rows, name), _TITLES.get(name, name.replace("_", " "))
    right = ax.twinx()
    _curve(right, steps, values, MARK, f"{score} in validation (dots)", "o--")
    right.tick_params(labelsize=SMALL)
    right.spines[["top", "left", "bottom"]].set_visible(False)
    if np.isnan(values).all():
        return ""
    best = int(np.flatnonzero(values == np.nanmax(values))[-1])
    right.axvline(steps[best], color=INK, linewidth=0.8, linestyle=":")
    right.plot(steps[best], values[best], "o", color=INK, markersize=9, fillstyle="none")
    return f"best {score} {values[best]:.4g} at step {steps[best]:,.0f} (circle)"


def _curve(ax: Axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str, stroke: str) -> None:
    ax.plot(steps, values, stroke, color=colour, linewidth=1.8, markersize=4)
    ax.set_ylabel(label, color=colour, fontsize=TEXT)
    ax.margins(y=0.1)


def _column(rows: Rows, name: str) -> np.ndarray:
    """Return a float array `(rows,)`, NaN where a row has no such value."""
    return np.array([float(row.get(name, math.nan)) for row in rows])


def _read(path: Path) -> list[dict[str, float]]:
    """Read the rows of a log; empty cells are left out."""
    found = [place for place in (path, path / LOG, path / "run" / LOG) if place.is_file()]
    require(bool(found), f"There is no {LOG} in {path}. Give the folder of a run, or the file.")
    try:
        with found[0].open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise PlotError(f"{found[0]} is not the log of a run: {error}.") from error
