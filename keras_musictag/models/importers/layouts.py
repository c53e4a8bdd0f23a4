"""Conversion of layers from PyTorch's layout to Keras'.

Each function takes the arrays of one layer from a published file and returns them by `variable.path`. The prefix of
`"layer1.conv.weight"` is `"layer1.conv"`.
"""

from __future__ import annotations

import numpy as np

from . import PublishedArrays


def conv2d(arrays: PublishedArrays, prefix: str, layer: str, *, bias: bool = True) -> dict[str, np.ndarray]:
    """Convert `Conv2d` `(out, in, height, width)` to `Conv2D` `(height, width, in, out)`."""
    return _weighted(arrays, prefix, layer, (2, 3, 1, 0), bias)


def depthwise_conv2d(arrays: PublishedArrays, prefix: str, layer: str, *, bias: bool = True) -> dict[str, np.ndarray]:
    """Convert a grouped `Conv2d` `(channels, 1, height, width)` to `DepthwiseConv2D` `(height, width, channels, 1)`."""
    return _weighted(arrays, prefix, layer, (2, 3, 0, 1), bias)


def conv1d(arrays: PublishedArrays, prefix: str, layer: str, *, bias: bool = True) -> dict[str, np.ndarray]:
    """Convert `Conv1d` `(out, in, length)` to `Conv1D` `(length, in, out)`."""
    return _weighted(arrays, prefix, layer, (2, 1, 0), bias)


def dense(arrays: PublishedArrays, prefix: str, layer: str, *, bias: bool = True) -> dict[str, np.ndarray]:
    """Convert `Linear` `(out, in)` to `Dense` `(in, out)`."""
    return _weighted(arrays, prefix, layer, (1, 0), bias)


def batch_norm(arrays: PublishedArrays, prefix: str, layer: str) -> dict[str, np.ndarray]:
    """Convert `BatchNorm1d` or `BatchNorm2d` to `BatchNormalization`."""
    counter = f"{prefix}.num_batches_tracked"
    if counter in arrays:
        arrays.leave(counter, "a counter of training batches")
    return {
        f"{layer}/gamma": arrays.take(f"{prefix}.weight"),
        f"{layer}/beta": arrays.take(f"{prefix}.bias"),
        f"{layer}/moving_mean": arrays.take(f"{prefix}.running_mean"),
        f"{layer}/moving_variance": arrays.take(f"{prefix}.running_var"),
    }


def gru(arrays: PublishedArrays, prefix: str, layer: str, *, index: int = 0) -> dict[str, np.ndarray]:
    """Convert one layer of a `GRU` to `GRU(reset_after=True)`.

    PyTorch stacks the gates as reset, update, new; Keras as update, reset, new.

    Args:
        arrays: arrays of the file.
        prefix: prefix of PyTorch's module, which may hold several layers.
        layer: path of the Keras layer.
        index: index of the layer in PyTorch's module.
    """

    def gates(kind: str) -> np.ndarray:
        reset, update, new = np.split(arrays.take(f"{prefix}.{kind}_l{index}"), 3)
        return np.concatenate([update, reset, new])

    return {
        f"{layer}/gru_cell/kernel": gates("weight_ih").T,
        f"{layer}/gru_cell/recurrent_kernel": gates("weight_hh").T,
        f"{layer}/gru_cell/bias": np.stack([gates("bias_ih"), gates("bias_hh")]),
    }


def _weighted(
    arrays: PublishedArrays, prefix: str, layer: str, axes: tuple[int, ...], bias: bool
) -> dict[str, np.ndarray]:
    kernel = arrays.take(f"{prefix}.weight")
    if kernel.ndim != len(axes):
        raise arrays.mismatch(f"{prefix}.weight has {kernel.ndim} axes, expected {len(axes)}")
    found = {f"{layer}/kernel": kernel.transpose(axes)}
    if bias:
        found[f"{layer}/bias"] = arrays.take(f"{prefix}.bias")
    return found
