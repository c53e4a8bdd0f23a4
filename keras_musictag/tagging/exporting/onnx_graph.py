"""A graph of ONNX nodes under construction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph, and the Keras tensor `(batch, ..., channels)` that it stands for.

    Attributes:
        name: name in the graph.
        shape: shape of the Keras tensor, without the batch.
        channels_first: whether the tensor in the graph has the channels before the other axes.
    """

    name: str
    shape: tuple[int, ...]
    channels_first: bool = False


class Graph:
    """Nodes and constants, in the order in which they are added.

    Args:
        prefix: prefix of all names.

    Attributes:
        nodes: `onnx.NodeProto`s.
        constants: name -> array.
    """

    def __init__(self, prefix: str = "") -> None:
        """Start without nodes."""
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._prefix = prefix
        self._linear: dict[str, tuple[str, str, int]] = {}

    def constant(self, array: Any, name: str) -> str:
        """Add a constant and return its name."""
        name = self._prefix + name
        assert name not in self.constants
        self.constants[name] = np.asarray(array)
        return name

    def add(self, kind: str, inputs: Sequence[str], name: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node and return the name of its only or last output."""
        from onnx import helper

        name = self._prefix + name
        names = [*[""] * (outputs - 1), name]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return name

    # --- layouts ---

    def to_channels_first(self, value: Value) -> Value:
        """Return the value with channels first, transposed if necessary."""
        rank = len(value.shape) + 1
        return value if value.channels_first else self._transposed(value, [0, rank - 1, *range(1, rank - 1)])

    def to_channels_last(self, value: Value) -> Value:
        """Return the value with channels last, as in Keras, transposed if necessary."""
        rank = len(value.shape) + 1
        return self._transposed(value, [0, *range(2, rank), 1]) if value.channels_first else value

    def _transposed(self, value: Value, order: list[int]) -> Value:
        if len(order) < 3:
            return dataclasses.replace(value, channels_first=False)
        first = not value.channels_first
        name = f"{value.name}/channels_{'first' if first else 'last'}".removeprefix(self._prefix)
        full_name = self._prefix + name
        if not any(node.name == full_name for node in self.nodes):
            self.add("Transpose", [value.name], name, perm=order)
        return dataclasses.replace(value, name=full_name, channels_first=first)

    # --- folding ---

    def mark_linear(self, name: str, weights: str, bias: str, axis: int) -> None:
        """Record that a node's output is linear in its weights, with the outputs on `axis`, and in its bias."""
        self._linear[name] = (weights, bias, axis)

    def forbid_folding(self, name: str) -> None:
        """Prevent `fold` from changing the node with the output `name`."""
        self._linear.pop(name, None)

    def fold(self, name: str, scale: np.ndarray, shift: np.ndarray) -> bool:
        """Make the linear node with the output `name` compute `scale * name + shift`; `False` if there is none."""
        if name not in self._linear:
            return False
        weights, bias, axis = self._linear[name]
        kernel = self.constants[weights]
        along = [-1 if axis == i else 1 for i in range(kernel.ndim)]
        self.constants[weights] = (kernel * scale.reshape(along)).astype("float32")
        self.constants[bias] = (self.constants[bias] * scale + shift).astype("float32")
        return True
