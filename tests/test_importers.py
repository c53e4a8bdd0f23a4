"""Importers: every array of a published file is accounted for; PyTorch's layouts become Keras'."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_musictag as kmt
from keras_musictag.errors import CorruptWeightsError, SpecError, WeightsMismatchError
from keras_musictag.models import importers
from keras_musictag.models.importers import PublishedArrays, import_arrays, layouts, register_importer

SPEC = kmt.model_info("tiny")
SOURCE = kmt.WeightsSource(uri="https://weights.example/model.pth", sha256="0" * 64, format="pytorch")


@pytest.fixture
def register(monkeypatch):
    """Register an importer for one test; returns the spec that it is for."""
    monkeypatch.setattr(importers, "_importers", dict(importers._importers))

    def register(function):
        register_importer("for_one_test")(function)
        return dataclasses.replace(SPEC, weights=dataclasses.replace(SOURCE, importer="for_one_test"))

    return register


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype("float32")


# === Accounting ===


def test_arrays_are_taken_once_or_left_for_a_reason():
    arrays = PublishedArrays({"a": numbers(2), "b": numbers(3), "c.x": numbers(1), "c.y": numbers(1)}, "model.pth")
    np.testing.assert_array_equal(arrays.take("a"), numbers(2))
    arrays.leave("c.*", "not needed")
    assert arrays.unaccounted == ["b"]
    with pytest.raises(WeightsMismatchError, match=r"model\.pth: the importer uses the array 'a' twice"):
        arrays.take("a")
    with pytest.raises(WeightsMismatchError, match=r"model\.pth: the importer uses the array 'c\.x' twice"):
        arrays.take("c.x")
    with pytest.raises(WeightsMismatchError, match=r"model\.pth: there is no array 'z'\. Check that this is the file"):
        arrays.take("z")
    with pytest.raises(WeightsMismatchError, match=r"no array matches 'z\*', .* left out \(never used\)"):
        arrays.leave("z*", "never used")
    with pytest.raises(WeightsMismatchError, match=r"takes and leaves out arrays matching 'a'"):
        arrays.leave("a", "never used")
    with pytest.raises(ValueError, match="reason must say why 'b' is left out; got ''"):
        arrays.leave("b", "")


def test_what_is_left_over_is_an_error_that_names_it(register):
    spec = register(lambda arrays, spec: {"head/bias": arrays.take("fc.bias")})
    assert list(import_arrays({"fc.bias": numbers(5)}, spec, "model.pth")) == ["head/bias"]
    with pytest.raises(WeightsMismatchError, match=r"model\.pth has arrays that .*'for_one_test' does not know: fc2"):
        import_arrays({"fc.bias": numbers(5), "fc2.b": numbers(1)}, spec, "model.pth")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_is_refused(register, value):
    spec = register(lambda arrays, spec: {"head/bias": arrays.take("fc.bias")})
    with pytest.raises(CorruptWeightsError, match=r"model\.pth holds NaN or infinity in head/bias"):
        import_arrays({"fc.bias": np.array([0.0, value])}, spec, "model.pth")


@pytest.mark.parametrize("kind", ["int64", "bool", "complex64"])
def test_only_floating_point_numbers_are_weights(register, kind):
    spec = register(lambda arrays, spec: {"head/bias": arrays.take("fc.bias")})
    with pytest.raises(WeightsMismatchError, match=rf"must be float16, float32 or float64; head/bias is {kind}"):
        import_arrays({"fc.bias": np.ones(5, kind)}, spec, "model.pth")


def test_half_and_double_precision_become_single(register):
    spec = register(lambda arrays, spec: {"a": arrays.take("a"), "b": arrays.take("b").T})
    found = import_arrays({"a": np.ones(2, "float16"), "b": np.ones((2, 3))}, spec, "model.pth")
    assert [(array.dtype, array.shape, array.flags.c_contiguous) for array in found.values()] == [
        ("float32", (2,), True), ("float32", (3, 2), True)
    ]  # fmt: skip


def test_an_unknown_importer():
    spec = dataclasses.replace(SPEC, weights=SOURCE)
    with pytest.raises(
        WeightsMismatchError, match=r"importer 'tiny', which is not registered\. Known importers: .*vgg"
    ):
        import_arrays({}, spec, "model.pth")


def test_a_name_is_registered_once(register):
    register(lambda arrays, spec: {})
    with pytest.raises(ValueError, match="The importer 'for_one_test' is already registered by "):
        register_importer("for_one_test")(importers.import_arrays)


# === Layouts ===


@pytest.mark.parametrize("kind", ["conv2d", "depthwise_conv2d", "conv1d", "dense", "batch_norm", "gru"])
def test_layers_of_pytorch_compute_the_same_in_keras(kind):
    """Same numbers out as PyTorch's own layers, to 2e-6 (measured: at most 1.2e-7)."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn, layer = torch.nn, keras.layers
    theirs, ours, shape = {
        "conv2d": (nn.Conv2d(3, 5, (2, 3)), layer.Conv2D(5, (2, 3), name="x"), (7, 8, 3)),
        "depthwise_conv2d": (nn.Conv2d(3, 3, (2, 3), groups=3), layer.DepthwiseConv2D((2, 3), name="x"), (7, 8, 3)),
        "conv1d": (nn.Conv1d(3, 5, 4), layer.Conv1D(5, 4, name="x"), (9, 3)),
        "dense": (nn.Linear(6, 4), layer.Dense(4, name="x"), (6,)),
        "batch_norm": (nn.BatchNorm2d(3), layer.BatchNormalization(epsilon=1e-5, name="x"), (4, 5, 3)),
        "gru": (nn.GRU(3, 4, 2, batch_first=True), None, (6, 3)),
    }[kind]
    for name, buffer in theirs.named_buffers():
        if name.startswith("running"):
            buffer.uniform_(0.5, 1.5)
    arrays = PublishedArrays({f"p.{k}": v.detach().numpy() for k, v in theirs.state_dict().items()}, "model.pth")
    given = keras.Input(shape)
    if kind == "gru":
        both = [layer.GRU(4, return_sequences=True, reset_after=True, name=f"x{i}") for i in (0, 1)]
        network = keras.Model(given, both[1](both[0](given)))
        found = {**layouts.gru(arrays, "p", "x0"), **layouts.gru(arrays, "p", "x1", index=1)}
    else:
        network = keras.Model(given, ours(given))
        found = getattr(layouts, kind)(arrays, "p", "x")
    assert arrays.unaccounted == []
    assert set(found) == {variable.path for variable in network.weights}
    for variable in network.weights:
        variable.assign(found[variable.path])
    x = numbers(2, *shape)
    first = kind not in ("dense", "gru")  # PyTorch's channels come before positions
    result = theirs.eval()(torch.tensor(np.moveaxis(x, -1, 1).copy() if first else x))
    expected = (result[0] if kind == "gru" else result).detach().numpy()
    expected = np.moveaxis(expected, 1, -1) if first else expected
    np.testing.assert_allclose(keras.ops.convert_to_numpy(network(x, training=False)), expected, atol=2e-6)


def test_layers_without_a_bias_and_of_another_kind():
    arrays = PublishedArrays({"a.weight": numbers(5, 3, 1, 1), "b.weight": numbers(5, 3)}, "model.pth")
    assert {name: array.shape for name, array in layouts.conv2d(arrays, "a", "x", bias=False).items()} == {
        "x/kernel": (1, 1, 3, 5)
    }
    with pytest.raises(WeightsMismatchError, match=r"b\.weight has 2 axes, expected 4"):
        layouts.conv2d(arrays, "b", "x", bias=False)


# === Sources ===


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local_name": "a/b.pth"}, r"weights\.local_name must consist of letters.*got 'a/b\.pth'"),
        ({"local_name": ".."}, r"weights\.local_name must consist of letters"),
        ({"importer": "a b"}, r"weights\.importer must consist of letters.*got 'a b'"),
        ({"mirrors": "https://weights.example/a.pth"}, r"weights\.mirrors must be a list of addresses"),
        ({"mirrors": ["http://weights.example/a.pth"]}, r"weights\.mirrors 'http://.* must use https"),
        ({"mirrors": ["hf://org/repo"]}, r"weights\.mirrors 'hf://org/repo' is not pinned"),
        ({"mirrors": ["a.pth"]}, r"weights\.mirrors 'a\.pth' must use https or hf:// and must end"),
        ({"mirrors": [7]}, r"weights\.mirrors must be text; got 7"),
        ({"mirrors": ["https://weights.example/a.pth"], "uri": "a.pth"}, "mirrors need a weights.uri that is downl"),
    ],
)  # fmt: skip
def test_sources_are_validated(change, message):
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(SOURCE, **change)


def test_a_source_with_everything_survives_json():
    source = dataclasses.replace(
        SOURCE, mirrors=("https://other.example/x.pth", "hf://org/repo@abc"), local_name="my.pth", importer="vgg"
    )
    spec = dataclasses.replace(SPEC, weights=source)
    again = kmt.ModelSpec.from_dict(spec.to_dict())
    assert again == spec
    assert again.weights.filename == "my.pth"
