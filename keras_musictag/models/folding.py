"""Convolutions that are ready for inference: batch norms inside their kernels, bias and ReLU behind the max-pooling.

A batch norm at inference is a factor and a term for each channel, so the factor can go into the kernel before it. The
term and a ReLU never change which of several values is the largest, so they can wait until max-pooling has left few of
them. The numbers are the same up to rounding. In musicnet_crnn these passes over memory were a quarter of the time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import keras
from keras import layers, ops, tree

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D)
_POOLINGS = (layers.MaxPooling1D, layers.MaxPooling2D)


def folded(model: keras.Model) -> keras.Model:
    """A model of the same layers and variables, faster at inference.

    What is done to the variables later holds for both models. For training it is of no use: its batch norms do not see
    batches.

    Args:
        model: functional model; one that is not, or has nothing to fold, is returned as it is.

    Returns:
        `keras.Model` with the same inputs and outputs.

    Example:
        >>> import keras_musictag as kmt
        >>> model = folded(kmt.models.musicnet_crnn())
        >>> [layer.name for layer in model.layers if isinstance(layer, FoldedConvolution)]
        ['folded_conv1', 'folded_conv2', 'folded_conv3', 'folded_conv4']
    """
    chains = _chains(model)
    models = [node.operation for node in _nodes(model) if isinstance(node.operation, keras.Model)]
    inner = {id(layer): folded(layer) for layer in models}
    if not chains and all(inner[id(layer)] is layer for layer in models):
        return model
    last = {id(chain[-1]): chain for chain in chains}
    others = {id(layer) for chain in chains for layer in chain[:-1]}

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in others:
            return args[0]  # done by the last of its chain
        if id(layer) in last:
            return FoldedConvolution(*last[id(layer)], name=f"folded_{last[id(layer)][0].name}")(args[0])
        return inner.get(id(layer), layer)(*args, **kwargs)

    # Without what it was compiled with, which would be compiled again.
    bare = keras.Model(model.input, model.output, name=model.name)
    return keras.models.clone_model(bare, clone_function=lambda layer: layer, call_function=call)


class FoldedConvolution(layers.Layer):
    """A convolution, its batch norm, a ReLU and perhaps a max-pooling as one layer. It has no variables of its own.

    Args:
        convolution: `Conv1D` or `Conv2D` without activation.
        norm: `BatchNormalization` over the channels.
        relu: `ReLU`.
        pool: `MaxPooling1D` or `MaxPooling2D`, if there is one.
    """

    def __init__(self, convolution: Any, norm: Any, relu: Any, pool: Any = None, **options: Any) -> None:
        """Keep the layers, so that their variables are known."""
        super().__init__(**options)
        self.convolution, self.norm, self.relu, self.pool = convolution, norm, relu, pool

    def build(self, input_shape: Any) -> None:
        """The layers are built."""

    def call(self, inputs: Any) -> Any:
        """`(batch, ..., channels)` to `(batch, ..., filters)`."""
        conv, norm = self.convolution, self.norm
        scale = ops.rsqrt(norm.moving_variance + norm.epsilon)
        if norm.scale:
            scale = scale * norm.gamma
        away = conv.bias - norm.moving_mean if conv.use_bias else -norm.moving_mean
        shift = away * scale + norm.beta if norm.center else away * scale
        x = ops.conv(
            inputs,
            conv.kernel * scale,
            strides=conv.strides,
            padding=conv.padding,
            data_format="channels_last",
            dilation_rate=conv.dilation_rate,
        )
        if self.pool is not None:
            x = ops.max_pool(x, self.pool.pool_size, self.pool.strides, self.pool.padding, "channels_last")
        return ops.relu(x + shift)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the last layer."""
        shape = self.convolution.compute_output_shape(input_shape)
        return shape if self.pool is None else self.pool.compute_output_shape(shape)


def _nodes(model: keras.Model) -> list[Any]:
    """Calls of layers that a functional model is made of; none for others, whose `call` may do anything."""
    if type(model).__name__ != "Functional":
        return []
    return [node for nodes in model._nodes_by_depth.values() for node in nodes]


def _chains(model: keras.Model) -> list[list[Any]]:
    """Layers that can be one: convolution, batch norm, ReLU and, if it is there, max-pooling."""
    nodes = _nodes(model)
    calls = Counter(id(node.operation) for node in nodes)
    users: dict[int, list[Any]] = defaultdict(list)
    for node in nodes:
        for tensor in node.input_tensors:
            users[id(tensor)].append(node.operation)
    for tensor in tree.flatten(model.outputs) if nodes else ():
        users[id(tensor)].append(None)
    chains = []
    for node in nodes:
        chain = [node.operation]
        for fits in (_is_convolution, _is_norm, _is_relu, _is_pooling):
            if calls[id(chain[-1])] != 1 or not fits(chain[-1]):
                del chain[-1]
                break
            following = users[id(chain[-1].output)]
            if len(following) != 1 or following[0] is None:
                break
            chain.append(following[0])
        if len(chain[:4]) > 2:
            chains.append(chain[:4])
    return chains


def _is_convolution(layer: Any) -> bool:
    return (
        type(layer) in _CONVOLUTIONS
        and layer.data_format == "channels_last"
        and layer.activation.__name__ == "linear"
        and layer.groups == 1
        and _in_float32(layer)
    )


def _is_norm(layer: Any) -> bool:
    rank = len(layer.output.shape)
    return type(layer) is layers.BatchNormalization and layer.axis in (-1, rank - 1) and _in_float32(layer)


def _is_relu(layer: Any) -> bool:
    plain = type(layer) is layers.ReLU and layer.max_value is None and not (layer.negative_slope or layer.threshold)
    named = type(layer) is layers.Activation and layer.activation.__name__ == "relu"
    return (plain or named) and _in_float32(layer)


def _is_pooling(layer: Any) -> bool:
    return type(layer) in _POOLINGS and layer.data_format == "channels_last"


def _in_float32(layer: Any) -> bool:
    """Whether it computes with what its variables are."""
    return bool(layer.compute_dtype == layer.variable_dtype == "float32") and layer.quantization_mode is None
