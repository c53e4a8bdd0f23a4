"""Pictures. One look for all of them: perceptually even, readable without colour vision, seconds on the time axis.

Every function takes `ax=` to draw into a figure of one's own and returns the axes. Needs the extra `plot`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import MissingExtraError
from .weights import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def save_figure(ax: Axes, path: str | Path) -> None:
    """Write the figure of `ax` to a PNG, SVG or PDF file, which appears complete or not at all.

    Raises:
        CacheError: it cannot be written.
    """
    path = Path(path)
    picture = io.BytesIO()
    ax.get_figure().savefig(picture, dpi=150, format=path.suffix[1:])  # type: ignore[union-attr]
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
