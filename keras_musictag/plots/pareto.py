"""Which model is good for its speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import FILL, INK, LINE, SMALL, finish, new_axes, require, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST, _SMALLEST = 900.0, 20.0  # areas in points squared


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
    """Score against time, areas by size. Models that no other beats in both are filled and joined.

    Args:
        names: of the models.
        milliseconds: of one clip, each above 0.
        scores: the more the better.
        sizes: in any unit, each above 0.
        ax: axes to draw into, `None` for a new figure.
        intervals: ends of the interval of each score, drawn as a line; `None` for a score without one.
        score: what the scores are.
        title: above the axes.

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
        ax = new_axes(7, 4.5)
    from matplotlib.ticker import LogLocator

    front = _front(milliseconds, scores)
    ax.plot([milliseconds[n] for n in front], [scores[n] for n in front], color=LINE, linewidth=1, zorder=2)
    for number, (low, high) in known.items():
        ax.plot([milliseconds[number]] * 2, [low, high], color=INK, linewidth=0.8, marker="_", alpha=0.5, zorder=1)
    areas = np.maximum(_LARGEST * np.asarray(sizes, float) / max(sizes), _SMALLEST)
    inner = np.argsort(-areas)  # the smallest on top
    colours = [FILL if number in front else "white" for number in inner]
    places = np.stack([milliseconds, scores], axis=1)
    ax.scatter(places[inner, 0], places[inner, 1], s=areas[inner], c=colours, edgecolor=INK, zorder=3)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.margins(0.25, 0.2)
    ax.set_xlabel("time for one clip (ms)")
    ax.set_ylabel(score)
    beaten = len(front) < len(names)
    notes = ["filled: none is both faster and better"] * beaten + ["lines: 95 % intervals"] * bool(known)
    finish(ax, title, "; ".join(notes), grid="both")
    _label(ax, names, places, np.sqrt(areas) / 2)
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
    """Positions of the models that nothing faster is as good as, the fastest first."""
    front: list[int] = []
    for number in sorted(range(len(scores)), key=lambda number: (milliseconds[number], -scores[number])):
        if not front or scores[number] > scores[front[-1]]:
            front.append(number)
    return front


Box = tuple[float, float, float, float]  # left, bottom, right, top in points


def _label(ax: Axes, names: Sequence[str], points: np.ndarray, radii: np.ndarray) -> None:
    """Write each name beside its circle, where it covers no other circle and no other name if there is such a place."""
    scale = 72 / ax.figure.get_dpi()
    centres = ax.transData.transform(points) * scale
    frame = ax.get_window_extent()
    edges = (frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale)
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    for number, name in enumerate(map(short, names)):
        others = taken[:number] + taken[number + 1 :]
        places = list(_places(name, centres[number], radii[number]))
        dx, dy, align, box = min(places, key=lambda place: _covered(place[3], others, edges))
        taken.append(box)
        ax.annotate(
            name, points[number], (dx, dy), textcoords="offset points", fontsize=SMALL, ha=align, va="center",
            zorder=4, parse_math=False,
        )  # fmt: skip


def _places(name: str, centre: np.ndarray, radius: float) -> Iterator[tuple[float, float, str, Box]]:
    """Offsets, alignment and box of a name right and left of a circle, above and below it; the best first."""
    width, height, away = 0.6 * SMALL * len(name), 1.3 * SMALL, radius + 4
    for dx, dy, align, share in (
        (away, 0.0, "left", 0.0),
        (-away, 0.0, "right", 1.0),
        (0.0, away + height / 2, "center", 0.5),
        (0.0, -away - height / 2, "center", 0.5),
    ):
        left, middle = centre[0] + dx - share * width, centre[1] + dy
        yield dx, dy, align, (left, middle - height / 2, left + width, middle + height / 2)


def _covered(box: Box, others: Sequence[Box], edges: Box) -> float:
    """How much of other boxes, or outside of the axes, a box covers."""
    left, bottom, right, top = box
    area = (right - left) * (top - bottom)
    inside = max(0.0, min(right, edges[2]) - max(left, edges[0])) * max(0.0, min(top, edges[3]) - max(bottom, edges[1]))
    return (
        area
        - inside
        + sum(
            max(0.0, min(right, other[2]) - max(left, other[0])) * max(0.0, min(top, other[3]) - max(bottom, other[1]))
            for other in others
        )
    )
