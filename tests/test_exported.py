"""Exported taggers as `load` gives them, and models of the zoo on other runtimes."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from labelled_sounds import labelled_sounds
from tiny_exports import TENSORFLOW, hide

import keras_musictag as kmt
from keras_musictag.apps.benchmarking.benchmark_results import BenchmarkError
from keras_musictag.apps.benchmarking.suite import benchmark
from keras_musictag.datasets import Manifest
from keras_musictag.datasets.log_mel_cache import FeatureCache
from keras_musictag.errors import CorruptWeightsError, MissingExtraError, SpecError
from keras_musictag.evaluation.measuring import score
from keras_musictag.tagging import fastest_runtime
from keras_musictag.tagging.exported import ExportError, NoKerasModelError
from keras_musictag.tagging.runtimes import FILE_RUNTIMES, OnnxRuntime, RuntimeEntry, readers, runtimes
from keras_musictag.utils.cores import processor

# === What is loaded ===


def test_what_an_export_cannot_do(exported):
    tagger = kmt.load(exported().folder)
    with pytest.raises(NoKerasModelError, match=r"An exported tagger has no 'fine_tune'.*load\('tiny'\)"):
        tagger.fine_tune("songs/")
    assert not hasattr(tagger, "core")
    with pytest.raises(AttributeError, match="no attribute 'tga'"):
        _ = tagger.tga
    with pytest.raises(ValueError, match="is an exported tagger, which includes its weights; got weights=None"):
        kmt.load(exported().folder, weights=None)


@pytest.mark.parametrize(
    ("runtime", "error", "message"),
    [
        ("litert", ExportError, r"litert does not read onnx exports\. Use openvino or onnxruntime\."),
        ("keras", ExportError, r"keras does not read onnx exports"),
        ("tensorrt", ValueError, r"runtime must be 'auto' or one of 'keras', 'openvino'.*got 'tensorrt'"),
    ],
)
def test_runtimes_that_cannot_read_it(exported, runtime, error, message):
    with pytest.raises(error, match=message):
        kmt.load(exported().folder, runtime=runtime)


def test_auto_takes_the_fastest_that_is_installed(exported, monkeypatch, caplog):
    caplog.set_level("INFO")
    assert kmt.load(exported().folder).runtime == "openvino"
    assert "openvino runs this onnx export" in caplog.text
    hide(monkeypatch, "openvino")
    assert kmt.load(exported().folder, runtime="auto").runtime == "onnxruntime"
    hide(monkeypatch, "openvino", "onnxruntime")
    with pytest.raises(MissingExtraError, match=r"runtime='openvino' needs the package 'openvino'"):
        kmt.load(exported().folder, runtime="auto")


def test_a_saved_model_is_for_others(exported):
    if not TENSORFLOW:
        pytest.skip("is written by TensorFlow")
    with pytest.raises(ExportError, match=r"saved_model export is for tf\.saved_model\.load"):
        kmt.load(exported("saved_model").folder)


def copied(result, folder):
    folder.mkdir()
    for path in result.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_damage_is_noticed(exported, tmp_path):
    folder = copied(exported(), tmp_path / "mine")
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptWeightsError, match=r"model\.onnx is not the file that was exported"):
        kmt.load(folder)
    model.unlink()
    with pytest.raises(CorruptWeightsError, match=r"model\.onnx cannot be read"):
        kmt.load(folder)
    os.mkfifo(model)  # nothing waits for it
    with pytest.raises(CorruptWeightsError, match=r"model\.onnx cannot be read"):
        kmt.load(folder)
    for text, message in (
        ("{", "cannot be read as JSON"),
        ("[]", "must be a JSON object"),
        ('{"export_version": 2}', "version 2; this package reads version 1"),
        (
            '{"format": "onnx", "precision": "float32", "input": "waveform", "files": {"a": "b"}, "size": 1}',
            "files must be",
        ),
    ):
        (folder / "export.json").write_text(text)
        with pytest.raises(SpecError, match=message):
            kmt.load(folder)


def test_an_export_is_evaluated_like_a_tagger(exported, tiny, tmp_path):
    data = Manifest.from_csv(labelled_sounds(tmp_path / "sounds", count=8))
    tagger = kmt.load(exported("onnx", input="log_mel").folder)
    options = {"dataset": "mine", "progress": False}
    for cache in (None, FeatureCache(tmp_path / "features", tiny.spec)):
        both = score([tiny, tagger], data, names=("keras", "onnx"), cache=cache, **options)
        np.testing.assert_allclose(both.probabilities[0], both.probabilities[1], atol=1e-4)
    assert both.weights_sha256[0] == both.weights_sha256[1]
    with pytest.raises(ExportError, match=r"takes waveforms, not cached log-mels.*input='log_mel'"):
        score(kmt.load(exported().folder), data, cache=cache, **options)


def test_an_export_says_which_weights_it_has(exported, tiny):
    assert kmt.load(exported().folder).weights_sha256 == tiny.weights_sha256
    small = kmt.load(exported("onnx", "int8").folder)
    assert small.weights_sha256 == small.info.files["model.onnx"]


# === Models of the zoo on other runtimes ===


@pytest.mark.contract
def test_a_model_is_exported_once(tiny, noise, cache, monkeypatch, caplog):
    caplog.set_level("INFO")
    tagger = kmt.load("tiny", runtime="onnxruntime", threads=1)
    assert "Exporting tiny as onnx, once" in caplog.text
    assert tagger.tag(noise, sr=16_000) == pytest.approx(tiny.tag(noise, sr=16_000), abs=1e-4)
    assert tagger.weights_sha256 == tiny.weights_sha256 and tagger.spec == tiny.spec

    def never(*args, **kwargs):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr("keras_musictag.tagging.exporting.export", never)
        assert kmt.load("tiny", runtime="openvino").runtime == "openvino"  # which reads the same file
    (model,) = cache.glob("exports/*/model.onnx")
    model.write_bytes(b"damaged")
    kmt.load("tiny", runtime="onnxruntime")
    assert "damaged and will be exported again" in caplog.text


def test_auto_falls_back_to_what_can(monkeypatch, caplog, cache):
    caplog.set_level("INFO")

    def refuse(*args, **kwargs):
        raise ExportError("The layer 'odd' cannot be written.")

    monkeypatch.setattr("keras_musictag.tagging.exporting.export", refuse)
    assert kmt.load("tiny", runtime="auto").runtime == "keras"
    assert "openvino cannot run tiny: The layer 'odd'" in caplog.text and "keras runs tiny" in caplog.text


def test_auto_measures_once_and_takes_the_fastest(monkeypatch, caplog, cache, noise):
    caplog.set_level("INFO")
    seen = []

    def measured(taggers):
        seen.append(sorted(taggers))
        return {"keras": 3.0, "openvino": 2.0, "onnxruntime": 1.0, "litert": 4.0}

    with monkeypatch.context() as patch:
        patch.setattr(fastest_runtime, "measure", measured)
        assert kmt.load("tiny", runtime="auto").runtime == "onnxruntime"
    assert seen == [["keras", "litert", "onnxruntime", "openvino"]]
    assert "onnxruntime runs tiny; a window took onnxruntime 1.0 ms, openvino 2.0 ms" in caplog.text

    def never(taggers):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(fastest_runtime, "measure", never)
        assert kmt.load("tiny", runtime="auto").runtime == "onnxruntime"
    (kept,) = cache.glob("runtimes/*.json")
    assert json.loads(kept.read_text())["conditions"]["processor"] == processor()
    assert fastest_runtime.recall(fastest_runtime.conditions("tiny", 1)) is None  # other conditions, other winners
    kept.write_text("damaged")
    times = {}
    original = fastest_runtime.measure
    monkeypatch.setattr(fastest_runtime, "measure", lambda taggers: times.update(original(taggers)) or dict(times))
    chosen = kmt.load("tiny", runtime="auto")
    assert chosen.runtime == min(times, key=times.get) and all(ms > 0 for ms in times.values())
    assert chosen.tag(noise, sr=16_000)


def test_a_runtime_is_a_row_and_an_adapter(monkeypatch, noise):
    """`load`, errors, the benchmark and the command line read the table."""

    class Mine(OnnxRuntime):
        pass

    row = RuntimeEntry(
        adapter=Mine, module="json", packages=("my-runtime",), extra="mine", formats=("onnx",), zoo_format="onnx"
    )
    monkeypatch.setitem(FILE_RUNTIMES, "mine", row)
    tagger = kmt.load("tiny", runtime="mine")
    assert tagger.runtime == "mine" and set(tagger.tag(noise, sr=16_000)) == set(tagger.tags)
    assert runtimes()[-1] == readers("onnx")[-1] == "mine"
    with pytest.raises(BenchmarkError, match=r"runtimes must be some of keras, .*, mine; got 'other'"):
        benchmark(["tiny"], runtimes=["other"])
    code = """
from keras_musictag.tagging import runtimes
runtimes.FILE_RUNTIMES["mine"] = runtimes.FILE_RUNTIMES["onnxruntime"]
from keras_musictag.cli.tag import tag
(option,) = [option for option in tag.params if option.name == "runtime"]
print(*option.type.choices)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "mine"
    monkeypatch.setitem(FILE_RUNTIMES, "mine", dataclasses.replace(row, module="not_there_at_all"))
    with pytest.raises(MissingExtraError, match=r"runtime='mine' needs.*my-runtime.*keras_musictag\[mine\]"):
        kmt.load("tiny", runtime="mine")


def test_a_runtime_that_is_not_installed(monkeypatch):
    hide(monkeypatch, "onnxruntime")
    with pytest.raises(MissingExtraError, match=r"runtime='onnxruntime' needs.*keras_musictag\[onnx\]"):
        kmt.load("tiny", runtime="onnxruntime")


@pytest.mark.parametrize("threads", [0, True, 1.5])
def test_threads_are_counted(threads):
    with pytest.raises(ValueError, match=r"threads must be a whole number of at least 1"):
        kmt.load("tiny", threads=threads)


def test_random_weights_are_for_keras():
    with pytest.raises(ValueError, match=r"weights=None \(random weights, for training\) requires Keras"):
        kmt.load("tiny", weights=None, runtime="onnxruntime")


@pytest.mark.skipif(not TENSORFLOW, reason="of TensorFlow")
def test_tensorflow_takes_threads_before_it_starts_only(tiny, noise):
    tiny.tag(noise, sr=16_000)
    with pytest.raises(ValueError, match=r"threads=1 cannot be set: TensorFlow has already started"):
        kmt.load("tiny", threads=1)


def test_ctrl_c_after_another_thread_let_go_of_openvino(exported):
    pytest.importorskip("openvino")
    program = """
import os, signal, sys, threading
import keras_musictag as kmt
signal.signal(signal.SIGINT, signal.default_int_handler)
held = [kmt.load(sys.argv[1], runtime="openvino")]
held[0].tag(kmt.demo_clip())
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("stopped")
"""
    command = [sys.executable, "-c", program, str(exported().folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "stopped\n"), ended.stderr
