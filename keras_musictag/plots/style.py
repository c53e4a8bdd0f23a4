"""The style that all plots share, new figures, and writing figures to files.

Colours differ in lightness and lines in their strokes, so plots are readable in grey.
"""

from __future__ import annotations

import io
import logging
import re
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import MissingExtraError, MusicTagError
from ..utils.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)

COLOURS = "cividis"  # for fractions and probabilities: perceptually uniform, also with colour blindness
FILL, LINE, MARK, INK = "#8fb0dc", "#1b3f73", "#b35806", "black"  # light blue, dark blue, dark orange
FAINT = "0.9"  # grid
TITLE, TEXT, SMALL = 11, 10, 9  # points
_LINE_CHARACTERS = 56  # characters of a title that fit above the axes of a figure 7 inches wide
_NAME_CHARACTERS = 40


class PlotError(MusicTagError, ValueError):
    """There is nothing to draw, or the arguments contradict each other."""


def require(condition: bool, message: str) -> None:
    """Raise `PlotError` unless the condition holds."""
    if not condition:
        raise PlotError(message)


# === Figures ===


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches, without the global pyplot state: safe in servers and threads.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "Drawing") from error
    return Figure(figsize=(width, height), layout="constrained")


def new_axes(width: float, height: float) -> Axes:
    """Make axes that fill a new figure of a size in inches.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    return new_figure(width, height).add_subplot()


def save_figure(drawn: Axes | Figure, path: str | Path) -> None:
    """Write a figure, or the figure of axes, atomically to a PNG, SVG or PDF file.

    Raises:
        CacheError: the file cannot be written.
    """
    path = Path(path)
    picture = io.BytesIO()
    figure: Any = getattr(drawn, "figure", drawn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(picture, dpi=150, format=path.suffix[1:])
    _pass_on(caught, path)
    write_atomically(path, picture.getvalue())


def _pass_on(caught: Sequence[warnings.WarningMessage], path: Path) -> None:
    """Warn again, but only once of all characters that no font has."""
    missing = []
    for each in caught:
        glyph = re.match(r"Glyph (\d+) .*missing from", str(each.message))
        if glyph is None:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        else:
            missing.append(chr(int(glyph[1])))
    if missing:
        _log.warning(
            "%s: its font has no %s; boxes are drawn instead. Install a font that has them, e.g. Noto Sans CJK, and "
            "name it in Matplotlib's font.family.", path, "".join(sorted(set(missing)))
        )  # fmt: skip


# === Style ===


def short(name: str) -> str:
    """Shorten a name to 40 characters by leaving out its middle.

    Example:
        >>> short("guitar")
        'guitar'
        >>> short("a" * 30 + "b" * 30)
        'aaaaaaaaaaaaaaaaaaaa…bbbbbbbbbbbbbbbbbbb'
    """
    half = _NAME_CHARACTERS // 2
    return name if len(name) <= _NAME_CHARACTERS else f"{name[:half]}…{name[1 - half :]}"


def length(names: Sequence[str]) -> float:
    """Estimate the width of the longest name in inches."""
    return 0.08 * max(len(short(name)) for name in names)


def row_axes(names: Sequence[str], height: float) -> Axes:
    """Make axes in a new figure for rows of a height in inches, wide enough for their names."""
    return new_axes(max(7.0, 4.8 + length(names)), 1.7 + height * len(names))


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Label the positions 0, 1, 2, ... of the vertical axis and fit its range; `$` in names is not parsed as maths."""
    ax.set_yticks(range(len(names)), [short(name) for name in names], parse_math=False)
    ax.set_ylim(-0.6, len(names) - 0.4)


def finish(ax: Axes, *title: str, grid: Literal["x", "y", "both"] | None = None, frame: bool = False) -> Axes:
    """Set title, text sizes, frame and grid lines; a grid of `"x"` is for horizontal bars, which get no ticks."""
    lines = [line for text in title for line in textwrap.wrap(text, _LINE_CHARACTERS)]
    ax.set_title("\n".join(lines), fontsize=TITLE, parse_math=False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(TEXT)
    ax.tick_params(which="both", labelsize=SMALL, length=3.5, pad=3.5)
    if grid is not None:
        ax.grid(axis=grid, color=FAINT, zorder=0)
        ax.set_axisbelow(True)
    if not frame:
        ax.spines[["top", "right"]].set_visible(False)
    if grid == "x":
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
    return ax
