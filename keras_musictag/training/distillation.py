"""Distillation: a student learns the probabilities of a teacher, without labels.

The targets come from `teacher_targets`: the teacher tags every track once, and the target of a student's window is the
mean over the teacher's windows inside it, so that both describe the same audio. After Hinton,
Vinyals & Dean, "Distilling the knowledge in a neural network", 2015 (https://arxiv.org/abs/1503.02531), at
temperature 1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .loop import RunState, TrainingError, TrainingSpec, fit, set_prior
from .teacher_targets import EnsembleTargets, student_tags
from .training_graph import segment_frames
from .training_spec import TaggerT, TrainingResult

if TYPE_CHECKING:
    import keras

    from ..datasets import Manifest
    from ..datasets.augment import Augmentation
    from ..datasets.batches import EvaluationWindows, TargetsOf
    from ..datasets.log_mel_cache import FeatureCache
    from ..tagging.base_tagger import BaseTagger
    from ..tagging.network_tagger import NetworkTagger
    from .losses import BalancedCrossentropy


def distil(
    student: TaggerT,
    teacher: BaseTagger | Sequence[BaseTagger],
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
    hop_seconds: float = 1.0,
    segment_weight: float = 1.0,
    balance: float = 0.5,
    teacher_folder: str | os.PathLike[str] | None = None,
    shared_groups: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> TrainingResult[TaggerT, RunState]:
    """Train `student` to agree with `teacher`; resumes a stopped run in `folder`.

    Args:
        student: usually `load(name, weights=None)`; trained in place.
        teacher: tagger, also an exported one, with the student's tags in the same order; or several, of which the mean
            probability is the target. Of teachers with different tags the student learns all vocabularies at once: its
            tags are `teacher_targets.student_tags(teachers)`.
        train, validation: tracks; labels are ignored. They share no file and, unless `shared_groups`, no artist.
        folder: folder of the run.
        cache: log-mels of the student's front end.
        training: settings of the loop. `monitor="score"` is the mean per-tag correlation with the teacher; several
            vocabularies have a `score_NAME` each, too.
        batch_size: windows per step.
        augment: applied to each batch.
        mixup: probability of mixing a window with another, both log-mels and targets (`augment.mixup`, mode `"log"`).
        dropout: factor on the network's dropout rates.
        bn_momentum: momentum of moving statistics; 0.95 settles within a few hundred steps.
        hop_seconds: time from one window of the teacher to the next, see `EnsembleTargets`.
        segment_weight: weight in the loss of tagging each segment of the window by itself, see `training_graph`; 0 for
            the window alone.
        balance: weight of rare tags, from 0 for equal weights to 1, see `losses.balance_weights`.
        teacher_folder: folder of the teacher's probabilities, which runs can share; by default beside `folder`.
        shared_groups: let `train` and `validation` share groups (artists).
        workers: number of threads that read batches.
        progress: show progress bars.

    Returns:
        `TrainingResult`: the trained tagger, with the best averaged weights, and as report the `RunState` at the end.

    Raises:
        TrainingError: the tags differ, the parts overlap, validation has fewer than three tracks, or files cannot be
            read (drop them first: `Manifest.validate`).
    """
    from ..datasets.batches import EvaluationWindows, WindowBatches
    from .losses import balance_weights

    teachers = [*teacher] if isinstance(teacher, Sequence) else [teacher]
    _check_task(student, teachers, train, validation, shared_groups)
    spec = student.spec
    targets = _cached_targets(
        teachers, {"train": train, "validation": validation}, teacher_folder or Path(folder).parent / "teacher",
        cache=cache, frame_seconds=spec.mel.hop_length / spec.audio.sr, hop_seconds=hop_seconds, progress=progress,
    )  # fmt: skip
    segments, frames_each = segment_frames(student.core) if segment_weight else (0, 0)
    batches = WindowBatches(
        train, spec, cache, batch_size=batch_size, steps=training.steps, seed=training.seed,
        targets=_with_segments(targets["train"], segments, frames_each), augment=augment, mixup=mixup, mixup_mode="log",
        workers=workers,
    )  # fmt: skip
    train_targets = targets["train"].row_targets()
    set_prior(student.core, train_targets.mean(axis=0))
    vocabularies = targets["train"].slices()
    weights = np.concatenate([balance_weights(train_targets[:, part], balance) for part in vocabularies.values()])
    loss = _balanced_loss(weights, segments, segment_weight)
    windows = EvaluationWindows(validation, spec, cache, batch_size=batch_size)
    expected = targets["validation"].row_targets()

    def validate(model: keras.Model) -> dict[str, float]:
        return _agreement(model, windows, expected, student.tags, vocabularies)

    state = fit(
        student.core, batches, training, folder,
        validate=validate, loss=loss, segments=bool(segment_weight), dropout=dropout, bn_momentum=bn_momentum,
        progress=progress, about={
            "train": train.digest(), "validation": validation.digest(), "teacher": targets["train"].key,
            "batch_size": batch_size, "mixup": mixup, "augment": augment, "segments": segment_weight,
            "balance": balance,
        },
    )  # fmt: skip
    names = " and ".join(each.spec.name for each in teachers)
    trained_on = f"Distilled from {names} on {len(train)} tracks without labels."
    trained = student.like(spec.retrained(trained_on=trained_on), student.core)
    return TrainingResult(tagger=trained, report=state, finished=training.is_over(state), folder=Path(folder))


def _check_task(
    student: NetworkTagger,
    teachers: Sequence[BaseTagger],
    train: Manifest,
    validation: Manifest,
    shared_groups: bool,
) -> None:
    """Raise `TrainingError` if the tags differ, the parts overlap or validation is too small."""
    from .supervised import check_disjoint

    tags = student_tags(teachers)
    if student.tags != tags:
        raise TrainingError(
            f"Student and teacher must have the same tags in the same order; got {len(student.tags)} and {len(tags)}, "
            f"the first ones {student.tags[:3]} and {tags[:3]}."
        )
    check_disjoint({"train": train, "validation": validation}, shared_groups)
    if len(validation) < 3:
        raise TrainingError(f"validation has {len(validation)} tracks; a correlation needs at least 3. Add some.")


def _cached_targets(
    teachers: Sequence[BaseTagger],
    parts: dict[str, Manifest],
    folder: str | os.PathLike[str],
    *,
    cache: FeatureCache,
    frame_seconds: float,
    hop_seconds: float,
    progress: bool,
) -> dict[str, EnsembleTargets]:
    """Return the teachers' targets of each part, after computing those and the log-mels that are not kept yet.

    Raises:
        TrainingError: a file cannot be used.
    """
    targets = {}
    for part, manifest in parts.items():
        targets[part] = EnsembleTargets(
            teachers, manifest, folder, frame_seconds=frame_seconds, hop_seconds=hop_seconds
        )
        bad = targets[part].fill(progress) + cache.fill([row.path for row in manifest], progress=progress)
        if bad:
            raise TrainingError(f"{len(bad)} files of {part} cannot be used, the first one: {bad[0][1]}")
    return targets


def _balanced_loss(weights: np.ndarray, segments: int, segment_weight: float) -> BalancedCrossentropy:
    """Return the loss of a window's tags and of those of each of its segments, with a weight `(tags,)` for each tag."""
    from .losses import BalancedCrossentropy

    shares = np.ones((1 + segments, len(weights)))  # of the window, then of each segment
    shares[1:] = segment_weight / max(segments, 1)
    shares *= 1 + segments  # the loss is a mean over all outputs: this keeps the weight of the window at 1
    return BalancedCrossentropy((shares * weights).ravel())


def _with_segments(targets: EnsembleTargets, count: int, frames: int) -> TargetsOf:
    """Return a function that concatenates the targets of a window and those of each of its segments."""

    def of_window(row: int, start: int, length: int) -> np.ndarray:
        parts = [targets(row, start, length)]
        parts += [targets(row, start + segment * frames, frames) for segment in range(count)]
        return np.concatenate(parts)

    return of_window


def _agreement(
    model: keras.Model,
    windows: EvaluationWindows,
    expected: np.ndarray,
    tags: tuple[str, ...],
    vocabularies: dict[str, slice],
) -> dict[str, float]:
    from ..evaluation.metrics import agreement
    from .supervised import row_outputs

    own = row_outputs(model, windows)
    result = agreement(own, expected, tags)
    scores = {"score": result.correlation, "roc_auc_top_tenth": result.roc_auc}
    if len(vocabularies) > 1:
        for name, part in vocabularies.items():
            scores[f"score_{name}"] = agreement(own[:, part], expected[:, part], tags[part]).correlation
    return scores
