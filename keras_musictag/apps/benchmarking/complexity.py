"""Size of a network, and its number of operations, independent of the runtime."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def parameters(core: keras.Model) -> tuple[int, int]:
    """Return the number of trainable parameters, and of all parameters."""
    return sum(math.prod(v.shape) for v in core.trainable_variables), core.count_params()


def multiply_adds(core: keras.Model) -> int:
    """Count the multiply-adds for one window, in convolutions (also depthwise), dense layers and GRUs.

    Elementwise operations (batch norms, activations, pooling) are not counted.

    Raises:
        NotImplementedError: the network has a layer with weights of an unknown type.

    Example:
        >>> import keras_musictag as kmt
        >>> multiply_adds(kmt.models.musicnet_crnn(num_tags=50)) / 1e6  # doctest: +ELLIPSIS
        7...
    """
    return sum(multiply_adds_by_layer(core).values())


def multiply_adds_by_layer(core: keras.Model) -> dict[str, int]:
    """Count the multiply-adds for one window, layer by layer.

    Returns:
        Name of each layer with weights -> multiply-adds.

    Raises:
        NotImplementedError: as `multiply_adds`.
    """
    import keras

    layers = core._flatten_layers(include_self=False)
    counts: dict[str, int] = {}
    for layer in layers:
        if layer.weights and not isinstance(layer, keras.Model):
            counts[layer.name] = counts.get(layer.name, 0) + _layer_multiply_adds(layer)
    return counts


def _layer_multiply_adds(layer: Any) -> int:
    import keras

    if isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        return _positions(layer) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.Dense):
        return math.prod(_shape(layer.output)[:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.GRU):
        steps = _shape(layer.input)[0]
        return steps * (math.prod(layer.cell.kernel.shape) + math.prod(layer.cell.recurrent_kernel.shape))
    if isinstance(layer, (keras.layers.BatchNormalization, keras.layers.GRUCell)):
        return 0
    raise NotImplementedError(f"The multiply-adds of a layer {type(layer).__name__} ({layer.name!r}) are unknown.")


def _positions(layer: Any) -> int:
    """Return the number of positions of the kernel of a convolution."""
    shape = _shape(layer.output)
    return math.prod(shape[1:] if layer.data_format == "channels_first" else shape[:-1])


def _shape(tensor: Any) -> tuple[int, ...]:
    """Return the shape without the batch dimension."""
    return tuple(tensor.shape[1:])
