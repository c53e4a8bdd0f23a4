"""Say what a teacher hears in the training data: python zoo/training_hours.py MANIFEST.csv TARGETS.

For each tag, hours of training sound on which the teacher gives more than 0.5, by source, as a Markdown table, rarest
tag first: what a student will hardly have heard. Only tracks count whose probabilities are in TARGETS already (see
`teacher_targets.py`); how many those are stands below the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import keras_musictag as kmt
from keras_musictag.datasets import Manifest
from keras_musictag.models.fetching import sha256_of

LIKELY = 0.5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Hours per tag on which a teacher gives more than 0.5.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("targets", type=Path, help="FOLDER of teacher_targets.py")
    parser.add_argument("--teacher", default="musicnn_mtt")
    parser.add_argument("--hop-seconds", type=float, default=2.0)
    given = parser.parse_args()
    spec = kmt.model_info(given.teacher)
    assert spec.weights is not None
    folder = given.targets / f"{spec.weights.sha256[:16]}-{given.hop_seconds:g}"
    rows = Manifest.load(given.manifest, untagged=True).split("train").rows
    sources = sorted({row.source or "" for row in rows})
    hours, known = np.zeros((len(spec.tags), len(sources))), np.zeros((2, len(sources)))
    for row in rows:
        file, column = folder / f"{sha256_of(row.path)}.npy", sources.index(row.source or "")
        if file.is_file():
            likely = np.load(file)[:, 1:] > LIKELY
            hours[:, column] += likely.sum(axis=0) * given.hop_seconds / 3600
            known[:, column] += 1, len(likely) * given.hop_seconds / 3600
    print(f"| tag | {' | '.join(sources)} | together |\n|{' --- |' * (len(sources) + 2)}")
    for tag in np.argsort(hours.sum(axis=1), kind="stable"):
        cells = " | ".join(f"{value:.2f}" for value in (*hours[tag], hours[tag].sum()))
        print(f"| {spec.tags[tag]} | {cells} |")
    print(f"| all tags | {' | '.join(f'{value:.2f}' for value in (*known[1], known[1].sum()))} |")
    print(f"\n{known[0].sum():.0f} of {len(rows)} tracks")


if __name__ == "__main__":
    main()
