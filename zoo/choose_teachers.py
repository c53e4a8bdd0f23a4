"""Compare teachers and their means on human labels.

    python zoo/choose_teachers.py human.csv musicnn_mtt vgg_mtt ...
    python zoo/choose_teachers.py genres.csv musicnn_msd won_fcn_msd --by-tag --split train --split valid

The tables come from `training_data.py`. Printed are, for every combination, the ROC-AUC and PR-AUC of the mean of the
probabilities and of the mean of the logits, with 95 % intervals (artists resampled): over all pairs of track and tag,
or, with `--by-tag`, for each label of the table that is a tag of the teachers', averaged. A teacher is a zoo model or
an export of one, which is faster.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.datasets import Manifest

RESAMPLES = 300


def scores(tagger: kmt.BaseTagger, manifest: Manifest) -> np.ndarray:
    """Mean probabilities of every track, `(tracks, tags)`."""
    rows = tqdm(manifest.rows, unit="track", desc=tagger.spec.name, delay=2)
    found = [tagger.tag(row.path, offset=row.start, duration=row.duration) for row in rows]
    return np.asarray([[tagged[name] for name in tagger.spec.vocabulary.names] for tagged in found])


def logit(p: np.ndarray) -> np.ndarray:
    """Log odds."""
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def measured(own: np.ndarray, truth: np.ndarray, groups: np.ndarray, by_tag: bool) -> str:
    """Cells of a row: ROC-AUC and PR-AUC with intervals."""
    if not by_tag:  # one column, which has all pairs; sklearn averages over columns
        own, truth, groups = own.reshape(-1, 1), truth.reshape(-1, 1), np.repeat(groups, truth.shape[1])
    rng, members = np.random.default_rng(0), [np.flatnonzero(groups == group) for group in np.unique(groups)]
    cells = []
    for score in (roc_auc_score, average_precision_score):
        drawn = []
        for _ in range(RESAMPLES):
            chosen = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
            drawn.append(score(truth[chosen], own[chosen]))
        low, high = np.percentile(drawn, [2.5, 97.5])
        cells.append(f"{score(truth, own):.3f} [{low:.3f}, {high:.3f}]")
    return " | ".join(cells)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Compare teachers and ensembles of them on human labels.")
    parser.add_argument("table", type=Path)
    parser.add_argument("teachers", nargs="+")
    parser.add_argument("--by-tag", action="store_true", help="the mean of the areas of the table's labels")
    parser.add_argument("--split", action="append", help="only this part of the table; may be given several times")
    given = parser.parse_args()
    taggers = [kmt.load(name) for name in given.teachers]
    if any(tagger.tags != taggers[0].tags for tagger in taggers):
        raise SystemExit("The teachers must have the same tags in the same order.")
    names = taggers[0].spec.vocabulary.names
    manifest = Manifest.load(given.table, tags=None if given.by_tag else names)
    if given.split:
        manifest = manifest.filter(lambda row: row.split in given.split)
    known = [label for label in manifest.tags if label in names]
    if not known:
        raise SystemExit(f"None of the labels of {given.table} is a tag: {', '.join(manifest.tags)}.")
    truth = manifest.targets()[:, [manifest.tags.index(label) for label in known]]
    columns, groups = [names.index(label) for label in known], np.asarray([row.group for row in manifest])
    heard = {tagger.spec.name: scores(tagger, manifest)[:, columns] for tagger in taggers}
    what = ", ".join(known) if given.by_tag else f"{len(known)} tags"
    print(f"{len(manifest)} tracks of {len(set(groups))} artists, {what}\n")
    print("| teachers | mean of | ROC-AUC | PR-AUC |\n| --- | --- | --- | --- |")
    for size in range(1, len(heard) + 1):
        for members in itertools.combinations(heard, size):
            every = np.stack([heard[name] for name in members])
            means = {"probabilities": every.mean(axis=0)}
            if size > 1:
                means["logits"] = logit(every).mean(axis=0)
            for kind, mean in means.items():
                print(f"| {', '.join(members)} | {kind} | {measured(mean, truth, groups, given.by_tag)} |")


if __name__ == "__main__":
    main()
