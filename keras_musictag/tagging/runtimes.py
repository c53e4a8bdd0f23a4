"""Runtimes for exported files: ONNX Runtime, OpenVINO and LiteRT, none of which needs Keras."""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib.util
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import MissingExtraError
from ..utils.backend import installed_version
from ..utils.cores import available_cores

if TYPE_CHECKING:
    import numpy as np


class Runtime(Protocol):
    """Something that maps batches to batches."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Outputs for a batch: float32 in, float32 out."""


# === Exported files ===


class FileRuntime(abc.ABC):
    """Something that runs the content of an exported file.

    A forked child and an unpickled copy have none of the threads that the runtime computes with, so they start it
    again, from the content, when it is first asked for something.

    Args:
        files: content of the file or files.
        threads: to compute with, `None` for all cores.
        exact: compute in float32; OpenVINO may otherwise use the processor's 16-bit arithmetic.

    Attributes:
        outputs: names of what it computes.
        version: of the runtime.
    """

    outputs: tuple[str, ...]
    version: str
    _handle: Any

    def __init__(self, files: Sequence[bytes], *, threads: int | None = None, exact: bool = True) -> None:
        """Start it."""
        self._files, self._threads, self._exact = tuple(files), threads, exact
        self._forget()
        self._handle = self._start()
        _started.add(self)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name."""
        with self._lock:
            if self._handle is None:
                self._handle = self._start()
                _started.add(self)
        return self._compute(self._handle, batch)

    @abc.abstractmethod
    def _start(self) -> Any:
        """Read the files; set `outputs` and `version`."""

    @abc.abstractmethod
    def _compute(self, handle: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name; `handle` is what `_start` gave."""

    def _forget(self) -> None:
        """Have nothing started, and locks that nobody holds."""
        self._handle = None
        self._lock, self._busy = threading.Lock(), threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """For `pickle`: the content of the files, not what runs them."""
        return {name: value for name, value in vars(self).items() if name not in ("_handle", "_lock", "_busy")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start when it is needed."""
        vars(self).update(state)
        self._forget()


_started: weakref.WeakSet[FileRuntime] = weakref.WeakSet()
_lost: list[Any] = []  # what was started before a fork; to end it would be to wait for threads that are not there


def _after_fork() -> None:
    """In a forked child, let all runtimes start again when they are needed."""
    for runtime in list(_started):
        _lost.append(runtime._handle)
        runtime._forget()
    _started.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def onnxruntime_options(threads: int | None) -> Any:
    """`SessionOptions` of ONNX Runtime for so many threads, `None` for all cores."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; a warning is printed for each constant that is computed at once
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


class OnnxRuntime(FileRuntime):
    """An ONNX file on ONNX Runtime, which computes as the file says."""

    def _start(self) -> Any:
        """Read and optimise the file."""
        import onnxruntime as ort

        options = onnxruntime_options(self._threads)
        session = ort.InferenceSession(self._files[0], options, providers=["CPUExecutionProvider"])
        self._input = session.get_inputs()[0].name
        self.outputs = tuple(output.name for output in session.get_outputs())
        self.version = f"onnxruntime {ort.__version__}"
        return session

    def _compute(self, handle: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, handle.run(None, {self._input: batch}), strict=True))


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which reports to a server, from a forked process, that it was imported."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import openvino
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
    return openvino


def openvino_options(threads: int | None, *, exact: bool) -> dict[str, Any]:
    """Properties of a model compiled by OpenVINO for so many threads, `None` for all cores; `exact` is for float32."""
    # Left to itself, it computes in bfloat16 where the processor can.
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"} | ({"INFERENCE_PRECISION_HINT": "f32"} if exact else {})
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return options


@functools.cache
def _core_of(_process: int) -> Any:
    """OpenVINO's `Core`, one for a process, which is never let go.

    Its plugin for CPUs gives the thread that loads it a stack for signals, and frees that when the last model is gone,
    in whichever thread. The next Ctrl-C would be a segmentation fault.
    """
    return import_openvino().Core()


def _openvino_core() -> Any:
    return _core_of(os.getpid())


class OpenVinoRuntime(FileRuntime):
    """An ONNX file, or OpenVINO's own XML and weights, on OpenVINO."""

    def _start(self) -> Any:
        """Read and compile the file."""
        ov, core = import_openvino(), _openvino_core()
        model = core.read_model(*self._files)
        compiled = core.compile_model(model, "CPU", openvino_options(self._threads, exact=self._exact))
        self.outputs = tuple(name for output in compiled.outputs for name in output.names)
        self.version = f"openvino {ov.__version__.split('-')[0]}"
        return compiled

    def _compute(self, handle: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
        import numpy as np

        with self._busy:  # its request serves one caller at a time
            result = handle(batch)
            return {name: np.array(result[name]) for name in self.outputs}


class LiteRtRuntime(FileRuntime):
    """A LiteRT (TensorFlow Lite) file on LiteRT, which computes as the file says."""

    def _start(self) -> Any:
        """Read the file."""
        from ai_edge_litert.interpreter import Interpreter

        # Left to itself, it uses one thread.
        interpreter = Interpreter(model_content=self._files[0], num_threads=self._threads or available_cores())
        (name, signature), *_ = interpreter.get_signature_list().items()
        self._input = signature["inputs"][0]
        self.outputs = tuple(signature["outputs"])
        self.version = f"ai-edge-litert {installed_version('ai-edge-litert')}"
        return interpreter.get_signature_runner(name)

    def _compute(self, handle: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
        with self._busy:  # it has one set of buffers
            return dict(handle(**{self._input: batch}))


# === The table of runtimes ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeEntry:
    """A row of the table of runtimes: all that the rest of the package has to know about one.

    Attributes:
        adapter: class that runs files.
        module: what Python imports.
        packages: what pip installs; the first is recommended, any provides the module.
        extra: extra of this package that installs it.
        formats: export formats that it reads, the preferred one first.
        zoo_format: format in which `load(name, runtime=...)` exports a model and keeps it in the cache.
        reduced: precisions below float32 that can make it faster; the benchmark measures these.
    """

    adapter: type[FileRuntime]
    module: str
    packages: tuple[str, ...]
    extra: str
    formats: tuple[str, ...]
    zoo_format: str
    reduced: tuple[str, ...] = ("int8",)

    def version(self) -> str | None:
        """Return the installed version, `None` without one."""
        return installed_version(*self.packages)


# Fastest first, by geometric means over the zoo from log-mel to tags at float32 on two cores (docs/benchmark.md;
# tests/test_pages.py compares). `load(path)` of an export takes the first that is installed and reads it;
# `load(name, runtime="auto")` measures on the machine at hand.
FILE_RUNTIMES: dict[str, RuntimeEntry] = {
    "openvino": RuntimeEntry(
        adapter=OpenVinoRuntime,
        module="openvino",
        packages=("openvino",),
        extra="openvino",
        formats=("openvino", "onnx"),
        zoo_format="onnx",
        reduced=("float16", "int8"),
    ),
    "onnxruntime": RuntimeEntry(
        adapter=OnnxRuntime,
        module="onnxruntime",
        packages=("onnxruntime", "onnxruntime-gpu"),
        extra="onnx",
        formats=("onnx",),
        zoo_format="onnx",
    ),
    "litert": RuntimeEntry(
        adapter=LiteRtRuntime,
        module="ai_edge_litert",
        packages=("ai-edge-litert",),
        extra="litert",
        formats=("litert",),
        zoo_format="litert",
    ),
}


def runtimes() -> tuple[str, ...]:
    """Return the names of all runtimes, Keras first."""
    return ("keras", *FILE_RUNTIMES)


def readers(file_format: str) -> list[str]:
    """Return the runtimes that read a format, the fastest first."""
    return [name for name, entry in FILE_RUNTIMES.items() if file_format in entry.formats]


def is_installed(runtime: str) -> bool:
    """Return whether a runtime can be used."""
    return runtime == "keras" or importlib.util.find_spec(FILE_RUNTIMES[runtime].module) is not None


def require_installed(runtime: str, purpose: str = "") -> None:
    """Validate that a runtime is installed.

    Args:
        runtime: one of `runtimes()`.
        purpose: what it is for, in the message.

    Raises:
        MissingExtraError: it is not installed.
    """
    if not is_installed(runtime):
        entry = FILE_RUNTIMES[runtime]
        raise MissingExtraError(entry.packages[0], entry.extra, purpose or f"runtime={runtime!r}")


def open_files(runtime: str, files: Sequence[bytes], *, threads: int | None = None, exact: bool = True) -> FileRuntime:
    """Start a runtime on the content of exported files.

    Args:
        runtime: one of `readers` of their format.
        files: their contents.
        threads: to compute with, `None` for all cores.
        exact: compute in float32.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    require_installed(runtime)
    return FILE_RUNTIMES[runtime].adapter(files, threads=threads, exact=exact)
