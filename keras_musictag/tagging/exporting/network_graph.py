"""Conversion of a Keras network to ONNX nodes, layer by layer, on every Keras backend.

It replaces a general converter to make the graph that runtimes are fastest with: channels first, batch norms folded
into the convolutions before them, a GRU as one node. It covers the layers of the zoo; another layer is an error.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..exported import ExportError
from .gru_steps import MAX_STEPS, add_hard_gru
from .onnx_graph import Graph, Value


def add_network(graph: Graph, model: Any, log_mel: str) -> tuple[Value, Value | None]:
    """Add the nodes of a network.

    Args:
        graph: graph to add to.
        model: functional or sequential `keras.Model` with one input `(batch, mels, frames)`.
        log_mel: name of the input in the graph.

    Returns:
        The probabilities, and the input of the layer named `"head"`, `None` if there is no such layer.

    Raises:
        ExportError: a layer cannot be written or is used twice.
    """
    from keras import tree

    tensor = tree.flatten(model.inputs)[0]
    values = {id(tensor): Value(log_mel, tuple(tensor.shape[1:]))}
    _add_layers(graph, model, values)
    output = graph.to_channels_last(values[id(tree.flatten(model.outputs)[0])])
    heads = [layer for layer in model.layers if layer.name == "head"]
    return output, graph.to_channels_last(values[id(heads[0].input)]) if heads else None


def _add_layers(graph: Graph, model: Any, values: dict[int, Value]) -> None:
    """Add a model's layers; `values` maps tensors to values: its inputs at first, all tensors at the end."""
    import keras
    from keras import tree

    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    input_tensors = [tree.flatten(layer.input) for layer in layers]
    outputs = [layer.output for layer in layers]
    uses = Counter(id(tensor) for tensors in [*input_tensors, tree.flatten(model.outputs)] for tensor in tensors)
    for layer, tensors, output in zip(layers, input_tensors, outputs, strict=True):
        inputs = _values_of(model, tensors, values)
        if isinstance(layer, keras.Model):
            for value in inputs:  # other layers may use them too
                graph.forbid_folding(value.name)
            inner = {id(tensor): value for tensor, value in zip(tree.flatten(layer.inputs), inputs, strict=True)}
            _add_layers(graph, layer, inner)
            values[id(output)] = inner[id(tree.flatten(layer.outputs)[0])]
            continue
        value = _add_layer(graph, layer, inputs, only_user=uses[id(tensors[0])] == 1)
        values[id(output)] = dataclasses.replace(value, shape=tuple(output.shape[1:]))
    _values_of(model, tree.flatten(model.outputs), values)


def _values_of(model: Any, tensors: list[Any], values: dict[int, Value]) -> list[Value]:
    """Return the values of a model's tensors; a layer that is used twice only has values for the first use."""
    try:
        return [values[id(tensor)] for tensor in tensors]
    except KeyError as error:
        raise ExportError(
            f"{model.name} uses one of its layers twice. Only models that use each layer once can be written as ONNX. "
            "Export it as saved_model or litert."
        ) from error


def _add_layer(graph: Graph, layer: Any, inputs: list[Value], *, only_user: bool) -> Value:
    kind = type(layer).__name__
    if kind in _IDENTITY:
        graph.forbid_folding(inputs[0].name)
        return inputs[0]
    if kind in _MERGES:
        return _MERGES[kind](graph, layer, inputs)
    if kind == "BatchNormalization":
        return _batch_norm(graph, layer, inputs[0], fold=only_user)
    if kind not in _LAYERS:
        raise ExportError(
            f"The layer {layer.name!r} is of type {kind}, which cannot be written as ONNX or OpenVINO. Supported: "
            f"{', '.join(sorted({*_LAYERS, *_MERGES, *_IDENTITY, 'BatchNormalization'}))}. Export the model as "
            "saved_model or litert."
        )
    return _LAYERS[kind](graph, layer, inputs[0])


def _require(layer: Any, **wanted: Any) -> None:
    """Validate that a layer's settings are those that its nodes implement."""
    for name, value in wanted.items():
        if getattr(layer, name) != value:
            raise ExportError(
                f"The layer {layer.name!r} has {name}={getattr(layer, name)!r}; only {value!r} can be written as ONNX. "
                "Export the model as saved_model or litert."
            )


def _array(variable: Any) -> np.ndarray:
    from keras import ops

    return np.asarray(ops.convert_to_numpy(variable), "float32")


# === Layers with weights ===


def _conv(graph: Graph, layer: Any, value: Value) -> Value:
    _require(layer, data_format="channels_last")
    x = graph.to_channels_first(value)
    kernel = _array(layer.kernel)  # (*sizes, inputs, outputs)
    weights = graph.constant(np.moveaxis(kernel, (-1, -2), (0, 1)), f"{layer.name}/kernel")
    bias = _bias(graph, layer, kernel.shape[-1])
    pads = _pads(layer, value.shape[:-1], layer.kernel_size, layer.dilation_rate)
    name = graph.add(
        "Conv", [x.name, weights, bias], layer.name,
        strides=list(layer.strides), dilations=list(layer.dilation_rate), pads=pads, group=layer.groups,
    )  # fmt: skip
    return _activated(graph, layer, Value(name, value.shape, True), weights, bias, 0)


def _depthwise_conv(graph: Graph, layer: Any, value: Value) -> Value:
    _require(layer, data_format="channels_last")
    x = graph.to_channels_first(value)
    kernel = _array(layer.kernel)  # (height, width, channels, multiplier)
    channels = kernel.shape[2]
    weights = graph.constant(kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2]), f"{layer.name}/kernel")
    bias = _bias(graph, layer, channels * kernel.shape[3])
    name = graph.add(
        "Conv", [x.name, weights, bias], layer.name, strides=list(layer.strides), dilations=list(layer.dilation_rate),
        pads=_pads(layer, value.shape[:-1], layer.kernel_size, layer.dilation_rate), group=channels,
    )  # fmt: skip
    return _activated(graph, layer, Value(name, value.shape, True), weights, bias, 0)


def _bias(graph: Graph, layer: Any, outputs: int) -> str:
    values = _array(layer.bias) if layer.use_bias else np.zeros(outputs, "float32")
    return graph.constant(values, f"{layer.name}/bias")


def _pads(layer: Any, sizes: Sequence[int], kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Return the padding before each axis, then after each; Keras puts the odd element of `"same"` after."""
    if layer.padding == "valid":
        return [0] * (2 * len(sizes))
    _require(layer, padding="same")
    total = [
        max((math.ceil(size / stride) - 1) * stride + (k - 1) * d + 1 - size, 0)
        for size, stride, k, d in zip(sizes, layer.strides, kernel, dilation, strict=True)
    ]
    return [pad // 2 for pad in total] + [pad - pad // 2 for pad in total]


def _dense(graph: Graph, layer: Any, value: Value) -> Value:
    x = graph.to_channels_last(value)
    kernel = _array(layer.kernel)
    weights = graph.constant(kernel, f"{layer.name}/kernel")
    bias = _bias(graph, layer, kernel.shape[-1])
    if len(x.shape) == 1:
        name = graph.add("Gemm", [x.name, weights, bias], layer.name)
    else:
        product = graph.add("MatMul", [x.name, weights], f"{layer.name}/product")
        name = graph.add("Add", [product, bias], layer.name)
    return _activated(graph, layer, Value(name, value.shape), weights, bias, 1)


def _activated(graph: Graph, layer: Any, value: Value, weights: str, bias: str, axis: int) -> Value:
    if layer.activation.__name__ == "linear":
        graph.mark_linear(value.name, weights, bias, axis)
        return value
    return _activation(graph, layer, value)


def _batch_norm(graph: Graph, layer: Any, value: Value, *, fold: bool) -> Value:
    rank = len(value.shape) + 1
    if (layer.axis if isinstance(layer.axis, int) else layer.axis[0]) not in (-1, rank - 1):
        _require(layer, axis=-1)
    scale = 1.0 / np.sqrt(_array(layer.moving_variance).astype("float64") + layer.epsilon)
    if layer.scale:
        scale = scale * _array(layer.gamma)
    shift = -_array(layer.moving_mean) * scale
    if layer.center:
        shift = shift + _array(layer.beta)
    if fold and graph.fold(value.name, scale, shift):
        return value
    shape = (-1, *[1] * (rank - 2)) if value.channels_first else (-1,)
    factor = graph.constant(scale.astype("float32").reshape(shape), f"{layer.name}/scale")
    term = graph.constant(shift.astype("float32").reshape(shape), f"{layer.name}/shift")
    name = graph.add("Mul", [value.name, factor], f"{layer.name}/scaled")
    return dataclasses.replace(value, name=graph.add("Add", [name, term], layer.name))


def _gru(graph: Graph, layer: Any, value: Value) -> Value:
    """Add a GRU; the gates of Keras are in the order of ONNX: update, reset, hidden."""
    _require(layer, return_state=False, stateful=False, go_backwards=False)
    gates = layer.recurrent_activation.__name__
    hard = gates == "hard_sigmoid" and not layer.reset_after and value.shape[0] <= MAX_STEPS
    if layer.activation.__name__ != "tanh" or not (hard or gates == "sigmoid"):
        _require(layer, activation="tanh", recurrent_activation="sigmoid")
    cell = layer.cell
    kernel, recurrent = _array(cell.kernel), _array(cell.recurrent_kernel)  # (inputs, 3 units), (units, 3 units)
    bias = np.zeros((2, kernel.shape[1]), "float32")  # row 0 for the inputs, row 1 for the state
    if layer.use_bias and layer.reset_after:
        bias = _array(cell.bias)
    elif layer.use_bias:
        bias[0] = _array(cell.bias)
    if hard:
        return add_hard_gru(graph, layer, graph.to_channels_last(value), kernel, recurrent, bias[0])
    names = [
        graph.constant(array, f"{layer.name}/{kind}")
        for kind, array in (("kernel", kernel.T[None]), ("recurrent", recurrent.T[None]), ("bias", bias.reshape(1, -1)))
    ]
    # (batch, time, inputs) -> (time, batch, inputs)
    x = graph.add("Transpose", [graph.to_channels_last(value).name], f"{layer.name}/time_first", perm=[1, 0, 2])
    options = {"hidden_size": layer.units, "linear_before_reset": int(layer.reset_after)}
    if not layer.return_sequences:
        state = graph.add("GRU", [x, *names], f"{layer.name}/state", outputs=2, **options)
        axes = graph.constant(np.array([0], "int64"), f"{layer.name}/direction")
        return Value(graph.add("Squeeze", [state, axes], layer.name), value.shape)
    states = graph.add("GRU", [x, *names], f"{layer.name}/states", **options)  # (time, direction, batch, units)
    axes = graph.constant(np.array([1], "int64"), f"{layer.name}/direction")
    squeezed = graph.add("Squeeze", [states, axes], f"{layer.name}/sequence")
    return Value(graph.add("Transpose", [squeezed], layer.name, perm=[1, 0, 2]), value.shape)


# === Activations and pooling ===

_SIXTH = float(np.float32(1 / 6))  # slope of Keras' hard sigmoid
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softmax": ("Softmax", {}),
    "elu": ("Elu", {"alpha": 1.0}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": _SIXTH, "beta": 0.5}),
    "hard_silu": ("HardSwish", {}),
}


def _activation(graph: Graph, layer: Any, value: Value) -> Value:
    name = layer.activation.__name__
    if name == "linear":
        return value
    if name not in _ACTIVATIONS:
        raise ExportError(
            f"The layer {layer.name!r} has the activation {name!r}; {', '.join([*_ACTIVATIONS, 'linear'])} can be "
            "written as ONNX. Export the model as saved_model or litert."
        )
    if name == "softmax":
        value = graph.to_channels_last(value)
        return dataclasses.replace(value, name=graph.add("Softmax", [value.name], f"{layer.name}/softmax", axis=-1))
    kind, options = _ACTIVATIONS[name]
    return dataclasses.replace(value, name=graph.add(kind, [value.name], f"{layer.name}/{name}", **options))


def _relu(graph: Graph, layer: Any, value: Value) -> Value:
    _require(layer, max_value=None, negative_slope=0.0, threshold=0.0)
    return dataclasses.replace(value, name=graph.add("Relu", [value.name], layer.name))


def _elu(graph: Graph, layer: Any, value: Value) -> Value:
    return dataclasses.replace(value, name=graph.add("Elu", [value.name], layer.name, alpha=float(layer.alpha)))


def _pool(kind: str) -> Callable[[Graph, Any, Value], Value]:
    def write(graph: Graph, layer: Any, value: Value) -> Value:
        _require(layer, data_format="channels_last")
        sizes = layer.pool_size
        pads = _pads(layer, value.shape[:-1], sizes, [1] * len(sizes))
        x = graph.to_channels_first(value)
        name = graph.add(kind, [x.name], layer.name, kernel_shape=list(sizes), strides=list(layer.strides), pads=pads)
        return Value(name, value.shape, True)

    return write


def _global_pool(kind: str) -> Callable[[Graph, Any, Value], Value]:
    def write(graph: Graph, layer: Any, value: Value) -> Value:
        _require(layer, data_format="channels_last", keepdims=False)
        offset = 2 if value.channels_first else 1
        axes = [offset + i for i in range(len(value.shape) - 1)]
        return Value(graph.add(kind, [value.name], layer.name, axes=axes, keepdims=0), value.shape)

    return write


# === Shapes ===


def _reshape(graph: Graph, layer: Any, value: Value) -> Value:
    shape = graph.constant(np.array([0, *layer.output.shape[1:]], "int64"), f"{layer.name}/shape")
    return Value(graph.add("Reshape", [graph.to_channels_last(value).name, shape], layer.name), value.shape)


def _permute(graph: Graph, layer: Any, value: Value) -> Value:
    x = graph.to_channels_last(value)
    return Value(graph.add("Transpose", [x.name], layer.name, perm=[0, *layer.dims]), value.shape)


def _zero_padding(graph: Graph, layer: Any, value: Value) -> Value:
    pairs = [(0, 0), *np.reshape(layer.padding, (-1, 2)).tolist(), (0, 0)]
    pads = graph.constant(np.array(pairs, "int64").T.ravel(), f"{layer.name}/pads")
    return Value(graph.add("Pad", [graph.to_channels_last(value).name, pads], layer.name), value.shape)


def _merge(kind: str) -> Callable[[Graph, Any, list[Value]], Value]:
    def write(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
        same_rank = len({len(value.shape) for value in inputs}) == 1
        channels_first = same_rank and all(value.channels_first for value in inputs)
        if not channels_first:
            inputs = [graph.to_channels_last(value) for value in inputs]
        name = inputs[0].name
        for index, value in enumerate(inputs[1:], start=1):
            label = layer.name if index == len(inputs) - 1 else f"{layer.name}/{index}"
            name = graph.add(kind, [name, value.name], label)
        return Value(name, inputs[0].shape, channels_first)

    return write


def _concatenate(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
    rank = len(inputs[0].shape) + 1
    axis = layer.axis % rank
    channels_first = all(value.channels_first for value in inputs)
    if channels_first:
        axis = 1 if axis == rank - 1 else axis + 1
    else:
        inputs = [graph.to_channels_last(value) for value in inputs]
    names = [value.name for value in inputs]
    return Value(graph.add("Concat", names, layer.name, axis=axis), inputs[0].shape, channels_first)


def _tap_statistics(graph: Graph, layer: Any, value: Value) -> Value:
    """Add `layer_statistics.TapStatistics`: mean and standard deviation over time, mel band by mel band."""
    from ...models.layer_statistics import LEAST_VARIANCE

    x = graph.to_channels_last(value).name
    if len(value.shape) == 3:
        frames, mels, channels = value.shape
        if layer.time_axis == 2:
            x = graph.add("Transpose", [x], f"{layer.name}/time_first", perm=[0, 2, 1, 3])
            frames, mels = mels, frames
        bands = layer.output.shape[1] // (2 * channels)
        split = graph.constant(np.array([0, frames, bands, mels // bands, channels], "int64"), f"{layer.name}/split")
        x = graph.add("Reshape", [x, split], f"{layer.name}/bands")
        x = graph.add("ReduceMean", [x], f"{layer.name}/band_means", axes=[3], keepdims=0)
        flat = graph.constant(np.array([0, frames, bands * channels], "int64"), f"{layer.name}/flat")
        x = graph.add("Reshape", [x, flat], f"{layer.name}/sequence")
    mean = graph.add("ReduceMean", [x], f"{layer.name}/mean", axes=[1], keepdims=1)
    difference = graph.add("Sub", [x, mean], f"{layer.name}/away")
    square = graph.add("Mul", [difference, difference], f"{layer.name}/square")
    variance = graph.add("ReduceMean", [square], f"{layer.name}/variance", axes=[1], keepdims=0)
    least = graph.constant(np.float32(LEAST_VARIANCE), f"{layer.name}/least")
    deviation = graph.add("Sqrt", [graph.add("Add", [variance, least], f"{layer.name}/raised")], f"{layer.name}/std")
    time = graph.constant(np.array([1], "int64"), f"{layer.name}/time")
    centre = graph.add("Squeeze", [mean, time], f"{layer.name}/centre")
    return Value(graph.add("Concat", [centre, deviation], layer.name, axis=1), value.shape)


_IDENTITY = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "Identity")
_MERGES = {"Add": _merge("Add"), "Multiply": _merge("Mul"), "Concatenate": _concatenate}
_LAYERS: dict[str, Callable[[Graph, Any, Value], Value]] = {
    "Conv1D": _conv,
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise_conv,
    "Dense": _dense,
    "GRU": _gru,
    "Activation": _activation,
    "ReLU": _relu,
    "ELU": _elu,
    "MaxPooling1D": _pool("MaxPool"),
    "MaxPooling2D": _pool("MaxPool"),
    "AveragePooling1D": _pool("AveragePool"),
    "AveragePooling2D": _pool("AveragePool"),
    "GlobalMaxPooling1D": _global_pool("ReduceMax"),
    "GlobalMaxPooling2D": _global_pool("ReduceMax"),
    "GlobalAveragePooling1D": _global_pool("ReduceMean"),
    "GlobalAveragePooling2D": _global_pool("ReduceMean"),
    "Flatten": _reshape,
    "Reshape": _reshape,
    "Permute": _permute,
    "ZeroPadding1D": _zero_padding,
    "ZeroPadding2D": _zero_padding,
    "TapStatistics": _tap_statistics,
}
