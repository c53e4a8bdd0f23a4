"""Settings of fine-tuning. The defaults suit ten to a hundred clips per tag."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

from ...datasets.augment import Augmentation
from ...models.spec import MelSpec
from ...models.thresholds import check_floor
from ...utils.fields import require, require_choice, require_count
from ..training_spec import PRECISIONS, TrainingSpec

Stages = Literal["head", "full"]

TRAINED_SHARE = 0.75  # position between the weights of the first and the second stage, see `stages.blend`


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneSpec:
    """Settings of fine-tuning.

    Attributes:
        stages: `"head"` fits a linear classifier to the embeddings of the clips, in seconds. `"full"` then trains the
            whole network at a low learning rate and keeps it unless it does worse on the validation clips.
        epochs: largest number of epochs of the second stage.
        learning_rate: peak of the second stage's cosine schedule.
        batch_size: windows per step.
        patience: epochs without a better validation score before the second stage stops.
        augment: vary level, tilt and pitch of the windows, mask parts of them, and mix them with each other.
        balance: weight of rare tags: 0 in proportion to their frequency, 1 equal for all tags.
        folds: number of folds of the training clips in the cross-validation of the first stage.
        precision: precision of the second stage: `"float32"`, `"mixed_bfloat16"` or `"auto"`, see `TrainingSpec`.
        min_precision: least precision of the thresholds for `threshold="auto"`; tags that cannot reach it on the
            held-out clips are then never returned.
        seed: random seed.

    Raises:
        SpecError: a setting is out of range.
    """

    stages: Stages = "full"
    epochs: int = 6
    learning_rate: float = 1e-4
    batch_size: int = 16
    patience: int = 3
    augment: bool = True
    balance: float = 0.5
    folds: int = 5
    precision: str = "float32"
    min_precision: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_choice("stages", self.stages, get_args(Stages))
        require_choice("precision", self.precision, PRECISIONS)
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("folds", 2), ("seed", 0)):
            require_count(name, getattr(self, name), least)
        require(
            0 < self.learning_rate < math.inf, f"learning_rate must be above 0 and finite; got {self.learning_rate!r}."
        )
        check_floor(self.min_precision)
        require(0 <= self.balance <= 1, f"balance must be between 0 and 1; got {self.balance!r}.")

    def steps_per_epoch(self, clips: int) -> int:
        """Return the number of steps in which every clip occurs once."""
        return max(1, math.ceil(clips / self.batch_size))

    def training(self, clips: int, validated: bool) -> TrainingSpec:
        """Return the settings of the second stage's loop, for a number of training clips."""
        epoch = self.steps_per_epoch(clips)
        return TrainingSpec(
            steps=self.epochs * epoch, learning_rate=self.learning_rate,
            final_learning_rate=self.learning_rate / 100, warmup_steps=epoch, weight_decay=0.01, average=0.98,
            clip_norm=1.0, validate_every=epoch, patience=self.patience if validated else None,
            monitor="log_likelihood", checkpoint_every=epoch, seed=self.seed, precision=self.precision,
        )  # fmt: skip

    def augmentation(self, mel: MelSpec) -> Augmentation | None:
        """Return the augmentation of training windows, `None` without."""
        if not self.augment:
            return None
        return Augmentation(
            mel=mel, gain_db=6.0, tilt_db=3.0, shift_bands=1, time_masks=1, time_mask_frames=100, mel_masks=1,
            mel_mask_bands=8,
        )  # fmt: skip
