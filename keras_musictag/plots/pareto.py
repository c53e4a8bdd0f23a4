"""Plot scores of models against their speed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import FILL, INK, LINE, SMALL, finish, new_axes, require, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST, _SMALLEST = 900.0, 20.0  # areas in points squared
_FEW = 8  # names that fit into a small figure
_DISTANCES = (0.0, 14.0, 28.0, 42.0)  # points between a circle and its name; beyond the first a line joins them


def plot_pareto(
    names: Sequence[str],
    milliseconds: Sequence[float],
    scores: Sequence[float],
    sizes: Sequence[float],
    ax: Axes | None = None,
    *,
    intervals: Sequence[tuple[float, float] | None] | None = None,
    score: str = "ROC-AUC",
    title: str = "",
) -> Axes:
    """Plot score against time, with areas by size. Models that no other beats in both are filled and joined by a line.

    Args:
        names: names of the models.
        milliseconds: time per clip, each above 0.
        scores: scores, higher is better.
        sizes: sizes in any unit, each above 0.
        ax: axes to draw into, `None` for a new figure.
        intervals: lower and upper end of the interval of each score, drawn as a line; `None` for a score without one.
        score: name of the score, for the axis.
        title: title of the axes.

    Returns:
        The axes, time on a logarithmic scale.

    Raises:
        PlotError: there are no models, the sequences differ in length, a time or size is not above 0, or a score is
            outside of its interval.
        MissingExtraError: Matplotlib is not installed.
    """
    counts = [len(part) for part in (names, milliseconds, scores, sizes)]
    require(counts[0] > 0, "There is nothing to draw: no models were given.")
    require(
        len(set(counts)) == 1,
        "names, milliseconds, scores and sizes must have the same length; got {}, {}, {} and {}.".format(*counts),
    )
    least = min(*milliseconds, *sizes)
    require(least > 0, f"Times and sizes must be above 0; got {least}.")
    known = {number: interval for number, interval in enumerate(intervals or ()) if interval is not None}
    _check_intervals(names, scores, known, intervals)
    if ax is None:
        ax = new_axes(7, 4.5) if len(names) <= _FEW else new_axes(10, 6)
    from matplotlib.ticker import LogLocator

    front = _front(milliseconds, scores)
    ax.plot([milliseconds[n] for n in front], [scores[n] for n in front], color=LINE, linewidth=1, zorder=2)
    for number, (low, high) in known.items():
        ax.plot([milliseconds[number]] * 2, [low, high], color=INK, linewidth=0.8, marker="_", alpha=0.5, zorder=1)
    areas = np.maximum(_LARGEST * np.asarray(sizes, float) / max(sizes), _SMALLEST)
    order = np.argsort(-areas)  # the smallest on top
    colours = [FILL if number in front else "white" for number in order]
    points = np.stack([milliseconds, scores], axis=1)
    ax.scatter(points[order, 0], points[order, 1], s=areas[order], c=colours, edgecolor=INK, zorder=3)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.margins(0.25, 0.2)
    ax.set_xlabel("time for one clip (ms)")
    ax.set_ylabel(score)
    beaten = len(front) < len(names)
    notes = []
    if beaten:
        notes.append("filled: no other model is both faster and better")
    if known:
        notes.append("lines: 95 % intervals")
    finish(ax, title, "; ".join(notes), grid="both")
    _label(ax, names, points, np.sqrt(areas) / 2)
    return ax


def _check_intervals(
    names: Sequence[str],
    scores: Sequence[float],
    known: dict[int, tuple[float, float]],
    given: Sequence[tuple[float, float] | None] | None,
) -> None:
    require(
        given is None or len(given) == len(names),
        f"intervals must have the length of names, {len(names)}; got {len(given or ())}.",
    )
    for number, (low, high) in known.items():
        require(
            low <= scores[number] <= high,
            f"The score of {names[number]}, {scores[number]:g}, is outside of its interval, {low:g} to {high:g}.",
        )


def _front(milliseconds: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Return the positions of the models that score higher than every faster one, the fastest first."""
    front: list[int] = []
    for number in sorted(range(len(scores)), key=lambda number: (milliseconds[number], -scores[number])):
        if not front or scores[number] > scores[front[-1]]:
            front.append(number)
    return front


Box = tuple[float, float, float, float]  # left, bottom, right, top in points


def _label(ax: Axes, names: Sequence[str], points: np.ndarray, radii: np.ndarray) -> None:
    """Write each name where it covers the least of other circles and names, as near to its circle as that allows."""
    figure = ax.figure.canvas.figure  # also if the axes are in a subfigure
    figure.draw_without_rendering()  # the layout decides where the circles are
    scale = 72 / figure.get_dpi()
    centres = ax.transData.transform(points) * scale
    frame = ax.get_window_extent()
    edges = (frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale)
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    for number, name in enumerate(map(short, names)):
        others = taken[:number] + taken[number + 1 :]
        places = list(_places(name, centres[number], radii[number]))
        away, offset, align, box = min(places, key=lambda place: place[0] + _covered(place[3], others, edges))
        taken.append(box)
        joined = {
            "arrowstyle": "-",
            "color": INK,
            "alpha": 0.5,
            "linewidth": 0.6,
            "shrinkA": 0,
            "shrinkB": radii[number],
        }
        ax.annotate(
            name, points[number], offset, textcoords="offset points", fontsize=SMALL, ha=align, va="center", zorder=4,
            parse_math=False, arrowprops=joined if away else None,
        )  # fmt: skip


def _places(name: str, centre: np.ndarray, radius: float) -> Iterator[tuple[float, tuple[float, float], str, Box]]:
    """Yield distance, offset, alignment and box of a name around a circle, the nearest first."""
    width, height = 0.66 * SMALL * len(name) + 4, 1.3 * SMALL
    for distance in _DISTANCES:
        away = radius + 4 + distance
        for right, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            shorter = math.sqrt(0.5) if right and up else 1.0
            dx, dy = shorter * away * right, shorter * away * up + up * height / 2
            align, share = {1: ("left", 0.0), -1: ("right", 1.0), 0: ("center", 0.5)}[right]
            left, middle = centre[0] + dx - share * width, centre[1] + dy
            yield distance, (dx, dy), align, (left, middle - height / 2, left + width, middle + height / 2)


def _covered(box: Box, others: Sequence[Box], edges: Box) -> float:
    """Return the area of a box that overlaps other boxes or lies outside of the axes."""
    left, bottom, right, top = box
    area = (right - left) * (top - bottom)
    return area - _overlap(box, edges) + sum(_overlap(box, other) for other in others)


def _overlap(box: Box, other: Box) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(0.0, width) * max(0.0, height)
