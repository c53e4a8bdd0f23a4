"""Compare teachers and their means on human tags: python zoo/choose_teachers.py human.csv musicnn_mtt vgg_mtt ...

`human.csv` comes from `training_data.py`. Printed are, for every combination, the ROC-AUC and PR-AUC over all pairs of
track and tag, of the mean of the probabilities and of the mean of the logits, with 95 % intervals (artists resampled).
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

import keras_musictag as kmt
from keras_musictag.datasets import Manifest

RESAMPLES = 300


def scores(name: str, manifest: Manifest) -> np.ndarray:
    """Mean probabilities of every track, `(tracks, tags)`."""
    tagger = kmt.load(name)
    found = [tagger.tag(row.path, offset=row.start, duration=row.duration) for row in manifest]
    return np.asarray([[tags[tag] for tag in tagger.tags] for tags in found])


def logit(p: np.ndarray) -> np.ndarray:
    """Log odds."""
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def measured(own: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> str:
    """Cells of a row: ROC-AUC and PR-AUC with intervals."""
    rng, members = np.random.default_rng(0), [np.flatnonzero(groups == group) for group in np.unique(groups)]
    cells = []
    for score in (roc_auc_score, average_precision_score):
        drawn = []
        for _ in range(RESAMPLES):
            chosen = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
            drawn.append(score(truth[chosen].ravel(), own[chosen].ravel()))
        low, high = np.percentile(drawn, [2.5, 97.5])
        cells.append(f"{score(truth.ravel(), own.ravel()):.3f} [{low:.3f}, {high:.3f}]")
    return " | ".join(cells)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Compare teachers and ensembles of them on human tags.")
    parser.add_argument("human", type=Path)
    parser.add_argument("teachers", nargs="+")
    given = parser.parse_args()
    tags = kmt.model_info(given.teachers[0]).tags
    if any(kmt.model_info(name).tags != tags for name in given.teachers):
        raise SystemExit("The teachers must have the same tags in the same order.")
    manifest = Manifest.load(given.human, tags=tags)
    truth, groups = manifest.targets(), np.asarray([row.group for row in manifest])
    known = {name: scores(name, manifest) for name in given.teachers}
    print(f"{len(manifest)} tracks of {len(set(groups))} artists\n")
    print("| teachers | mean of | ROC-AUC | PR-AUC |\n| --- | --- | --- | --- |")
    for size in range(1, len(known) + 1):
        for names in itertools.combinations(known, size):
            every = np.stack([known[name] for name in names])
            print(f"| {', '.join(names)} | probabilities | {measured(every.mean(axis=0), truth, groups)} |")
            if size > 1:
                print(f"| {', '.join(names)} | logits | {measured(logit(every).mean(axis=0), truth, groups)} |")


if __name__ == "__main__":
    main()
