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
    """Anything that maps batches of inputs to batches of outputs."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return the outputs for a batch; float32 in, float32 out."""


# === Exported files ===


class FileRuntime(abc.ABC):
    """Base class of runtimes for exported files.

    A forked child and an unpickled copy do not have the runtime's threads, so they start it again, from the content of
    the files, at the first call of `run`.

    Args:
        files: content of the file or files.
        threads: number of CPU threads, `None` for all cores.
        exact: compute in float32; OpenVINO may otherwise use the processor's 16-bit arithmetic.

    Attributes:
        outputs: names of the outputs.
        version: name and version of the runtime.
    """

    outputs: tuple[str, ...]
    version: str
    _handle: Any

    def __init__(self, files: Sequence[bytes], *, threads: int | None = None, exact: bool = True) -> None:
        """Start the runtime."""
        self._files, self._threads, self._exact = tuple(files), threads, exact
        self._reset()
        self._handle = self._start()
        _running.add(self)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for a batch by name."""
        with self._start_lock:
            if self._handle is None:
                self._handle = self._start()
                _running.add(self)
        return self._compute(self._handle, batch)

    @abc.abstractmethod
    def _start(self) -> Any:
        """Read the files; set `outputs` and `version`."""

    @abc.abstractmethod
    def _compute(self, handle: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs by name; `handle` is what `_start` returned."""

    def _reset(self) -> None:
        """Drop the handle and make new locks, since another process or thread may hold the old ones."""
        self._handle = None
        self._start_lock, self._compute_lock = threading.Lock(), threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """State for `pickle`: the content of the files, without handle and locks."""
        dropped = ("_handle", "_start_lock", "_compute_lock")
        return {name: value for name, value in vars(self).items() if name not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state; `run` starts the runtime."""
        vars(self).update(state)
        self._reset()


_running: weakref.WeakSet[FileRuntime] = weakref.WeakSet()
_orphaned: list[Any] = []  # handles from before a fork, never freed: that would wait for threads that do not exist


def _after_fork() -> None:
    """In a forked child, make all runtimes start again when they are needed."""
    for runtime in list(_running):
        _orphaned.append(runtime._handle)
        runtime._reset()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def onnxruntime_options(threads: int | None) -> Any:
    """Return `SessionOptions` of ONNX Runtime for a number of threads, `None` for all cores."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only: every constant that is folded would give a warning
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


class OnnxRuntime(FileRuntime):
    """An ONNX file on ONNX Runtime, at the precision of the file."""

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
    """Import OpenVINO without its telemetry, which reports the import to a server, from a forked process."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # makes its import fail, as if it were not installed
    try:
        import openvino
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
    return openvino


def openvino_options(threads: int | None, *, exact: bool) -> dict[str, Any]:
    """Return OpenVINO's properties for a number of threads, `None` for all cores; `exact` asks for float32."""
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if exact:  # by default OpenVINO computes in bfloat16 on processors that can
        options["INFERENCE_PRECISION_HINT"] = "f32"
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return options


@functools.cache
def _core_of_process(_process: int) -> Any:
    """Return OpenVINO's `Core`: one per process, never freed.

    The CPU plugin gives the thread that loads it a stack for signals, and frees the stack when the last model is freed,
    in any thread. The next Ctrl-C would then be a segmentation fault.
    """
    return import_openvino().Core()


def _openvino_core() -> Any:
    return _core_of_process(os.getpid())


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

        with self._compute_lock:  # an inference request serves one caller at a time
            result = handle(batch)
            return {name: np.array(result[name]) for name in self.outputs}


class LiteRtRuntime(FileRuntime):
    """A LiteRT (TensorFlow Lite) file on LiteRT, at the precision of the file."""

    def _start(self) -> Any:
        """Read the file."""
        from ai_edge_litert.interpreter import Interpreter

        # The default is one thread.
        interpreter = Interpreter(model_content=self._files[0], num_threads=self._threads or available_cores())
        (name, signature), *_ = interpreter.get_signature_list().items()
        self._input = signature["inputs"][0]
        self.outputs = tuple(signature["outputs"])
        self.version = f"ai-edge-litert {installed_version('ai-edge-litert')}"
        return interpreter.get_signature_runner(name)

    def _compute(self, handle: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
        with self._compute_lock:  # an interpreter has one set of buffers
            return dict(handle(**{self._input: batch}))


# === The table of runtimes ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeEntry:
    """A row of the table of runtimes: everything that the rest of the package knows about one.

    Attributes:
        adapter: class that runs files.
        module: name of the Python module.
        packages: pip packages that provide the module, the recommended one first.
        extra: extra of this package that installs it.
        formats: export formats that it reads, the preferred one first.
        zoo_format: format in which `load(name, runtime=...)` exports a model to the cache.
        reduced: precisions below float32 that can be faster; the benchmark measures these.
    """

    adapter: type[FileRuntime]
    module: str
    packages: tuple[str, ...]
    extra: str
    formats: tuple[str, ...]
    zoo_format: str
    reduced: tuple[str, ...] = ("int8",)

    def version(self) -> str | None:
        """Return the installed version, `None` if it is not installed."""
        return installed_version(*self.packages)


# Fastest first, by geometric means over the zoo from a file to tags at float32 on two cores (docs/benchmark.md;
# tests/test_pages.py compares): what a user waits for, with all that a runtime's threads do to the stages before it.
# `load(path)` of an export takes the first that is installed and reads the format;
# `load(name, runtime="auto")` measures on the user's machine.
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
        purpose: start of the message, what needs the runtime.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    if not is_installed(runtime):
        entry = FILE_RUNTIMES[runtime]
        raise MissingExtraError(entry.packages[0], entry.extra, purpose or f"runtime={runtime!r}")


def open_files(runtime: str, files: Sequence[bytes], *, threads: int | None = None, exact: bool = True) -> FileRuntime:
    """Start a runtime on the content of exported files.

    Args:
        runtime: a runtime that reads the format.
        files: contents of the files.
        threads: number of CPU threads, `None` for all cores.
        exact: compute in float32.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    require_installed(runtime)
    return FILE_RUNTIMES[runtime].adapter(files, threads=threads, exact=exact)
