"""Pages that a benchmark writes say what its results say."""

import dataclasses
import importlib.util
import json
import statistics
import sys
from pathlib import Path

import pytest

from keras_musictag.apps.benchmarking import BenchmarkRun
from keras_musictag.tagging.runtimes import FILE_RUNTIMES

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"


def text_of(name):
    return (DOCS / name).read_text(encoding="utf-8")


def script(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as if it were run
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "page"), [("small_data", "small-data.md"), ("peers", "peers.md")])
def test_of_a_script(name, page, monkeypatch):
    results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert text_of(page) == script(name, monkeypatch).page(results)


@pytest.mark.parametrize(
    ("change", "kept"),
    [({"date": "2020-01-01"}, True), ({"roc_auc": 0.96002}, True), ({"roc_auc": 0.97}, False), ({"error": "x"}, False)],
)
def test_results_of_another_processor_are_kept(change, kept, monkeypatch):
    row = {"model": "mfcc", "roc_auc": 0.96001, "difference": None, "error": "", "date": "2026-11-29"}
    assert script("small_data", monkeypatch).same(row, [row | {"model": "other"}, row | change]) is kept


def test_peers_with_musicnn_and_a_bound(monkeypatch):
    results = json.loads((RESULTS / "peers.json").read_text(encoding="utf-8"))
    del results["contests"]["log_mel"]["LiteRT"]["max_change"]  # as musicnn, which is another network
    spent = {"decoding": 20.0, "resampling": 5.0, "features": 5.0, "network": 20.0}
    results["bounds"] = {"LiteRT": {**spent, "bound_clips_per_s": 40.0, "reached_clips_per_s": 35.0, "share": 0.875}}
    text = script("peers", monkeypatch).page(results | {"musicnn": "published weights"})
    assert "| LiteRT | 20.0 | 5.0 | 5.0 | 20.0 | 50.0 | 40.0 | 35.0 | 88% |" in text
    assert "another network, with published weights" in text


def test_operations_of_nodes(monkeypatch):
    module = script("layer_profile", monkeypatch)
    assert module.layer_of("network/gru1_1/while/body/add", ["gru", "gru1"]) == "gru1"
    nodes = {
        ("network/conv1/WithoutBiases", "Convolution"): 2.0, ("network/conv1", "Add"): 5.0,
        ("network/relu2_nchwc", "FusedConv"): 3.0, ("GRUSequence_7", "RNNSeq"): 1.0, ("Convert_1", "Convert"): 1.0,
    }  # fmt: skip
    found = module.Profile(nodes, 12.0, 11.0, {"conv1": 0.1, "conv2": 0.4, "gru1": 0.01}, 1)
    work = module.gflop_of(found)
    assert work == {key: gflop for key, gflop in zip(list(nodes)[:4], (0.1, None, 0.4, 0.01), strict=True) if gflop}
    text = module.table(found, 200.0, 0.1).markdown()
    assert "| network/relu2_nchwc | FusedConv | 3.000 | 25.0% | 0.400 | 133 | 67% |" in text
    assert "| 2 others |  | 2.000 | 16.7% | 0.010 |" in text and "| sum |  | 12.000 | 100.0% | 0.510 |" in text
    moved = dataclasses.replace(found, moved={"conv1": 40.0, "pool1": 30.0, "conv2": 10.0})
    assert module.roofline(moved, 200.0, 20.0) == pytest.approx(
        (0.5 + 2.0 + 0.05, 2.0 + 1.5 + 0.5, 2.0 + 1.5 + 2.0 + 0.05)
    )
    with pytest.raises(SystemExit, match=r"which of the layers \['conv2', 'gru1', 'gru2'\] are which"):
        module.gflop_of(dataclasses.replace(found, layers=found.layers | {"gru2": 0.1}))


def test_of_the_benchmark(monkeypatch):
    page = script("benchmark_page", monkeypatch).page
    memory = json.loads((RESULTS / "memory.json").read_text(encoding="utf-8"))
    assert text_of("benchmark.md") == page(BenchmarkRun.from_json(RESULTS / "benchmark.json"), memory)
    assert (DOCS / "images" / "pareto.png").stat().st_size > 10_000


def test_runtimes_are_listed_the_fastest_first():
    """As the recorded run has it: geometric means over the zoo, from a file to tags."""
    run = BenchmarkRun.from_json(RESULTS / "benchmark.json")
    spent = {runtime: {} for runtime in FILE_RUNTIMES}
    for row in run.rows:
        if row["precision"] == "float32" and row["threads"] == run.machine["threads"] and row["runtime"] in spent:
            spent[row["runtime"]][row["model"]] = row["file"]["median_ms"]
    assert all(len(times) == len(run.models) for times in spent.values())
    means = [statistics.geometric_mean(times.values()) for times in spent.values()]
    assert means == sorted(means)
