"""Where a network's time goes, node by node: how long, how many operations, how near to the speed of a matrix product.

    python benchmarks/layer_profile.py MODEL --runtime openvino|onnxruntime|keras [--threads N] [--precision float32]

One batch, the log-mel of a clip of 29.12 s, goes through the network again and again; times are means over the calls,
so that they add up. Nodes are what the runtime made of the layers: it fuses biases and activations into convolutions,
and adds changes of layout. OpenVINO and ONNX Runtime measure their nodes themselves, of Keras TensorFlow's trace is
read. Measuring costs time, so calls are also timed without. The roofline says what can be had at all: no layer is
faster than its operations at the speed of a matrix product, or than its numbers take to and from memory. Wants a
machine that does nothing else.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before anything imports a backend
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import dataclasses
import functools
import json
import math
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.apps.benchmarking.complexity import multiply_adds_by_layer
from keras_musictag.apps.benchmarking.job import timed, windows_of
from keras_musictag.apps.benchmarking.machine import keep_to, processor
from keras_musictag.apps.benchmarking.suite import CLIP_SECONDS, matmul_gflops
from keras_musictag.models.batch_norm_folding import folded
from keras_musictag.models.mel import LogMel
from keras_musictag.tagging.exported import MODEL_FILES
from keras_musictag.tagging.runtimes import import_openvino, onnxruntime_options, openvino_options
from keras_musictag.utils.cores import available_cores
from keras_musictag.utils.tables import Table

WARM_UP = 5
HEAVY = re.compile(r"Conv(?!ert)|Gemm|MatMul|FullyConnected|GRU|RNN|Dense")  # kinds of nodes that multiply matrices
TITLES = ("node", "kind", "ms", "of all", "GFLOP", "GFLOP/s", "of matmul")

Nodes = dict[tuple[str, str], float]  # (name, kind) -> milliseconds in a call


# === Runtimes ===


def openvino(content: bytes, batch: np.ndarray, threads: int, exact: bool, calls: int) -> tuple[Nodes, float]:
    """Nodes, and the mean milliseconds of a call, by OpenVINO's performance counters."""
    core = import_openvino().Core()
    options = openvino_options(threads, exact=exact) | {"PERF_COUNT": True}
    request = core.compile_model(core.read_model(content), "CPU", options).create_infer_request()

    def spent(times: int) -> Nodes:
        done = [node for node in request.profiling_info if str(node.status).endswith(".EXECUTED")]
        return {
            (node.node_name, f"{node.node_type}, {node.exec_type}"): times * 1000 * node.real_time.total_seconds()
            for node in done
        }  # it tells the mean of all calls so far

    repeated(lambda: request.infer([batch]), WARM_UP)
    before = spent(WARM_UP)
    mean = repeated(lambda: request.infer([batch]), calls)
    return {key: (value - before[key]) / calls for key, value in spent(WARM_UP + calls).items()}, mean


def onnxruntime(content: bytes, batch: np.ndarray, threads: int, exact: bool, calls: int) -> tuple[Nodes, float]:
    """The same by ONNX Runtime's profile, a JSON file of events; `exact` is for OpenVINO."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime_options(threads)
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        call = functools.partial(session.run, None, {session.get_inputs()[0].name: batch})
        repeated(call, WARM_UP)
        mean = repeated(call, calls)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]].append(event["dur"] / 1000)
    return {key: statistics.mean(values[-calls:]) for key, values in times.items()}, mean


def keras(core: Any, batch: np.ndarray, calls: int) -> tuple[Nodes, float]:
    """Layers instead of nodes, by the trace of TensorFlow's executor, with the weights as constants of the graph."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    kinds = {layer.name: type(layer).__name__ for layer in core.layers}
    shape = tf.TensorSpec((None, *batch.shape[1:]), tf.float32)
    function = tf.function(lambda given: core(given, training=False), input_signature=[shape], autograph=False)
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    v1, spent = tf.compat.v1, defaultdict[tuple[str, str], float](float)
    options, metadata = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE), v1.RunMetadata()

    def read() -> None:
        for node in (node for device in metadata.step_stats.dev_stats for node in device.node_stats):
            layer = layer_of(node.node_name, kinds)
            milliseconds = (node.op_end_rel_nanos - node.op_start_rel_nanos) / 1e6
            name = layer.removeprefix("folded_") or "outside of layers"
            spent[name, kinds.get(layer, "")] += milliseconds / calls

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(frozen.graph.as_graph_def(), name="")
        with v1.Session(graph=graph) as session:
            output, given = frozen.outputs[0].name, {frozen.inputs[0].name: batch}
            call = functools.partial(session.run, output, given, options=options, run_metadata=metadata)
            repeated(call, WARM_UP)
            mean = repeated(call, calls, read)
    return dict(spent), mean


def repeated(call: Callable[[], object], calls: int, read: Callable[[], None] | None = None) -> float:
    """Mean milliseconds of calls; after each of them `read`."""
    times = []
    for _ in tqdm(range(calls), desc="profile", unit="call", delay=2):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
        if read is not None:
            read()
    return statistics.mean(times)


# === Profile ===


@dataclasses.dataclass(frozen=True)
class Profile:
    """What was measured.

    Attributes:
        nodes: (name, kind) -> mean milliseconds of a call.
        profiled_ms: mean of the calls they were measured in.
        plain_ms: median of calls without measuring, as taggers make them.
        layers: name -> operations in GFLOP of each layer that multiplies matrices, for the batch.
        windows: in the batch.
        moved: name -> MB that each of these layers and each pooling reads and writes, for the batch.
    """

    nodes: Nodes
    profiled_ms: float
    plain_ms: float
    layers: dict[str, float]
    windows: int
    moved: dict[str, float] = dataclasses.field(default_factory=dict)


def profile(model: str, runtime: str, precision: str, threads: int, calls: int) -> Profile:
    """Measure; `model` is what `load` takes."""
    tagger = kmt.load(model, threads=threads if runtime == "keras" else None)
    rate = tagger.spec.audio.sr
    sound = np.resize(kmt.audio.load(kmt.demo_clip(), target_sr=rate), round(CLIP_SECONDS * rate))
    log_mel = LogMel(tagger.spec)(windows_of((sound, rate), tagger.spec))
    layers = {name: 2e-9 * len(log_mel) * count for name, count in multiply_adds_by_layer(tagger.core).items() if count}
    if runtime == "keras":
        plain = timed(lambda: tagger.predict_log_mels(log_mel), 0.0, calls, WARM_UP)
        nodes, spent = keras(folded(tagger.core), log_mel, calls)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "export")
            tagger.export(path, format="onnx", precision=precision, input="log_mel")
            other = kmt.load(path, runtime=runtime, threads=threads)
            plain = timed(lambda: other.predict_log_mels(log_mel), 0.0, calls, WARM_UP)
            content = (path / MODEL_FILES["onnx"][0]).read_bytes()
        measure = {"openvino": openvino, "onnxruntime": onnxruntime}[runtime]
        nodes, spent = measure(content, log_mel, threads, precision != "float16", calls)
    return Profile(nodes, spent, plain["median_ms"], layers, len(log_mel), megabytes(tagger.core, layers, len(log_mel)))


# === Roofline ===


def megabytes(core: Any, layers: Iterable[str], windows: int) -> dict[str, float]:
    """MB of float32 that layers read and write; biases, batch norms and activations go along with other layers."""
    moving = {*layers, *(layer.name for layer in core.layers if "Pooling" in type(layer).__name__)}
    return {
        layer.name: 4e-6
        * (windows * sum(math.prod(each.shape[1:]) for each in (layer.input, layer.output)) + layer.count_params())
        for layer in core.layers
        if layer.name in moving
    }


def bandwidth(threads: int, size: float, rounds: int = 50) -> float:
    """GB/s, read and written, of copying `size` MB within as many MB, in parts of one per thread; the best round."""
    source = np.ones(round(size * 1e6 / 8), "float32")
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            started = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), parts))
            best = min(best, time.perf_counter() - started)
    return 2e-9 * source.nbytes / best


def roofline(found: Profile, matmul: float, speed: float) -> tuple[float, float, float]:
    """Milliseconds of all operations, of all moving, and of the longer of both layer by layer."""
    names = {*found.layers, *found.moved}
    operations = {name: 1000 * found.layers.get(name, 0.0) / matmul for name in names}
    moving = {name: found.moved.get(name, 0.0) / speed for name in names}
    longer = sum(max(operations[name], moving[name]) for name in names)
    return sum(operations.values()), sum(moving.values()), longer


def layer_of(name: str, layers: Iterable[str]) -> str:
    """The layer whose name is a part of a node's path; Keras numbers it, as in `conv1_1`."""
    parts = re.split(r"[ /:+.]", name)
    for layer in layers:
        if any(re.fullmatch(rf"{re.escape(layer)}(_\d+)?", part) for part in parts):
            return layer
    return ""


# === Output ===


def table(found: Profile, matmul: float, least: float) -> Table:
    """Nodes, the slowest first; those that take less than `least` of all in a row together; the sum."""
    total, gflop = sum(found.nodes.values()), gflop_of(found)

    def row(name: str, kind: str, spent: float, work: float) -> tuple[str, ...]:
        speed = 1000 * work / spent if spent else 0.0
        rates = (f"{work:.3f}", f"{speed:.0f}", f"{speed / matmul:.0%}") if work else ("", "", "")
        return name, kind, f"{spent:.3f}", f"{spent / total:.1%}", *rates

    ordered = sorted(found.nodes, key=lambda key: -found.nodes[key])
    shown = [key for key in ordered if found.nodes[key] >= least * total]
    others = [key for key in ordered if key not in shown]
    rows = [row(*key, found.nodes[key], gflop.get(key, 0.0)) for key in shown]
    if others:
        spent, work = (sum(some.get(key, 0.0) for key in others) for some in (found.nodes, gflop))
        rows.append(row(f"{len(others)} others", "", spent, work))
    return Table(TITLES, [*rows, row("sum", "", total, sum(gflop.values()))], "<<>")


def gflop_of(found: Profile) -> dict[tuple[str, str], float]:
    """Operations of each node: those of a layer are in the slowest node of its name that multiplies matrices.

    Runtimes call some nodes after what they fused into them. What no name tells is matched in the order of the network.

    Raises:
        SystemExit: as many nodes as layers are not left then.
    """
    heavy = [key for key in found.nodes if HEAVY.search(key[1])]
    own = {layer: [key for key in heavy if layer_of(key[0], [layer])] for layer in found.layers}
    gflop = {max(keys, key=lambda key: found.nodes[key]): found.layers[layer] for layer, keys in own.items() if keys}
    named = {key for keys in own.values() for key in keys}
    layers, nodes = [layer for layer in own if not own[layer]], [key for key in heavy if key not in named]
    if not layers:  # what is left are batch norms, which ONNX Runtime makes convolutions of
        return gflop
    if len(layers) != len(nodes):
        raise SystemExit(f"It is not known which of the layers {layers} are which of the nodes {nodes}.")
    return gflop | {node: found.layers[layer] for layer, node in zip(layers, nodes, strict=True)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Where a network's time goes, node by node.")
    parser.add_argument("model", help="name or folder")
    parser.add_argument("--runtime", choices=("openvino", "onnxruntime", "keras"), default="openvino")
    parser.add_argument("--precision", choices=("float32", "float16", "int8"), default="float32", help="of the export")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all cores")
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--least", type=float, default=0.002, help="share of the time that gives a node its own row")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    if given.runtime == "keras" and given.precision != "float32":
        parser.error("Keras computes in float32; choose another runtime.")
    keep_to(given.threads)
    matmul = matmul_gflops(given.threads)
    found = profile(given.model, given.runtime, given.precision, given.threads, given.calls)
    speed = sum(found.layers.values()) / found.plain_ms * 1000
    total = sum(found.nodes.values())
    print(
        f"{given.model}, {given.runtime} {given.precision}, {given.threads} threads, {found.windows} windows, "
        f"{processor()}, {given.calls} calls.\n"
        f"A call: {found.plain_ms:.2f} ms, {speed:.0f} GFLOP/s, {speed / matmul:.0%} of the {matmul:.0f} GFLOP/s of a "
        f"matrix product.\nMeasured node by node: {found.profiled_ms:.2f} ms, of which the nodes are {total:.2f} ms.\n"
    )
    copied = bandwidth(given.threads, max(found.moved.values()))
    operations, moving, longer = roofline(found, matmul, copied)
    print(
        f"Roofline: operations {operations:.2f} ms; {sum(found.moved.values()):.0f} MB at {copied:.1f} GB/s "
        f"{moving:.2f} ms; the longer of both, layer by layer, {longer:.2f} ms: {longer / found.plain_ms:.0%} of a "
        f"call, and at best {operations / longer:.0%} of a matrix product.\n"
    )
    result = table(found, matmul, given.least)
    print(result.markdown() if given.markdown else result)


if __name__ == "__main__":
    main()
