"""Published files become safetensors files of the cache, once, and only if they fit."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from pytorch_writer import dictionary, old_file, program, state_dict, storage, tensor, text, zip_file
from weight_files import files_in, rot

import keras_musictag as kmt
from keras_musictag import Tagger
from keras_musictag.errors import CorruptWeightsError, WeightsError, WeightsMismatchError
from keras_musictag.models import conversion, importers, registry
from keras_musictag.models.importers import layouts, register_importer

TINY = kmt.model_info("tiny")


@pytest.fixture(autouse=True)
def importer(monkeypatch):
    """The importer of a published file: one dense layer."""
    importers.importer_of(kmt.model_info("choi_crnn_msd"))  # the zoo's importers register once
    monkeypatch.setattr(importers, "_importers", dict(importers._importers))
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))

    @register_importer("one_dense")
    def import_one_dense(arrays, spec):
        arrays.leave("epoch", "counts the training's epochs")
        return layouts.dense(arrays, "fc", "head")

    @registry.register_model
    def one_dense(num_tags=50, *, input_shape=(8, 10), name="one_dense"):
        log_mel = keras.Input(input_shape)
        flat = keras.layers.Flatten(name="flat")(log_mel)
        return keras.Model(log_mel, keras.layers.Dense(num_tags, "sigmoid", name="head")(flat), name=name)


def published(seed=0, tags=3):
    rng = np.random.default_rng(seed)
    return {"fc.weight": rng.normal(size=(tags, 32 * 10)).astype("float32"),
            "fc.bias": rng.normal(size=tags).astype("float32"), "epoch": np.array(7)}  # fmt: skip


def spec_for(path):
    source = kmt.WeightsSource(
        uri=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest(), format="pytorch", size=path.stat().st_size
    )
    window = dataclasses.replace(TINY.window, frames=10)
    spec = TINY.retrained(tags=("a", "b", "c"), window=window, config={}, architecture="one_dense", weights=source)
    return dataclasses.replace(spec, claims={})


@pytest.fixture(params=["old", "zip"])
def write(request, tmp_path):
    """Write arrays as a PyTorch file; returns a spec for it."""

    def write(arrays, name="model.pth"):
        path = tmp_path / name
        path.write_bytes({"old": old_file, "zip": zip_file}[request.param](*state_dict(arrays)))
        return spec_for(path)

    return write


def head(tagger):
    return {variable.path: np.asarray(keras.ops.convert_to_numpy(variable)) for variable in tagger.core.weights}


def test_converted_once_and_read_from_there(write, cache, monkeypatch):
    spec = write(published())
    found = head(Tagger(spec))
    np.testing.assert_array_equal(found["head/kernel"], published()["fc.weight"].T)
    np.testing.assert_array_equal(found["head/bias"], published()["fc.bias"])
    (name,) = files_in(cache)
    content = (cache / name).read_bytes()
    assert name.startswith("converted/") and name.endswith(f"/{hashlib.sha256(content).hexdigest()}.safetensors")

    monkeypatch.setattr(conversion, "_READERS", {"pytorch": None})  # nobody reads the published file again
    (cache.parent / "model.pth").unlink()
    np.testing.assert_array_equal(head(Tagger(spec))["head/kernel"], found["head/kernel"])
    assert files_in(cache) == [name]


def test_tiny_weights_become_zero(write, cache):
    """Their products are subnormal: published networks took 10 to 34 times as long on PyTorch."""
    arrays = published()
    arrays["fc.weight"][0, 0], arrays["fc.weight"][0, 1], arrays["fc.weight"][0, 2] = 1e-24, -1e-39, -1e-12
    kernel = head(Tagger(write(arrays)))["head/kernel"]
    np.testing.assert_array_equal(kernel[:3, 0], np.asarray([0, 0, -1e-12], "float32"))
    np.testing.assert_array_equal(kernel[3:], published()["fc.weight"].T[3:])


def test_a_damaged_copy_is_made_again(write, cache, caplog):
    spec = write(published())
    expected = head(Tagger(spec))
    (path,) = cache.rglob("*.safetensors")
    rot(path)
    np.testing.assert_array_equal(head(Tagger(spec))["head/kernel"], expected["head/kernel"])
    assert "in the cache is damaged; converting the weights again" in caplog.text
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem


def test_another_importer_version_or_network_converts_anew(write, cache):
    spec = write(published())
    Tagger(spec)
    function, version = importers._importers["one_dense"]
    importers._importers["one_dense"] = (lambda arrays, spec: {**function(arrays, spec), "head/bias": np.zeros(3)}, 2)
    assert head(Tagger(spec))["head/bias"].tolist() == [0, 0, 0]
    assert len(files_in(cache)) == 2
    importers._importers["one_dense"] = (function, version)
    Tagger(dataclasses.replace(spec, tags=("x", "y", "z")))
    assert len(files_in(cache)) == 3
    Tagger(dataclasses.replace(spec, description="words change nothing"))
    assert len(files_in(cache)) == 3


def without(arrays, name):
    return {key: array for key, array in arrays.items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        (without(published(), "fc.bias"), WeightsMismatchError, r"there is no array 'fc\.bias'"),
        ({**published(), "fc2.weight": np.float32([1])}, WeightsMismatchError, r"does not know: fc2\.weight"),
        (published(tags=4), WeightsMismatchError, r"of another shape: head/bias: \(4,\) in the file, \(3,\) in the mo"),
        ({**published(), "fc.bias": np.array([1, 2, 3])}, WeightsMismatchError, "head/bias is int64"),
        ({**published(), "fc.bias": np.float32([1, np.nan, 3])}, CorruptWeightsError, "NaN or infinity in head/bias"),
        ({**published(), "fc.weight": np.float32([1])}, WeightsMismatchError, r"fc\.weight has 1 axes, expected 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_kept(write, cache, arrays, error, message):
    spec = write(arrays)
    with pytest.raises(error, match=message):
        Tagger(spec)
    assert not cache.exists() or files_in(cache) == []


def test_a_pickle_with_code_in_it(tmp_path, cache):
    trace = tmp_path / "trace"
    path = tmp_path / "model.pth"
    call = b"cos\nsystem\n(" + text(f"touch {trace}") + b"tR"
    path.write_bytes(old_file(program(dictionary([("fc.weight", call)])), {}))
    with pytest.raises(CorruptWeightsError, match=r"imports 'os\.system'.*No code in it was executed"):
        Tagger(spec_for(path))
    assert not trace.exists() and not cache.exists()


def test_a_truncated_file_and_a_swapped_tensor_are_not_the_file_that_is_pinned(write, cache):
    spec = write(published())
    path = cache.parent / "model.pth"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(CorruptWeightsError, match="is not the file the spec pins"):
        Tagger(spec)
    write(published(seed=1))
    with pytest.raises(CorruptWeightsError, match="is not the file the spec pins"):
        Tagger(spec)
    assert not cache.exists()


def test_sizes_are_bounded_by_the_file(tmp_path):
    path = tmp_path / "model.pth"
    huge = tensor(storage("0", "Float", 2**40), (2**20, 2**20), (2**20, 1))
    path.write_bytes(old_file(program(dictionary([("fc.weight", huge)])), {"0": np.zeros(1, "float32")}))
    with pytest.raises(CorruptWeightsError, match="the storage '0' does not have"):
        Tagger(spec_for(path))


def test_a_cache_that_cannot_be_written(write, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("KERAS_MUSICTAG_CACHE", str(tmp_path / "file" / "cache"))
    np.testing.assert_array_equal(head(Tagger(write(published())))["head/bias"], published()["fc.bias"])
    assert "Converted weights cannot be cached, so every process converts them again" in caplog.text


def test_a_builder_that_needs_values(write, cache):
    """It has no outline, so its file is compared with the network itself."""

    @registry.register_model
    def with_values(num_tags=50, *, input_shape=(8, 10), name="with_values"):
        network = registry.build_model("one_dense", num_tags=num_tags, input_shape=input_shape, name=name)
        network.get_layer("head").bias.assign(np.ones(num_tags))
        return network

    spec = dataclasses.replace(write(published()), architecture="with_values")
    spec = dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, importer="one_dense"))
    np.testing.assert_array_equal(head(Tagger(spec))["head/bias"], published()["fc.bias"])
    assert len(files_in(cache)) == 1


def test_a_spec_whose_importer_is_unknown(write):
    spec = write(published())
    spec = dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, importer="nobody"))
    with pytest.raises(WeightsError, match="need the importer 'nobody', which is not registered"):
        Tagger(spec)


def test_early_specs_call_the_format_musicnn_h5(tmp_path):
    data = kmt.model_info("musicnn_mtt").to_dict()
    data["weights"] = {key: data["weights"][key] for key in ("uri", "sha256", "size")} | {"format": "musicnn_h5"}
    (tmp_path / "spec.json").write_text(json.dumps(data))
    assert kmt.ModelSpec.from_folder(tmp_path) == kmt.model_info("musicnn_mtt")


def test_reading_needs_neither_pytorch_nor_keras(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(zip_file(*state_dict(published())))
    code = (
        "import sys; from pathlib import Path; from keras_musictag.models.pytorch_files import read_pytorch;"
        "print(len(read_pytorch(Path(sys.argv[1])))); print({'torch', 'keras', 'tensorflow'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["3", "set()"]
