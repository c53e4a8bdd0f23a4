"""The text of `docs/benchmark.md`, from the results of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from keras_musictag.utils.tables import Table

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
- tag MB: peak memory of the process once it has tagged the file; peak MB: at the end, after batches of up to 120 s of
  sound.
- mean |dp|: mean change of probabilities by the export, against Keras at float32, on windows of the bundled clip.

## Where the time goes

{profile}
{memory}{errors}"""
COMMANDS = ("tag", "library", "serve")  # whose memory is measured
MEMORY = """
## Memory

```bash
{command}
```

Peak MB of all processes of a command together (the resident set of the largest, and what the others share with
nobody): `tag` and `serve` with one MP3 of {seconds:g} s, `library` with {files} of them, which has decoding processes
of its own. Models with the same network and other tags need as much. {machine}, {date}.

{rows}
"""


def page(run: BenchmarkRun, memory: Mapping[str, Any] | None = None) -> str:
    """Return the page of a run, in Markdown, with the results of `memory.py` if there are any."""
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
        memory=_memory(memory) if memory else "",
        errors="\n## Failed\n\n" + "\n".join(errors) + "\n" if errors else "",
        shared=f"those that have one on {named[0]}, split {named[1]}" if named else "none",
    )


def _memory(found: Mapping[str, Any]) -> str:
    """Return the section on memory: a line per model, and for each command a column per runtime."""
    runtimes = list(dict.fromkeys(row["runtime"] for row in found["rows"]))
    columns = [(command, runtime) for command in COMMANDS for runtime in runtimes]
    lines: dict[str, dict[tuple[str, str], str]] = {}
    for row in found["rows"]:
        line = lines.setdefault(row["model"], {})
        line |= {(command, row["runtime"]): f"{row[command]:,.0f}" for command in COMMANDS}
    rows = [[model, *(line.get(column, "") for column in columns)] for model, line in lines.items()]
    titles = ["model", *(f"{command}, {runtime}" for command, runtime in columns)]
    machine = f"{found['machine']['processor']}, {found['machine']['cores']} cores"
    about = {key: found[key] for key in ("command", "date", "seconds", "files")}
    return MEMORY.format(machine=machine, rows=Table(titles, rows, "<>").markdown(), **about)
