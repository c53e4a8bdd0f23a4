"""The training loop: one for `train`, `distil` and `fine_tune`.

A run is a folder. It holds `checkpoint.safetensors` (everything needed to go on: weights, optimizer, averages, random
states, step), `best.safetensors` (averaged weights of the best validation so far) and `log.csv`. Batches are a
function of the step alone, and a checkpoint holds every other state, so a run that was killed and started again goes on
as if nothing had happened; at most `checkpoint_every` steps are repeated.

Weights are averaged exponentially over steps (Polyak & Juditsky 1992); it is the average that is validated and kept.

A loss or weight that is NaN or infinite does not end a run: it goes back to its last checkpoint, or to its beginning,
and continues in float32. Only the second time is an error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..models.keras_state import default_settings
from .run import BEST as BEST
from .run import CHECKPOINT as CHECKPOINT
from .run import LOG as LOG
from .run import Diverged, Run, Validate
from .training_spec import PRECISIONS as PRECISIONS
from .training_spec import NotFiniteError as NotFiniteError
from .training_spec import RunState as RunState
from .training_spec import TrainingError as TrainingError
from .training_spec import TrainingSpec as TrainingSpec

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)


class Batches(Protocol):
    """Training data: the batch of a step is a function of the step alone."""

    def __len__(self) -> int:
        """Steps there are; at least those of the run."""

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs `(batch, mels, frames)` and targets `(batch, tags)` of a step."""


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


@default_settings()
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
        `RunState` at the end; its `notes` say whether the run had to go back, and why. Ctrl-C ends a run after its
        current step, with a checkpoint, and returns what there is; a second one ends it at once, as a kill would.

    Raises:
        NotFiniteError: the loss or a weight became NaN or infinite twice, the second time in float32.
        TrainingError: the folder holds a run with other settings.
        CacheError: the folder cannot be written.
    """
    import keras

    from .training_graph import training_graph

    if len(batches) < spec.steps:
        raise TrainingError(f"There are batches for {len(batches)} steps; the run needs {spec.steps}.")
    network: dict[str, Any] = {"dropout": dropout, "bn_momentum": bn_momentum, "freeze_norms": freeze_norms}

    def build(precision: str) -> keras.Model:
        keras.utils.set_random_seed(spec.seed)
        graph = training_graph(model, precision=precision, segments=segments, **network)
        # XLA's convolutions are three times slower on CPUs than TensorFlow's own.
        graph.compile(optimizer=_optimizer(spec), loss=loss, jit_compile=keras.backend.backend() == "jax")
        graph.optimizer.build(graph.trainable_variables)
        return graph

    def choose() -> tuple[str, list[str]]:
        from .precision import choose_precision

        if spec.precision != "auto":
            return spec.precision, []
        choice = choose_precision(build, batches, about=network)
        return choice.precision, [choice.told]

    run = Run(model, build, spec, Path(folder), {**network, **(about or {})})
    run.begin(choose, validate)
    with _between_steps() as stop, _bar(spec, run.state, progress) as bar:
        while not run.over and not stop.is_set():
            try:
                _advance(run, batches, validate, stop, bar)
            except Diverged as failure:
                run.go_back(failure)
                bar.n = run.state.step
                bar.refresh()
            except KeyboardInterrupt:
                stop.set()
    if stop.is_set() and not run.over:
        _log.warning("Stopped at step %d of %d; start again to go on.", run.state.step, spec.steps)
    run.keep_best()
    return run.state


def _advance(run: Run, batches: Batches, validate: Validate, stop: threading.Event, bar: Any) -> None:
    """Take steps until the run is over or told to stop."""
    from ..datasets.batches import TimedBatches

    timed = TimedBatches(batches, start=run.state.step, workers=max(1, getattr(batches, "workers", 1)))
    for inputs, targets in timed:
        loss = run.advance(inputs, targets)
        run.state.waiting = timed.starved
        bar.set_postfix_str(f"loss {loss:.4f}, waiting {timed.starved:.0%}", refresh=False)
        bar.update()
        due = run.due
        if due:
            run.check(validate)
        if due or run.state.step % run.spec.checkpoint_every == 0 or run.over or stop.is_set():
            run.save()
        if run.over or stop.is_set():
            return


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
