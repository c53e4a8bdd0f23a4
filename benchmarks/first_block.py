"""Ways to compute the first block of musicnet_crnn in ONNX, timed in turns: python benchmarks/first_block.py.

The block is a convolution of one channel, max-pooling over (2, 4), bias and ReLU, and the convolution after it, whose
layout it has to deliver. The ways give the same numbers:

- `pooled`: as exported.
- `(2, 1), (1, 4)` and `(1, 4), (2, 1)`: pooled over one axis, then over the other.
- `slices`: the maximum of even and odd mels, then pooled over frames.
- `phases`: nothing is pooled. A convolution with strides (2, 4) for each of the eight places within a pool, and their
  running maximum: an eighth of the numbers at a time.
- `one convolution`: the eight as one convolution with eight times as many channels, split.

Wants a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from keras_musictag.apps.benchmarking.machine import processor
from keras_musictag.tagging.runtimes import import_openvino, onnxruntime_options, openvino_options
from keras_musictag.utils.cores import available_cores
from keras_musictag.utils.tables import Table

MELS, FRAMES, CHANNELS, NEXT = 96, 1366, 48, 80  # 44 and 76 channels, filled up as exports fill them
POOL, KERNEL = (2, 4), 3
PLACES = [(i, j) for i in range(POOL[0]) for j in range(POOL[1])]
WAYS = ("pooled", "(2, 1), (1, 4)", "(1, 4), (2, 1)", "slices", "phases", "one convolution")
Nodes = Iterator[onnx.NodeProto]


class Block:
    """Builds the block in one of the ways."""

    def __init__(self, way: str) -> None:
        """Choose the way and draw weights."""
        rng = np.random.default_rng(0)
        self.way = way
        self.kernel = rng.standard_normal((CHANNELS, 1, KERNEL, KERNEL)).astype("float32")
        self.constants = {
            "bias": rng.standard_normal((1, CHANNELS, 1, 1)).astype("float32"),
            "next": 0.05 * rng.standard_normal((NEXT, CHANNELS, KERNEL, KERNEL)).astype("float32"),
        }

    def model(self) -> bytes:
        """The ONNX file."""
        nodes = [
            *(self.by_phases() if self.way in ("phases", "one convolution") else self.by_pooling()),
            helper.make_node("Add", ["pooled", "bias"], ["biased"]),
            helper.make_node("Relu", ["biased"], ["activated"]),
            helper.make_node("Conv", ["activated", "next"], ["y"], pads=[1, 1, 1, 1]),
        ]
        graph = helper.make_graph(
            nodes, "block",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, MELS, FRAMES))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()

    def by_pooling(self) -> Nodes:
        """Convolution, then pooling."""
        self.constants["kernel"] = self.kernel
        yield helper.make_node("Conv", ["x", "kernel"], ["whole"], pads=[1, 1, 1, 1])
        if self.way == "pooled":
            yield pooling("whole", "pooled", POOL)
        elif self.way == "slices":
            self.constants |= {
                name: np.asarray([value]) for name, value in (("0", 0), ("1", 1), ("2", 2), ("end", MELS))
            }
            for half in "01":
                yield helper.make_node("Slice", ["whole", half, "end", "2", "2"], [f"half{half}"])
            yield helper.make_node("Max", ["half0", "half1"], ["half"])
            yield pooling("half", "pooled", (1, POOL[1]))
        else:
            first, second = ((POOL[0], 1), (1, POOL[1]))[:: 1 if self.way.startswith("(2") else -1]
            yield pooling("whole", "half", first)
            yield pooling("half", "pooled", second)

    def by_phases(self) -> Nodes:
        """Convolutions with strides whose kernels are shifted to each place of a pool, and the maximum of them."""
        shifted = np.zeros((len(PLACES), CHANNELS, 1, KERNEL + POOL[0] - 1, KERNEL + POOL[1] - 1), "float32")
        for kernel, (i, j) in zip(shifted, PLACES, strict=True):
            kernel[:, :, i : i + KERNEL, j : j + KERNEL] = self.kernel
        names = [f"phase{number}" for number in range(len(PLACES))]
        options = {"strides": list(POOL), "pads": [1, 1, 1, 1]}
        if self.way == "phases":
            self.constants |= {f"{name}/kernel": kernel for name, kernel in zip(names, shifted, strict=True)}
            for name in names:
                yield helper.make_node("Conv", ["x", f"{name}/kernel"], [name], **options)
        else:
            self.constants["kernel"] = shifted.reshape(-1, *shifted.shape[2:])
            yield helper.make_node("Conv", ["x", "kernel"], ["all"], **options)
            yield helper.make_node("Split", ["all"], names, axis=1, num_outputs=len(names))
        largest = names[0]
        for name in names[1:]:
            result = "pooled" if name == names[-1] else f"max_{name}"
            yield helper.make_node("Max", [largest, name], [result])
            largest = result


def pooling(source: str, target: str, size: tuple[int, int]) -> onnx.NodeProto:
    """Max-pooling without overlap."""
    return helper.make_node("MaxPool", [source], [target], kernel_shape=list(size), strides=list(size))


def calls(content: bytes, x: np.ndarray, threads: int) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that run a file with each runtime."""
    import onnxruntime

    options = onnxruntime_options(threads)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # sessions take turns
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    core = import_openvino().Core()
    request = core.compile_model(
        core.read_model(content), "CPU", openvino_options(threads, exact=True)
    ).create_infer_request()
    return {
        "ONNX Runtime": lambda: session.run(None, {"x": x})[0],
        "OpenVINO": lambda: next(iter(request.infer([x]).values())),
    }


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description="Time ways to compute the first block of musicnet_crnn.")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    x = np.random.default_rng(1).normal(-20, 15, (1, 1, MELS, FRAMES)).astype("float32")
    ways = {way: calls(Block(way).model(), x, given.threads) for way in WAYS}
    inner = (..., slice(0, FRAMES // POOL[1] - 1))  # the last frames of a pool may be cut off in another place
    expected = ways["pooled"]["ONNX Runtime"]()[inner].copy()
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(10 + given.rounds):
        for way, runtimes in ways.items():
            for runtime, call in runtimes.items():
                started = time.perf_counter()
                found = call()
                if turn >= 10:
                    times.setdefault((way, runtime), []).append(1000 * (time.perf_counter() - started))
                elif turn == 0:
                    np.testing.assert_allclose(found[inner], expected, atol=1e-3, rtol=1e-5)
    names = list(ways["pooled"])
    rows = [(way, *(f"{np.median(times[way, name]):.1f}" for name in names)) for way in WAYS]
    print(f"{processor()}, {given.threads} threads, float32, ms, medians of {given.rounds}\n")
    print(Table(("way", *names), rows, "<>>").markdown())


if __name__ == "__main__":
    main()
