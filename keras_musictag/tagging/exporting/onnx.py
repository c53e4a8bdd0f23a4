"""Export to ONNX: one file, for ONNX Runtime on any machine, phone or browser, and the source of OpenVINO exports.

int8 uses ONNX Runtime's quantization tools: weights per channel, activations of convolutions and dense layers
calibrated on log-mels. Recurrent weights are stored as int8 and those of the head as float16, both computed in float32.
float16 halves the size of the weights and keeps float32 arithmetic. The front end always computes in float32.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import MissingExtraError
from ...models.mel import decibels_per_decade, filters_of, mel_frequencies, window_function
from ...models.spec import ModelSpec
from ...models.weights import flush_tiny
from ..exported import EMBEDDING, PROBABILITIES
from .network_graph import add_network
from .onnx_graph import Graph
from .rewriting import pad_channels, pool_early

if TYPE_CHECKING:
    import keras
    import onnx

OPSET = 17
_IR_VERSION = 8  # version of the file format, the oldest for these operators
_FLOAT16_MAX = 65_504.0


def build(
    core: keras.Model, spec: ModelSpec, precision: str, input_kind: str, calibration: np.ndarray | None
) -> onnx.ModelProto:
    """Build the ONNX model of a network.

    Args:
        core: log-mel `(batch, mels, frames)` to probabilities.
        spec: its spec.
        precision: `"float32"`, `"float16"` or `"int8"`.
        input_kind: `"waveform"` or `"log_mel"`.
        calibration: float32 log-mels `(windows, mels, frames)`, for int8.

    Raises:
        ExportError: the network has a layer that cannot be written.
        MissingExtraError: onnx, or for int8 onnxruntime, is not installed.
    """
    _require_packages(precision)
    graph = Graph("network/")
    probabilities, embedding = add_network(graph, core, "log_mel")
    outputs = {PROBABILITIES: probabilities, EMBEDDING: embedding}
    keep = [value.name for value in outputs.values() if value]
    pad_channels(graph, keep)
    pool_early(graph, keep)
    constants = {name: flush_tiny(array) for name, array in graph.constants.items()}
    if precision == "float16":
        nodes = [*_to_float16(constants, _weight_names(constants)), *graph.nodes]
    elif precision == "int8":
        head = [name for name in _weight_names(constants) if name.startswith("network/head")]
        nodes = [*_recurrent_int8(graph, constants), *_to_float16(constants, head), *graph.nodes]
    else:
        nodes = graph.nodes
    model = _assemble(
        nodes, constants, ("log_mel", spec.input_shape), {k: (v.name, v.shape) for k, v in outputs.items() if v}
    )
    if precision == "int8":
        assert calibration is not None
        model = _quantized(model, calibration)
    if input_kind == "waveform":
        _prepend_front_end(model, spec)
    return model


def _require_packages(precision: str) -> None:
    purposes = {"onnx": "Writing ONNX or OpenVINO files"}
    if precision == "int8":
        purposes["onnxruntime"] = "Writing ONNX or OpenVINO files as int8"
    for package, purpose in purposes.items():
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "onnx", purpose)


def _assemble(
    nodes: list[Any],
    constants: dict[str, np.ndarray],
    source: tuple[str, tuple[int, ...]],
    outputs: dict[str, tuple[str, tuple[int, ...]]],
) -> onnx.ModelProto:
    """Make a model with an open batch dimension; outputs: name -> (tensor, its shape)."""
    from onnx import TensorProto, helper, numpy_helper

    named = [helper.make_node("Identity", [tensor], [name], name=name) for name, (tensor, _) in outputs.items()]
    graph = helper.make_graph(
        [*nodes, *named],
        "keras_musictag",
        [helper.make_tensor_value_info(source[0], TensorProto.FLOAT, ["batch", *source[1]])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
            for name, (_, shape) in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)


# === Front end ===


def _prepend_front_end(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Put the preprocessing in front of a model, so that it takes waveforms.

    The STFT is a strided convolution. Its kernels and the mel matrix would be most of a small model's file. They are
    computed from a table of one period and the slopes of each band when the model is loaded: runtimes fold what depends
    on constants alone.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = Graph("front_end/")
    _add_front_end(graph, spec)
    nodes = [*graph.nodes, *model.graph.node]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in graph.constants.items())
    model.graph.input.append(
        helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", spec.window_samples])
    )


def _add_front_end(graph: Graph, spec: ModelSpec) -> None:
    from onnx import helper

    mel, bins = spec.mel, 1 + spec.mel.n_fft // 2

    def number(value: float, name: str) -> str:
        return graph.constant(np.float32(value), name)

    one = graph.constant(np.array([1], "int64"), "axis")
    signal = graph.add("Unsqueeze", [_padded(graph, spec), one], "signal")
    stft = graph.add("Conv", [signal, _kernels(graph, spec, one)], "stft", strides=[mel.hop_length])
    square = graph.add("Mul", [stft, stft], "square")
    halves = graph.constant(np.array([bins, bins], "int64"), "bins")
    graph.nodes.append(
        helper.make_node("Split", [square, halves], ["front_end/real", "front_end/imag"], name="split", axis=1)
    )
    power = graph.add("Add", ["front_end/real", "front_end/imag"], "power")
    if mel.power != 2.0:
        power = graph.add("Pow", [power, number(mel.power / 2.0, "exponent")], "powered")
    x = graph.add("MatMul", [_filters(graph, spec), power], "mel")  # (batch, mels, frames)
    if mel.scaling == "log10":
        scaled = graph.add("Mul", [x, number(mel.gain, "gain")], "amplified")
        x = graph.add("Log", [graph.add("Add", [scaled, number(1.0, "one")], "plus_one")], "log")
        x = graph.add("Mul", [x, number(1.0 / np.log(10.0), "per_decade")], "decades")
    elif mel.scaling == "log":
        x = graph.add("Log", [graph.add("Add", [x, number(mel.log_offset, "log_offset")], "plus_offset")], "log")
        x = graph.add("Sub", [x, number(mel.mean, "mean")], "centred")
        x = graph.add("Mul", [x, number(1.0 / mel.std, "per_std")], "standardised")
    elif mel.scaling is not None:
        factor = decibels_per_decade(mel)
        floor = graph.add("Max", [x, number(mel.amin, "amin")], "floored")
        x = graph.add("Mul", [graph.add("Log", [floor], "log"), number(factor / np.log(10.0), "per_db")], "db")
        x = graph.add("Sub", [x, number(factor * np.log10(max(mel.amin, mel.ref)), "reference")], "relative")
        if mel.top_db is not None:
            loudest = graph.add("ReduceMax", [x], "loudest", axes=[1, 2], keepdims=1)
            least = graph.add("Sub", [loudest, number(mel.top_db, "top_db")], "least")
            x = graph.add("Max", [x, least], "ranged")
    graph.nodes.append(helper.make_node("Identity", [x], ["log_mel"], name="front_end/log_mel"))


def _padded(graph: Graph, spec: ModelSpec) -> str:
    """Add pre-emphasis, and padding if windows are centred one by one, to the waveform `(batch, samples)`."""
    mel, x, samples = spec.mel, "waveform", spec.window_samples

    def part(x: str, start: int, stop: int, name: str, step: int = 1) -> str:
        limits = (("start", start), ("stop", stop), ("axes", 1), ("step", step))
        names = [graph.constant(np.array([value], "int64"), f"{name}_{limit}") for limit, value in limits]
        return graph.add("Slice", [x, *names], name)

    if mel.preemphasis_coefficient:
        coefficient = graph.constant(np.float32(mel.preemphasis_coefficient), "preemphasis_coefficient")
        before = graph.add("Mul", [part(x, 0, samples - 1, "before"), coefficient], "expected")
        x, samples = graph.add("Sub", [part(x, 1, samples, "after"), before], "emphasised"), samples - 1
    if not mel.center:
        return x
    if mel.pad_mode == "constant":
        pads = graph.constant(np.array([0, mel.padding, 0, mel.padding], "int64"), "pads")
        return graph.add("Pad", [x, pads], "padded")
    # Written out, because runtimes reflect slowly, or only images.
    left = part(x, mel.padding, 0, "reflected_start", -1)
    right = part(x, samples - 2, samples - 2 - mel.padding, "reflected_end", -1)
    return graph.add("Concat", [left, x, right], "padded", axis=1)


def _kernels(graph: Graph, spec: ModelSpec, one: str) -> str:
    """Add the kernels of the STFT `(2 * bins, 1, n_fft)`: windowed cosines, then negative sines."""
    mel, bins = spec.mel, 1 + spec.mel.n_fft // 2
    frequency = graph.add("Unsqueeze", [_range(graph, np.int64(bins), "bin_number"), one], "frequency")
    time = _range(graph, np.int64(mel.n_fft), "time")
    period = graph.constant(np.int64(mel.n_fft), "period")
    phase = graph.add("Mod", [graph.add("Mul", [frequency, time], "product"), period], "phase")
    angle = 2 * np.pi * np.arange(mel.n_fft) / mel.n_fft
    window = window_function(mel.window, mel.win_length or mel.n_fft, mel.n_fft, mel.periodic)
    window_name = graph.constant(window.astype("float32"), "window")
    parts = []
    for name, table in (("cosine", np.cos(angle)), ("sine", -np.sin(angle))):
        wave = graph.add("Gather", [graph.constant(table.astype("float32"), f"{name}_table"), phase], name)
        parts.append(graph.add("Mul", [wave, window_name], f"{name}_kernels"))
    return graph.add("Unsqueeze", [graph.add("Concat", parts, "waves", axis=0), one], "kernels")


def _filters(graph: Graph, spec: ModelSpec) -> str:
    """Add the mel matrix `(mels, bins)`: triangles, from the bin nearest to each peak for float32 precision."""
    mel, width = spec.mel, spec.audio.sr / spec.mel.n_fft
    if mel.mel_banks != "librosa":  # bands that are not triangles over frequency
        return graph.constant(filters_of(spec).T.astype("float32"), "filters")
    edges = mel_frequencies(mel.n_mels + 2, mel.fmin, spec.audio.sr / 2 if mel.fmax is None else mel.fmax, mel.htk)
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    nearest = np.round(peak / width)
    area = 2.0 / (high - low) if mel.norm == "slaney" else np.ones(mel.n_mels)

    def column(values: np.ndarray, name: str) -> str:
        return graph.constant(values.astype("float32")[:, None], name)

    bins = _range(graph, np.float32(1 + mel.n_fft // 2), "bin")
    away = graph.add("Sub", [bins, column(nearest, "nearest_bin")], "bins_away")
    sides = []
    for name, foot, span in (("rising", low, peak - low), ("falling", high, peak - high)):
        slope = graph.add("Mul", [away, column(width / span * area, f"{name}_slope")], f"{name}_part")
        sides.append(graph.add("Add", [slope, column((nearest * width - foot) / span * area, f"{name}_peak")], name))
    triangle = graph.add("Min", sides, "triangles")
    return graph.add("Max", [triangle, graph.constant(np.float32(0.0), "zero")], "filters")


def _range(graph: Graph, end: np.generic, name: str) -> str:
    """Add the numbers from 0 to `end`, in the type of `end`."""
    limits = (("start", end.dtype.type(0)), ("end", end), ("step", end.dtype.type(1)))
    return graph.add("Range", [graph.constant(value, f"{name}_{limit}") for limit, value in limits], name)


# === Precision ===


def _weight_names(constants: dict[str, np.ndarray]) -> list[str]:
    return [name for name, array in constants.items() if array.dtype == np.float32 and array.ndim > 1]


def _to_float16(constants: dict[str, np.ndarray], names: list[str]) -> list[Any]:
    """Convert weights to float16, in place; return the nodes that convert them to float32 when the file is loaded."""
    from onnx import TensorProto, helper

    nodes = []
    for name in names:
        if np.abs(constants[name]).max() <= _FLOAT16_MAX:
            constants[f"{name}/float16"] = constants.pop(name).astype("float16")
            nodes.append(helper.make_node("Cast", [f"{name}/float16"], [name], name=name, to=TensorProto.FLOAT))
    return nodes


def _recurrent_int8(graph: Graph, constants: dict[str, np.ndarray]) -> list[Any]:
    """Convert weights of GRUs to int8, in place, per row; return the nodes that convert them to float32 on loading.

    They go through int32: OpenVINO would not fold what it recognises as a quantized tensor, but a GRU needs constants.
    """
    from onnx import TensorProto, helper

    nodes = []
    names = [name for node in graph.nodes if node.op_type == "GRU" for name in node.input[1:3]]
    for name in names:
        weights = constants.pop(name)[0]  # (3 units, inputs)
        scale = np.maximum(np.abs(weights).max(axis=1), 1e-12).astype("float32") / 127
        constants[f"{name}/int8"] = np.round(weights / scale[:, None]).astype("int8")[None]
        constants[f"{name}/scale"] = scale[:, None]
        nodes += [
            helper.make_node("Cast", [f"{name}/int8"], [f"{name}/int32"], name=f"{name}/int32", to=TensorProto.INT32),
            helper.make_node("Cast", [f"{name}/int32"], [f"{name}/whole"], name=f"{name}/whole", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}/whole", f"{name}/scale"], [name], name=name),
        ]
    return nodes


def _quantized(model: onnx.ModelProto, calibration: np.ndarray) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._windows = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            window = next(self._windows, None)
            return None if window is None else {"log_mel": window[None]}

    # The head stays float32. So does a GRU that is unrolled: errors would add up from step to step, and OpenVINO 2026.4
    # has no quantized product of sequences.
    kept = [node.name for node in model.graph.node if node.name.startswith("network/head") or "/step" in node.name]
    first = _first_convolutions(model)
    kept += [*first, *_keep_apart(model, first[0])] if len(first) == 1 else []
    # Marks the model as preprocessed (shapes inferred, nodes fused); otherwise the tools advise to do that first.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as scratch, _silenced():
        path = Path(scratch) / "model.onnx"
        quantize_static(
            model,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm", "Relu", "MaxPool"],
            nodes_to_exclude=kept,
        )
        quantized = onnx.load(path)
    del quantized.metadata_props[:], quantized.graph.value_info[:]
    return quantized


def _first_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the names of the convolutions that take the spectrogram itself.

    A single one stays float32: in musicnet_crnn it does 7 % of the arithmetic and would cause half of the error.
    (Besides, OpenVINO 2026.4 computes wrong numbers with it where the batch is open and a GRU follows.) Several, as in
    musicnn, are most of the network.
    """
    spectrograms, found = {"log_mel"}, []
    for node in model.graph.node:
        if not spectrograms.isdisjoint(node.input):
            if node.op_type == "Conv":
                found.append(node.name)
            else:
                spectrograms.update(node.output)
    return found


def _keep_apart(model: onnx.ModelProto, convolution: str) -> list[str]:
    """Put a max-pooling of one by one after a convolution and ReLU that another convolution follows; return its name.

    OpenVINO 2026.4 lets a convolution with one input channel write int8, and then computes wrong numbers where the
    batch is open and a GRU follows: probabilities of musicnet_crnn_fast were off by 0.16, with this by 0.01 as on ONNX
    Runtime. In musicnet_crnn its pooling stands there.
    """
    from onnx import helper

    def reader(tensor: str) -> onnx.NodeProto:
        return next(node for node in model.graph.node if tensor in node.input)

    last = next(node for node in model.graph.node if node.name == convolution)
    if reader(last.output[0]).op_type == "Relu":
        last = reader(last.output[0])
    after = reader(last.output[0])
    if after.op_type != "Conv":
        return []
    name = f"{last.name}/apart"
    pool = helper.make_node("MaxPool", [last.output[0]], [name], name=name, kernel_shape=[1, 1])
    model.graph.node.insert([node.name for node in model.graph.node].index(last.name) + 1, pool)
    after.input[0] = name
    return [name]


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Suppress what the quantization tools print and log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


# === File ===


def write(model: onnx.ModelProto, path: Path, metadata: dict[str, str]) -> None:
    """Write a model, with `metadata` in the file.

    Raises:
        OSError: the file cannot be written.
    """
    import onnx

    from ... import __version__

    model.producer_name, model.producer_version = "keras_musictag", __version__
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
