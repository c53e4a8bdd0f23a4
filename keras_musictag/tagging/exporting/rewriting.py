"""Changes to a graph of ONNX nodes that make it faster without changing its outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import numpy as np

from .onnx_graph import Graph

# Channels that processors compute together. ONNX Runtime leaves its fast layout where their number is no multiple.
CHANNELS = 16

# Activations that keep the order of values, and zeros.
MONOTONIC = ("Relu", "Elu")


def pad_channels(graph: Graph, keep: Collection[str]) -> None:
    """Pad the output channels of convolutions that only feed another convolution to a multiple of `CHANNELS`.

    The added channels are zero, and the next convolution has zero weights for them.

    Args:
        graph: graph whose constants are changed.
        keep: names of tensors that must not change.
    """
    consumers, constants = _consumers(graph), graph.constants
    for conv in _convolutions(graph):
        node = conv
        while node is not None:
            node = _only_consumer(consumers, node, keep, *MONOTONIC, "MaxPool", "Conv")
            if node is not None and node.op_type == "Conv":
                break
        if node is None or not _groups(conv) == _groups(node) == 1:
            continue
        missing = -len(constants[conv.input[1]]) % CHANNELS
        for name, axis in ((conv.input[1], 0), (conv.input[2], 0), (node.input[1], 1)):
            array = constants[name]
            constants[name] = np.pad(array, [(0, missing if axis == i else 0) for i in range(array.ndim)])


def pool_early(graph: Graph, keep: Collection[str]) -> None:
    """Move bias and activation of convolutions behind the max-pooling that follows, where there are fewer values.

    Neither changes which of several values is the largest. In OpenVINO each is a separate pass over memory if the
    convolution has a single input channel. ONNX Runtime leaves its fast layout for an ELU.

    Args:
        graph: graph whose nodes and constants are changed.
        keep: names of tensors that must not change.
    """
    consumers = _consumers(graph)
    for conv in _convolutions(graph):
        activation = _only_consumer(consumers, conv, keep, *MONOTONIC)
        pool = None if activation is None else _only_consumer(consumers, activation, keep, "MaxPool")
        if pool is None:
            continue
        output, bias = pool.output[0], conv.input.pop(2)
        graph.constants[bias] = graph.constants[bias].reshape(-1, *[1] * (graph.constants[conv.input[1]].ndim - 2))
        pool.input[0], pool.output[0] = conv.output[0], f"{output}/pooled"
        graph.nodes.remove(activation)
        after = graph.nodes.index(pool) + 1
        added = _node("Add", [pool.output[0], bias], f"{output}/biased", f"{output}/biased")
        activation.input[0], activation.output[0] = added.output[0], output
        graph.nodes[after:after] = [added, activation]


def _convolutions(graph: Graph) -> list[Any]:
    return [node for node in graph.nodes if node.op_type == "Conv"]


def _groups(conv: Any) -> int:
    return next((int(attribute.i) for attribute in conv.attribute if attribute.name == "group"), 1)


def _consumers(graph: Graph) -> dict[str, list[Any]]:
    """Return the nodes that use each tensor, by its name."""
    consumers = defaultdict(list)
    for node in graph.nodes:
        for name in node.input:
            consumers[name].append(node)
    return consumers


def _only_consumer(consumers: dict[str, list[Any]], node: Any, keep: Collection[str], *kinds: str) -> Any:
    """Return the only node that uses an output, `None` if there are several, it is of another kind or in `keep`."""
    found = consumers[node.output[0]]
    return found[0] if len(found) == 1 and found[0].op_type in kinds and node.output[0] not in keep else None


def _node(kind: str, inputs: list[str], output: str, name: str) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, [output], name=name)
