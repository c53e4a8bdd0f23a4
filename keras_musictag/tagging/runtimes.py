"""Runtimes for exported files: ONNX Runtime, OpenVINO and LiteRT, none of which needs Keras."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import MissingExtraError
from ..utils.cores import available_cores


class Runtime(Protocol):
    """Something that maps batches to batches."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Outputs for a batch: float32 in, float32 out."""


# === Exported files ===


def onnxruntime_options(threads: int | None) -> Any:
    """`SessionOptions` of ONNX Runtime for so many threads, `None` for all cores."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; a warning is printed for each constant that is computed at once
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


class OnnxRuntime:
    """An ONNX file on ONNX Runtime.

    Args:
        files: content of the one file.
        threads: to compute with, `None` for all cores.
        exact: for OpenVINO; this one computes as the file says.
    """

    def __init__(self, files: Sequence[bytes], *, threads: int | None = None, exact: bool = True) -> None:
        """Read and optimise the file."""
        import onnxruntime as ort

        options = onnxruntime_options(threads)
        self._session = ort.InferenceSession(files[0], options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self.version = f"onnxruntime {ort.__version__}"

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name."""
        return dict(zip(self.outputs, self._session.run(None, {self._input: batch}), strict=True))


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
def _openvino_core() -> Any:
    """OpenVINO's `Core`, one for the process, which is never let go.

    Its plugin for CPUs gives the thread that loads it a stack for signals, and frees that when the last model is gone,
    in whichever thread. The next Ctrl-C would be a segmentation fault.
    """
    return import_openvino().Core()


class OpenVinoRuntime:
    """An ONNX file, or OpenVINO's own XML and weights, on OpenVINO.

    Args:
        files: content of the file or files.
        threads: to compute with, `None` for all cores.
        exact: compute in float32. Otherwise it may use the processor's 16-bit arithmetic.
    """

    def __init__(self, files: Sequence[bytes], *, threads: int | None = None, exact: bool = True) -> None:
        """Read and compile the file."""
        ov, core = import_openvino(), _openvino_core()
        model = core.read_model(*files) if len(files) > 1 else core.read_model(files[0])
        self._compiled = core.compile_model(model, "CPU", openvino_options(threads, exact=exact))
        self._lock = threading.Lock()
        self.outputs = tuple(name for output in self._compiled.outputs for name in output.names)
        self.version = f"openvino {ov.__version__.split('-')[0]}"

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name."""
        with self._lock:  # its request serves one caller at a time
            result = self._compiled(batch)
            return {name: np.array(result[name]) for name in self.outputs}


class LiteRtRuntime:
    """A LiteRT (TensorFlow Lite) file on LiteRT.

    Args:
        files: content of the one file.
        threads: to compute with, `None` for all cores.
        exact: for OpenVINO; this one computes as the file says.
    """

    def __init__(self, files: Sequence[bytes], *, threads: int | None = None, exact: bool = True) -> None:
        """Read the file."""
        from ai_edge_litert.interpreter import Interpreter

        # Left to itself, it uses one thread.
        interpreter = Interpreter(model_content=files[0], num_threads=threads or available_cores())
        (name, signature), *_ = interpreter.get_signature_list().items()
        self._input = signature["inputs"][0]
        self._run = interpreter.get_signature_runner(name)
        self._lock = threading.Lock()
        self.outputs = tuple(signature["outputs"])
        self.version = f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name."""
        with self._lock:  # it has one set of buffers
            return dict(self._run(**{self._input: batch}))


FileRuntime = OnnxRuntime | OpenVinoRuntime | LiteRtRuntime

# Runtime -> class, package to import, package to install, extra, formats it reads.
_FILE_RUNTIMES: dict[str, tuple[type[FileRuntime], str, str, str, tuple[str, ...]]] = {
    "onnxruntime": (OnnxRuntime, "onnxruntime", "onnxruntime", "onnx", ("onnx",)),
    "openvino": (OpenVinoRuntime, "openvino", "openvino", "openvino", ("openvino", "onnx")),
    "litert": (LiteRtRuntime, "ai_edge_litert", "ai-edge-litert", "litert", ("litert",)),
}
RUNTIMES = ("keras", *_FILE_RUNTIMES)
# What `runtime="auto"` tries, in this order. Geometric means over the zoo, from log-mel to tags at float32 on two cores
# of an AMD EPYC: 51, 58 and 63 ms (docs/benchmark.md; tests/test_pages.py compares). Keras, 60 ms, comes last: with
# musicnet_crnn it is the slowest, and who asks for another runtime has a reason.
FASTEST_FIRST = ("openvino", "onnxruntime", "litert", "keras")


def readers(file_format: str) -> list[str]:
    """Runtimes that read a format, the fastest first."""
    return [name for name in FASTEST_FIRST if name != "keras" and file_format in _FILE_RUNTIMES[name][4]]


def is_installed(runtime: str) -> bool:
    """Whether a runtime of `RUNTIMES` can be used."""
    return runtime == "keras" or importlib.util.find_spec(_FILE_RUNTIMES[runtime][1]) is not None


def require_installed(runtime: str, purpose: str = "") -> None:
    """Refuse a runtime that is not there.

    Args:
        runtime: one of `RUNTIMES`.
        purpose: what it is for, in the message.

    Raises:
        MissingExtraError: it is not installed.
    """
    if not is_installed(runtime):
        _, _, package, extra, _ = _FILE_RUNTIMES[runtime]
        raise MissingExtraError(package, extra, purpose or f"runtime={runtime!r}")


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
    return _FILE_RUNTIMES[runtime][0](files, threads=threads, exact=exact)
