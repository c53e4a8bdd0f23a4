"""The benchmark: what is counted, what is timed, what is written, and that a failure is a row."""

import csv
import dataclasses
import importlib
import json
import sys
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner
from labelled_sounds import labelled_sounds
from own_tags import own_tags

import keras_musictag as kmt
from keras_musictag.apps.benchmarking import BenchmarkError, BenchmarkRun, benchmark, compare_runs, suite
from keras_musictag.apps.benchmarking.complexity import multiply_adds, parameters
from keras_musictag.apps.benchmarking.job import timed
from keras_musictag.apps.benchmarking.score_plot import plot_scores
from keras_musictag.apps.benchmarking.suite import CLIP_SECONDS
from keras_musictag.cli import main
from keras_musictag.datasets import Manifest
from keras_musictag.errors import UnknownModelError


def timing(median, spread=0.1):
    return {"median_ms": median, "p10_ms": median * (1 - spread), "p90_ms": median * (1 + spread), "calls": 20}


def row(model, milliseconds, runtime="keras", **more):
    scopes = {"log_mel": 1.0, "waveform": 1.2, "file": 2.0, "decode": 0.4, "resample": 0.3}
    return {
        "model": model, "runtime": runtime, "precision": "float32", "threads": 2, "version": "Keras",
        "clips_per_s": 80.0, "best_batch": 4, "best_clips_per_s": 100.0, "load_cold_s": 3.0, "load_warm_s": 0.1,
        "peak_memory_mb": 500.0, **{name: timing(milliseconds * share) for name, share in scopes.items()}, **more,
    }  # fmt: skip


@pytest.fixture
def made():
    """Results as a run gives them, made up."""
    score = {"dataset": "songs", "split": "test", "n": 10, "roc_auc": 0.9}
    measured = {"measured": True, "runtime": "keras", "precision": "float32", "threads": 2}
    good = {**score, **measured, "roc_auc": 0.95, "roc_auc_low": 0.94, "roc_auc_high": 0.96}
    machine = {
        "processor": "abacus", "cores": 2, "threads": 2, "memory_gb": 4.0, "system": "wood", "python": "3.11",
        "keras_musictag": "1", "commit": "", "date": "2026-01-01", "matmul_gflops": {"1": 50.0, "2": 100.0},
    }  # fmt: skip
    models = (
        {"model": "small", "parameters": 1000, "multiply_adds": 2.5e8, "sizes": {"float32": 4e6}, "scores": [score]},
        {"model": "big", "parameters": 9000, "sizes": {}, "scores": [good]},
        {"model": "unknown", "sizes": {}, "scores": []},
    )
    failed = {"model": "unknown", "runtime": "keras", "precision": "float32", "threads": 1, "error": "no such luck"}
    rows = (row("small", 10.0), row("small", 8.0, "onnxruntime", mean_change=1e-7), row("big", 20.0), failed)
    return BenchmarkRun(machine=machine, command="benchmark", clip_seconds=30.0, models=models, rows=rows)


# === Counting and timing ===


def test_multiply_adds_by_hand():
    inputs = keras.Input((8, 10, 3))
    x = keras.layers.Conv2D(4, (3, 3), padding="same", strides=2)(inputs)  # 4 x 5 places
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D((3, 2), padding="same")(x)  # 4 channels, each for itself
    x = keras.layers.Reshape((20, 4))(x)
    x = keras.layers.Conv1D(6, 2)(x)  # 19 places
    x = keras.layers.GRU(5)(x)  # 19 steps
    model = keras.Model(inputs, keras.layers.Dense(7)(x))
    by_hand = 4 * 5 * 3 * 3 * 3 * 4 + 4 * 5 * 3 * 2 * 4 + 19 * 2 * 4 * 6 + 19 * (6 * 15 + 5 * 15) + 5 * 7
    assert multiply_adds(model) == by_hand
    inner = sum(variable.shape[0] for variable in model.layers[2].non_trainable_variables)
    assert parameters(model) == (model.count_params() - inner, model.count_params())


@pytest.mark.parametrize("name", ["won_fcn_mtt", "won_crnn_mtt", "won_musicnn_mtt", "choi_crnn_msd", "mn04_audioset"])
def test_every_layer_of_the_published_architectures_is_counted(name):
    core = kmt.load(name, weights=None).core
    assert 1e8 < multiply_adds(core) < 1e10
    assert parameters(core)[1] == kmt.model_info(name).claims["parameters"]


def test_an_unknown_layer_is_not_counted_as_nothing():
    model = keras.Sequential([keras.Input((8, 2)), keras.layers.LSTM(3)])
    with pytest.raises(NotImplementedError, match="multiply-adds of a layer LSTM"):
        multiply_adds(model)


def test_musicnet_crnn():
    core = kmt.models.musicnet_crnn(num_tags=50)
    assert parameters(core) == (397_818, 398_530)
    assert multiply_adds(core) == pytest.approx(1.455e9 / 2, rel=1e-3)  # an operation is half a multiply-add


def test_timing():
    calls = []
    found = timed(lambda: calls.append(1), 0.0, 7)
    assert found["calls"] == 7 and len(calls) == 10  # three to warm up
    assert 0 <= found["p10_ms"] <= found["median_ms"] <= found["p90_ms"]


# === Runs ===


def test_a_run(tmp_path):
    run = benchmark(["tiny"], runtimes=["keras"], precisions=["float32"], threads=[1], quick=True, progress=False)
    (found,), (model,) = run.rows, run.models
    assert "error" not in found, found
    assert 0 < found["log_mel"]["median_ms"] < found["file"]["median_ms"]
    assert 0 < found["load_warm_s"] < found["load_cold_s"] < found["first_tags_s"]
    assert 100 < found["tag_memory_mb"] <= found["peak_memory_mb"]
    assert model["parameters"] == 3829 and found["windows"] == 29  # of one second each
    assert model["multiply_adds"] == 29 * 290_384 and run.machine["matmul_gflops"].keys() == {"1"}
    assert run.derived(found)["times_real_time"] == pytest.approx(found["best_clips_per_s"] * CLIP_SECONDS)
    again = BenchmarkRun.from_json(run.to_json(tmp_path / "run.json"))
    assert again.rows == run.rows and again.machine == run.machine
    assert "tiny" in str(again) and "keras" in str(again.profile())


def test_an_interrupted_run_resumes(tmp_path, monkeypatch):
    measured, interrupted = [], []

    def measure(self, name, step):
        if name == "musicnet_crnn" and not interrupted:
            interrupted.append(name)
            raise KeyboardInterrupt
        measured.append(name)
        return {"model": name, "sizes": {}, "scores": []}, [{"model": name, "runtime": "keras"}]

    monkeypatch.setattr(suite._Suite, "measure", measure)
    monkeypatch.setattr(suite, "matmul_gflops", lambda count: 1.0)

    def run(**options):
        options = {"runtimes": ["keras"], "threads": [1], "work": tmp_path / "work"} | options
        return benchmark(["tiny", "musicnet_crnn"], progress=False, **options)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert [row["model"] for row in run().rows] == ["tiny", "musicnet_crnn"]
    assert measured == ["tiny", "musicnet_crnn"]
    run()
    assert len(measured) == 2
    (of_tiny,) = (path for path in (tmp_path / "work").iterdir() if '"model": "tiny"' in path.read_text())
    of_tiny.write_text("damaged")
    run()
    assert measured[2:] == ["tiny"]
    run(precisions=["float32"])  # other settings
    assert measured[3:] == ["tiny", "musicnet_crnn"]
    run(work=None)
    assert measured[5:] == ["tiny", "musicnet_crnn"]


def test_exports_are_measured_without_keras(sounds):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    run = benchmark(
        ["tiny"], runtimes=["onnxruntime"], precisions=["float32", "int8"], threads=[1], data=sounds, quick=True,
        progress=False,
    )  # fmt: skip
    plain, reduced = run.rows
    assert not run.failed, run.failed
    assert plain["max_change"] < 1e-4 < reduced["max_change"] and plain["version"].startswith("onnxruntime")
    assert 0 < run.models[0]["sizes"]["int8"] < run.models[0]["sizes"]["float32"]
    (score,) = run.scores  # float32 is what Keras says
    assert (score["runtime"], score["precision"], score["dataset"]) == ("onnxruntime", "int8", "manifest")
    assert score["roc_auc"] > 0.5 and score["n"] == 24


def test_a_failure_is_a_row(tmp_path):
    folder = kmt.load("tiny").save(tmp_path / "broken")
    (folder / "weights.safetensors").write_bytes(b"nothing")
    run = benchmark([str(folder)], runtimes=["keras"], threads=[1], quick=True, progress=False)
    assert len(run.failed) == 1 and "CorruptWeightsError" in run.failed[0]["error"]
    assert f"{folder}, keras float32, 1 thread: " in str(run)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A table of labelled sounds, all of the split `test`, four of each artist."""
    return labelled_sounds(tmp_path_factory.mktemp("sounds") / "songs", count=24, seconds=1.0)


def test_auc_on_labelled_sounds(sounds, tmp_path):
    run = benchmark(
        ["tiny"], runtimes=["keras"], precisions=["float32"], threads=[1], data=sounds, dataset="made songs",
        quick=True, progress=False,
    )  # fmt: skip
    (score,) = run.scores
    assert not run.failed, run.failed
    expected = kmt.evaluate(kmt.load("tiny"), Manifest.load(sounds), dataset="made songs", progress=False).roc_auc
    assert score["measured"] and (score["runtime"], score["precision"]) == ("keras", "float32")
    assert (score["dataset"], score["split"], score["n"]) == ("made songs", "test", 24)
    found = [score[f"roc_auc{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx([expected.value, expected.low, expected.high], abs=1e-6)
    assert score["pr_auc_low"] < score["pr_auc"] < score["pr_auc_high"]
    assert "recorded" not in str(run) and "{:.3f} [{:.3f}, {:.3f}]".format(*found) in str(run)
    run.to_csv(tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(encoding="utf-8") as file:
        assert [float(entry["score.roc_auc"]) for entry in csv.DictReader(file)] == found[:1]


def test_an_evaluation_that_fails_is_a_row(tmp_path, monkeypatch):
    table = own_tags(tmp_path / "songs", per_tag=1)  # which `tiny` was not trained on
    table.to_csv(tmp_path / "songs.csv")
    monkeypatch.chdir(tmp_path)
    run = benchmark(
        ["tiny"], runtimes=["keras"], threads=[1], data="songs.csv", split="all", quick=True, progress=False
    )
    assert "error" not in run.rows[0] and "roc_auc" not in run.scores[0]
    (failed,) = run.failed
    assert (failed["model"], failed["dataset"], failed["split"]) == ("tiny", "songs", "all")
    assert "the evaluation failed: " in failed["error"] and "EvaluationError" in failed["error"]
    assert "tiny, keras float32, 1 thread: the evaluation failed: " in str(run)
    assert BenchmarkRun.from_json(run.to_json(tmp_path / "run.json")).failed == run.failed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "{folder}/none.csv"], "none.csv cannot be read (No such file or directory)"),
        (["--data", "{sounds}", "--split", "valid"], "The manifest has no rows in the split 'valid'"),
        (["--data", "{unsplit}"], "The data has no splits, so there is no 'test' among its 3 rows. Pass split='all'"),
    ],
)
def test_wrong_data_is_said_before_anything_is_measured(options, message, sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "keras_musictag.apps.benchmarking.suite.run_job", lambda *_: pytest.fail("something was measured")
    )
    own_tags(tmp_path / "unsplit", per_tag=1)
    given = [option.format(folder=tmp_path, sounds=sounds, unsplit=tmp_path / "unsplit") for option in options]
    found = CliRunner().invoke(main, ["benchmark", "tiny", *given])
    assert found.exit_code == 2 and message in found.stderr, found.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"runtimes": ["abacus"]}, r"runtimes must be some of keras, openvino, .*; got 'abacus'"),
        ({"precisions": ["float8"]}, r"precisions must be some of float32, float16, int8; got \['float8'\]"),
        ({"threads": [0]}, r"threads must be from 1 to \d+, the number of cores; got \[0\]"),
        ({"threads": [4096]}, r"threads must be from 1 to \d+"),
    ],
)
def test_what_cannot_be_run(given, message):
    with pytest.raises(BenchmarkError, match=message):
        benchmark(["tiny"], progress=False, **given)
    with pytest.raises(UnknownModelError, match="tinny"):
        benchmark(["tinny"], progress=False)


# === Results ===


def test_tables(made):
    text = str(made)
    assert "abacus, 2 cores" in text and "unknown, keras float32, 1 thread: no such luck" in text
    small = made.derived(made.rows[0])
    assert small["gflops"] == pytest.approx(50.0) and small["of_matmul"] == pytest.approx(0.5)
    assert small["times_real_time"] == 3000
    assert made.derived(made.rows[2])["of_matmul"] is None  # its multiply-adds are not known
    assert "0.900 (recorded)" in text and "0.950 [0.940, 0.960]" in text and "0.960] (recorded)" not in text
    assert "big songs test 10 0.950 [0.940, 0.960] keras float32" in " ".join(text.split())
    profile = str(made.profile()).splitlines()
    assert profile[1].split()[4:] == ["4.0", "3.0", "2.0", "10.0", "1.0", "20.0"]


def test_files(made, tmp_path):
    made.to_csv(tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [entry["log_mel.median_ms"] for entry in rows] == ["10.0", "8.0", "20.0", ""]
    assert {entry["processor"] for entry in rows} == {"abacus"}
    assert rows[0]["sizes.float32"] == "4000000.0" and rows[3]["error"] == "no such luck"
    assert [entry["score.roc_auc"] for entry in rows] == ["0.9", "0.9", "0.95", ""] and rows[2]["score.n"] == "10"
    assert [entry["score.measured"] for entry in rows] == ["", "", "True", ""]
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(BenchmarkError, match=r"other\.json does not hold results of a benchmark"):
        BenchmarkRun.from_json(tmp_path / "other.json")


def test_the_page(made, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    text = importlib.import_module("benchmark_page").page(made)
    assert "| small | keras | float32 | 2 | 10.0 [9.0, 11.0] |" in text and "no such luck" in text
    assert "those that have one on songs, split test" in text
    assert "| big | songs | test | 10 | 0.950 [0.940, 0.960] |  | keras float32 |" in text and "## Memory" not in text
    peaks = {
        "command": "python benchmarks/memory.py", "date": "2026-11-29", "seconds": 60.0, "files": 20,
        "machine": {"processor": "abacus", "cores": 2},
        "rows": [
            {"model": "small", "runtime": "keras", "tag": 1040.2, "library": 1500.0, "serve": 1300.0},
            {"model": "small", "runtime": "litert", "tag": 90.6, "library": 200.0, "serve": 250.0},
            {"model": "big", "runtime": "keras", "tag": 2000.0, "library": 2500.0, "serve": 2300.0},
        ],
    }  # fmt: skip
    text = importlib.import_module("benchmark_page").page(made, peaks)
    assert "| small | 1,040 | 91 | 1,500 | 200 | 1,300 | 250 |" in text and "| big | 2,000 |  | 2,500 |  |" in text


def test_the_picture(made):
    ax = plot_scores(made)
    assert {label.get_text() for label in ax.texts} == {"small", "big"} and "songs" in ax.get_ylabel()
    assert sorted(ax.collections[0].get_offsets()[:, 0].tolist()) == pytest.approx([9.6, 24.0])  # the fastest runtime
    with pytest.raises(BenchmarkError, match="nothing to draw"):
        plot_scores(dataclasses.replace(made, rows=made.failed))


# === Comparison ===


def test_comparison(made):
    slower = dataclasses.replace(made, rows=(row("small", 15.0), row("small", 8.5, "onnxruntime"), row("big", 10.0)))
    compared = compare_runs(made, slower)
    verdicts = {(entry["model"], entry["runtime"], entry["scope"]): entry["verdict"] for entry in compared.ratios}
    assert verdicts["small", "keras", "log_mel"] == "slower" and verdicts["small", "onnxruntime", "file"] == "same"
    assert verdicts["big", "keras", "waveform"] == "faster" and len(compared.regressions) == 3
    assert compared.only == ("unknown, keras float32, 1 thread: not measured before and after",)
    assert "3 of 9 timings are slower beyond noise" in str(compared)
    elsewhere = dataclasses.replace(made, machine={**made.machine, "processor": "slide rule"})
    assert compare_runs(made, elsewhere).notes == ("processors differ: abacus and slide rule",)
    with pytest.raises(BenchmarkError, match="no row in common"):
        compare_runs(made, dataclasses.replace(made, rows=made.failed))


def test_commands(made, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("keras_musictag.apps.benchmarking.benchmark", lambda *a, **k: asked.append((a, k)) or made)
    monkeypatch.setattr(sys, "argv", ["keras-musictag", "benchmark", "small"])
    run = CliRunner().invoke
    files = {name: tmp_path / f"run.{name}" for name in ("json", "csv")}
    options = [f"--{name}={path}" for name, path in files.items()]
    found = run(main, ["benchmark", "small", "--threads", "1,2", "--quick", *options, "--plot", f"{tmp_path}/p.png"])
    assert found.exit_code == 1 and "no such luck" in found.stdout, found.output  # for one row failed
    assert asked[0][0] == (("small",),) and asked[0][1]["threads"] == [1, 2] and asked[0][1]["quick"]
    assert json.loads(files["json"].read_text())["clip_seconds"] == 30 and (tmp_path / "p.png").stat().st_size > 5000
    assert "decoding ms" in run(main, ["benchmark", "--profile"]).stdout and asked[1][0] == ((),)
    compared = run(main, ["benchmark", "compare", str(files["json"]), str(files["json"])])
    assert compared.exit_code == 0 and "0 of 9 timings are slower" in compared.stdout
    wrong = run(main, ["benchmark", "small", "--threads", "few"])
    assert wrong.exit_code == 2 and "expected numbers such as 1,2; got 'few'" in wrong.stderr
    assert run(main, ["benchmark", "compare", str(files["csv"]), str(files["json"])]).exit_code == 2
