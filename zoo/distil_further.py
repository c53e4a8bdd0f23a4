"""Go on training a student from the weights that it has, on more music: python zoo/distil_further.py MANIFEST OUT.

The manifest comes from `training_data.py`, the teacher's probabilities from `teacher_targets.py` (what is missing is
computed first). A run survives kills: the same command goes on at the last checkpoint. `OUT/run` holds the checkpoint
and the log, `OUT/tagger` the result, for `embed.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras_musictag as kmt
from keras_musictag.datasets import Manifest
from keras_musictag.datasets.augment import Augmentation
from keras_musictag.datasets.log_mel_cache import FeatureCache
from keras_musictag.training.distillation import distil
from keras_musictag.training.training_spec import TrainingSpec

AUGMENT = {"gain_db": 3.0, "tilt_db": 3.0, "shift_bands": 1}


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description="Distil further, from the weights that a student has.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="musicnet_crnn", help="zoo model or folder")
    parser.add_argument("--fresh", action="store_true", help="start from random weights instead")
    parser.add_argument("--teacher", default="musicnn_mtt")
    parser.add_argument("--teacher-folder", type=Path, required=True, help="FOLDER of teacher_targets.py")
    parser.add_argument("--features", type=Path, required=True, help="where log-mels are kept")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--average", type=float, default=0.995, help="decay of averaged weights per step")
    parser.add_argument("--validate-every", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--segment-weight", type=float, default=0.0)
    parser.add_argument("--dropout", type=float, default=0.2, help="factor on the network's own rates")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    manifest = Manifest.load(given.manifest, untagged=True)
    student = kmt.load(given.model, weights=None) if given.fresh else kmt.load(given.model)
    training = TrainingSpec(
        steps=given.steps, learning_rate=given.learning_rate, final_learning_rate=given.learning_rate / 50,
        warmup_steps=min(50, given.steps // 10), average=given.average, validate_every=given.validate_every,
        checkpoint_every=25, seed=given.seed, precision=given.precision,
    )  # fmt: skip
    tagger, state = distil(
        student, kmt.load(given.teacher), manifest.split("train"), manifest.split("valid"), given.out / "run",
        cache=FeatureCache(given.features, student.spec), training=training, batch_size=given.batch_size,
        augment=Augmentation(mel=student.spec.mel, **AUGMENT), mixup=0.3,
        dropout=given.dropout, hop_seconds=2.0, segment_weight=given.segment_weight,
        teacher_folder=given.teacher_folder,
    )  # fmt: skip
    tagger.save(given.out / "tagger", overwrite=True)
    print(f"best validation score {state.best:.4f} at step {state.best_step} of {state.step}")


if __name__ == "__main__":
    main()
