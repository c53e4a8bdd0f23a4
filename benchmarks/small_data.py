"""What to do with few labelled clips: MFCCs, a linear probe, or fine-tuning? Writes `docs/small-data.md`.

    python benchmarks/small_data.py MUSIC/index.csv --work FOLDER --fine-tune musicnet_crnn --write

Without `--models`, every pretrained model is probed. With `--write`, rows of methods that were not asked for are kept
if they are of the same clips, folds and weights, each with its date; so the zoo can be measured model by model.

`index.csv` has the columns file (relative to it), collection, artist, label, genre, emotions (`calmness:0.62;...`).
Every method is fitted to the same four fifths of the clips and predicts the last fifth, five times. Predictions are
kept in `--work`, so a run that was stopped goes on; remove the folder after a change to the code of fine-tuning.
Published weights are found in KERAS_MUSICTAG_MIRROR or downloaded.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import hashlib
import json
import shlex
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

import keras_musictag as kmt
from keras_musictag.apps.probing.probe_result import measure
from keras_musictag.apps.probing.runner import probe
from keras_musictag.datasets import Manifest, Row, splitting
from keras_musictag.evaluation.measuring import score
from keras_musictag.models.layer_statistics import EPSILON
from keras_musictag.training.embedding_cache import EmbeddingCache
from keras_musictag.training.finetuning import FineTuneSpec
from keras_musictag.training.finetuning.stages import new_tagger
from keras_musictag.training.head_fitting import fit_head
from keras_musictag.utils.files import replacing, write_atomically
from keras_musictag.utils.tables import Table

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "small_data.json", ROOT / "docs" / "small-data.md"
TASKS = ("instruments10", "emotify-genres", "emotify-emotions")
MODES = {"head": "head only", "full": "whole network"}
FOLDS, RESAMPLES, SEED = 5, 1000, 0
REFERENCE, NEAR = "mfcc", 1e-3  # NEAR: more than two processors differ by


# === Tasks ===


@dataclasses.dataclass(frozen=True)
class Task:
    """Labelled clips.

    Attributes:
        name: for the command line.
        title: for the table.
        manifest: rows.
        grouped_by: what its groups are.
    """

    name: str
    title: str
    manifest: Manifest
    grouped_by: str = ""


def tasks_of(index: Path) -> dict[str, Task]:
    """The three tasks by name."""
    with index.open(encoding="utf-8", newline="") as file:
        entries = list(csv.DictReader(file))
    by_collection = {name: [e for e in entries if e["collection"] == name] for name in ("instruments10", "emotify")}

    def manifest(entries: list[dict], tags_of: list[tuple[str, ...]]) -> Manifest:
        return Manifest(
            tuple(
                Row(path=index.parent / entry["file"], group=entry["artist"], tags=tags)
                for entry, tags in zip(entries, tags_of, strict=True)
            )
        )

    notes, songs = by_collection["instruments10"], by_collection["emotify"]
    tasks = (
        Task(TASKS[0], "instruments10", manifest(notes, [(entry["label"],) for entry in notes])),
        Task(TASKS[1], "Emotify, genres", manifest(songs, [(entry["genre"],) for entry in songs]), "artist"),
        Task(TASKS[2], "Emotify, emotions", manifest(songs, emotions_of(songs)), "artist"),
    )
    return {task.name: task for task in tasks}


def emotions_of(entries: list[dict]) -> list[tuple[str, ...]]:
    """Emotions whose share of votes is above the median of that emotion."""
    votes = [dict(part.split(":") for part in entry["emotions"].split(";")) for entry in entries]
    medians = {name: np.median([float(vote[name]) for vote in votes]) for name in votes[0]}
    return [tuple(name for name in medians if float(vote[name]) > medians[name]) for vote in votes]


# === Fine-tuning ===


def fine_tuned_scores(
    tagger: kmt.Tagger, train: Manifest, test: Manifest, mode: str, *, cache: Path, seed: int
) -> np.ndarray:
    """Fine-tune on some clips and tag others: float32 `(test rows, tags)`. All settings but the stages are defaults."""
    settings = FineTuneSpec(stages=mode, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        tuned = tagger.fine_tune(
            train, train.tags, folder=Path(folder) / "tuned", cache=cache, settings=settings, progress=False
        )
        scores = score(tuned, test, dataset="held out", split="all", cache=cache, strict=True, progress=False)
    return scores.probabilities[0][:, [scores.tags.index(tag) for tag in test.tags]]


def out_of_fold(task: Task, fold: np.ndarray, name: str, mode: str, work: Path) -> tuple[np.ndarray, float]:
    """Predictions of all clips, each by a tagger that has not learned from it, and seconds per fold; both are kept.

    Seconds are those of fine-tuning and of tagging a fifth of the clips, with log-mels cached.
    """
    tagger = kmt.load(name)
    about = [task.manifest.digest(), tagger.weights_sha256, mode, repr(FineTuneSpec()), fold.tolist()]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
    scores, seconds = np.empty((len(fold), len(task.manifest.tags)), "float32"), []
    for held_out in range(FOLDS):
        kept = work / "folds" / f"{task.name}-{name}-{mode}-{digest}-{held_out}.npz"
        if not kept.is_file():
            train, test = (part(task.manifest, fold != held_out), part(task.manifest, fold == held_out))
            started = time.perf_counter()
            found = fine_tuned_scores(tagger, train, test, mode, cache=work / "cache", seed=SEED)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as file:
                np.savez(file, scores=found, seconds=time.perf_counter() - started)
            print(f"{kept.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        with np.load(kept) as file:
            scores[fold == held_out] = file["scores"]
            seconds.append(float(file["seconds"]))
    return scores, float(np.mean(seconds))


def part(manifest: Manifest, chosen: np.ndarray) -> Manifest:
    """The rows that are chosen; all tags."""
    return Manifest(tuple(manifest[number] for number in np.flatnonzero(chosen).tolist()), manifest.tags)


# === The head of the first stage ===


def first_stage(task: Task, fold: np.ndarray, name: str, exclusive: bool, work: Path) -> np.ndarray:
    """Predictions of all clips from heads on embeddings and taps, each fitted without the fold of its clip.

    As `Tagger.fine_tune` with `stages="head"` fits them, but used on the mean over the windows of a clip.
    """
    labels: Any = types.SimpleNamespace(tags=task.manifest.tags, exclusive=exclusive)
    cache = EmbeddingCache(work / "cache", new_tagger(kmt.load(name), labels))
    vectors, _ = cache.get_many(task.manifest, progress=True)
    targets, settings = task.manifest.targets(), FineTuneSpec(seed=SEED)
    scores = np.empty(targets.shape, "float32")
    for held_out in range(FOLDS):
        known, new = fold != held_out, fold == held_out
        parts = splitting.folds(part(task.manifest, known), settings.folds, seed=SEED)
        head = fit_head(vectors[known], targets[known], parts, exclusive=exclusive, balance=settings.balance)
        logits = (vectors[new] - head.mean) / np.sqrt(head.variance + EPSILON) @ head.kernel + head.bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores[new] = powers / powers.sum(axis=1, keepdims=True) if exclusive else 1 / (1 + np.exp(-logits))
    return scores


# === Measuring ===


def measured(task: Task, models: list[str], fine_tuned: list[str], modes: list[str], work: Path) -> dict:
    """Everything that is known of a task, ready for JSON."""
    probing = probe(
        models, task.manifest, dataset=task.title, folds=FOLDS, mfcc=True, cache=work / "cache", n_bootstrap=0,
        seed=SEED, grouped_by=task.grouped_by,
    )  # fmt: skip
    if probing.scores.failed or probing.excluded or len(probing.models) > len(probing.scores.models):
        raise SystemExit(f"{task.title} is not complete here:\n{probing}")
    features = {row.model: row.features for row in probing.models}
    names = [name if name == REFERENCE else f"probe of {name}" for name in probing.scores.models]
    shas, every, seconds = list(probing.scores.weights_sha256), list(probing.scores.probabilities), {}
    for name in models:
        every.append(first_stage(task, probing.folds, name, probing.metric == "accuracy", work))
        names.append(f"{name}, first stage")
        shas.append(kmt.load(name).weights_sha256)
    for name in fine_tuned:
        for mode in modes:
            scores, taken = out_of_fold(task, probing.folds, name, mode, work)
            names.append(f"{name}, fine-tuned, {MODES[mode]}")
            seconds[names[-1]] = round(taken, 1)
            shas.append(kmt.load(name).weights_sha256)
            every.append(scores)
    scores = dataclasses.replace(
        probing.scores, models=tuple(names), weights_sha256=tuple(shas), probabilities=np.stack(every)
    )
    scores.save(work / f"{task.name}.npz")
    rows = measure(scores, probing.metric, RESAMPLES, SEED, against=REFERENCE)
    by_name = dict(zip(names, shas, strict=True))
    return {
        **{key: value for key, value in probing.to_dict().items() if key != "models"},
        "n_bootstrap": RESAMPLES,
        "rows": [
            row.to_dict()
            | {"weights_sha256": by_name[row.model], "features": features.get(row.model.removeprefix("probe of "))}
            | {"seconds_per_fold": seconds.get(row.model)}
            for row in rows
        ],
    }


def with_kept(new: dict, old: dict, today: str) -> dict:
    """A task with the rows of earlier results that are of the same clips, folds and weights, and not measured now."""
    for row in new["rows"]:
        row["date"] = today
    about = [name for name in new if name != "rows"]
    reference = next(row for row in new["rows"] if row["model"] == REFERENCE)
    if any(old.get(name) != new[name] for name in about) or not same(reference, old["rows"]):
        return new
    measured_now = {row["model"] for row in new["rows"]}
    kept = [row for row in old["rows"] if row["model"] not in measured_now and row["weights_sha256"] in known_weights()]
    rows = sorted(new["rows"] + kept, key=lambda row: -row[new["metric"]])
    return {**new, "rows": rows}


def same(row: dict, others: list[dict]) -> bool:
    """Whether a row is among others, whenever they were measured; on another processor the last digits differ."""

    def close(a: Any, b: Any) -> bool:
        return abs(a - b) < NEAR if isinstance(a, float) and isinstance(b, float) else a == b

    return any(
        row.keys() == other.keys() and all(close(row[name], other[name]) for name in row if name != "date")
        for other in others
    )


def known_weights() -> set[str]:
    """sha256 of the weights of all registered models."""
    specs = map(kmt.model_info, kmt.list_models(pretrained=True))
    return {spec.weights.sha256 for spec in specs if spec.weights}


# === Writing ===


def page(results: dict) -> str:
    """Markdown of all tasks."""
    lines = [HEADER.format(command=results["command"], date=results["date"])]
    for task in results["tasks"].values():
        groups = f"{task['n_groups']} {task['grouped_by']}s"
        kind = "accuracy" if task["metric"] == "accuracy" else "mean ROC-AUC"
        lines += [
            f"## {task['dataset']}\n",
            f"{task['n_clips']} clips in {groups}, {len(task['tags'])} tags: {', '.join(task['tags'])}. Ordered by "
            f"{kind}; chance is {task['chance']:.2f}.\n",
            table(task),
        ]
        for date in sorted({row["date"] for row in task["rows"]} - {results["date"]}):
            names = [row["model"] for row in task["rows"] if row["date"] == date]
            lines.append(f"Measured on {date}, on the same folds and with the same weights: {'; '.join(names)}.\n")
    return "\n".join(lines)


def table(task: dict) -> str:
    """Of one task."""
    metrics = ["accuracy", "roc_auc"] if task["metric"] == "accuracy" else ["roc_auc", "pr_auc"]
    titles = {"accuracy": "accuracy", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}
    head, rows = ["method", *(titles[name] for name in metrics), f"{titles[metrics[0]]} minus `{REFERENCE}`"], []
    for row in task["rows"]:
        behind = interval(row, "difference", "+.3f") if row["difference"] is not None else ""
        rows.append([row["model"], *(interval(row, name, ".3f") for name in metrics), behind])
    return Table(head, rows).markdown() + "\n"


def interval(row: dict, name: str, number: str) -> str:
    """`0.667 [0.61, 0.72]`."""
    return f"{row[name]:{number}} [{row[f'{name}_low']:{number}}, {row[f'{name}_high']:{number}}]"


HEADER = """# Few labelled clips

<!-- python benchmarks/small_data.py; do not edit by hand -->

Methods for a few hundred labelled clips, compared on the same five folds. All clips of a group (an artist; a file where
no artist is named) are in one fold, and every figure is on clips that were not trained on.

- `mfcc`: scikit-learn's logistic regression on 80 statistics of MFCCs; the baseline
- probe: the same classifier on the embeddings of a model (`keras-musictag probe`)
- first stage: the head that `Tagger.fine_tune` trains first, on embeddings and statistics of earlier layers, averaged
  over a clip; `finetune --base auto` compares models by it
- fine-tuned: `Tagger.fine_tune` with default settings, head only or the whole network

In brackets: 95 % intervals, groups resampled. Differences are paired: an interval that excludes 0 is a difference, also
where the intervals of two methods overlap. A clip has an emotion if its listeners named it more often than those of the
median clip. `musicnet_crnn` and its variants, `baseline_cnn` and `large_cnn` were distilled on sounds that include
tracks of Emotify (without their labels); the models called `_mtt` were trained on tracks of the same catalogue. No
model was trained on instruments10. `musicnet_crnn` and `musicnet_crnn_jamendo` are one network
with two heads, so that their embeddings are the same.

```bash
{command}
```

{date}.
"""


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description="MFCCs, linear probes and fine-tuning on few labelled clips.")
    parser.add_argument("index", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for caches and what was done")
    parser.add_argument(
        "--tasks", nargs="+", help="of instruments10, emotify-genres and emotify-emotions; default: all"
    )
    parser.add_argument("--models", nargs="*", help="to probe; default: all pretrained ones but tiny")
    parser.add_argument("--fine-tune", nargs="*", default=[], help="models to fine-tune")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES), help="stages of fine-tuning")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and {PAGE.name}")
    given = parser.parse_args()
    tasks = tasks_of(given.index)
    results = {
        "command": shlex.join(["python", "benchmarks/small_data.py", *(Path(word).name for word in sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "tasks": {},
    }
    models = given.models
    if models is None:
        models = [name for name in kmt.list_models(pretrained=True) if name != "tiny"]
    before = json.loads(RESULTS.read_text(encoding="utf-8"))["tasks"] if RESULTS.is_file() else {}
    results["tasks"] = {name: task for name, task in before.items() if name not in (given.tasks or TASKS)}
    for name in given.tasks or TASKS:
        found = measured(tasks[name], models, given.fine_tune, given.modes, given.work)
        results["tasks"][name] = with_kept(found, before.get(name, {}), results["date"])
        print(f"\n{tasks[name].title}\n{table(results['tasks'][name])}", flush=True)
    if given.write:
        RESULTS.parent.mkdir(exist_ok=True)
        write_atomically(RESULTS, (json.dumps(results, indent=2) + "\n").encode())
        write_atomically(PAGE, page(results).encode())


if __name__ == "__main__":
    main()
