"""Pages that a benchmark writes say what its results say."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from keras_musictag.benchmarking import BenchmarkRun
from keras_musictag.benchmarking.page import page as benchmark_page

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"


def text_of(name):
    return (DOCS / name).read_text(encoding="utf-8")


def script(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "page"), [("small_data", "small-data.md"), ("peers", "peers.md")])
def test_of_a_script(name, page, monkeypatch):
    results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert text_of(page) == script(name, monkeypatch).page(results)


def test_of_the_benchmark():
    assert text_of("benchmark.md") == benchmark_page(BenchmarkRun.from_json(RESULTS / "benchmark.json"))
    assert (DOCS / "images" / "pareto.png").stat().st_size > 10_000
