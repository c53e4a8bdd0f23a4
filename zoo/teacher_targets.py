"""Compute what teachers say of the training data, once: their probabilities per window, kept on disk.

    python zoo/teacher_targets.py MANIFEST.csv FOLDER --teacher musicnn_mtt [--teacher vgg_mtt ...]

Recipes keep them in `teachers`, in the folder of log-mels (`--cache`, by default `log-mels` in this package's cache):
fill that one with several processes before a recipe does it with one.
Distillation reads these files (`teacher_folder`): one per track and teacher, named by the content of the track. What is
there already is skipped, so a killed run goes on where it stopped, and several manifests may share a folder. Unreadable
files are listed at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras_musictag as kmt
from keras_musictag.datasets import Manifest
from keras_musictag.training.teacher_targets import EnsembleTargets


def main() -> None:
    """Let each teacher tag each file of the manifest."""
    parser = argparse.ArgumentParser(description="Compute teachers' probabilities for a manifest's files.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folder", type=Path, help="where the probabilities are kept")
    parser.add_argument("--teacher", action="append", required=True, help="zoo model; may be given several times")
    parser.add_argument("--hop-seconds", type=float, default=2.0, help="from one window of the teacher to the next")
    parser.add_argument("--split", action="append", help="only this part of the manifest; may be given several times")
    given = parser.parse_args()
    manifest = Manifest.load(given.manifest, untagged=True)
    if given.split:
        manifest = manifest.filter(lambda row: row.split in given.split)
    for name in given.teacher:
        targets = EnsembleTargets(
            [kmt.load(name)], manifest, given.folder, frame_seconds=1.0, hop_seconds=given.hop_seconds
        )
        for path, error in targets.fill(progress=True):
            print(f"{name}: {path}: {error}")


if __name__ == "__main__":
    main()
