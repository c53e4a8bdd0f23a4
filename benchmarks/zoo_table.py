"""The README's table of models: `python benchmarks/zoo_table.py [--check]`.

What the models are and their AUCs come from their specs, sizes and speed from `benchmarks/results/benchmark.json`.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_musictag as kmt
from keras_musictag.apps.benchmarking import BenchmarkRun
from keras_musictag.models.spec import ModelSpec
from keras_musictag.utils.files import write_atomically

ROOT = Path(__file__).parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results" / "benchmark.json"
BEGIN, END = "<!-- models: python benchmarks/zoo_table.py -->", "<!-- end of models -->"
ORDER = (
    "musicnet_crnn", "musicnet_crnn_fast", "baseline_cnn", "large_cnn", "musicnn_mtt", "vgg_mtt", "won_fcn_mtt",
    "won_crnn_mtt", "won_musicnn_mtt", "musicnet_crnn_msd", "musicnn_msd", "vgg_msd", "won_fcn_msd", "won_crnn_msd",
    "choi_crnn_msd", "musicnet_crnn_jamendo", "won_fcn_jamendo", "won_crnn_jamendo", "won_musicnn_jamendo",
    "mn04_audioset", "tiny",
)  # fmt: skip
RUNTIMES = {"keras": "Keras", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}
HEADER = (
    "model", "learned from", "licence", "parameters", "MB: float32, int8", "ms: Keras, fastest", "x real time",
    "ROC-AUC on genres", "published ROC-AUC, PR-AUC",
)  # fmt: skip
NOTES = (
    "MB: ONNX files with log-mels as input; one figure alone is the size of the weights where none was written "
    "(float16 for our own), or of float32 where int8 was refused. ms: samples of a clip of {seconds:g} s in memory to "
    "tags, median, on {cores} cores ({processor}, {date}), with Keras and with the fastest runtime, both at float32. "
    "x real time: seconds of sound that the fastest tags per second at its best batch. `docs/benchmark.md` has the "
    "command, the spread, memory, bfloat16 and int8.",
    "ROC-AUC on genres: {genres} (split {split}, n = {n}, of artists that only models trained on MagnaTagATune may "
    "know), tags classical, electronic, pop and rock against the data set's labels; macro average, 95 % interval with "
    "artists resampled. An asterisk: without classical, which is no tag of the model. Published by the authors, not "
    "measured here: on {published}. On MagnaTagATune `won_*` were scored on the clean split, the others on the full "
    "one, where PR-AUC is 5 to 7 points lower. A dash: none is given (mn04: mean average precision). Empty: not "
    "measured. `tiny` is for tests.",
)


def is_genres(score: Mapping[str, Any]) -> bool:
    """Whether an AUC is against the labels that most models were measured on."""
    return score["dataset"] == "Emotify, genres"


def is_some_genres(score: Mapping[str, Any]) -> bool:
    """Whether an AUC is against those of these labels that a model has tags for."""
    return score["dataset"] == "Emotify, 3 of 4 genres"


def is_published(score: Mapping[str, Any]) -> bool:
    """Whether an AUC is that of the weights' authors."""
    return "published" in score["source"]


def row(spec: ModelSpec, run: BenchmarkRun) -> tuple[str, ...]:
    """Cells of one model; what was not measured is empty."""
    published: Mapping[str, Any] = next(filter(is_published, spec.metrics), {})
    return (
        f"`{spec.name}`", source(spec), spec.license, f"{spec.claims['parameters']:,}", size(spec, run),
        *speed(spec.name, run), on_genres(spec),
        ", ".join(f"{published[name]:.4f}" if name in published else "-" for name in ("roc_auc", "pr_auc"))
        if published
        else "",
    )  # fmt: skip


def on_genres(spec: ModelSpec) -> str:
    """ROC-AUC on genres with its interval, with an asterisk if one genre is missing."""
    interval = "{roc_auc:.3f} [{roc_auc_low:.3f}, {roc_auc_high:.3f}]"
    for kind, mark in ((is_genres, ""), (is_some_genres, "*")):
        for score in filter(kind, spec.metrics):
            return interval.format(**score) + mark
    return ""


def source(spec: ModelSpec) -> str:
    """What a model learned from, in two words or three."""
    teachers = [data.name.split(",")[0] for data in spec.training_data if data.role == "teacher"]
    if not teachers:
        return re.split(" with | by ", spec.training_data[0].name)[0]
    zoo = kmt.list_models()  # a teacher of other tags had other outputs
    own = [name for name in teachers if name in zoo and kmt.model_info(name).tags == spec.tags] or teachers[:1]
    return "answers of " + " and ".join(f"`{name}`" for name in own)


def size(spec: ModelSpec, run: BenchmarkRun) -> str:
    """MB of the exports, or of the weights of a model that the benchmark leaves out."""
    sizes = run.model(spec.name).get("sizes") or {"float32": spec.weights.size or 0 if spec.weights else 0}
    return ", ".join(f"{sizes[precision] / 1e6:.2f}" for precision in ("float32", "int8") if precision in sizes)


def speed(name: str, run: BenchmarkRun) -> tuple[str, str]:
    """Latency with Keras and the fastest runtime, and the speed of that."""
    rows = [
        entry for entry in run.rows
        if (entry["model"], entry["precision"], entry["threads"]) == (name, "float32", run.machine["threads"])
        and not entry.get("error")
    ]  # fmt: skip
    if not rows:
        return "", ""
    keras, best = (
        min(some, key=lambda entry: entry["waveform"]["median_ms"])
        for some in ([entry for entry in rows if entry["runtime"] == "keras"], rows)
    )
    spent = f"{keras['waveform']['median_ms']:.0f}, {best['waveform']['median_ms']:.0f} ({RUNTIMES[best['runtime']]})"
    return spent, f"{run.derived(best)['times_real_time']:,.0f}"


def table() -> str:
    """Markdown of all registered models but those of plug-ins, and below it what holds for all rows."""
    run, specs = BenchmarkRun.from_json(RESULTS), [kmt.model_info(name) for name in ORDER]
    align = ["---"] * 3 + ["---:"] * (len(HEADER) - 3)
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEADER, align, *(row(spec, run) for spec in specs))]
    genres, published = (
        [score for spec in specs for score in spec.metrics if kind(score)] for kind in (is_genres, is_published)
    )
    if len({(score["dataset"], score["split"], score["n"]) for score in genres}) != 1:
        raise SystemExit("Not all AUCs on genres are of the same tracks. Measure them again with agreement.py.")
    sets = dict.fromkeys(f"{score['dataset']} ({score['split']}, n = {score['n']:,})" for score in published)
    facts = {
        "seconds": run.clip_seconds, "published": " and ".join(sets), "genres": genres[0]["dataset"].split(",")[0],
        **{key: genres[0][key] for key in ("split", "n")},
        **{key: run.machine[key] for key in ("cores", "processor", "date")},
    }  # fmt: skip
    notes = [textwrap.fill(note.format(**facts), 120, break_on_hyphens=False) for note in NOTES]
    return "\n\n".join(["\n".join(lines), *notes])


def main() -> None:
    """Rewrite the table, or fail if it is not current."""
    parser = argparse.ArgumentParser(description="Write the README's table of models.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if the table is not current")
    check = parser.parse_args().check
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    new = f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}"
    if check and new != text:
        sys.exit("The README's table of models is not current. Run: python benchmarks/zoo_table.py")
    if new != text:
        write_atomically(README, new.encode())


if __name__ == "__main__":
    main()
