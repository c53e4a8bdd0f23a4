"""Model folders, weight files and archives that somebody made to do harm: nothing runs, nothing huge is allocated."""

import hashlib
import io
import json
import os
import struct
import sys
import time
import tracemalloc
import zipfile

import keras
import numpy as np
import pytest
from audio_files import posix

import keras_musictag as kmt
from keras_musictag.datasets import archives
from keras_musictag.datasets.rows import DataError
from keras_musictag.errors import (
    CacheError,
    CorruptWeightsError,
    SpecError,
    UnknownModelError,
    WeightsError,
    WeightsMismatchError,
)
from keras_musictag.models.spec import ModelSpec


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return kmt.load("tiny").save(tmp_path_factory.mktemp("hostile") / "saved")


@pytest.fixture
def folder(saved, tmp_path):
    """A saved tagger to spoil."""
    copy = tmp_path / "mine"
    copy.mkdir()
    for path in saved.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def change(folder, **fields):
    """Set fields of `spec.json`; `mel__n_fft` is one of `mel`."""
    spec = json.loads((folder / "spec.json").read_text())
    for name, value in fields.items():
        *outer, last = name.split("__")
        place = spec[outer[0]] if outer else spec
        place[last] = value
    (folder / "spec.json").write_text(json.dumps(spec))


def pin(folder):
    """Let the spec pin the weights that are there: who makes the folder makes both."""
    change(folder, weights__sha256=hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest())


def refused(folder, error, match):
    """`load` refuses at once and without memory."""
    tracemalloc.start()
    try:
        with pytest.raises(error, match=match):
            kmt.load(folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100e6, peak


# === spec.json ===


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "recursion"),
        (b'{"config": ' + b'{"a": ' * 100_000, "recursion"),
        (b" " * (2**24 + 1), "it has more than 16,777,216 bytes"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "4300 digits"),
        (b"\xff\xfe", "utf-8"),
        (b"\x80\x04\x95.", "utf-8"),
    ],
    ids=["list 100,000 deep", "object 100,000 deep", "huge", "long number", "no UTF-8", "pickle"],
)
def test_json_that_is_meant_to_harm(folder, content, said):
    (folder / "spec.json").write_bytes(content)
    refused(folder, SpecError, rf"spec\.json cannot be read as JSON: .*{said}")


@posix
def test_a_spec_that_never_ends(folder):
    (folder / "spec.json").unlink()
    (folder / "spec.json").symlink_to("/dev/zero")
    refused(folder, SpecError, r"cannot be read as JSON: it is not a regular file")
    (folder / "spec.json").unlink()
    os.mkfifo(folder / "spec.json")
    refused(folder, SpecError, r"cannot be read as JSON: it is not a regular file")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"audio__sr": 10**9}, r"audio\.sr must be at most 1,000,000; got 1,000,000,000\."),
        ({"mel__n_fft": 10**9}, r"mel\.n_fft must be at most 65,536; got 1,000,000,000\."),
        ({"mel__hop_length": 10**9}, r"mel\.hop_length must be at most 65,536"),
        ({"mel__n_mels": 10**9}, r"mel\.n_mels must be at most 4,096"),
        ({"mel__n_mels": 4096, "mel__n_fft": 65536}, r"mel\.n_mels times mel\.n_fft must be at most 67,108,864"),
        ({"window__frames": 10**9}, r"window\.frames must be at most 1,048,576"),
        ({"window__frames": 10**6, "mel__n_mels": 128}, r"mel\.n_mels times window\.frames must be at most 16,777,216"),
        ({"window__frames": 10**5, "mel__hop_length": 1000}, r"Samples of a window must be at most 67,108,864"),
        ({"config": {"dense_units": 10**9}}, r"config\.dense_units must be at most 65,536; got 1,000,000,000\."),
        ({"tags": [str(number) for number in range(70_000)]}, r"The number of tags must be at most 65,536; got 70,000"),
        ({"mel__amin": float("nan")}, r"mel\.amin and mel\.ref must be positive; got nan"),
        ({"architecture": "../../evil"}, r"architecture must consist of letters"),
        ({"architecture": "os.system"}, r"Unknown architecture 'os\.system'"),
        ({"weights__uri": "../weights.safetensors"}, r"must be a plain file name beside spec\.json, without folders"),
        ({"weights__uri": "/etc/passwd"}, r"must be a file name beside it, not a path"),
        ({"weights__uri": "file:///etc/passwd"}, r"must be a plain file name"),
        ({"weights__uri": "http://evil.example/weights.h5"}, r"must use https"),
        ({"weights__format": "pickle"}, r"weights\.format must be one of 'safetensors', 'h5', 'pytorch'; got 'pickle'"),
    ],
)
def test_specs_of_what_cannot_be(folder, fields, message):
    change(folder, **fields)
    refused(folder, (SpecError, UnknownModelError), message)


@posix
@pytest.mark.contract
@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("pretrained", WeightsMismatchError, r"weights\.safetensors does not fit the model; missing from the file: "),
        (None, SpecError, r"The network of 'tiny' has 1,786,598,009 parameters; at most 1,073,741,824 are allowed"),
    ],
)
def test_a_spec_of_a_huge_network(folder, weights, error, message):
    """Each number is within its bounds, the network would take 7 GB, and the folder has a few kilobytes."""
    import resource

    widths = dict.fromkeys(("timbral_filters", "temporal_filters", "midend_filters"), 6000)
    change(folder, architecture="musicnn", config=widths)
    begun, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(error, match=message):
        kmt.load(folder, weights=weights)
    assert time.monotonic() - begun < 5  # measured: 0.1 s
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * unit < 200e6  # measured: 3 MB


@pytest.mark.parametrize("weights", ["pretrained", None])
def test_a_spec_of_huge_maps(folder, weights):
    """What a network takes while it computes is bounded, too."""
    change(folder, mel__n_mels=2**12, mel__n_fft=2**13, window__frames=2**12, architecture="musicnn")
    with pytest.raises(
        SpecError, match=r"The output of the layer 'timbral74' of 'tiny' has \d{1,3}(,\d{3}){3} values per window"
    ):
        kmt.load(folder, weights=weights)


def test_a_builder_that_needs_values_is_judged_by_its_weights_alone(folder):
    @kmt.register_model
    def needs_values(num_tags=5, *, input_shape=(32, 63), name="needs_values"):
        inputs = keras.Input(input_shape)
        scale = keras.Variable(np.ones(1, "float32"), name="scale")  # needs a value at once
        x = keras.layers.Flatten()(inputs) * float(keras.ops.convert_to_numpy(scale)[0])
        return keras.Model(inputs, keras.layers.Dense(num_tags, "sigmoid", name="head")(x), name=name)

    change(folder, architecture="needs_values")
    assert kmt.load(folder, weights=None).core.count_params() == 5 * (32 * 63 + 1)
    with pytest.raises(WeightsError, match="does not fit the model"):
        kmt.load(folder)


def test_many_tags_are_compared_at_once():
    """One with another it would take minutes."""
    tags = [f"tag {number}" for number in range(60_000)]
    spec = {**kmt.model_info("tiny").to_dict(), "tags": [*tags, "tag 7"], "metrics": []}
    with pytest.raises(SpecError, match=r"lists tags twice: tag 7\."):
        ModelSpec.from_dict(spec)


# === Weights ===


def write(path, header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize(
    "shape",
    [[2**40], [2**20, 2**20, 2**20], [2**63, 2], [-1]],
)
def test_weights_that_declare_terabytes(folder, shape):
    size = 4 * abs(int(np.prod([float(n) for n in shape])))
    for offsets in ([0, size], [0, 4]):
        header = {"head/bias": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
        write(folder / "weights.safetensors", header, bytes(4))
        pin(folder)
        refused(folder, CorruptWeightsError, "cannot be read as a safetensors file")


@pytest.mark.parametrize(
    "header", [b"[" * 100_000, b'{"a":' * 100_000, b"{}" + b" " * 10_000, b"\x80\x04\x95cos\nsystem\n."]
)
def test_headers_of_weights_that_are_meant_to_harm(folder, header):
    write(folder / "weights.safetensors", header)
    pin(folder)
    refused(folder, WeightsError, "cannot be read as a safetensors file|missing from the file")


def test_other_bytes_than_pinned_are_not_even_opened(folder, monkeypatch):
    write(folder / "weights.safetensors", {"head/bias": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    refused(folder, CorruptWeightsError, "is not the file the spec pins")


@posix
def test_weights_that_lead_elsewhere(folder, tmp_path):
    """A link reads what it leads to, and that has to be the pinned bytes; nothing of it is shown."""
    (tmp_path / "secret").write_text("swordfish")
    path = folder / "weights.safetensors"
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(CorruptWeightsError, match="is not the file the spec pins") as caught:
        kmt.load(folder)
    assert "swordfish" not in str(caught.value)
    path.unlink()
    os.mkfifo(path)
    refused(folder, WeightsError, r"weights\.safetensors is missing")
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(folder, WeightsError, r"weights\.safetensors is missing")


# === Code ===


def test_nothing_of_a_keras_file_is_executed(folder, tmp_path, monkeypatch):
    """Whatever else is in a folder, `load` reads two files of it; a `.keras` file it does not read at all."""
    ran = []
    monkeypatch.setattr(keras.saving, "load_model", lambda *args, **kwargs: ran.append(args))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: ran.append("code") or x, output_shape=(4,))(inputs))
    ran.clear()
    for name in ("model.keras", "weights.keras"):
        model.save(folder / name)
    for name in ("__init__.py", "model.py", "conftest.py", "sitecustomize.py"):
        (folder / name).write_text("raise SystemExit('executed')")
    (folder / "weights.pkl").write_bytes(b"cos\nabort\n(tR.")
    assert kmt.load(folder).tags
    assert ran == []
    for path in (folder / "model.keras", str(folder / "model.keras")):
        with pytest.raises(UnknownModelError, match="There is no folder"):
            kmt.load(path)
    (folder / "spec.json").unlink()
    with pytest.raises(SpecError, match=r"has no spec\.json"):
        kmt.load(folder)


def test_pickles_in_files_of_arrays_are_refused(folder):
    """Hostile HDF5 and safetensors cannot hold objects; a pickle under their names is no such file."""
    (folder / "weights.safetensors").write_bytes(b"\x80\x04cos\nabort\n(tR.")
    pin(folder)
    refused(folder, CorruptWeightsError, "cannot be read as a safetensors file")
    change(folder, weights__format="musicnn_h5", architecture="musicnn")
    with pytest.raises((WeightsError, SpecError)):
        kmt.load(folder)


# === Archives ===


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return bytearray(file.getvalue())


def sized(data, size):
    """Let both headers of the only member declare another size."""
    struct.pack_into("<I", data, 22, size)
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 24, size)
    return bytes(data)


def test_a_bomb_is_not_unpacked_where_it_does_not_fit(tmp_path, monkeypatch):
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    (tmp_path / "bomb.zip").write_bytes(zipped({f"{number}.mp3": bytes(10**5) for number in range(11)}))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CacheError, match=r"has 1,000,000 bytes free and 1,100,000 are needed"):
        archives.unzip([tmp_path / "bomb.zip"], out)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("declared", [10, 10**9])
def test_a_member_of_another_size_than_declared(tmp_path, declared):
    """A bomb that declares ten bytes gives ten, and one that declares a gigabyte no more than there is."""
    (tmp_path / "bomb.zip").write_bytes(sized(zipped({"a.mp3": bytes(10**7)}), declared))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="are not an intact zip archive"):
        archives.unzip([tmp_path / "bomb.zip"], out)
    assert list(out.iterdir()) == []
