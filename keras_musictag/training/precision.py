"""Choice of the training precision by a self-test of bfloat16 on the user's machine.

Arithmetic in bfloat16 is several times faster on some processors, slower on others, and wrong on a few: with TensorFlow
2.21 on an Intel processor with AMX, a third of the fine-tunings ended in NaN within five steps. No list of processors
can tell, so `"auto"` trains the network for some steps, on its own batches, in both precisions. The result is kept in
the package's cache, by network, versions and processor.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CacheError
from ..utils import kept_results
from ..utils.backend import backend_version
from ..utils.cores import processor
from ..utils.files import cache_folder

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

STEPS = 60  # of the comparison; on the processor above NaN came at the fourth or fifth
TIMED = 3  # steps that are timed, after one that compiles
GAIN = 1.1  # least speed relative to float32 that is worth less precise gradients
# Mean difference of the losses of a step, as a share of their mean. Measured with batches of noise and
# bfloat16 emulated: 2.5 % for `musicnet_crnn`, 5.6 % for `tiny`; 1.9 % for a fresh `tiny` that learns.
TOLERANCE = 0.1
_DISTINCT = 8  # batches, taken in turn
_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "TF_ENABLE_ONEDNN_OPTS")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionChoice:
    """Result of a self-test.

    Attributes:
        precision: `"float32"` or `"mixed_bfloat16"`.
        reason: reason for the choice.
        float32_ms, bfloat16_ms: milliseconds per step, the fastest of three.
        difference: mean difference of the losses, as a share of their mean; `None` if bfloat16 was no faster, or a
            loss was NaN or infinite.
    """

    precision: str
    reason: str
    float32_ms: float
    bfloat16_ms: float
    difference: float | None = None

    @property
    def summary(self) -> str:
        """The choice and its reason, as a sentence."""
        times = f"{self.bfloat16_ms:.0f} ms a step in mixed_bfloat16, {self.float32_ms:.0f} in float32"
        return f"precision auto: {self.precision}, since bfloat16 {self.reason} in a self-test ({times})."


def choose_precision(
    build: Callable[[str], keras.Model],
    batches: Any,
    *,
    about: Mapping[str, Any] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> PrecisionChoice:
    """Test bfloat16 against float32, unless the result for the same network, versions and processor is known.

    Args:
        build: function from a precision to the compiled training graph.
        batches: `(inputs, targets)` by step, as for `loop.fit`.
        about: settings that change the network.
        folder: folder of results; by default in the package's cache. It need not be writable.

    Returns:
        `PrecisionChoice`. Its precision is `"mixed_bfloat16"` only if steps are 1.1 times as fast, and the losses of 60
        steps are all finite and differ from those in float32 by no more than 10 % on average.
    """
    some = [batches[step] for step in range(min(_DISTINCT, len(batches)))]
    graph = build("float32")
    key = {**conditions(), "network": _layout(graph), "batch": list(np.shape(some[0][0])), "about": dict(about or {})}
    kept = Path(folder if folder is not None else cache_folder() / "precision")
    try:
        return PrecisionChoice(**kept_results.recall(kept, key))
    except TypeError:  # missing or damaged
        pass
    _log.info("Testing bfloat16 against float32, once on this machine.")
    choice = compare(graph, build("mixed_bfloat16"), some)
    try:
        kept_results.keep(kept, key, dataclasses.asdict(choice))
    except (OSError, CacheError) as error:
        _log.warning("%s cannot be written (%s), so the self-test of bfloat16 will run again next time.", kept, error)
    return choice


def compare(float32: keras.Model, bfloat16: keras.Model, batches: Sequence[tuple[Any, Any]]) -> PrecisionChoice:
    """Train two networks with equal weights for the same steps and compare speed and losses.

    Args:
        float32: network in float32.
        bfloat16: network in mixed bfloat16.
        batches: inputs and targets, taken in turn.
    """
    times: dict[str, float] = {}
    losses: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    graphs = {"float32": float32, "bfloat16": bfloat16}
    for name, graph in graphs.items():
        spent = [_step(graph, batches, losses[name]) for _ in range(1 + TIMED)]
        times[f"{name}_ms"] = round(1000 * min(spent[1:]), 2)
    if times["float32_ms"] < GAIN * times["bfloat16_ms"]:
        return PrecisionChoice(precision="float32", reason="was not clearly faster", **times)
    for name, graph in graphs.items():
        while len(losses[name]) < STEPS:
            _step(graph, batches, losses[name])
    finite = np.isfinite(losses["bfloat16"])
    if not (finite.all() and _is_finite(bfloat16)):
        first = STEPS if finite.all() else int(np.argmin(finite))
        return PrecisionChoice(precision="float32", reason=f"gave NaN or infinity after {first} steps", **times)
    expected, actual = np.array(losses["float32"]), np.array(losses["bfloat16"])
    difference = float(np.abs(expected - actual).mean() / np.abs(expected).mean())
    if not difference <= TOLERANCE:  # NaN if float32 fails too
        reason = f"moved the loss by {difference:.1%}, which is more than {TOLERANCE:.0%},"
        return PrecisionChoice(precision="float32", reason=reason, difference=difference, **times)
    reason = f"was faster and moved the loss by {difference:.1%}"
    return PrecisionChoice(precision="mixed_bfloat16", reason=reason, difference=difference, **times)


def conditions() -> dict[str, Any]:
    """Return what affects arithmetic on this machine: processor, cores, versions, and the variables of oneDNN."""
    import keras

    from .. import __version__

    backend = keras.backend.backend()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "devices": _devices(),
        "versions": {
            "keras_musictag": __version__,
            "keras": keras.version(),
            backend: backend_version(backend),
        },
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _devices() -> list[str]:
    import keras

    try:
        return list(keras.distribution.list_devices())
    except (NotImplementedError, AttributeError):  # not on every backend, in every version
        return []


def _layout(graph: keras.Model) -> str:
    layout = [(type(layer).__name__, layer.name, [w.shape for w in layer.weights]) for layer in graph.layers]
    return hashlib.sha256(json.dumps(layout, default=list).encode()).hexdigest()[:16]


def _step(graph: keras.Model, batches: Sequence[tuple[Any, Any]], losses: list[float]) -> float:
    """Take the next step, append its loss, and return the seconds it took."""
    inputs, targets = batches[len(losses) % len(batches)]
    started = time.perf_counter()
    try:
        losses.append(float(graph.train_on_batch(inputs, targets)))
    except RuntimeError as error:  # PyTorch's crossentropy refuses NaN
        if "between 0 and 1" not in str(error):
            raise
        losses.append(float("nan"))
    return time.perf_counter() - started


def _is_finite(graph: keras.Model) -> bool:
    from keras import ops

    return all(bool(np.isfinite(ops.convert_to_numpy(weight)).all()) for weight in graph.weights)
