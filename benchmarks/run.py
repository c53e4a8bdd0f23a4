"""The benchmark of the zoo: writes `results/benchmark.json`, `.csv`, `docs/benchmark.md` and a picture.

    python benchmarks/run.py [MODEL...] [--calibration FOLDER] [--data TABLE --dataset NAME]
    python benchmarks/run.py --page    # only page and picture, from the results that are there and the specs' scores

Wants a machine that does nothing else. Published weights are found in KERAS_MUSICTAG_MIRROR or downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path

from benchmark_page import page

import keras_musictag as kmt
from keras_musictag.apps.benchmarking import BenchmarkRun, benchmark
from keras_musictag.apps.benchmarking.score_plot import plot_scores
from keras_musictag.apps.benchmarking.suite import recorded_scores
from keras_musictag.plots import save_figure
from keras_musictag.utils.files import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "benchmark.json"
MEMORY = RESULTS.with_name("memory.json")  # of memory.py
PAGE, PICTURE = ROOT / "docs" / "benchmark.md", ROOT / "docs" / "images" / "pareto.png"


def main() -> int:
    """Measure and write, or only write; returns 1 if a measurement failed."""
    parser = argparse.ArgumentParser(description="Measure the zoo and write benchmarks/results and docs/benchmark.md.")
    parser.add_argument("models", nargs="*", help="default: all pretrained ones but tiny, which is for tests")
    parser.add_argument("--calibration", type=Path, help="folder of sounds for int8")
    parser.add_argument("--data", default="", help="labelled sounds to measure the AUC on")
    parser.add_argument("--dataset", default="", help="what they are called")
    parser.add_argument("--split", default="test")
    parser.add_argument("--threads", type=int, nargs="*", help="numbers of CPU threads; default: one, and all cores")
    parser.add_argument("--work", type=Path, help="folder that keeps finished models; the same command resumes")
    parser.add_argument("--quick", action="store_true", help="a few calls of each, to see whether it works")
    parser.add_argument("--page", action="store_true", help="write the page from the results that are there")
    given = parser.parse_args()
    if given.page:
        run = with_recorded_scores(BenchmarkRun.from_json(RESULTS))
    else:
        words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
        sounds = sorted(path for path in given.calibration.rglob("*") if path.is_file()) if given.calibration else []
        run = benchmark(
            given.models or [name for name in kmt.list_models(pretrained=True) if name != "tiny"],
            data=given.data or None,
            dataset=given.dataset,
            split=given.split,
            threads=given.threads,
            calibration=sounds,
            quick=given.quick,
            work=given.work,
            command=shlex.join(["python", "benchmarks/run.py", *words]),
        )
        print(run)
    RESULTS.parent.mkdir(exist_ok=True)
    run.to_json(RESULTS)
    run.to_csv(RESULTS.with_suffix(".csv"))
    memory = json.loads(MEMORY.read_text(encoding="utf-8")) if MEMORY.is_file() else None
    write_atomically(PAGE, page(run, memory).encode())
    save_figure(plot_scores(run), PICTURE)
    return int(bool(run.failed))


def with_recorded_scores(run: BenchmarkRun) -> BenchmarkRun:
    """Return a run with the scores that the specs have now, except for models that it measured itself."""
    models = [
        model if any(score.get("measured") for score in model["scores"])
        else {**model, "scores": recorded_scores(model["model"])}
        for model in run.models
    ]  # fmt: skip
    return dataclasses.replace(run, models=tuple(models))


if __name__ == "__main__":
    sys.exit(main())
