"""Changes to a graph of ONNX nodes that make it faster and leave its numbers as they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import numpy as np

from .onnx_graph import Graph

# Channels that processors compute together. ONNX Runtime leaves its fast layout where they do not come out even.
CHANNELS = 16


def pad_channels(graph: Graph, keep: Collection[str]) -> None:
    """Give convolutions whose outputs enter nothing but another one a multiple of `CHANNELS` of them.

    What is added is zero and gets weights of zero.

    Args:
        graph: whose constants are changed.
        keep: tensors that have to stay as they are.
    """
    users, constants = _users(graph), graph.constants
    for conv in _convolutions(graph):
        node = conv
        while node is not None:
            node = _only(users, node, keep, "Relu", "MaxPool", "Conv")
            if node is not None and node.op_type == "Conv":
                break
        if node is None or not _groups(conv) == _groups(node) == 1:
            continue
        missing = -len(constants[conv.input[1]]) % CHANNELS
        for name, axis in ((conv.input[1], 0), (conv.input[2], 0), (node.input[1], 1)):
            array = constants[name]
            constants[name] = np.pad(array, [(0, missing if axis == i else 0) for i in range(array.ndim)])


def pool_early(graph: Graph, keep: Collection[str]) -> None:
    """Add biases and cut off what is negative behind max-poolings, where there is less of it, not before them.

    Neither changes which of several values is the largest. In OpenVINO both are a pass over memory of their own where a
    convolution has a single channel for input.

    Args:
        graph: whose nodes and constants are changed.
        keep: tensors that have to stay as they are.
    """
    users = _users(graph)
    for conv in _convolutions(graph):
        relu = _only(users, conv, keep, "Relu")
        pool = None if relu is None else _only(users, relu, keep, "MaxPool")
        if pool is None:
            continue
        output, bias = pool.output[0], conv.input.pop(2)
        graph.constants[bias] = graph.constants[bias].reshape(-1, *[1] * (graph.constants[conv.input[1]].ndim - 2))
        pool.input[0], pool.output[0] = conv.output[0], f"{output}/pooled"
        graph.nodes.remove(relu)
        after = graph.nodes.index(pool) + 1
        added = _node("Add", [pool.output[0], bias], f"{output}/biased", f"{output}/biased")
        graph.nodes[after:after] = [added, _node("Relu", [added.output[0]], output, relu.name)]


def _convolutions(graph: Graph) -> list[Any]:
    return [node for node in graph.nodes if node.op_type == "Conv"]


def _groups(conv: Any) -> int:
    return next((int(attribute.i) for attribute in conv.attribute if attribute.name == "group"), 1)


def _users(graph: Graph) -> dict[str, list[Any]]:
    """Tensor -> nodes that it enters."""
    users = defaultdict(list)
    for node in graph.nodes:
        for name in node.input:
            users[name].append(node)
    return users


def _only(users: dict[str, list[Any]], node: Any, keep: Collection[str], *kinds: str) -> Any:
    """The one node that uses an output, if it is of such a kind and nobody else wants the output."""
    found = users[node.output[0]]
    return found[0] if len(found) == 1 and found[0].op_type in kinds and node.output[0] not in keep else None


def _node(kind: str, inputs: list[str], output: str, name: str) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, [output], name=name)
