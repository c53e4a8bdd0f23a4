"""Plot the tags of one recording, as bars or over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import COLOURS, FILL, SMALL, finish, name_rows, new_axes, require, row_axes, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_top_tags(
    tags: Mapping[str, float], ax: Axes | None = None, *, top: int | None = 10, title: str = "Tags"
) -> Axes:
    """Plot a bar for each of the most probable tags of a recording, the most probable at the top.

    Args:
        tags: tag -> probability, as `Tagger.tag` returns them; in any order.
        ax: axes to draw into, `None` for a new figure.
        top: number of tags, `None` for all.
        title: title of the axes, e.g. the name of the file.

    Returns:
        The axes, probabilities from 0 to 1.

    Raises:
        PlotError: there is no tag, or `top` is below 1.
        MissingExtraError: Matplotlib is not installed.
    """
    require(len(tags) > 0, "There is nothing to draw: no tags were given. Was a threshold too high?")
    require(top is None or top >= 1, f"top must be at least 1; got {top!r}.")
    rows = sorted(tags.items(), key=lambda item: -item[1])[:top][::-1]
    names, values = [name for name, _ in rows], [float(value) for _, value in rows]
    if ax is None:
        ax = row_axes(names, 0.28)
    ax.barh(range(len(rows)), values, color=FILL, zorder=2)
    for height, value in enumerate(values):
        beside = value < 0.9  # else inside the bar, where there is room
        ax.annotate(
            f"{value:.2f}", (value, height), (4 if beside else -4, 0), textcoords="offset points", fontsize=SMALL,
            va="center", ha="left" if beside else "right", zorder=3,
        )  # fmt: skip
    name_rows(ax, names)
    ax.set_xlim(0, 1)
    ax.set_xlabel("probability")
    return finish(ax, title, grid="x")


def plot_taggram(taggram: Any, ax: Axes | None = None, *, top: int = 12) -> Axes:
    """Plot the most probable tags of a taggram over time in seconds, the most probable at the top.

    Args:
        taggram: result of `Tagger.taggram`; its `probabilities` are `(t, tags)`.
        ax: axes to draw into, `None` for a new figure.
        top: number of tags; those with the highest mean over time are drawn.

    Returns:
        The axes. Each column is a window, centred on its middle; its width is the hop, at most the window.

    Raises:
        PlotError: the taggram has no window or no tag, or `top` is below 1.
        MissingExtraError: Matplotlib is not installed.
    """
    windows, tags = taggram.probabilities.shape
    require(windows > 0 and tags > 0, f"There is nothing to draw: the taggram has {windows} windows and {tags} tags.")
    require(top >= 1, f"top must be at least 1; got {top!r}.")
    order = np.argsort(-taggram.probabilities.mean(axis=0), kind="stable")[:top]
    if ax is None:
        ax = new_axes(9, 1.4 + 0.28 * len(order))
    half = min(taggram.hop_seconds, taggram.window_seconds) / 2
    # Left and right edge of each window. Cells between windows are empty; they have a width only if the hop is longer
    # than the window.
    edges = np.maximum.accumulate(np.stack([taggram.times - half, taggram.times + half], axis=1).clip(min=0).ravel())
    cells = np.full((len(order), 2 * windows - 1), np.nan)
    cells[:, ::2] = taggram.probabilities[:, order].T
    image = ax.pcolormesh(
        edges, np.arange(len(order) + 1), np.ma.masked_invalid(cells), cmap=COLOURS, vmin=0, vmax=1, rasterized=True
    )
    ax.invert_yaxis()
    ax.set_yticks(np.arange(len(order)) + 0.5, [short(taggram.tags[column]) for column in order], parse_math=False)
    ax.set_xlabel(f"time (s), middle of each {taggram.window_seconds:.1f} s window")
    bar = ax.figure.colorbar(image, ax=ax, label="probability")
    bar.ax.tick_params(labelsize=SMALL)
    return finish(ax, f"Taggram ({taggram.model})" if taggram.model else "Taggram", frame=True)
