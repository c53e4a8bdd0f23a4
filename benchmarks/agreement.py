"""How far a student repeats its teacher on tracks that neither training nor choosing has seen.

    python benchmarks/agreement.py manifest.csv musicnet_crnn baseline_cnn large_cnn --genres genres.csv [--write]
    python benchmarks/agreement.py manifest.csv won_fcn_mtt mn04_audioset --genres genres.csv --genres-only [--write]

`zoo/distillation_data.py` makes the two tables.

Labels are what the teacher hears: a clip has a tag when it is among the tenth of the clips that the teacher scores
highest for it. Intervals resample artists. `--write` puts the figures into the specs of the zoo.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.datasets import Manifest
from keras_musictag.evaluation.metrics import agreement, evaluate_scores, top_tenth
from keras_musictag.evaluation.results import Evaluation
from keras_musictag.models.cards import update_zoo

RESAMPLES = 1000
OTHER_NAMES = {  # of genres, in AudioSet
    "classical": "Classical music", "electronic": "Electronic music", "pop": "Pop music", "rock": "Rock music",
}  # fmt: skip


def scores(name: str, manifest: Manifest) -> np.ndarray:
    """Mean probabilities of every track, float32 `(tracks, tags)`."""
    tagger = kmt.load(name)
    found = [tagger.tag(row.path, offset=row.start, duration=row.duration) for row in tqdm(manifest, desc=name)]
    return np.asarray([[tags[tag] for tag in tagger.spec.vocabulary.names] for tags in found], "float32")


def correlation_interval(student: np.ndarray, teacher: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean per-tag correlation, artists resampled."""
    rng, members = np.random.default_rng(0), [np.flatnonzero(groups == group) for group in np.unique(groups)]
    values = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        values.append(agreement(student[chosen], teacher[chosen]).correlation)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def entry(evaluation: Evaluation, source: str, note: str, **more: float) -> dict:
    """An item of a spec's `metrics`."""
    figures = {}
    for name in ("roc_auc", "pr_auc"):
        estimate = getattr(evaluation, name)
        figures |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {
        "dataset": evaluation.dataset, "split": evaluation.split, "n": evaluation.n_clips,
        **{name: round(value, 4) for name, value in (figures | more).items()},
        "source": source, "note": note, "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def against_teacher(name: str, student: np.ndarray, teacher: np.ndarray, manifest: Manifest, given: argparse.Namespace):
    """Agreement of one student, as an item of `metrics`."""
    tags, groups = kmt.model_info(given.teacher).tags, np.asarray([row.group for row in manifest])
    areas = evaluate_scores(
        top_tenth(teacher).astype("float32"), student, tags, dataset=f"Emotify, as {given.teacher} hears it",
        split=given.split, groups=groups, grouped_by="artist", n_bootstrap=RESAMPLES, model=name,
    )  # fmt: skip
    agreed = agreement(student, teacher, tags)
    low, high = correlation_interval(student, teacher, groups)
    print(f"\n{areas}\n{agreed}\n95 % interval of the correlation, artists resampled: {low:.3f} to {high:.3f}")
    weakest = sorted(agreed.correlations.items(), key=lambda item: item[1])[:6]
    distilled = any(data.role == "teacher" for data in kmt.model_info(name).training_data)
    known = "none of them in training" if distilled else "whose tracks it may have been trained on, with human labels"
    note = (
        f"Labels: the tenth of the tracks that {given.teacher} scores highest, tag by tag; {areas.n_groups} artists, "
        f"{known}. Mean correlation with its probabilities {agreed.correlation:.3f} "
        f"[{low:.3f}, {high:.3f}]; the lowest: {', '.join(f'{tag} {value:.2f}' for tag, value in weakest)}."
    )
    return entry(areas, given.command, note, correlation=agreed.correlation)


def on_genres(name: str, own: np.ndarray, manifest: Manifest, given: argparse.Namespace):
    """Areas for the four genres that the data set states, as an item of `metrics`."""
    genres = Manifest.load(given.genres).split(given.split)
    if [row.path for row in genres] != [row.path for row in manifest]:
        raise SystemExit(f"{given.genres} and {given.manifest} have other tracks in {given.split}.")
    names = kmt.model_info(name).vocabulary.names
    called = {tag: tag if tag in names else OTHER_NAMES.get(tag, tag) for tag in genres.tags}
    known = [tag for tag in genres.tags if called[tag] in names]
    dataset = "Emotify, genres" if len(known) == len(genres.tags) else f"Emotify, {len(known)} of 4 genres"
    truth = genres.targets()[:, [genres.tags.index(tag) for tag in known]]
    areas = evaluate_scores(
        truth, own[:, [names.index(called[tag]) for tag in known]], known, dataset=dataset, split=given.split,
        groups=np.asarray([row.group for row in genres]), grouped_by="artist", n_bootstrap=RESAMPLES, model=name,
    )  # fmt: skip
    print(f"\n{areas}")
    words = ", ".join(called[tag] for tag in known)
    return entry(areas, given.command, f"Tags {words} against the genres stated by the data set.")


def write(name: str, entries: list[dict]) -> None:
    """Replace the entries of the same data set and split in the spec of a zoo model."""
    new = {(item["dataset"], item["split"]) for item in entries}
    kept = [item for item in kmt.model_info(name).metrics if (item["dataset"], item["split"]) not in new]
    update_zoo(name, metrics=(*kept, *entries))


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description="Agreement of students with their teacher on held-out tracks.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("students", nargs="+")
    parser.add_argument("--teacher", default="musicnn_mtt")
    parser.add_argument("--source", default="emotify")
    parser.add_argument("--split", default="test")
    parser.add_argument("--genres", type=Path, help="the same tracks, labelled with their genre")
    parser.add_argument("--genres-only", action="store_true", help="no teacher")
    parser.add_argument("--scores", type=Path, help="keep all scores in this .npz")
    parser.add_argument("--write", action="store_true", help="put the figures into the specs of the zoo")
    given = parser.parse_args()
    if given.genres_only and not given.genres:
        parser.error("--genres-only needs --genres, a table with the genres.")
    given.command = shlex.join(["python", "benchmarks/agreement.py", *(Path(word).name for word in sys.argv[1:])])
    manifest = Manifest.load(given.manifest, untagged=True).split(given.split)
    manifest = manifest.filter(lambda row: row.source == given.source)
    teachers = () if given.genres_only else (given.teacher,)
    heard = {name: scores(name, manifest) for name in (*teachers, *given.students)}
    if given.scores:
        np.savez(given.scores, files=[row.path.name for row in manifest], **heard)
    for name, own in heard.items():
        entries = []
        if teachers and name != given.teacher:
            entries.append(against_teacher(name, own, heard[given.teacher], manifest, given))
        if given.genres:
            entries.append(on_genres(name, own, manifest, given))
        if given.write and entries:
            write(name, entries)


if __name__ == "__main__":
    main()
