"""Pictures. One look for all of them: perceptually even, readable without colour vision, seconds on the time axis.

Every function takes `ax=` to draw into a figure of one's own and returns the axes. Needs the extra `plot`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MissingExtraError
from .weights import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .taggram import Taggram

_COLOURS = "cividis"  # even in lightness, the same to colour-blind eyes


def new_axes(width: float, height: float) -> Axes:
    """Axes of a new figure, made without the global pyplot state: safe in servers and threads.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "Drawing") from error
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def save_figure(drawn: Axes | Figure, path: str | Path) -> None:
    """Write a figure, or the one of given axes, to a PNG, SVG or PDF file, which appears complete or not at all.

    Raises:
        CacheError: it cannot be written.
    """
    path = Path(path)
    picture = io.BytesIO()
    figure: Any = getattr(drawn, "figure", drawn)
    figure.savefig(picture, dpi=150, format=path.suffix[1:])
    write_atomically(path, picture.getvalue())


def plot_taggram(taggram: Taggram, ax: Axes | None = None, *, top: int = 12) -> Axes:
    """Time against the `top` most probable tags of a taggram, the most probable at the top.

    Args:
        taggram: what `Tagger.taggram` returned.
        ax: axes to draw into, `None` for a new figure.
        top: number of tags.

    Returns:
        The axes.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    order = np.argsort(-taggram.probabilities.mean(axis=0), kind="stable")[:top]
    if ax is None:
        ax = new_axes(9, 1.4 + 0.28 * len(order))
    # Each column is one window, drawn around its middle, as wide as the hop but no wider than what was heard.
    half = min(taggram.hop_seconds, taggram.window_seconds) / 2
    for time, row in zip(taggram.times, taggram.probabilities[:, order], strict=True):
        image = ax.pcolormesh(
            [max(0.0, time - half), time + half], np.arange(len(order) + 1), row[:, None], cmap=_COLOURS, vmin=0, vmax=1
        )
    ax.invert_yaxis()
    ax.set_yticks(np.arange(len(order)) + 0.5, [taggram.tags[column] for column in order])
    ax.set_xlabel(f"time (s), middle of each {taggram.window_seconds:.1f} s window")
    ax.set_title(f"Taggram ({taggram.model})" if taggram.model else "Taggram")
    ax.figure.colorbar(image, ax=ax, label="probability")
    return ax


def plot_confusion(counts: np.ndarray, tags: Sequence[str], ax: Axes | None = None) -> Axes:
    """What was taken for what: shares of each row, numbers of clips in the cells.

    Args:
        counts: int array `(tags, tags)`, rows are what clips have, columns what was said.
        tags: names of rows and columns.
        ax: axes to draw into, `None` for a new figure.

    Returns:
        The axes.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    if ax is None:
        ax = new_axes(3 + 0.35 * len(tags), 2 + 0.3 * len(tags))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap=_COLOURS, vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "black" if shares[row, column] > 0.5 else "white"
            ax.text(column, row, str(count), ha="center", va="center", color=colour, fontsize="small")
    ax.set_xticks(range(len(tags)), tags, rotation=45, ha="right")
    ax.set_yticks(range(len(tags)), tags)
    ax.set_xlabel("said")
    ax.set_ylabel("is")
    ax.set_title("Clips by what they are and what was said", fontsize="medium")
    return ax


def plot_pareto(
    names: Sequence[str],
    milliseconds: Sequence[float],
    scores: Sequence[float],
    sizes: Sequence[float],
    ax: Axes | None = None,
    *,
    score: str = "ROC-AUC",
) -> Axes:
    """Which model is good for its speed: score against time, areas by size; those that nothing beats are joined.

    Args:
        names: of the models.
        milliseconds: of one clip.
        scores: the more the better.
        sizes: in any unit.
        ax: axes to draw into, `None` for a new figure.
        score: what the scores are.

    Returns:
        The axes.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    if ax is None:
        ax = new_axes(7, 4.5)
    from matplotlib.ticker import LogLocator

    order = sorted(range(len(names)), key=lambda number: (milliseconds[number], -scores[number]))
    front: list[int] = []
    for number in order:
        if not front or scores[number] > scores[front[-1]]:
            front.append(number)
    ax.plot([milliseconds[n] for n in front], [scores[n] for n in front], color="0.7", zorder=1)
    areas = 900 * np.asarray(sizes, float) / max(sizes)
    ax.scatter(milliseconds, scores, s=np.maximum(areas, 20), c=scores, cmap=_COLOURS, edgecolor="black", zorder=2)
    for name, x, y, area in zip(names, milliseconds, scores, areas, strict=True):
        ax.annotate(name, (x, y), (np.sqrt(max(area, 20)) / 2 + 4, 0), textcoords="offset points", va="center")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.margins(0.35, 0.25)
    ax.set_xlabel("time for one clip (ms)")
    ax.set_ylabel(score)
    ax.grid(alpha=0.3)
    return ax
