"""The training loop: one for `train`, `distil` and `fine_tune`.

A run has a folder with `checkpoint.safetensors` (weights, optimizer, averages, random states, step), `best.safetensors`
(averaged weights of the best validation so far) and `log.csv`. Batches are a function of the step alone and a
checkpoint holds every other state, so a killed run that is started again gives the same result as one that was not
killed; at most `checkpoint_every` steps are repeated.

Weights are averaged exponentially over steps (Polyak & Juditsky 1992); the averaged weights are validated and kept.

If the loss or a weight becomes NaN or infinite, the run goes back to its last checkpoint, or to its beginning, and
continues in float32. The second time is an error.
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
from .run_state import BEST as BEST
from .run_state import CHECKPOINT as CHECKPOINT
from .run_state import LOG as LOG
from .run_state import Diverged, Run, Validate
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
        """Return the number of steps, at least that of the run."""

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs `(batch, mels, frames)` and targets `(batch, tags)` of a step."""


# === Preparing a network ===


def set_prior(model: keras.Model, prior: np.ndarray) -> None:
    """Initialise the bias of a sigmoid `"head"` to the tag frequencies, which shortens training.

    Args:
        model: network; if the head's bias is not zero, it has been trained and stays unchanged.
        prior: float array `(tags,)`, frequency of each tag.
    """
    from keras import ops

    bias = model.get_layer("head").bias
    if not np.any(ops.convert_to_numpy(bias)):
        clipped = np.clip(np.asarray(prior, "float64"), 1e-4, 1 - 1e-4)
        bias.assign(np.log(clipped / (1 - clipped)).astype("float32"))


def data_parallel(batch_size: int) -> int:
    """Distribute the batches of all networks built from now on over all devices (`keras.distribution.DataParallel`).

    Args:
        batch_size: windows per step; every device gets an equal part.

    Returns:
        Number of devices.

    Raises:
        TrainingError: the backend is not JAX, or the number of devices does not divide `batch_size`.
    """
    import keras

    if keras.backend.backend() != "jax":
        raise TrainingError(
            f"Only JAX shares batches among devices; got {keras.backend.backend()}. Set KERAS_BACKEND=jax."
        )
    devices = len(keras.distribution.list_devices())
    if batch_size % devices:
        raise TrainingError(f"batch_size must be a multiple of the {devices} devices that share it; got {batch_size}.")
    # Batches come as arrays: there is no tf.data.Dataset to shard.
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
    """Train `model` in place; resumes a stopped run of the same settings in `folder`.

    Args:
        model: built network; at the end it holds the best averaged weights.
        batches: training data by step.
        spec: settings.
        folder: folder of the run; made if it does not exist.
        validate: function of the network with the averaged weights; returns scores, among them `spec.monitor`.
        loss: Keras loss.
        segments: targets hold those of the window, then those of each segment, see `training_graph`.
        dropout: factor on the network's dropout rates in training.
        bn_momentum: momentum of moving statistics in training; `None` for the network's own.
        freeze_norms: do not train batch norms.
        about: everything else that determines the result (data, batches); must be equal to resume a run.
        progress: show a bar with loss, share of waiting and time left.

    Returns:
        `RunState` at the end; its `notes` say whether the run had to go back, and why. Ctrl-C ends a run after the
        current step, writes a checkpoint and returns the state; a second Ctrl-C ends it at once, like a kill.

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
        # On CPUs, convolutions compiled by XLA are three times slower than TensorFlow's own.
        graph.compile(optimizer=_optimizer(spec), loss=loss, jit_compile=keras.backend.backend() == "jax")
        graph.optimizer.build(graph.trainable_variables)
        return graph

    def choose() -> tuple[str, list[str]]:
        from .precision import choose_precision

        if spec.precision != "auto":
            return spec.precision, []
        choice = choose_precision(build, batches, about=network)
        return choice.precision, [choice.summary]

    run = Run(model, build, spec, Path(folder), {**network, **(about or {})})
    run.begin(choose, validate)
    with _deferred_interrupt() as stop, _bar(spec, run.state, progress) as bar:
        while not run.finished and not stop.is_set():
            try:
                _advance(run, batches, validate, stop, bar)
            except Diverged as failure:
                run.go_back(failure)
                bar.n = run.state.step
                bar.refresh()
            except KeyboardInterrupt:
                stop.set()
    if stop.is_set() and not run.finished:
        _log.warning("Stopped at step %d of %d; start again to resume.", run.state.step, spec.steps)
    run.restore_best()
    return run.state


def _advance(run: Run, batches: Batches, validate: Validate, stop: threading.Event, bar: Any) -> None:
    """Take steps until the run is finished or `stop` is set."""
    from ..datasets.batches import TimedBatches

    timed = TimedBatches(batches, start=run.state.step, workers=max(1, getattr(batches, "workers", 1)))
    for inputs, targets in timed:
        loss = run.advance(inputs, targets)
        run.state.waiting = timed.starved
        bar.set_postfix_str(f"loss {loss:.4f}, waiting {timed.starved:.0%}", refresh=False)
        bar.update()
        due = run.validation_due
        if due:
            run.run_validation(validate)
        if due or run.state.step % run.spec.checkpoint_every == 0 or run.finished or stop.is_set():
            run.save()
        if run.finished or stop.is_set():
            return


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Make Ctrl-C set an event, which is read between steps; the second one raises `KeyboardInterrupt`."""
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield stop  # only the main thread receives signals, and a background process may ignore them on purpose
        return

    def on_interrupt(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, on_interrupt)
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
