"""How large a network is and how much it computes, whatever runs it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def parameters(core: keras.Model) -> tuple[int, int]:
    """Number of trainable parameters, and of all."""
    return sum(math.prod(v.shape) for v in core.trainable_variables), core.count_params()


def multiply_adds(core: keras.Model) -> int:
    """Multiplications with an addition for one window, in convolutions (depthwise ones too), dense layers and GRUs.

    Elementwise work (batch norms, activations, pooling) is left out.

    Raises:
        NotImplementedError: the network has a layer with weights that is not known here.

    Example:
        >>> import keras_musictag as kmt
        >>> multiply_adds(kmt.models.musicnet_crnn(num_tags=50)) / 1e6  # doctest: +ELLIPSIS
        7...
    """
    return sum(multiply_adds_by_layer(core).values())


def multiply_adds_by_layer(core: keras.Model) -> dict[str, int]:
    """The same, layer by layer.

    Returns:
        Name of each layer with weights -> multiplications with an addition for one window.

    Raises:
        NotImplementedError: as `multiply_adds`.
    """
    import keras

    layers = core._flatten_layers(include_self=False)
    counts: dict[str, int] = {}
    for layer in layers:
        if layer.weights and not isinstance(layer, keras.Model):
            counts[layer.name] = counts.get(layer.name, 0) + _of_layer(layer)
    return counts


def _of_layer(layer: Any) -> int:
    import keras

    if isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        return _steps(layer) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.Dense):
        return math.prod(_shape(layer.output)[:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.GRU):
        steps = _shape(layer.input)[0]
        return steps * (math.prod(layer.cell.kernel.shape) + math.prod(layer.cell.recurrent_kernel.shape))
    if isinstance(layer, (keras.layers.BatchNormalization, keras.layers.GRUCell)):
        return 0
    raise NotImplementedError(f"The multiplications of a layer {type(layer).__name__} ({layer.name!r}) are not known.")


def _steps(layer: Any) -> int:
    """Places that the kernel of a convolution is laid on."""
    shape = _shape(layer.output)
    return math.prod(shape[1:] if layer.data_format == "channels_first" else shape[:-1])


def _shape(tensor: Any) -> tuple[int, ...]:
    """Without the batch."""
    return tuple(tensor.shape[1:])
