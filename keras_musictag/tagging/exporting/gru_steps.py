"""A GRU unrolled into ONNX nodes, for GRUs that OpenVINO has no layer for."""

from __future__ import annotations

from typing import Any

import numpy as np

from .onnx_graph import Graph, Value

MAX_STEPS = 64  # longer ones would make graphs of thousands of nodes


def add_hard_gru(
    graph: Graph, layer: Any, value: Value, kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray
) -> Value:
    """Add a GRU whose gates have a hard sigmoid and whose state is reset before it is multiplied (`reset_after=False`).

    Args:
        graph: graph to add to.
        layer: the Keras GRU.
        value: its input `(batch, time, inputs)`, in Keras' layout.
        kernel, recurrent: `(inputs, 3 * units)` and `(units, 3 * units)`: update, reset, hidden.
        bias: `(3 * units,)`.
    """
    name, units = layer.name, layer.units
    gate_kernel = graph.constant(recurrent[:, : 2 * units], f"{name}/recurrent_gates")
    hidden_kernel = graph.constant(recurrent[:, 2 * units :], f"{name}/recurrent_hidden")
    x = graph.add("MatMul", [value.name, graph.constant(kernel, f"{name}/kernel")], f"{name}/steps/product")
    x = graph.add("Add", [x, graph.constant(bias, f"{name}/bias")], f"{name}/inputs")

    def part(tensor: str, start: int, stop: int, label: str) -> str:
        """Slice the last axis."""
        limits = [
            graph.constant(np.array([number], "int64"), f"{label}_{limit}")
            for limit, number in (("from", start), ("to", stop), ("axis", -1))
        ]
        return graph.add("Slice", [tensor, *limits], label)

    state, states = "", []
    axis = graph.constant(np.array([1], "int64"), f"{name}/time") if layer.return_sequences else ""
    for step in range(value.shape[0]):
        at = f"{name}/step{step}"
        inputs = graph.add("Gather", [x, graph.constant(np.int64(step), f"{at}/index")], f"{at}/inputs", axis=1)
        gates, new = part(inputs, 0, 2 * units, f"{at}/gates"), part(inputs, 2 * units, 3 * units, f"{at}/hidden")
        if state:
            gates = graph.add("Add", [gates, graph.add("MatMul", [state, gate_kernel], f"{at}/of_state")], f"{at}/sums")
        # Keras' hard sigmoid has another slope than the default of ONNX.
        gates = graph.add("HardSigmoid", [gates], f"{at}/opened", alpha=float(np.float32(1 / 6)), beta=0.5)
        update = part(gates, 0, units, f"{at}/update")
        if state:
            kept = graph.add("Mul", [part(gates, units, 2 * units, f"{at}/reset"), state], f"{at}/kept")
            new = graph.add("Add", [new, graph.add("MatMul", [kept, hidden_kernel], f"{at}/of_kept")], f"{at}/sum")
        new = graph.add("Tanh", [new], f"{at}/new")
        # update * state + (1 - update) * new = new + update * (state - new); the first state is 0
        change = graph.add("Sub", [state, new], f"{at}/away") if state else graph.add("Neg", [new], f"{at}/away")
        state = graph.add("Add", [new, graph.add("Mul", [update, change], f"{at}/part")], f"{at}/state")
        if layer.return_sequences:
            states.append(graph.add("Unsqueeze", [state, axis], f"{at}/column"))
    return Value(graph.add("Concat", states, name, axis=1) if states else state, value.shape)
