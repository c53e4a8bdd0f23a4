"""The page docs/choose-a-model.md: `python benchmarks/choose_page.py [--check]`.

Nothing is measured here: figures are those of `results/small_data.json`, `results/benchmark.json` and the specs.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo_table import is_genres

import keras_musictag as kmt
from keras_musictag.models.spec import ModelSpec
from keras_musictag.models.vocabulary import KINDS
from keras_musictag.utils.files import write_atomically
from keras_musictag.utils.tables import Table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "choose-a-model.md"
RESULTS = ROOT / "benchmarks" / "results" / "small_data.json"
SHOWN = 3  # methods of each task
ENOUGH = 5  # tags of a kind that make a vocabulary worth naming for it
FINE_TUNED = ", fine-tuned, "
TWINS = {"musicnet_crnn_jamendo": "musicnet_crnn"}  # one network, another head
TASKS = {"emotify-genres": "genre", "emotify-emotions": "mood", "instruments10": "instrument"}

TEXT = """# Which model for what

<!-- python benchmarks/choose_page.py; do not edit by hand -->

{short}

Differences of a few hundredths are within the intervals below; if two models are close, take the smaller or faster one.
On your own clips, `keras-musictag probe --data DATA` compares all models, and
`keras-musictag finetune --base auto --data DATA` chooses a base by itself ([which base model](probe.md)).

## Tags as they come

What a model can say depends on the data set that its tags are from. Numbers of tags by kind (`--kind genre`):

{kinds}

Scores published by the authors; compare within a data set and split only:

{published}

## Embeddings for your own tags

The best {shown} methods with a linear classifier (a probe of the embeddings, or the first stage of fine-tuning) on each
of three tasks, in cross-validation; [all methods](small-data.md). Brackets: 95 % intervals.
{twins}{missing}

{own}
{tuned}
## Small and fast

{speed}

MB: weight file. ms: one window from samples in memory to tags with Keras, median, two threads, on the processor named;
compare times on the same processor only. window by ms: seconds of sound per second of computing.
The weights of our own models but `musicnet_crnn` are stored as float16, all others as float32.
"""


def page() -> str:
    """The whole page."""
    tasks = json.loads(RESULTS.read_text(encoding="utf-8"))["tasks"]
    specs = [kmt.model_info(name) for name in kmt.list_models(pretrained=True) if name != "tiny"]
    return TEXT.format(
        short=Table(("for", "take", "because"), list(short(tasks, specs))).markdown(),
        kinds=kinds(specs), published=published(specs), shown=SHOWN, own=own(tasks), tuned=tuned(tasks),
        missing=missing(tasks, specs),
        twins=" ".join(f"`{name}` has the embeddings of `{of}`." for name, of in TWINS.items()),
        speed=speed(specs),
    )  # fmt: skip


def short(tasks: dict[str, Any], specs: list[ModelSpec]) -> Iterator[tuple[str, str, str]]:
    """Rows of the overview."""
    scored = [(score, spec) for spec in specs for score in spec.metrics if is_genres(score)]
    best, spec = max(scored, key=lambda pair: pair[0]["roc_auc"])
    known = any(data.role == "labelled" and data.name.startswith("MagnaTagATune") for data in spec.training_data)
    familiar = "; it may know the artists, as all that were trained on MagnaTagATune may" if known else ""
    yield (
        "genre tags as they come", f"`{spec.name}`",
        f"ROC-AUC {best['roc_auc']:.3f} [{best['roc_auc_low']:.3f}, {best['roc_auc_high']:.3f}] on {best['dataset']} "
        f"({best['split']}, n = {best['n']}), of {len(scored)} that were measured there{familiar}",
    )  # fmt: skip
    for task, kind in TASKS.items():
        if kind == "instrument":
            continue
        able = {spec.name for spec in specs if count(spec, kind) >= ENOUGH}
        row = next(row for row in linear(tasks[task]) if model_of(row) in able)
        spec = kmt.model_info(model_of(row))
        yield (
            f"{kind}s of your own", f"`{spec.name}`",
            f"with a linear classifier on its embeddings, {figure(tasks[task], row)} on {tasks[task]['dataset']}; "
            f"has {count(spec, kind)} {kind} tags ({spec.vocabulary.title})",
        )  # fmt: skip
    ranks = collections.Counter[str]()
    for task in TASKS:
        for place, name in enumerate(dict.fromkeys(map(model_of, linear(tasks[task])))):
            ranks[name] += place
    least = min(ranks, key=lambda name: (ranks[name], name))
    rows = {task: next(row for row in linear(tasks[task]) if model_of(row) == least) for task in TASKS}
    figures = "; ".join(f"{tasks[task]['dataset']} {figure(tasks[task], row)}" for task, row in rows.items())
    yield "embeddings for your own tags", f"`{least}`", f"best mean rank over three tasks: {figures}"
    smallest = min(specs, key=lambda spec: spec.weights.size if spec.weights and spec.weights.size else 1e12)
    assert smallest.weights is not None and smallest.weights.size is not None
    yield (
        "the smallest", f"`{smallest.name}`",
        f"{smallest.weights.size / 1e6:.1f} MB, {smallest.claims['parameters']:,} parameters",
    )  # fmt: skip
    fastest = max(specs, key=real_time)
    yield (
        "the fastest",
        f"`{fastest.name}`",
        (f"{real_time(fastest):,.0f} times real time with Keras on two cores ({machine(fastest)})"),
    )


def kinds(specs: list[ModelSpec]) -> str:
    """Vocabularies, with their numbers of tags by kind and the models that have them."""
    by_title: dict[str, list[ModelSpec]] = {}
    for spec in specs:
        by_title.setdefault(spec.vocabulary.title, []).append(spec)
    rows = [
        (title, len(some[0].tags), *(count(some[0], kind) for kind in KINDS), ", ".join(f"`{s.name}`" for s in some))
        for title, some in by_title.items()
    ]
    return Table(("tags of", "tags", *KINDS, "models"), rows, "<>>>>>>>><").markdown()


def published(specs: list[ModelSpec]) -> str:
    """The authors' scores, by data set and split."""
    found = [
        (score["dataset"], score["split"], spec.name, score.get("roc_auc"), score.get("pr_auc"))
        for spec in specs
        for score in spec.metrics
        if "published" in score["source"]
    ]
    found.sort(key=lambda row: (row[:2], -(row[4] or 0), -(row[3] or 0)))
    rows = [
        (dataset, split, f"`{name}`", *("" if value is None else f"{value:.4f}" for value in values))
        for dataset, split, name, *values in found
    ]
    return Table(("data set", "split", "model", "ROC-AUC", "PR-AUC or mAP"), rows, "<<<>>").markdown()


def own(tasks: dict[str, Any]) -> str:
    """The best linear methods of each task."""
    rows = []
    for task in TASKS:
        about = tasks[task]
        everything = [*linear(about)[:SHOWN], next(row for row in about["rows"] if row["model"] == "mfcc")]
        rows += [(about["dataset"], f"n = {about['n_clips']}", row["model"], figure(about, row)) for row in everything]
    return Table(("task", "clips", "method", "score"), rows).markdown() + "\n"


def missing(tasks: dict[str, Any], specs: list[ModelSpec]) -> str:
    """Which models are not among the rows."""
    known = {model_of(row) for task in TASKS for row in tasks[task]["rows"]}
    names = [f"`{spec.name}`" for spec in specs if spec.name not in known]
    return f" Not measured yet: {', '.join(names)}." if names else ""


def tuned(tasks: dict[str, Any]) -> str:
    """What fine-tuning comes to."""
    rows = [
        (about["dataset"], row["model"], figure(about, row))
        for about in (tasks[task] for task in TASKS)
        for row in about["rows"]
        if FINE_TUNED in row["model"]
    ]
    return (
        f"Fine-tuned, where that was measured:\n\n{Table(('task', 'method', 'score'), rows).markdown()}\n"
        if rows
        else ""
    )


def speed(specs: list[ModelSpec]) -> str:
    """Size and time of every model."""
    rows = []
    for spec in sorted(specs, key=lambda spec: -real_time(spec)):
        size = f"{spec.weights.size / 1e6:.1f}" if spec.weights and spec.weights.size else ""
        cells = (f"{spec.window_seconds:.1f}", f"{milliseconds(spec):.0f}", f"{real_time(spec):,.0f}", machine(spec))
        rows.append((f"`{spec.name}`", f"{spec.claims['parameters']:,}", size, *cells))
    titles = ("model", "parameters", "MB", "window, s", "ms", "window by ms", "on")
    return Table(titles, rows, "<>>>>><").markdown()


# === What the figures say ===


def count(spec: ModelSpec, kind: str) -> int:
    """Tags of a kind."""
    return (spec.vocabulary.kinds or ()).count(kind)


def linear(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of models with a linear classifier, the best first, one for models with the same embeddings."""
    left_out = {"mfcc", *TWINS}
    rows = [row for row in task["rows"] if model_of(row) not in left_out and FINE_TUNED not in row["model"]]
    return sorted(rows, key=lambda row: -row[task["metric"]])


def model_of(row: dict[str, Any]) -> str:
    """`probe of X` and `X, first stage` are of X."""
    return str(row["model"]).removeprefix("probe of ").split(", ")[0]


def figure(task: dict[str, Any], row: dict[str, Any]) -> str:
    """Score and interval."""
    metric = task["metric"]
    name = {"accuracy": "accuracy", "roc_auc": "ROC-AUC"}[metric]
    return f"{name} {row[metric]:.3f} [{row[f'{metric}_low']:.3f}, {row[f'{metric}_high']:.3f}]"


def timed(spec: ModelSpec) -> Any:
    """The card's latency of one window from a waveform."""
    return next(each for each in spec.latency if (each.scope, each.batch) == ("waveform", 1))


def milliseconds(spec: ModelSpec) -> float:
    """Of one window."""
    return float(timed(spec).median_ms)


def real_time(spec: ModelSpec) -> float:
    """Seconds of sound per second."""
    return 1000 * spec.window_seconds / milliseconds(spec)


def machine(spec: ModelSpec) -> str:
    """Where it was measured, and when."""
    return f"{timed(spec).machine}, {timed(spec).date}"


def main() -> None:
    """Rewrite the page, or fail if it is not current."""
    parser = argparse.ArgumentParser(description="Write docs/choose-a-model.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if the page is not current")
    check = parser.parse_args().check
    new = page()
    current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == new
    if check and not current:
        sys.exit("docs/choose-a-model.md is not current. Run: python benchmarks/choose_page.py")
    if not current:
        write_atomically(PAGE, new.encode())


if __name__ == "__main__":
    main()
