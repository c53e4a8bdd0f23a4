"""Supervised training from labelled clips.

Windows are drawn from the training clips, with augmentation; each has the tags of its clip. Validation scores the mean
over all windows of a clip, as `Tagger.tag` gives it.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .loop import RunState, TrainingError, TrainingSpec, fit, set_prior
from .training_spec import TaggerT, TrainingResult

if TYPE_CHECKING:
    import keras

    from ..datasets import Manifest
    from ..datasets.augment import Augmentation
    from ..datasets.batches import EvaluationWindows
    from ..datasets.log_mel_cache import FeatureCache

SCORES = ("pr_auc", "roc_auc")  # validation scores


def train(
    tagger: TaggerT,
    train: Manifest,
    validation: Manifest,
    folder: str | os.PathLike[str],
    *,
    cache: FeatureCache,
    training: TrainingSpec,
    batch_size: int = 16,
    augment: Augmentation | None = None,
    mixup: float = 0.0,
    dropout: float = 1.0,
    bn_momentum: float | None = 0.95,
    shared_groups: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> TrainingResult[TaggerT, RunState]:
    """Train `tagger` on labelled clips; resumes a stopped run in `folder`.

    Args:
        tagger: usually `load(name, weights=None)`; trained in place.
        train, validation: clips with the tagger's tags, in its order. Targets of `validation` must be 0 or 1.
        folder: folder of the run.
        cache: log-mels of the tagger's front end.
        training: settings of the loop. Scores are `"pr_auc"` (also as `monitor="score"`) and `"roc_auc"`: means over
            the tags that some validation clips have and some do not.
        batch_size: windows per step.
        augment: applied to each batch.
        mixup: probability of mixing a window with another, as if both played at once (`augment.mixup`).
        dropout: factor on the network's dropout rates.
        bn_momentum: momentum of moving statistics; 0.95 settles within a few hundred steps.
        shared_groups: let `train` and `validation` share groups (artists), as some published splits do.
        workers: number of threads that read batches.
        progress: show progress bars.

    Returns:
        `TrainingResult`: the trained tagger, with the best averaged weights, and as report the `RunState` at the end.

    Raises:
        TrainingError: the tags differ, the parts overlap, one of them is too small, no tag can be scored, or files
            cannot be read (drop them first: `Manifest.validate`).
    """
    from ..datasets.batches import EvaluationWindows, WindowBatches

    check_labels(tagger.tags, train, validation, batch_size)
    check_disjoint({"train": train, "validation": validation}, shared_groups)
    if training.monitor not in ("score", *SCORES):
        raise TrainingError(f"monitor must be one of {', '.join(SCORES)}; got {training.monitor!r}.")
    if training.monitor == "score":
        training = dataclasses.replace(training, monitor="pr_auc")
    bad = cache.fill([row.path for part in (train, validation) for row in part], progress=progress)
    if bad:
        raise TrainingError(f"{len(bad)} files cannot be used, the first one: {bad[0][1]}")
    batches = WindowBatches(
        train, tagger.spec, cache, batch_size=batch_size, steps=training.steps, seed=training.seed,
        augment=augment, mixup=mixup, workers=workers,
    )  # fmt: skip
    set_prior(tagger.core, train.targets().mean(axis=0))
    windows = EvaluationWindows(validation, tagger.spec, cache, batch_size=batch_size)
    expected = validation.targets()

    def validate(model: keras.Model) -> dict[str, float]:
        return _scores(row_outputs(model, windows), expected, tagger.tags)

    state = fit(
        tagger.core, batches, training, folder,
        validate=validate, dropout=dropout, bn_momentum=bn_momentum, progress=progress, about={
            "train": train.digest(), "validation": validation.digest(), "batch_size": batch_size, "mixup": mixup,
            "augment": augment,
        },
    )  # fmt: skip
    spec = tagger.spec.retrained(trained_on=f"{len(train):,} clips with labels")
    trained = tagger.like(spec, tagger.core)
    return TrainingResult(tagger=trained, report=state, finished=training.is_over(state), folder=Path(folder))


def row_outputs(model: keras.Model, windows: EvaluationWindows) -> np.ndarray:
    """Return the outputs of a network for every row, as means over its windows: float32 `(rows, tags)`."""
    outputs = []
    for index in range(len(windows)):
        batch = windows[index][0]
        # Pad the last batch: devices that share batches need equal parts, and XLA compiles for each shape.
        padded = np.pad(batch, [(0, windows.batch_size - len(batch)), (0, 0), (0, 0)])
        outputs.append(np.asarray(model.predict_on_batch(padded))[: len(batch)])
    return windows.mean_per_row(np.concatenate(outputs))


def _scores(outputs: np.ndarray, targets: np.ndarray, tags: tuple[str, ...]) -> dict[str, float]:
    from ..evaluation.metrics import evaluate_scores

    result = evaluate_scores(targets, outputs, tags, dataset="validation", split="valid", n_bootstrap=0)
    return {name: float(getattr(result, name).value) for name in SCORES}


# === Checks ===


def check_labels(tags: tuple[str, ...], train: Manifest, validation: Manifest, batch_size: int) -> None:
    """Validate that a tagger with these tags can be trained on `train` and scored on `validation`.

    Raises:
        TrainingError: it cannot.
    """
    for name, part in (("train", train), ("validation", validation)):
        if not len(part):
            raise TrainingError(f"{name} has no clips. Add some, or split all clips with Manifest.grouped_split().")
        if part.tags != tags:
            raise TrainingError(
                f"{name} must have the tagger's tags, in its order; got {len(part.tags)} and {len(tags)}, the first "
                f"ones {part.tags[:3]} and {tags[:3]}. Use manifest.with_tags(tagger.tags), or a tagger for these tags."
            )
    if len(train) < batch_size:
        raise TrainingError(
            f"train has {len(train)} clips, fewer than a batch of {batch_size}. Add clips, or lower batch_size."
        )
    targets = validation.targets()
    soft = np.flatnonzero(((targets != 0) & (targets != 1)).any(axis=1))
    if len(soft):
        raise TrainingError(
            f"Targets in validation must be 0 or 1; {len(soft)} of its {len(targets)} clips have other targets, the "
            f"first one {validation[int(soft[0])].path}. Round them, or leave these clips out."
        )
    if not (targets.min(axis=0) < targets.max(axis=0)).any():
        raise TrainingError(
            f"No tag can be scored on validation: each of the {len(tags)} is on all of its {len(targets)} clips or on "
            "none. Add clips to it."
        )


def check_disjoint(parts: Mapping[str, Manifest], shared_groups: bool = False) -> None:
    """Validate that no two parts share a file or, unless that is allowed, a group.

    Raises:
        TrainingError: they do.
    """
    for (one, first), (other, second) in itertools.combinations(parts.items(), 2):
        files = sorted({row.path for row in first} & {row.path for row in second})
        if files:
            raise TrainingError(
                f"{one} and {other} share {len(files)} files, e.g. {files[0]}, so scores would be meaningless. Put "
                "each file in one part only, as Manifest.grouped_split() does."
            )
        groups = sorted({row.group for row in first if row.group} & {row.group for row in second})
        if groups and not shared_groups:
            raise TrainingError(
                f"{one} and {other} share {len(groups)} groups (artists), e.g. {groups[0]!r}, so scores would be too "
                "high. Split with Manifest.grouped_split(), or pass shared_groups=True for a published split."
            )
