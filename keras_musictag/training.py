"""The training loop: one for `train`, `distil` and `fine_tune`.

A run is a folder. It holds `checkpoint.safetensors` (everything needed to go on: weights, optimizer, averages, random
states, step), `best.safetensors` (averaged weights of the best validation so far) and `log.csv`. Batches are a
function of the step alone, and a checkpoint holds every other state, so a run that was killed and started again goes on
as if nothing had happened; at most `checkpoint_every` steps are repeated.

Weights are averaged exponentially over steps (Polyak & Juditsky 1992); it is the average that is validated and kept.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .errors import MusicTagError
from .weights import write_atomically

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

CHECKPOINT, BEST, LOG = "checkpoint.safetensors", "best.safetensors", "log.csv"
PRECISIONS = ("float32", "mixed_bfloat16")


class TrainingError(MusicTagError, ValueError):
    """Settings that contradict each other, a loss that is not a number, or a run folder of another run."""


class Batches(Protocol):
    """Training data: the batch of a step is a function of the step alone."""

    def __len__(self) -> int:
        """Steps there are; at least those of the run."""

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs `(batch, mels, frames)` and targets `(batch, tags)` of a step."""


Validate = Callable[["keras.Model"], Mapping[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """Settings of a run; two runs with equal settings and data give equal weights, within float rounding.

    Attributes:
        steps: optimizer steps.
        learning_rate: peak of the cosine schedule.
        final_learning_rate: where it ends.
        warmup_steps: linear rise to the peak.
        weight_decay: of AdamW; 0 is Adam.
        average: decay of the averaged weights per step; the first steps use less, so that the start is forgotten.
        clip_norm: global gradient norm, `None` for no limit.
        validate_every: steps from one validation to the next.
        patience: validations without a better score before the run stops, `None` for never.
        monitor: score that counts; greater is better.
        checkpoint_every: steps that a kill can cost.
        seed: of weights' dropout and whatever else is random in the model.
        precision: `"float32"`, or `"mixed_bfloat16"` where the processor multiplies bfloat16 faster; weights and
            what is validated stay float32.
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
        """Reject settings that no run can have."""
        for name in ("steps", "validate_every", "checkpoint_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise TrainingError(f"{name} must be a whole number of at least 1; got {value!r}.")
        if self.precision not in PRECISIONS:
            raise TrainingError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}.")
        if not 0 <= self.average < 1:
            raise TrainingError(f"average must be at least 0 and below 1; got {self.average!r}.")
        if not (self.learning_rate > 0 and 0 <= self.final_learning_rate <= self.learning_rate):
            raise TrainingError(
                f"learning_rate must be above 0, and final_learning_rate between 0 and it; got {self.learning_rate!r} "
                f"and {self.final_learning_rate!r}."
            )
        if not self.warmup_steps >= 0:
            raise TrainingError(f"warmup_steps must be 0 or more; got {self.warmup_steps!r}.")
        for name in ("clip_norm", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name} must be above 0, or None; got {value!r}.")

    def digest(self, model: keras.Model) -> str:
        """Twelve digits that tell these settings and this network from others."""
        layout = [(layer.name, list(weight.shape)) for layer in model.layers for weight in layer.weights]
        text = json.dumps([dataclasses.asdict(self), layout], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass
class RunState:
    """Where a run is.

    Attributes:
        step: optimizer steps done.
        best: best score so far.
        best_step: when that was, the last time.
        stale: validations since a score was better than all before.
        waiting: share of the time that the network waited for data, 0 to 1, since the run was last started.
    """

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    stale: int = 0
    waiting: float = 0.0


# === Preparing a network ===


def prepare(
    model: keras.Model, *, prior: np.ndarray | None = None, dropout: float = 1.0, bn_momentum: float | None = None
) -> None:
    """Set what decides whether training leaves the constant predictor.

    Args:
        model: with a sigmoid `"head"`.
        prior: float array `(tags,)`, how frequent each tag is: the head's bias starts there.
        dropout: factor on every dropout rate.
        bn_momentum: momentum of the batch norms' moving statistics.
    """
    if prior is not None:
        clipped = np.clip(np.asarray(prior, "float64"), 1e-4, 1 - 1e-4)
        model.get_layer("head").bias.assign(np.log(clipped / (1 - clipped)).astype("float32"))
    for layer in model.layers:
        if type(layer).__name__ == "Dropout":
            layer.rate *= dropout
        if bn_momentum is not None and type(layer).__name__ == "BatchNormalization":
            layer.momentum = bn_momentum


# === The loop ===


def fit(
    model: keras.Model,
    batches: Batches,
    spec: TrainingSpec,
    folder: str | os.PathLike[str],
    *,
    validate: Validate,
    loss: Any = "binary_crossentropy",
    segments: bool = False,
    progress: bool = True,
) -> RunState:
    """Train `model` in place, or go on where a killed run of the same settings stopped.

    Args:
        model: built network; at the end it holds the best averaged weights.
        batches: training data by step.
        spec: settings.
        folder: of the run; made if it does not exist.
        validate: called with the network holding averaged weights; returns scores, among them `spec.monitor`.
        loss: Keras loss.
        segments: the targets have those of each segment behind those of the window, see `training_graph`.
        progress: show a bar with loss, share of waiting and time left.

    Returns:
        `RunState` at the end. Ctrl-C ends a run early, with a checkpoint, and returns what there is.

    Raises:
        TrainingError: the loss became NaN or infinite, or the folder holds a run with other settings.
        CacheError: the folder cannot be written.
    """
    import keras

    from .pipeline import TimedBatches
    from .training_graph import training_graph

    if len(batches) < spec.steps:
        raise TrainingError(f"There are batches for {len(batches)} steps; the run needs {spec.steps}.")
    keras.utils.set_random_seed(spec.seed)
    graph = training_graph(model, precision=spec.precision, segments=segments)
    # XLA's convolutions are three times slower on CPUs than TensorFlow's own.
    graph.compile(optimizer=_optimizer(spec), loss=loss, jit_compile=keras.backend.backend() == "jax")
    graph.optimizer.build(graph.trainable_variables)
    run = _Run(model, graph, spec, Path(folder))
    run.resume()
    try:
        with _bar(spec, run.state, progress) as bar:
            timed = TimedBatches(batches, start=run.state.step)
            for inputs, targets in () if run.exhausted else timed:
                loss = run.advance(inputs, targets)
                run.state.waiting = timed.starved
                bar.set_postfix_str(f"loss {loss:.4f}, waiting {timed.starved:.0%}", refresh=False)
                bar.update()
                step = run.state.step
                if step % spec.validate_every == 0 or step == spec.steps:
                    run.check(validate)
                if step % spec.checkpoint_every == 0 or step == spec.steps:
                    run.save()
                if step == spec.steps or run.exhausted:
                    break
    except KeyboardInterrupt:
        _log.warning("Stopped at step %d of %d; start again to go on.", run.state.step, spec.steps)
        run.save()
    run.keep_best()
    return run.state


def _optimizer(spec: TrainingSpec) -> Any:
    import keras

    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if spec.warmup_steps else spec.learning_rate,
        decay_steps=max(1, spec.steps - spec.warmup_steps),
        alpha=spec.final_learning_rate / spec.learning_rate,
        warmup_target=spec.learning_rate if spec.warmup_steps else None,
        warmup_steps=spec.warmup_steps,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=spec.weight_decay, global_clipnorm=spec.clip_norm)


def _bar(spec: TrainingSpec, state: RunState, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=spec.steps, initial=state.step, unit="step", disable=not progress, delay=2)


class _Run:
    """The state of a run and its folder."""

    def __init__(self, model: keras.Model, graph: keras.Model, spec: TrainingSpec, folder: Path) -> None:
        self.model, self.graph, self.spec, self.folder = model, graph, spec, folder
        self.state = RunState()
        self.average: dict[str, np.ndarray] = {}
        self.losses: list[float] = []
        self.rows: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.spec.patience is not None and self.state.stale >= self.spec.patience

    def advance(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """One optimizer step; returns the mean of the latest losses."""
        loss = float(self.graph.train_on_batch(inputs, targets))
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at step {self.state.step}. The last checkpoint is good; lower the learning rate "
                f"({self.spec.learning_rate}) or set clip_norm."
            )
        self._average()
        self.state.step += 1
        self.losses.append(loss)
        return float(np.mean(self.losses[-50:]))

    def _average(self) -> None:
        decay = min(self.spec.average, (1 + self.state.step) / (10 + self.state.step))
        for name, value in _values(self.graph.weights).items():
            kept = self.average.get(name)
            self.average[name] = value.copy() if kept is None else kept + (1 - decay) * (value - kept)

    def hand_over(self) -> None:
        """Give the model the averaged weights; training goes on from those that are not averaged."""
        from .training_graph import copy_weights

        current = _values(self.graph.weights)
        _assign(self.graph.weights, self.average)
        copy_weights(self.graph, self.model)
        _assign(self.graph.weights, current)

    def check(self, validate: Validate) -> None:
        """Validate the averaged weights, log the scores, keep the weights if they are the best."""
        self.hand_over()
        scores = dict(validate(self.model))
        if self.spec.monitor not in scores:
            raise TrainingError(f"validate() must return {self.spec.monitor!r}; got {', '.join(scores) or 'nothing'}.")
        score = float(scores[self.spec.monitor])
        self.state.stale = 0 if score > self.state.best else self.state.stale + 1
        if score >= self.state.best:  # of equal scores the later one: few validation clips often tie, early and badly
            from .weights import save_weights

            self.state.best, self.state.best_step = score, self.state.step
            save_weights(self.model, self.folder / BEST)
        recent = float(np.mean(self.losses)) if self.losses else math.nan
        row = {"step": self.state.step, "loss": recent, "waiting": self.state.waiting, **scores}
        self.losses = []
        self.rows.append({name: round(float(value), 6) for name, value in row.items()})

    def save(self) -> None:
        """Write the log, then the checkpoint; each is either there in full or not at all."""
        from safetensors.numpy import save

        if self.rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(self.rows[-1]), lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows(self.rows)
            write_atomically(self.folder / LOG, text.getvalue().encode())
        arrays = {f"model/{name}": value for name, value in _values(self.graph.variables).items()}
        arrays |= {f"optimizer/{name}": value for name, value in _values(self.graph.optimizer.variables).items()}
        arrays |= {f"average/{name}": value for name, value in self.average.items()}
        about = {
            "settings": self.spec.digest(self.graph),
            "state": dataclasses.asdict(self.state),
            "rows": self.rows,
            "losses": self.losses,
        }
        write_atomically(self.folder / CHECKPOINT, save(arrays, metadata={"run": json.dumps(about)}))

    def resume(self) -> None:
        """Take up the checkpoint, if there is one."""
        from safetensors import safe_open

        path = self.folder / CHECKPOINT
        if not path.is_file():
            return
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["run"])
            if about["settings"] != self.spec.digest(self.graph):
                raise TrainingError(
                    f"{self.folder} holds a run with other settings or another network. Give this run a folder of its "
                    "own, or delete that one."
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        for prefix, variables in (("model/", self.graph.variables), ("optimizer/", self.graph.optimizer.variables)):
            _assign(variables, {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
        self.average = {n.removeprefix("average/"): a for n, a in arrays.items() if n.startswith("average/")}
        self.state = RunState(**about["state"])
        self.rows, self.losses = about["rows"], about["losses"]
        _log.info("Going on at step %d of %d.", self.state.step, self.spec.steps)

    def keep_best(self) -> None:
        """Leave the best averaged weights in the network; the latest ones where nothing was validated yet."""
        from .weights import load_weights

        if (self.folder / BEST).is_file():
            load_weights(self.model, self.folder / BEST)
        elif self.average:
            self.hand_over()


def _values(variables: Any) -> dict[str, np.ndarray]:
    """Position -> value. Not by path: Keras numbers random states differently each time a network is built."""
    from keras import ops

    return {str(i): np.asarray(ops.convert_to_numpy(variable)) for i, variable in enumerate(variables)}


def _assign(variables: Any, values: Mapping[str, np.ndarray]) -> None:
    for i, variable in enumerate(variables):
        variable.assign(values[str(i)])
