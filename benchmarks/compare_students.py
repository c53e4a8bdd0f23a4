"""Old weights against new ones, paired: python benchmarks/compare_students.py MANIFEST OLD NEW [--human human.csv].

OLD and NEW are zoo models or folders; OLD may also be the teacher. On the rows of a split (tracks of one source, by
default Emotify's), printed are mean correlation with the teacher and ROC-AUC of the teacher's top tenth, for both and
for the difference; `--human` adds ROC-AUC and PR-AUC over all pairs of track and tag of the human tags (too few tracks
for means over tags), `--labels` the mean ROC-AUC of tags that `MEANING` finds in the labels of a table: genres.csv and
instruments.csv of `zoo/training_data.py`. In brackets 95 % intervals: groups (artists, or tracks without one) are
resampled, the same ones for both, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from agreement import scores

import keras_musictag as kmt
from keras_musictag.datasets import Manifest
from keras_musictag.evaluation.metrics import agreement

Score = Callable[[np.ndarray, np.ndarray], float]

# Label -> the tags that it implies, of which a model has some or none. A label that is a tag implies itself.
MEANING = {
    "Acoustic_guitar": ("guitar", "acousticguitar"),
    "Bass_drum": ("drums",),
    "Cello": ("cello", "strings"),
    "Double_bass": ("bass", "strings"),
    "Flute": ("flute",),
    "Hi_hat": ("drums",),
    "Snare_drum": ("drums",),
    "Violin_or_fiddle": ("violin", "strings"),
}


def pooled(kind: str) -> Score:
    """ROC-AUC or PR-AUC over all entries of `(tracks, tags)`."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    measure = {"roc": roc_auc_score, "pr": average_precision_score}[kind]
    return lambda own, truth: float(measure(np.ravel(truth), np.ravel(own)))


def implied(manifest: Manifest, names: tuple[str, ...]) -> tuple[list[int], np.ndarray]:
    """Columns of the tags that labels imply, and whether each row has them, `(rows, columns)`."""
    meant = [{tag for label in row.tags for tag in (label, *MEANING.get(label, ()))} for row in manifest]
    columns = [column for column, name in enumerate(names) if any(name in tags for tags in meant)]
    return columns, np.asarray([[names[column] in tags for column in columns] for tags in meant])


def mean_area(own: np.ndarray, truth: np.ndarray) -> float:
    """Mean ROC-AUC of the columns that have both values."""
    from sklearn.metrics import roc_auc_score

    both = [column for column in range(truth.shape[1]) if 0 < truth[:, column].sum() < len(truth)]
    return float(roc_auc_score(truth[:, both], own[:, both])) if both else float("nan")


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
            (first, second, second - first), np.nanpercentile(drawn, [2.5, 97.5], axis=0).T, strict=True
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
@click.option("--labels", multiple=True, type=click.Path(exists=True, path_type=Path), help="Table with labels.")
@click.option("--human", type=click.Path(exists=True, path_type=Path), help="Tracks with human tags.")
def main(
    manifest: Path,
    old: str,
    new: str,
    split: str,
    source: str,
    teacher: str,
    labels: tuple[Path, ...],
    human: Path | None,
) -> None:
    """Print a table."""
    rows = Manifest.load(manifest, untagged=True).split(split).filter(lambda row: row.source == source)
    groups = np.asarray([row.group for row in rows])
    expected, *own = (scores(name, rows) for name in (teacher, old, new))
    click.echo("| measure | n | old | new | difference |\n| --- | --- | --- | --- | --- |")
    compare("correlation with the teacher", *own, expected, groups, lambda a, b: agreement(a, b).correlation)
    compare("ROC-AUC, teacher's top tenth", *own, expected, groups, lambda a, b: agreement(a, b).roc_auc)
    for table in labels:
        rows = Manifest.load(table)
        if any(row.split for row in rows):
            rows = rows.split(split)
        names = kmt.load(new).spec.vocabulary.names
        columns, truth = implied(rows, names)
        groups = np.asarray([row.group or str(row.path) for row in rows])
        own = [scores(name, rows)[:, columns] for name in (old, new)]
        tags = ", ".join(names[column] for column in columns)
        compare(f"{table.stem}: ROC-AUC of {tags}", *own, truth, groups, mean_area)
    if human is not None:
        labelled = Manifest.load(human, tags=kmt.load(old).tags)
        groups, truth = np.asarray([row.group for row in labelled]), labelled.targets()
        own = [scores(name, labelled) for name in (old, new)]
        for kind in ("roc", "pr"):
            compare(f"human tags, {kind.upper()}-AUC over all pairs", *own, truth, groups, pooled(kind))


if __name__ == "__main__":
    main()
