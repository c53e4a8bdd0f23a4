"""A run of the training loop: network, state, and the folder that holds them. See `loop`."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CacheError
from ..utils.files import write_atomically
from .training_spec import CLIP_NORM, NotFiniteError, RunState, TrainingError, TrainingSpec, lower_learning_rate

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

CHECKPOINT, BEST, LOG = "checkpoint.safetensors", "best.safetensors", "log.csv"
Validate = Callable[["keras.Model"], Mapping[str, float]]


class Diverged(Exception):
    """A loss or weight is NaN or infinite; the message says which, and at which step.

    Attributes:
        in_data: whether the inputs or targets of the step were already NaN or infinite.
    """

    in_data = False


class Run:
    """The state of a run and its folder.

    Args:
        model: network that the run trains; it gets the averaged weights before each validation.
        build: function from a precision to the compiled training graph of `model`.
        spec: settings.
        folder: folder of the run; made if it does not exist.
        about: everything else that determines the result.
    """

    def __init__(
        self,
        model: keras.Model,
        build: Callable[[str], keras.Model],
        spec: TrainingSpec,
        folder: Path,
        about: Mapping[str, Any],
    ) -> None:
        """Make the folder; `begin` builds the graph."""
        self.model, self.build, self.spec, self.folder, self.about = model, build, spec, folder, about
        self.graph: Any = None
        self.state = RunState()
        self.average: dict[str, np.ndarray] = {}
        self.losses: list[float] = []
        self.rows: list[dict[str, Any]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"{folder} cannot be made: {error}. Choose another folder for the run.") from error

    @property
    def finished(self) -> bool:
        """Whether all steps are done or patience has run out."""
        return self.spec.is_over(self.state)

    @property
    def validation_due(self) -> bool:
        """Whether to validate after the last step."""
        step = self.state.step
        return step > 0 and (step % self.spec.validate_every == 0 or step == self.spec.steps)

    # --- Beginning, and going back ---

    def begin(self, choose: Callable[[], tuple[str, list[str]]], validate: Validate) -> None:
        """Start, or resume from the checkpoint and repeat a validation that was lost.

        Args:
            choose: called without a checkpoint; returns the precision to begin in and notes on that choice.
            validate: as for `loop.fit`.
        """
        self.initial = self.model.get_weights()
        found = self._read_checkpoint()
        if found is None:
            precision, notes = choose()
            self.state = RunState(precision=precision, notes=notes)
            self.graph = self.build(precision)
            return
        about, arrays = found
        self.graph = self.build(about["state"]["precision"])
        if about["settings"] != self._digest():
            raise TrainingError(
                f"{self.folder} holds a run with other settings, data or network. Choose another folder, or delete it."
            )
        self._restore(about, arrays)
        _log.info("Resuming at step %d of %d.", self.state.step, self.spec.steps)
        if self.validation_due and (not self.rows or self.rows[-1]["step"] != self.state.step):
            self.run_validation(validate)
            self.save()

    def go_back(self, failure: Diverged) -> None:
        """Return to the last checkpoint, or the beginning, in float32, and add a note.

        Raises:
            NotFiniteError: the run has gone back before.
        """
        step, notes, precision = self.state.step, self.state.notes, self.state.precision
        if self.state.failures:
            what = f"{failure} ({precision}). {notes[-1]}"
            raise NotFiniteError(self._failed_twice_message(failure), what=what, in_data=failure.in_data) from failure
        self.model.set_weights(self.initial)  # the graph copies the weights of the model
        self.graph = self.build("float32")
        found = self._read_checkpoint()
        if found is None:
            self.state, self.average, self.losses, self.rows = RunState(), {}, [], []
            (self.folder / BEST).unlink(missing_ok=True)
        else:
            self._restore(*found)
        note = (
            f"{failure} ({precision}); went back from step {step} to step {self.state.step} and continued in float32."
        )
        self.state.precision, self.state.failures, self.state.notes = "float32", 1, [*notes, note]
        _log.warning("%s", note)
        self.save()  # so that a killed run still has the note

    def _failed_twice_message(self, failure: Diverged) -> str:
        rate = lower_learning_rate(self.spec.learning_rate, TrainingSpec.learning_rate)
        clip = CLIP_NORM if self.spec.clip_norm is None else self.spec.clip_norm / 10
        advice = f"a learning_rate of {rate:g} or less, or a clip_norm of {clip:g}"
        if failure.in_data:
            advice = "correct data"
        return (
            f"{failure}, for the second time in this run. The first time: {self.state.notes[-1]} Start again with "
            f"{advice}, in another folder: {self.folder} keeps the last good checkpoint, which only resumes with the "
            "same settings."
        )

    # --- Steps ---

    def advance(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """Take an optimizer step and return the mean of the latest losses.

        Raises:
            Diverged: the loss or a weight is NaN or infinite.
        """
        loss = self._loss(inputs, targets)
        values = _values(self.graph.weights)
        if not (math.isfinite(loss) and _finite(values)):
            what = "A weight is NaN or infinite after" if math.isfinite(loss) else f"The loss is {loss:g} at"
            finite_data = np.isfinite(inputs).all() and np.isfinite(targets).all()
            cause = "" if finite_data else ", whose inputs or targets are not finite"
            failure = Diverged(f"{what} step {self.state.step}{cause}")
            failure.in_data = not finite_data
            raise failure
        self._average(values)
        self.state.step += 1
        self.losses.append(loss)
        return float(np.mean(self.losses[-50:]))

    def _loss(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        try:
            return float(self.graph.train_on_batch(inputs, targets))
        except RuntimeError as error:  # PyTorch's crossentropy refuses NaN before there is a loss
            if "between 0 and 1" not in str(error):
                raise
            return math.nan

    def _average(self, values: Mapping[str, np.ndarray]) -> None:
        decay = min(self.spec.average, (1 + self.state.step) / (10 + self.state.step))
        for name, value in values.items():
            kept = self.average.get(name)
            self.average[name] = value.copy() if kept is None else kept + (1 - decay) * (value - kept)

    def assign_average(self) -> None:
        """Assign the averaged weights to the model; the graph keeps its own."""
        from .training_graph import copy_weights

        current = _values(self.graph.weights)
        _assign(self.graph.weights, self.average)
        copy_weights(self.graph, self.model)
        _assign(self.graph.weights, current)

    def run_validation(self, validate: Validate) -> None:
        """Validate the averaged weights, log the scores, and keep the weights if they are the best.

        Raises:
            Diverged: a state of the optimizer is NaN or infinite; the best weights are not replaced.
        """
        self._optimizer_values()  # raises before anything is written
        self.assign_average()
        scores = dict(validate(self.model))
        if self.spec.monitor not in scores:
            raise TrainingError(f"validate() must return {self.spec.monitor!r}; got {', '.join(scores) or 'nothing'}.")
        score = float(scores[self.spec.monitor])
        self.state.stale = 0 if score > self.state.best else self.state.stale + 1
        if score >= self.state.best:  # the later of equal scores: with few clips, poor early scores often tie
            from ..models.weights import save_weights

            self.state.best, self.state.best_step = score, self.state.step
            save_weights(self.model, self.folder / BEST)
        recent = float(np.mean(self.losses)) if self.losses else math.nan
        row = {"step": self.state.step, "loss": recent, "waiting": self.state.waiting, **scores}
        self.losses = []
        self.rows.append({name: round(float(value), 6) for name, value in row.items()})

    def restore_best(self) -> None:
        """Assign the best averaged weights to the model; without a validation, the latest."""
        from ..models.weights import load_weights

        if (self.folder / BEST).is_file():
            load_weights(self.model, self.folder / BEST)
        elif self.average:
            self.assign_average()

    # --- The folder ---

    def save(self) -> None:
        """Write the log, then the checkpoint, each atomically.

        Raises:
            Diverged: a state of the optimizer is NaN or infinite; nothing is written.
        """
        from safetensors.numpy import save

        optimizer = self._optimizer_values()
        if self.rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(self.rows[-1]), lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows(self.rows)
            write_atomically(self.folder / LOG, text.getvalue().encode())
        arrays = {f"model/{name}": value for name, value in _values(self.graph.variables).items()}
        arrays |= {f"optimizer/{name}": value for name, value in optimizer.items()}
        arrays |= {f"average/{name}": value for name, value in self.average.items()}
        about = {
            "settings": self._digest(),
            "state": dataclasses.asdict(self.state),
            "rows": self.rows,
            "losses": self.losses,
        }
        write_atomically(self.folder / CHECKPOINT, save(arrays, metadata={"run": json.dumps(about)}))

    def _optimizer_values(self) -> dict[str, np.ndarray]:
        values = _values(self.graph.optimizer.variables)
        if not _finite(values):
            raise Diverged(f"A state of the optimizer is NaN or infinite after step {self.state.step - 1}")
        return values

    def _read_checkpoint(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Return metadata and arrays of the checkpoint, `None` without one."""
        from safetensors import SafetensorError, safe_open

        path = self.folder / CHECKPOINT
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads(file.metadata()["run"])
                return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{path} is damaged ({error}). Delete it to start this run over.") from error

    def _restore(self, about: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Restore the state that `_read_checkpoint` returned."""
        for prefix, variables in (("model/", self.graph.variables), ("optimizer/", self.graph.optimizer.variables)):
            _assign(variables, {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
        self.average = {n.removeprefix("average/"): a for n, a in arrays.items() if n.startswith("average/")}
        self.state = RunState(**about["state"])
        self.rows, self.losses = about["rows"], about["losses"]

    def _digest(self) -> str:
        known = json.dumps(self.about, sort_keys=True, default=_stable_name)
        return f"{self.spec.digest(self.graph)}-{hashlib.sha256(known.encode()).hexdigest()[:12]}"


def _stable_name(value: Any) -> str:
    """Return a string that is the same in every process, unlike a function's `str`, which has its address."""
    return str(value) if dataclasses.is_dataclass(value) else getattr(value, "__qualname__", type(value).__qualname__)


def _finite(values: Mapping[str, np.ndarray]) -> bool:
    return all(bool(np.isfinite(value).all()) for value in values.values())


def _values(variables: Any) -> dict[str, np.ndarray]:
    """Return values by position, not by path: Keras numbers random states anew each time a network is built."""
    from keras import ops

    # Copy: PyTorch returns the memory of the variable itself, which the next assignment changes.
    return {str(i): np.array(ops.convert_to_numpy(variable)) for i, variable in enumerate(variables)}


def _assign(variables: Any, values: Mapping[str, np.ndarray]) -> None:
    for i, variable in enumerate(variables):
        variable.assign(values[str(i)])
