"""The training loop: one for `train`, `distil` and `fine_tune`.

A run is a folder. It holds `checkpoint.safetensors` (everything needed to go on: weights, optimizer, averages, random
states, step), `best.safetensors` (averaged weights of the best validation so far) and `log.csv`. Batches are a
function of the step alone, and a checkpoint holds every other state, so a run that was killed and started again goes on
as if nothing had happened; at most `checkpoint_every` steps are repeated.

Weights are averaged exponentially over steps (Polyak & Juditsky 1992); it is the average that is validated and kept.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import CacheError
from ..utils.files import write_atomically
from .training_spec import PRECISIONS as PRECISIONS
from .training_spec import RunState as RunState
from .training_spec import TrainingError as TrainingError
from .training_spec import TrainingSpec as TrainingSpec

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

CHECKPOINT, BEST, LOG = "checkpoint.safetensors", "best.safetensors", "log.csv"


class Batches(Protocol):
    """Training data: the batch of a step is a function of the step alone."""

    def __len__(self) -> int:
        """Steps there are; at least those of the run."""

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs `(batch, mels, frames)` and targets `(batch, tags)` of a step."""


Validate = Callable[["keras.Model"], Mapping[str, float]]


# === Preparing a network ===


def set_prior(model: keras.Model, prior: np.ndarray) -> None:
    """Let a fresh sigmoid `"head"` start at how frequent each tag is; training leaves the constant predictor sooner.

    Args:
        model: left alone if its head's bias is not zero: it has been trained.
        prior: float array `(tags,)`.
    """
    from keras import ops

    bias = model.get_layer("head").bias
    if not np.any(ops.convert_to_numpy(bias)):
        clipped = np.clip(np.asarray(prior, "float64"), 1e-4, 1 - 1e-4)
        bias.assign(np.log(clipped / (1 - clipped)).astype("float32"))


def data_parallel(batch_size: int) -> int:
    """Let all devices share the batches of every network that is built from now on: `keras.distribution.DataParallel`.

    Args:
        batch_size: windows per step; every device gets an equal part of them.

    Returns:
        Number of devices.

    Raises:
        TrainingError: the backend is not JAX, or the batch cannot be shared equally.
    """
    import keras

    if keras.backend.backend() != "jax":
        raise TrainingError(
            f"Only JAX shares batches among devices; this is {keras.backend.backend()}. Set KERAS_BACKEND=jax."
        )
    devices = len(keras.distribution.list_devices())
    if batch_size % devices:
        raise TrainingError(f"batch_size must be a multiple of the {devices} devices that share it; got {batch_size}.")
    # Batches are ready-made here: there is no data set to cut into parts.
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    return devices


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
    dropout: float = 1.0,
    bn_momentum: float | None = None,
    freeze_norms: bool = False,
    about: Mapping[str, Any] | None = None,
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
        dropout: factor on the network's dropout rates, in training.
        bn_momentum: momentum of moving statistics, in training; `None` for the network's own.
        freeze_norms: leave batch norms as they are.
        about: whatever else decides what comes out (data, batches); a run of another is not gone on with.
        progress: show a bar with loss, share of waiting and time left.

    Returns:
        `RunState` at the end. Ctrl-C ends a run after its current step, with a checkpoint, and returns what there is; a
        second one ends it at once, as a kill would.

    Raises:
        TrainingError: the loss became NaN or infinite, or the folder holds a run with other settings.
        CacheError: the folder cannot be written.
    """
    import keras

    from ..datasets.batches import TimedBatches
    from .training_graph import training_graph

    if len(batches) < spec.steps:
        raise TrainingError(f"There are batches for {len(batches)} steps; the run needs {spec.steps}.")
    keras.utils.set_random_seed(spec.seed)
    network: dict[str, Any] = {"dropout": dropout, "bn_momentum": bn_momentum, "freeze_norms": freeze_norms}
    graph = training_graph(model, precision=spec.precision, segments=segments, **network)
    # XLA's convolutions are three times slower on CPUs than TensorFlow's own.
    graph.compile(optimizer=_optimizer(spec), loss=loss, jit_compile=keras.backend.backend() == "jax")
    graph.optimizer.build(graph.trainable_variables)
    run = _Run(model, graph, spec, Path(folder), {**network, **(about or {})})
    run.resume(validate)
    timed = TimedBatches(batches, start=run.state.step, workers=max(1, getattr(batches, "workers", 1)))
    with _between_steps() as stop, _bar(spec, run.state, progress) as bar:
        try:
            for inputs, targets in () if run.over else timed:
                loss = run.advance(inputs, targets)
                run.state.waiting = timed.starved
                bar.set_postfix_str(f"loss {loss:.4f}, waiting {timed.starved:.0%}", refresh=False)
                bar.update()
                if run.due:
                    run.check(validate)
                if run.state.step % spec.checkpoint_every == 0 or run.over or stop.is_set():
                    run.save()
                if run.over or stop.is_set():
                    break
        except KeyboardInterrupt:
            stop.set()
    if stop.is_set() and not run.over:
        _log.warning("Stopped at step %d of %d; start again to go on.", run.state.step, spec.steps)
    run.keep_best()
    return run.state


@contextlib.contextmanager
def _between_steps() -> Iterator[threading.Event]:
    """Ctrl-C is heard, and acted upon where nothing is half done; the second one is a `KeyboardInterrupt`."""
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield stop  # only the main thread is told of signals, and a process in the background may be deaf on purpose
        return

    def hear(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, hear)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


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

    def __init__(
        self, model: keras.Model, graph: keras.Model, spec: TrainingSpec, folder: Path, about: Mapping[str, Any]
    ) -> None:
        self.model, self.graph, self.spec, self.folder, self.about = model, graph, spec, folder, about
        self.state = RunState()
        self.average: dict[str, np.ndarray] = {}
        self.losses: list[float] = []
        self.rows: list[dict[str, Any]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"{folder} cannot be made: {error}. Choose another folder for the run.") from error

    @property
    def over(self) -> bool:
        """Whether all steps are done, or patience has run out."""
        return self.spec.is_over(self.state)

    @property
    def due(self) -> bool:
        """Whether the step that was done is one to validate after."""
        return self.state.step % self.spec.validate_every == 0 or self.state.step == self.spec.steps

    def advance(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """One optimizer step; returns the mean of the latest losses."""
        loss = float(self.graph.train_on_batch(inputs, targets))
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at step {self.state.step}. Start again, in another folder, with a lower learning "
                f"rate than {self.spec.learning_rate} or with clip_norm."
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
            from ..models.weights import save_weights

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
        if not all(np.isfinite(value).all() for value in self.average.values()):
            raise TrainingError(
                f"A weight is no longer a number at step {self.state.step}; the last checkpoint is good. Start again, "
                f"in another folder, with clip_norm or a lower learning rate than {self.spec.learning_rate}."
            )
        arrays = {f"model/{name}": value for name, value in _values(self.graph.variables).items()}
        arrays |= {f"optimizer/{name}": value for name, value in _values(self.graph.optimizer.variables).items()}
        arrays |= {f"average/{name}": value for name, value in self.average.items()}
        about = {
            "settings": self._digest(),
            "state": dataclasses.asdict(self.state),
            "rows": self.rows,
            "losses": self.losses,
        }
        write_atomically(self.folder / CHECKPOINT, save(arrays, metadata={"run": json.dumps(about)}))

    def _digest(self) -> str:
        known = json.dumps(self.about, sort_keys=True, default=_told)
        return f"{self.spec.digest(self.graph)}-{hashlib.sha256(known.encode()).hexdigest()[:12]}"

    def resume(self, validate: Validate) -> None:
        """Take up the checkpoint, if there is one, and make up for a validation that a stop has cost."""
        from safetensors import SafetensorError, safe_open

        path = self.folder / CHECKPOINT
        if not path.is_file():
            return
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads(file.metadata()["run"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{path} is damaged ({error}). Delete it to start this run over.") from error
        if about["settings"] != self._digest():
            raise TrainingError(
                f"{self.folder} holds a run with other settings or data, or of another network. Give this run a folder "
                "of its own, or delete that one."
            )
        for prefix, variables in (("model/", self.graph.variables), ("optimizer/", self.graph.optimizer.variables)):
            _assign(variables, {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
        self.average = {n.removeprefix("average/"): a for n, a in arrays.items() if n.startswith("average/")}
        self.state = RunState(**about["state"])
        self.rows, self.losses = about["rows"], about["losses"]
        _log.info("Going on at step %d of %d.", self.state.step, self.spec.steps)
        if self.due and (not self.rows or self.rows[-1]["step"] != self.state.step):
            self.check(validate)
            self.save()

    def keep_best(self) -> None:
        """Leave the best averaged weights in the network; the latest ones where nothing was validated yet."""
        from ..models.weights import load_weights

        if (self.folder / BEST).is_file():
            load_weights(self.model, self.folder / BEST)
        elif self.average:
            self.hand_over()


def _told(value: Any) -> str:
    """What tells an object apart in another process too; the address in a function's `str` does not."""
    return str(value) if dataclasses.is_dataclass(value) else getattr(value, "__qualname__", type(value).__qualname__)


def _values(variables: Any) -> dict[str, np.ndarray]:
    """Position -> value. Not by path: Keras numbers random states differently each time a network is built."""
    from keras import ops

    # Copies: what PyTorch gives is the memory of the variable itself, which the next assignment changes.
    return {str(i): np.array(ops.convert_to_numpy(variable)) for i, variable in enumerate(variables)}


def _assign(variables: Any, values: Mapping[str, np.ndarray]) -> None:
    for i, variable in enumerate(variables):
        variable.assign(values[str(i)])
