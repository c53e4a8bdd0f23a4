"""Old weights against new ones, paired: python benchmarks/compare_students.py MANIFEST OLD NEW [--human human.csv].

OLD and NEW are zoo models or folders. On the rows of a split (tracks of one source, by default Emotify's), printed are
mean correlation with the teacher and ROC-AUC of the teacher's top tenth, for both and for the difference; `--human`
adds ROC-AUC and PR-AUC over all pairs of track and tag of the human tags (too few tracks for means over tags). In
brackets 95 % intervals: groups (artists) are resampled, the same ones for both, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.datasets import Manifest
from keras_musictag.evaluation.metrics import agreement

Score = Callable[[np.ndarray, np.ndarray], float]


def scores(name: str, manifest: Manifest) -> np.ndarray:
    """Mean probabilities of every track, float32 `(tracks, tags)`."""
    tagger = kmt.load(name)
    found = [tagger.tag(row.path, offset=row.start, duration=row.duration) for row in tqdm(manifest, desc=name)]
    return np.asarray([[tags[tag] for tag in tagger.tags] for tags in found], "float32")


def pooled(kind: str) -> Score:
    """ROC-AUC or PR-AUC over all entries of `(tracks, tags)`."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    measure = {"roc": roc_auc_score, "pr": average_precision_score}[kind]
    return lambda own, truth: float(measure(np.ravel(truth), np.ravel(own)))


def compare(label: str, old: np.ndarray, new: np.ndarray, truth: np.ndarray, groups: np.ndarray, score: Score) -> None:
    """Print one row: both scores and their difference, with intervals."""
    rng, members = np.random.default_rng(0), [np.flatnonzero(groups == group) for group in np.unique(groups)]
    values = []
    for _ in range(1000):
        chosen = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        values.append([score(own[chosen], truth[chosen]) for own in (old, new)])
    drawn = np.asarray(values)
    drawn = np.column_stack([drawn, drawn[:, 1] - drawn[:, 0]])
    first, second = score(old, truth), score(new, truth)
    cells = [
        f"{value:.3f} [{low:.3f}, {high:.3f}]"
        for value, (low, high) in zip(
            (first, second, second - first), np.percentile(drawn, [2.5, 97.5], axis=0).T, strict=True
        )
    ]
    click.echo(f"| {label} | {len(old)} | {' | '.join(cells)} |")


@click.command()
@click.argument("manifest", type=click.Path(exists=True, path_type=Path))
@click.argument("old")
@click.argument("new")
@click.option("--split", default="valid", show_default=True, help="test: once, at the end.")
@click.option("--source", default="emotify", show_default=True)
@click.option("--teacher", default="musicnn_mtt", show_default=True)
@click.option("--human", type=click.Path(exists=True, path_type=Path), help="Tracks with human tags.")
def main(manifest: Path, old: str, new: str, split: str, source: str, teacher: str, human: Path | None) -> None:
    """Print a table."""
    rows = Manifest.load(manifest, untagged=True).split(split).filter(lambda row: row.source == source)
    groups = np.asarray([row.group for row in rows])
    expected, *own = (scores(name, rows) for name in (teacher, old, new))
    click.echo("| measure | n | old | new | difference |\n| --- | --- | --- | --- | --- |")
    compare("correlation with the teacher", *own, expected, groups, lambda a, b: agreement(a, b).correlation)
    compare("ROC-AUC, teacher's top tenth", *own, expected, groups, lambda a, b: agreement(a, b).roc_auc)
    if human is not None:
        labelled = Manifest.load(human, tags=kmt.load(old).tags)
        groups, truth = np.asarray([row.group for row in labelled]), labelled.targets()
        own = [scores(name, labelled) for name in (old, new)]
        for kind in ("roc", "pr"):
            compare(f"human tags, {kind.upper()}-AUC over all pairs", *own, truth, groups, pooled(kind))


if __name__ == "__main__":
    main()
