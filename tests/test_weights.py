"""Weight files to variables and back: what does not fit exactly is refused, and what was there stays."""

import errno
import hashlib
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from weight_files import files_in

import keras_musictag as kmt
from keras_musictag.errors import CacheError, CorruptWeightsError, WeightsMismatchError
from keras_musictag.models import weights
from keras_musictag.utils import files


def build(seed=None):
    """A tiny network, with weights of its own for every seed."""
    model = kmt.build_model("tiny")
    if seed is not None:
        rng = np.random.default_rng(seed)
        for variable in model.weights:
            variable.assign(rng.uniform(0.1, 1.0, variable.shape))
    return model


def arrays(model):
    return {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.weights}


def assert_equal(model, expected):
    found = arrays(model)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture(scope="module")
def model():
    return build(seed=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


@pytest.fixture
def target():
    """A model to load into; whatever is refused must leave it as it was."""
    model = build(seed=2)
    before = arrays(model)
    model.unchanged = lambda: assert_equal(model, before)
    return model


def refused(target, path, error, match, **kwargs):
    with pytest.raises(error, match=match) as caught:
        weights.load_weights(target, path, **kwargs)
    assert str(path) in str(caught.value)
    target.unchanged()


# === Round trip ===


def test_save_and_load(model, path, target):
    source = weights.save_weights(model, path)
    content = path.read_bytes()
    assert source == kmt.WeightsSource(
        uri="weights.safetensors", sha256=hashlib.sha256(content).hexdigest(), size=len(content)
    )
    weights.load_weights(target, path)
    assert_equal(target, arrays(model))
    # The file is what any safetensors reader expects, keyed by variable path.
    assert load_file(path).keys() == arrays(model).keys()
    assert {array.dtype.name for array in load_file(path).values()} == {"float32"}


def test_the_same_weights_are_the_same_bytes(model, tmp_path):
    first, second = (weights.save_weights(model, tmp_path / name) for name in ("a", "b"))
    assert first.sha256 == second.sha256


@pytest.mark.parametrize(("kind", "tolerance"), [("float16", 5e-4), ("float64", 0.0)])  # float16 has 11 bits: 2**-11
def test_other_floats_load(model, path, target, kind, tolerance):
    save_file({name: array.astype(kind) for name, array in arrays(model).items()}, path)
    weights.load_weights(target, path)
    for name, array in arrays(model).items():
        loaded = arrays(target)[name]
        assert loaded.dtype == "float32"
        np.testing.assert_allclose(loaded, array, rtol=tolerance, atol=0)


def test_a_model_in_half_precision(path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = build(seed=1)
    finally:
        keras.config.set_dtype_policy("float32")
    weights.save_weights(mixed, path)
    plain = build()
    weights.load_weights(plain, path)
    assert_equal(plain, arrays(mixed))


def test_scalars_stay_scalars(path):
    def normalising():
        return keras.Sequential([keras.Input((3,)), keras.layers.Normalization(name="norm")], name="scalar")

    saved = normalising()
    assert () in {tuple(variable.shape) for variable in saved.weights}
    weights.save_weights(saved, path)
    weights.load_weights(normalising(), path)


# === By name, never by order ===


def test_order_in_the_file_means_nothing(model, path, target):
    save_file(dict(reversed(arrays(model).items())), path)
    weights.load_weights(target, path)
    assert_equal(target, arrays(model))


def test_two_variables_of_one_shape_go_where_their_names_say(model, path, target):
    """`.weights.h5` would assign them by order and notice nothing."""
    content = arrays(model)
    one, other = "bn1/gamma", "bn1/beta"
    assert content[one].shape == content[other].shape
    content[one], content[other] = content[other], content[one]
    save_file(content, path)
    weights.load_weights(target, path)
    assert_equal(target, content)


class TwoOfAName(keras.layers.Layer):
    def build(self, shape):
        self.one, self.other = (self.add_weight(shape=(2,), name="scale") for _ in range(2))

    def call(self, x):
        return x * self.one + self.other


def test_a_model_whose_variables_share_a_name_is_refused(path):
    inputs = keras.Input((2,))
    ambiguous = keras.Model(inputs, TwoOfAName(name="affine")(inputs), name="ambiguous")
    with pytest.raises(
        WeightsMismatchError, match=r"several variables named affine/scale\. Give its layers unique names"
    ):
        weights.save_weights(ambiguous, path)
    assert not path.exists()


# === What does not fit ===


def test_missing(model, path, target):
    content = arrays(model)
    del content["head/bias"], content["gru1/gru_cell/bias"]
    save_file(content, path)
    refused(target, path, WeightsMismatchError, r"missing from the file: gru1/gru_cell/bias, head/bias\. Check")


def test_extra(model, path, target):
    save_file({**arrays(model), "head2/bias": np.zeros(3, "float32")}, path)
    refused(target, path, WeightsMismatchError, r"unknown to the model: head2/bias\. ")


def test_renamed(model, path, target):
    content = arrays(model)
    content["Head/bias"] = content.pop("head/bias")
    save_file(content, path)
    refused(target, path, WeightsMismatchError, r"missing from the file: head/bias; unknown to the model: Head/bias\.")


@pytest.mark.parametrize("shape", [(5, 16), (16, 4), (80,), (1, 16, 5), (16, 5, 1)])
def test_another_shape(model, path, target, shape):
    assert arrays(model)["head/kernel"].shape == (16, 5)
    save_file({**arrays(model), "head/kernel": np.zeros(shape, "float32")}, path)
    refused(
        target, path, WeightsMismatchError, r"of another shape: head/kernel: \(.*\) in the file, \(16, 5\) in the model"
    )


def test_a_long_list_is_cut(model, path, target):
    save_file({}, path)
    refused(target, path, WeightsMismatchError, r"missing from the file: (\S+, ){4}\S+ and 12 more\. ")


@pytest.mark.parametrize("kind", ["int32", "uint8", "bool"])
def test_another_type(model, path, target, kind):
    save_file({**arrays(model), "head/bias": np.zeros(5, kind)}, path)
    refused(target, path, WeightsMismatchError, r"must be float16, float32 or float64; head/bias is \w+\.")


def test_bfloat16_is_refused_by_name(model, path, target):
    save_file(arrays(model), path)
    header, body = _split(path)
    for entry in header.values():
        entry["dtype"] = "BF16"
        entry["data_offsets"] = [offset // 2 for offset in entry["data_offsets"]]
    _join(path, header, body[: len(body) // 2])
    refused(target, path, WeightsMismatchError, r"must be float16, float32 or float64; bn1/beta is BF16\.")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(model, path, target, value):
    content = arrays(model)
    content["conv2/kernel"] = content["conv2/kernel"].copy()
    content["conv2/kernel"][0, 0, 0, 0] = value
    save_file(content, path)
    refused(target, path, CorruptWeightsError, r"holds NaN or infinity in conv2/kernel\. ")


def test_a_float64_beyond_float32_is_refused(model, path, target):
    save_file({**arrays(model), "head/bias": np.full(5, 1e300)}, path)
    refused(target, path, CorruptWeightsError, r"holds NaN or infinity in head/bias\. ")


# === What is no file of the kind ===


def _split(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _join(path, header, body):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"<html>" * 100, b"\x89HDF\r\n\x1a\n" + bytes(1000), struct.pack("<Q", 1 << 62) + b"{}", bytes(64)],
    ids=["empty", "short", "html", "hdf5", "absurd header", "zeros"],
)
def test_no_safetensors_file(path, target, content):
    path.write_bytes(content)
    refused(target, path, CorruptWeightsError, "cannot be read as a safetensors file: .*Get it again")


@pytest.mark.parametrize("keep", [4, 100, 5000, -1])
def test_a_truncated_file(model, path, target, keep):
    weights.save_weights(model, path)
    path.write_bytes(path.read_bytes()[:keep])
    refused(target, path, CorruptWeightsError, "cannot be read as a safetensors file")


def test_no_file_and_a_folder(tmp_path, target):
    refused(target, tmp_path / "nothing", CorruptWeightsError, "No such file")
    refused(target, tmp_path, CorruptWeightsError, "cannot be read as a safetensors file")


@pytest.mark.parametrize("shape", [[1 << 40], [1 << 20, 1 << 20, 16], [1 << 63, 2]])
def test_a_header_that_lies_about_sizes_costs_nothing(model, path, target, shape):
    save_file(arrays(model), path)
    header, body = _split(path)
    header["head/bias"]["shape"] = shape
    _join(path, header, body)
    tracemalloc.start()
    refused(target, path, CorruptWeightsError, "cannot be read as a safetensors file")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


@pytest.mark.parametrize("offsets", [[0, 20], [10**9, 10**9 + 20], [-20, 0], [20, 0]])
def test_a_header_that_lies_about_places(model, path, target, offsets):
    save_file(arrays(model), path)
    header, body = _split(path)
    header["head/bias"]["data_offsets"] = offsets
    _join(path, header, body)
    refused(target, path, CorruptWeightsError, "cannot be read as a safetensors file")


# === Saving ===


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_model_is_not_saved(path, value):
    diverged = build(seed=1)
    diverged.get_layer("head").bias.assign([0, 0, value, 0, 0])
    with pytest.raises(CorruptWeightsError, match=r"NaN or infinity in head/bias\. The training diverged"):
        weights.save_weights(diverged, path)
    assert files_in(path.parent) == []


@pytest.fixture(params=["write", "fsync", "replace"])
def full_disk(request, monkeypatch):
    """The disk runs full at one of the steps."""

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if request.param == "write":
        original = Path.open

        def half_written(self, mode="r", *args, **kwargs):
            file = original(self, mode, *args, **kwargs)
            if self.suffix == ".part":
                file.write(b"half")
                file.close()
                fail()
            return file

        monkeypatch.setattr(Path, "open", half_written)
    elif request.param == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)


def test_a_full_disk_leaves_what_was_there(full_disk, model, path, target, tmp_path):
    path.write_bytes(b"the good old weights")
    with pytest.raises(CacheError, match=r"cannot be written: .*No space left on device.*Nothing was changed"):
        weights.save_weights(model, path)
    assert path.read_bytes() == b"the good old weights"
    assert files_in(tmp_path) == ["weights.safetensors"]


def test_a_disk_that_is_really_full(model, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(tmp_path)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        with pytest.raises(CacheError, match="No space left on device"):
            weights.save_weights(model, tmp_path / "weights.safetensors")
        assert files_in(tmp_path) == []
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_no_folder_to_write_to(model, tmp_path):
    with pytest.raises(CacheError, match=r"cannot be written: .*No such file or directory"):
        weights.save_weights(model, tmp_path / "nothing" / "weights.safetensors")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match=r"cannot be written: .*Not a directory"):
        weights.save_weights(model, tmp_path / "file" / "weights.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CacheError, match=r"cannot be written: .*Is a directory"):
        weights.save_weights(model, tmp_path / "folder")
    assert files_in(tmp_path) == ["file"]


def test_the_umask_is_respected(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_atomically(tmp_path / "file", b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
