"""Make a teacher of features: python zoo/feature_teacher.py musicnn_mtt MANIFEST.csv OUT [--features 32].

Feature distillation gives a student the embedding of its teacher as a second target (Ding & Lerch, "Audio embeddings as
teachers for music classification", ISMIR 2023, https://arxiv.org/abs/2306.17424). Here it is a vocabulary like any
other: `OUT` holds the teacher's network with another head, whose "tags" are the principal components of the embedding,
in units of their standard deviation over the manifest's training tracks, as logits. A recipe with
`teacher = ["musicnn_mtt", "OUT"]` learns both, and `split_vocabularies.py` leaves the features out again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from split_vocabularies import with_head
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.datasets import Manifest


def embeddings(tagger: kmt.Tagger, manifest: Manifest, tracks: int, seconds: float, seed: int) -> np.ndarray:
    """Embeddings `(tracks, dimensions)` of an excerpt of each of some training tracks, drawn at random."""
    rows = manifest.split("train").rows
    drawn = np.random.default_rng(seed).permutation(len(rows))[:tracks]
    return np.stack([tagger.embed(rows[row].path, duration=seconds) for row in tqdm(drawn, unit="track", delay=2)])


def with_features(tagger: kmt.Tagger, vectors: np.ndarray, features: int) -> kmt.Tagger:
    """The network with its first principal components over `vectors`, whitened, as outputs.

    Raises:
        ValueError: there are fewer vectors than features.
    """
    if features > len(vectors):
        raise ValueError(f"{features} features need as many tracks; got {len(vectors)}.")
    pca = PCA(features, svd_solver="full", whiten=True).fit(vectors)
    kernel = (pca.components_ / np.sqrt(pca.explained_variance_)[:, None]).T
    tags = tuple(f"feature {number:02}" for number in range(features))
    return with_head(tagger, [kernel, -pca.mean_ @ kernel], name=f"{tagger.spec.name}-features", tags=tags)


def main() -> None:
    """Write the teacher."""
    parser = argparse.ArgumentParser(description="Make a teacher of the features of another one.")
    parser.add_argument("teacher", help="zoo model")
    parser.add_argument("manifest", type=Path, help="manifest.csv of training_data.py")
    parser.add_argument("out", type=Path)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--tracks", type=int, default=400, help="that the components are computed from")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each track")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tagger = kmt.load(given.teacher)
    manifest = Manifest.load(given.manifest, untagged=True)
    vectors = embeddings(tagger, manifest, given.tracks, given.seconds, given.seed)
    print(with_features(tagger, vectors, given.features).save(given.out))


if __name__ == "__main__":
    main()
