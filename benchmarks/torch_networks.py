"""Networks of the zoo in PyTorch, with the same weights, for `peers.py`: what people who use PyTorch would run.

Images are in PyTorch's own layout (channels first) wherever a layer computes; between the layers they are seen with
channels last, as in Keras, which costs nothing: only strides change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "hard_silu": nn.Hardswish,
}


class Network(nn.Module):
    """A functional Keras model, layer by layer: log-mel `(batch, mels, frames)` to probabilities `(batch, tags)`.

    Raises:
        TypeError: it has a layer that is not known here.
    """

    def __init__(self, core: keras.Model) -> None:
        super().__init__()
        places = {id(layer.output): index for index, layer in enumerate(core.layers)}
        self.inputs: list[list[int]] = []
        self.steps = nn.ModuleList()
        for layer in core.layers:
            is_input = isinstance(layer, keras.layers.InputLayer)
            given = [] if is_input else keras.tree.flatten(layer.input)
            self.inputs.append([places[id(tensor)] for tensor in given])
            self.steps.append(nn.Identity() if is_input else _module(layer))

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Return the probabilities."""
        values: list[torch.Tensor] = []
        for step, places in zip(self.steps, self.inputs, strict=True):
            values.append(step(*(values[place] for place in places)) if places else log_mel)
        return values[-1]


def network(core: keras.Model) -> nn.Module:
    """The model in PyTorch, for inference."""
    return Network(core).eval()


def _module(layer: Any) -> nn.Module:
    kind = type(layer).__name__
    if kind not in _MAKERS:
        raise TypeError(f"The layer {layer.name} is a {kind}, which has no counterpart here yet; add it to _MAKERS.")
    made = _MAKERS[kind](layer)
    return made if isinstance(made, nn.Module) else _Function(made)


class _Function(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return self.function(*values)


class _ChannelsFirst(nn.Module):
    """A PyTorch layer on values that are seen with channels last."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.movedim(-1, 1)).movedim(1, -1)


def _assign(module: nn.Module, **arrays: np.ndarray) -> None:
    for name, values in arrays.items():
        getattr(module, name).data = torch.from_numpy(np.ascontiguousarray(values))


# === Convolutions ===


def _convolution(layer: Any) -> nn.Module:
    kernel, *bias = layer.get_weights()  # (*size, in, out)
    *size, inputs, filters = kernel.shape
    made = {1: nn.Conv1d, 2: nn.Conv2d}[len(size)](
        inputs, filters, tuple(size), stride=layer.strides, padding=_padding(layer, size), bias=bool(bias)
    )
    axes = (len(size) + 1, len(size), *range(len(size)))
    _assign(made, weight=kernel.transpose(axes), **({"bias": bias[0]} if bias else {}))
    return _ChannelsFirst(made, *_activation(layer))


def _depthwise(layer: Any) -> nn.Module:
    kernel, *bias = layer.get_weights()  # (height, width, channels, 1)
    height, width, channels, _ = kernel.shape
    made = nn.Conv2d(
        channels, channels, (height, width), stride=layer.strides, padding=_padding(layer, [height, width]),
        groups=channels, bias=bool(bias),
    )  # fmt: skip
    _assign(made, weight=kernel.transpose(2, 3, 0, 1), **({"bias": bias[0]} if bias else {}))
    return _ChannelsFirst(made, *_activation(layer))


def _padding(layer: Any, size: list[int]) -> tuple[int, ...]:
    if layer.padding == "valid":
        return tuple(0 for _ in size)
    if any(length % 2 == 0 for length in size) or any(stride != 1 for stride in layer.strides):
        raise TypeError(f"The layer {layer.name} pads unevenly, which PyTorch's layers cannot.")
    return tuple(length // 2 for length in size)


def _activation(layer: Any) -> list[nn.Module]:
    name = layer.activation.__name__
    return [] if name == "linear" else [_ACTIVATIONS[name]()]


def _batch_norm(layer: Any) -> nn.Module:
    gamma, beta, mean, variance = layer.get_weights()
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}
    made = kinds[len(layer.output.shape)](len(gamma), eps=layer.epsilon)
    _assign(made, weight=gamma, bias=beta, running_mean=mean, running_var=variance)
    return made if len(layer.output.shape) == 2 else _ChannelsFirst(made)


def _pooling(kind: type[nn.Module]) -> Callable[[Any], nn.Module]:
    return lambda layer: _ChannelsFirst(kind(layer.pool_size, layer.strides))


# === The rest ===


def _dense(layer: Any) -> nn.Module:
    kernel, *bias = layer.get_weights()
    made = nn.Linear(*kernel.shape, bias=bool(bias))
    _assign(made, weight=kernel.T, **({"bias": bias[0]} if bias else {}))
    return nn.Sequential(made, *_activation(layer))


class _Gru(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        kernel, recurrent, bias = layer.get_weights()
        self.gru = nn.GRU(kernel.shape[0], layer.units, batch_first=True)
        self.sequences = layer.return_sequences
        _assign(
            self.gru, weight_ih_l0=_reordered(kernel).T, weight_hh_l0=_reordered(recurrent).T,
            bias_ih_l0=_reordered(bias[0]), bias_hh_l0=_reordered(bias[1]),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        every, _ = self.gru(x)
        return every if self.sequences else every[:, -1]


def _reordered(values: np.ndarray) -> np.ndarray:
    """Gates in PyTorch's order: reset, update, new; Keras has update, reset, new."""
    update, reset, new = np.split(values, 3, axis=-1)
    return np.concatenate([reset, update, new], axis=-1)


def _concatenate(layer: Any) -> Callable[..., torch.Tensor]:
    if len(layer.output.shape) == 2:
        return lambda *values: torch.cat(values, dim=-1)
    return lambda *values: torch.cat([value.movedim(-1, 1) for value in values], dim=1).movedim(1, -1)


def _zero_padding(layer: Any) -> Callable[..., torch.Tensor]:
    (top, bottom), (left, right) = layer.padding
    return lambda x: nn.functional.pad(x.movedim(-1, 1), (left, right, top, bottom)).movedim(1, -1)


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "Activation": lambda layer: _ACTIVATIONS[layer.activation.__name__](),
    "Add": lambda layer: lambda *values: sum(values[1:], start=values[0]),
    "AveragePooling2D": _pooling(nn.AvgPool2d),
    "BatchNormalization": _batch_norm,
    "Concatenate": _concatenate,
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": lambda layer: nn.Identity(),
    "Flatten": lambda layer: lambda x: x.flatten(1),
    "GRU": _Gru,
    "GlobalAveragePooling1D": lambda layer: lambda x: x.mean(dim=1),
    "GlobalAveragePooling2D": lambda layer: lambda x: x.mean(dim=(1, 2)),
    "GlobalMaxPooling1D": lambda layer: lambda x: x.amax(dim=1),
    "Identity": lambda layer: nn.Identity(),
    "MaxPooling2D": _pooling(nn.MaxPool2d),
    "Multiply": lambda layer: lambda first, second: first * second,
    "Permute": lambda layer: lambda x: x.permute(0, *layer.dims),
    "ReLU": lambda layer: nn.ReLU(),
    "Reshape": lambda layer: lambda x: x.reshape(len(x), *layer.target_shape),
    "ZeroPadding2D": _zero_padding,
}
