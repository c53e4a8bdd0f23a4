"""The text of `docs/benchmark.md`, from the results of a run."""

from __future__ import annotations

from keras_musictag.apps.benchmarking.benchmark_results import (
    MODEL_COLUMNS,
    ROW_COLUMNS,
    SCORE_COLUMNS,
    STAGE_COLUMNS,
    BenchmarkRun,
    stages,
    table,
)
from keras_musictag.apps.benchmarking.score_plot import shared_data

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
    """Return the page of a run, in Markdown."""
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
    named = shared_data(run)
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
