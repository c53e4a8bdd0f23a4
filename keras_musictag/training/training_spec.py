"""Settings, state and result of a training run, and the errors it raises."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import MusicTagError
from ..utils.checks import check_count

if TYPE_CHECKING:
    import keras

    from ..tagging.network_tagger import NetworkTagger

CLIP_NORM = 1.0  # recommended after a failure without clipping
TaggerT = TypeVar("TaggerT", bound="NetworkTagger")
ReportT = TypeVar("ReportT")
PRECISIONS = ("float32", "mixed_bfloat16", "auto")


class TrainingError(MusicTagError, ValueError):
    """Settings are invalid, data do not fit them, or the folder holds another run."""


class NotFiniteError(TrainingError):
    """The loss or a weight became NaN or infinite twice, although the run went on in float32 after the first time.

    Args:
        message: what happened, and what to do.
        what: what happened, without the advice.
        in_data: whether the inputs or targets were already NaN or infinite, so that no setting helps.
    """

    def __init__(self, message: str, *, what: str, in_data: bool = False) -> None:
        """See the class."""
        super().__init__(message)
        self.what, self.in_data = what, in_data


def lower_learning_rate(failed: float, default: float) -> float:
    """Return the learning rate to try after one with which a network became NaN or infinite.

    Example:
        >>> lower_learning_rate(12.5, 2e-3), lower_learning_rate(2e-3, 2e-3)
        (0.002, 0.0002)
    """
    return default if failed > default else failed / 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """Settings of a run; two runs with equal settings and data give equal weights, within float rounding.

    Attributes:
        steps: number of optimizer steps.
        learning_rate: peak of the cosine schedule.
        final_learning_rate: end of the cosine schedule.
        warmup_steps: steps of the linear rise to the peak.
        weight_decay: weight decay of AdamW; 0 is Adam.
        average: decay of the averaged weights per step; smaller in the first steps, to forget the initial weights.
        clip_norm: limit on the global gradient norm, `None` for none.
        validate_every: steps from one validation to the next.
        patience: validations without a better score before the run stops, `None` for never.
        monitor: score that decides; greater is better.
        checkpoint_every: steps from one checkpoint to the next, which a kill can cost.
        seed: random seed of dropout and other random layers.
        precision: precision of a training step: `"float32"`, `"mixed_bfloat16"`, or `"auto"`: bfloat16 if a self-test
            on this machine finds it faster and as good (`precision.choose_precision`). Weights and validation are
            always float32.
    """

    steps: int
    learning_rate: float = 2e-3
    final_learning_rate: float = 2e-5
    warmup_steps: int = 100
    weight_decay: float = 0.0
    average: float = 0.998
    clip_norm: float | None = None
    validate_every: int = 200
    patience: int | None = None
    monitor: str = "score"
    checkpoint_every: int = 100
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name, least in (
            ("steps", 1),
            ("validate_every", 1),
            ("checkpoint_every", 1),
            ("warmup_steps", 0),
            ("seed", 0),
        ):
            check_count(name, getattr(self, name), least, kind=int, error=TrainingError)
        if self.precision not in PRECISIONS:
            raise TrainingError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}.")
        if not 0 <= self.average < 1:
            raise TrainingError(f"average must be at least 0 and below 1; got {self.average!r}.")
        if not (0 < self.learning_rate < math.inf and 0 <= self.final_learning_rate <= self.learning_rate):
            raise TrainingError(
                f"learning_rate must be above 0 and finite, and final_learning_rate between 0 and it; got "
                f"{self.learning_rate!r} and {self.final_learning_rate!r}."
            )
        if not self.weight_decay >= 0:
            raise TrainingError(f"weight_decay must be 0 or more; got {self.weight_decay!r}.")
        for name in ("clip_norm", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name} must be above 0, or None; got {value!r}.")

    def is_over(self, state: RunState) -> bool:
        """Return whether all steps of a run are done or patience has run out."""
        out_of_patience = self.patience is not None and state.stale >= self.patience
        return out_of_patience or state.step >= self.steps

    def digest(self, model: keras.Model) -> str:
        """Return a digest of these settings and the layout of the network."""
        layout = [(layer.name, list(weight.shape)) for layer in model.layers for weight in layer.weights]
        text = json.dumps([dataclasses.asdict(self), layout], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass
class RunState:
    """State of a run.

    Attributes:
        step: number of optimizer steps done.
        best: best score so far.
        best_step: last step with that score.
        stale: number of validations since the best score improved.
        waiting: share of the time that the network waited for data, 0 to 1, since the run was last started.
        precision: precision of the next steps.
        failures: number of times that the run went back because the loss or a weight was NaN or infinite.
        notes: why `"auto"` chose its precision, and from which to which step the run went back.
    """

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    stale: int = 0
    waiting: float = 0.0
    precision: str = "float32"
    failures: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult(Generic[TaggerT, ReportT]):
    """Result of `train`, `distil`, `fine_tune` and `run_recipe`; `tagger, report = result` unpacks it.

    Attributes:
        tagger: the trained tagger, with the best weights.
        report: a `RunState` or, from `fine_tune`, a `FineTuneReport`.
        finished: `False` if Ctrl-C stopped the run early; the same call continues it.
        problems: one line for each clip that was left out; always empty from `train` and `distil`.
        folder: folder of the run or, from `fine_tune` and `run_recipe`, of the saved tagger; `None` without one.
    """

    tagger: TaggerT
    report: ReportT
    finished: bool
    problems: tuple[str, ...] = ()
    folder: Path | None = None

    def __iter__(self) -> Iterator[Any]:
        """Yield tagger and report, for unpacking."""
        yield self.tagger
        yield self.report
