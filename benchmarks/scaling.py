"""Agreement with the teacher against steps and hours of music: `results/scaling.json`, `docs/images/scaling.png`.

    python benchmarks/scaling.py                                        # draws what is kept
    python benchmarks/scaling.py --curve NAME OUT/run/log.csv COLUMN    # keeps the validation scores of a run
    python benchmarks/scaling.py --hours MODEL 42.4 0.900 0.869 0.923   # keeps a correlation on the test tracks

Both options may be repeated. The correlation and its interval are what `compare_students.py --split test` prints; hours
are those of recordings, without others made of them. The line through the points of a model is continued to
`GOAL`: correlation against the logarithm of the hours.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from keras_musictag.plots import save_figure
from keras_musictag.plots.style import finish, new_figure
from keras_musictag.utils.files import write_atomically

ROOT = Path(__file__).parents[1]
RESULT, PICTURE = ROOT / "benchmarks" / "results" / "scaling.json", ROOT / "docs" / "images" / "scaling.png"
GOAL = 0.92
MOST = 10_000  # hours; beyond, the line says nothing
STROKES = ("C0o-", "C1s--", "C2^:", "C3D-.", "C4v-", "C5x--")
STEPS = (300, 500, 1_000, 2_000, 4_000, 8_000)


def draw(found: dict[str, Any]) -> None:
    """Both panels, in which a model has the same stroke."""
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    strokes = dict(zip(found["curves"], STROKES, strict=False))
    for name, points in found["curves"].items():
        steps, scores = np.transpose(points)
        left.plot(steps, scores, strokes[name], markersize=3, label=name)
    for place, (name, points) in enumerate(found["hours"].items()):
        hours, scores, lows, highs = np.transpose(points)
        shifted = hours * 1.03**place  # so that intervals do not hide each other
        reach = [scores - lows, highs - scores]
        right.errorbar(shifted, scores, reach, fmt=strokes[name], capsize=3, markersize=4, elinewidth=1, label=name)
    right.axhline(GOAL, color="0.6", linewidth=1)
    measured = sorted({point[0] for points in found["hours"].values() for point in points})
    for ax, title, xlabel, ylabel, ticks in (
        (left, "Agreement against steps", "steps of 16 windows", "validation tracks (n = 31)", STEPS),
        (right, "Agreement against hours", "hours of music", "test tracks (n = 61)", measured),
    ):
        ax.set(xscale="log", xlabel=xlabel, ylabel=f"correlation with the teacher, {ylabel}")
        ax.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        ax.set_xticks([], minor=True)
        ax.legend(fontsize=8)
        finish(ax, title, grid="both")
    save_figure(figure, PICTURE)


def hours_to(goal: float, points: list[list[float]]) -> float:
    """Hours at which the line through the points reaches a correlation."""
    hours, scores = np.transpose(points)[:2]
    slope, start = np.polyfit(np.log(hours), scores, 1)
    return float(np.exp((goal - start) / slope))


@click.command()
@click.option("--curve", "curves", nargs=3, multiple=True, metavar="NAME LOG COLUMN")
@click.option(
    "--hours", "points", type=(str, float, float, float, float), multiple=True, metavar="MODEL HOURS R LOW HIGH"
)
def main(curves: tuple[tuple[str, str, str], ...], points: tuple[tuple[str, float, float, float, float], ...]) -> None:
    """Keep what is given, draw everything that is kept."""
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"curves": {}, "hours": {}}
    for name, log, column in curves:
        with open(log, encoding="utf-8", newline="") as file:
            found["curves"][name] = [[int(float(row["step"])), float(row[column])] for row in csv.DictReader(file)]
    for model, hours, *scores in points:
        others = [point for point in found["hours"].get(model, []) if point[0] != hours]
        found["hours"][model] = sorted([*others, [hours, *scores]])
    write_atomically(RESULT, (json.dumps(found) + "\n").encode())
    draw(found)
    for model, some in found["hours"].items():
        if len(some) > 1:
            hours = hours_to(GOAL, some)
            told = f"at {hours:,.0f} hours, if the line goes on" if hours < MOST else "out of reach by more music alone"
            click.echo(f"{model}: {GOAL} {told}")


if __name__ == "__main__":
    main()
