"""`docs/benchmark.md` and its picture, from the results of a run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .benchmark_results import (
    MODEL_COLUMNS,
    ROW_COLUMNS,
    SCORE_COLUMNS,
    STAGE_COLUMNS,
    BenchmarkError,
    BenchmarkRun,
    Row,
    stages,
    table,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT = """# Benchmark

<!-- {command}; do not edit by hand -->

Every model of the zoo with the same {seconds:g} s clip (44.1 kHz stereo MP3), each measurement in a process of its own.
{machine}

```bash
{command}
```

![ROC-AUC against latency](images/pareto.png)

## Models

{models}

GMAC: billions of multiplications with an addition for the whole clip; models with short windows need several. MB: of
the ONNX file. ROC-AUC: the first of those below.

## Accuracy

{scores}

Macro averages over the tags, in brackets 95 % intervals. Recorded: in the model's card, which says how it was measured
or where it was published. On what a model hears, a figure is agreement with that model, not with people. Figures on
different data do not compare, so the picture shows {shared}; mind the
intervals before you believe a difference.

## Speed

{rows}

- log-mel, waveform, file: milliseconds from there to tags, median and in brackets 10th and 90th percentile. `file` also
  decodes, resamples and computes the log-mel.
- clips/s: waveforms in memory, at the best batch (of clips).
- of matmul: operations per second of the network, as a share of what NumPy reaches in a float32 product of 2048 x 2048
  matrices here ({matmul}). Reduced precision may pass 100 %.
- load s: from the start of the process to a loaded tagger; again: a second one in the same process.
- mean |dp|: mean change of probabilities by the export, against Keras at float32, on windows of the bundled clip.

## Where the time goes

{profile}
{errors}"""


def page(run: BenchmarkRun) -> str:
    """Markdown of a run."""
    machine = run.machine
    about = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, {machine['system']}, Python "
        f"{machine['python']}, {', '.join(sorted({row['version'] for row in run.rows if 'version' in row}))}; "
        f"keras_musictag {machine['keras_musictag']}, commit {machine['commit'] or 'unknown'}, {machine['date']}."
    )
    good = [row for row in run.rows if not row.get("error")]
    matmul = ", ".join(
        f"{speed:.0f} GFLOP/s with {n} thread{'s' if n != '1' else ''}" for n, speed in machine["matmul_gflops"].items()
    )
    errors = [f"- {row['model']}, {row['runtime']} {row['precision']}: {row['error']}" for row in run.failed]
    named = _shared(run)
    return TEXT.format(
        command=run.command,
        seconds=run.clip_seconds,
        machine=about,
        models=table(MODEL_COLUMNS, run.models).markdown(),
        scores=table(SCORE_COLUMNS, [score for score in run.scores if "roc_auc" in score]).markdown(),
        rows=table(ROW_COLUMNS, [run.derived(row) for row in good]).markdown(),
        profile=table(STAGE_COLUMNS, [{**row, **stages(row)} for row in good]).markdown(),
        matmul=matmul,
        errors="\n## Failed\n\n" + "\n".join(errors) + "\n" if errors else "",
        shared=f"those that have one on {named[0]}, split {named[1]}" if named else "none",
    )


def plot(run: BenchmarkRun, ax: Axes | None = None) -> Axes:
    """ROC-AUC with its interval against the latency of the fastest float32 runtime, areas by parameters.

    Models are those with a score on the data that most of them have one on; `tiny` is for tests.

    Raises:
        BenchmarkError: no model has a score, or none was timed.
        MissingExtraError: Matplotlib is not installed.
    """
    from ...plots import plot_pareto

    data, points = _shared(run), list[tuple[str, float, float, float, tuple[float, float] | None]]()
    for model in run.models:
        score = next((entry for entry in model["scores"] if data and _data(entry) == data), None)
        spent = [
            row["waveform"]["median_ms"]
            for row in run.rows
            if row["model"] == model["model"] and row["precision"] == "float32" and not row.get("error")
        ]
        if score and spent and model["model"] != "tiny":
            ends = score.get("roc_auc_low"), score.get("roc_auc_high")
            points.append(
                (
                    model["model"],
                    min(spent),
                    score["roc_auc"],
                    model.get("parameters", 1),
                    None if None in ends else ends,
                )
            )
    if not data or not points:
        raise BenchmarkError("There is nothing to draw: no model that was timed has a ROC-AUC.")
    names, times, scores, sizes, intervals = zip(*points, strict=True)
    return plot_pareto(
        names, times, scores, sizes, ax, intervals=intervals, score=f"ROC-AUC ({data[0]}, {data[1]}, n = {data[2]})",
        title=f"One clip of {run.clip_seconds:g} s on {run.machine['cores']} cores; area: parameters",
    )  # fmt: skip


def _shared(run: BenchmarkRun) -> tuple[Any, ...] | None:
    """Data set, split and n that most models have a ROC-AUC on."""
    every = Counter(
        key for model in run.models for key in {_data(score) for score in model["scores"] if "roc_auc" in score}
    )
    return max(every, key=lambda key: every[key]) if every else None


def _data(score: Row) -> tuple[Any, ...]:
    return (score.get("dataset"), score.get("split"), score.get("n"))
