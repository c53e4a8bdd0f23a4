"""The published musicnn and VGG files: read by layer and variable name, and only as they were published.

Files of the published form are written here, for narrow networks; where the development data is, the real ones are
compared too.
"""

import dataclasses
import tracemalloc

import h5py
import keras
import numpy as np
import pytest

import keras_musictag as kmt
from keras_musictag.errors import CorruptWeightsError, WeightsMismatchError
from keras_musictag.models import conversion, weights
from keras_musictag.models.importers.musicnn import LAYERS as OURS

ARCHITECTURES = ("musicnn", "vgg")
LAYERS = {
    "musicnn": ["batch_normalization", "conv2d", *(f"conv2d_{i}" for i in range(1, 5)),
                *(f"batch_normalization_{i}" for i in range(1, 6)), "reshape",
                *(f"{prefix}midend_conv{i}" for i in (1, 2, 3) for prefix in ("", "bn_")),
                "bn_flatpool", "dense", "bn_dense", "dropout", "dense_1"],
    "vgg": ["bn_input", *(name for i in range(1, 6) for name in (f"{i}CNN", f"bn_conv{i}")), "flatten", "output"],
}  # fmt: skip


NARROW = {
    "musicnn": {"timbral_filters": 3, "temporal_filters": 2, "midend_filters": 4, "dense_units": 5},
    "vgg": {"filters": 4},
}


def build(architecture):
    return kmt.build_model(architecture, num_tags=3, **NARROW[architecture])


@pytest.fixture(scope="module")
def networks():
    """A network per architecture, with random weights throughout."""
    rng = np.random.default_rng(0)
    built = {name: build(name) for name in ARCHITECTURES}
    for network in built.values():
        for variable in network.weights:
            variable.assign(rng.uniform(0.1, 1.0, variable.shape))
    return built


def arrays(model):
    return {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.weights}


def write_published(path, architecture, content, layers=None):
    """Write arrays as musicnn_keras published them: `content` maps our variable paths to arrays."""
    here = OURS[architecture]
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        layers = LAYERS[architecture] if layers is None else layers
        group.attrs["layer_names"] = np.array(layers, "S")  # of fixed length, as published
        for layer in layers:
            names = []
            for name, array in content.items():
                owner, kind = name.split("/")
                if owner != here.get(layer):
                    continue
                # Some names carry the number that TensorFlow gave them.
                published = f"{layer}/{kind}_1:0" if layer.startswith(("conv", "dense")) else f"{layer}/{kind}:0"
                if layer.startswith("midend") and kind == "kernel":
                    array = array[:, :, None, :]
                group.create_dataset(f"{layer}/{published}", data=array)
                names.append(published)
            group.require_group(layer).attrs["weight_names"] = np.array(names, "S")


@pytest.fixture(params=ARCHITECTURES)
def published(request, networks, tmp_path):
    path = tmp_path / "published.h5"
    write_published(path, request.param, arrays(networks[request.param]))
    return request.param, path


@pytest.fixture
def vgg(networks, tmp_path):
    """A published VGG file, and the network that it is (and that it must not change if it is refused)."""
    path = tmp_path / "vgg.h5"
    write_published(path, "vgg", arrays(networks["vgg"]))
    return path


def spec_of(architecture):
    """A spec of a narrow network; the importer goes by its architecture."""
    source = kmt.WeightsSource(uri="https://weights.example/a.h5", sha256="0" * 64, format="h5")
    spec = kmt.model_info("vgg_mtt").retrained(tags=("a", "b", "c"))
    config = NARROW.get(architecture, {})
    return dataclasses.replace(spec, architecture=architecture, config=config, weights=source)


def load(network, path, architecture="vgg"):
    spec = spec_of(architecture)
    weights.load_weights(network, conversion.to_safetensors(spec, path, network))


def refused(network, path, error, match, architecture="vgg"):
    before = arrays(network)
    with pytest.raises(error, match=match):
        load(network, path, architecture)
    for name, array in arrays(network).items():
        np.testing.assert_array_equal(array, before[name])
    assert conversion.find_converted(spec_of("vgg")) is None  # nothing was kept


def test_the_tables_name_every_layer_once():
    for architecture, layers in OURS.items():
        assert set(layers) <= set(LAYERS[architecture])
        assert len(set(layers.values())) == len(layers)


def test_a_published_file_loads(published, networks):
    architecture, path = published
    network = build(architecture)
    load(network, path, architecture)
    for name, array in arrays(network).items():
        np.testing.assert_array_equal(array, arrays(networks[architecture])[name], err_msg=name)


def test_order_in_the_file_means_nothing(networks, tmp_path):
    """conv2 to conv5 have one shape: matched by order, this would load and be wrong."""
    path = tmp_path / "shuffled.h5"
    write_published(path, "vgg", arrays(networks["vgg"]), layers=LAYERS["vgg"][::-1])
    network = build("vgg")
    load(network, path)
    for name, array in arrays(network).items():
        np.testing.assert_array_equal(array, arrays(networks["vgg"])[name], err_msg=name)


@pytest.mark.parametrize("name", ["musicnn_mtt", "musicnn_msd", "vgg_mtt", "vgg_msd"])
def test_the_real_files(published_weights, name):
    core = kmt.load(name).core
    found = {}

    def note(key, item):
        if isinstance(item, h5py.Dataset):
            found[key] = item[()]

    with h5py.File(published_weights / kmt.model_info(name).weights.filename) as file:
        file["model_weights"].visititems(note)
    here = OURS[kmt.model_info(name).architecture]
    assert len(found) == len(core.weights)
    for key, published in found.items():
        layer, _, kind = key.split("/")
        ours = arrays(core)[f"{here[layer]}/{kind.removesuffix(':0').removesuffix('_1')}"]
        published = published.reshape(ours.shape)
        expected = np.where(np.abs(published) < 1e-20, 0, published)  # `weights.flush_tiny` says why
        np.testing.assert_array_equal(ours, expected, err_msg=key)


# === What does not fit ===


def test_a_missing_layer(networks, tmp_path):
    path = tmp_path / "missing.h5"
    content = {name: array for name, array in arrays(networks["vgg"]).items() if not name.startswith("conv3")}
    write_published(path, "vgg", content)
    refused(networks["vgg"], path, WeightsMismatchError, r"missing from the file: conv3/bias, conv3/kernel")


@pytest.mark.parametrize("name", ["6CNN", "conv2d"])
def test_a_renamed_or_extra_layer(networks, vgg, name):
    with h5py.File(vgg, "a") as file:
        group = file["model_weights"]
        group.copy("5CNN", name)
        group[name].move("5CNN", name)
        group[name].attrs["weight_names"] = [f"{name}/kernel:0".encode()]
        group.attrs["layer_names"] = [*group.attrs["layer_names"], np.bytes_(name)]
    refused(
        networks["vgg"],
        vgg,
        WeightsMismatchError,
        rf"arrays that the importer 'vgg' does not know: {name}/{name}/ker",
    )


@pytest.mark.parametrize("weight", ["2CNN/kernel:0", "1CNN/alpha:0", "1CNN/kernel", "kernel:0", "../1CNN/kernel:0"])
def test_a_variable_that_is_not_the_layers_own(networks, vgg, weight):
    with h5py.File(vgg, "a") as file:
        file["model_weights/1CNN"].attrs["weight_names"] = [weight.encode()]
    refused(networks["vgg"], vgg, (CorruptWeightsError, WeightsMismatchError), "cannot be read|does not know: 1CNN/")


def test_a_variable_that_is_there_twice(networks, vgg):
    with h5py.File(vgg, "a") as file:
        layer = file["model_weights/1CNN"]
        layer.copy("1CNN/kernel:0", "1CNN/kernel_2:0")
        layer.attrs["weight_names"] = [*layer.attrs["weight_names"], np.bytes_("1CNN/kernel_2:0")]
    refused(networks["vgg"], vgg, WeightsMismatchError, r"1CNN/kernel occurs twice")


def _replace(path, name, **dataset):
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, **dataset)


def test_another_shape(networks, vgg):
    _replace(vgg, "model_weights/1CNN/1CNN/bias:0", data=np.zeros(5, "float32"))
    refused(
        networks["vgg"], vgg, WeightsMismatchError, r"of another shape: conv1/bias: \(5,\) in the file, \(4,\) in the"
    )


def test_only_a_column_of_one_is_taken_away(networks, tmp_path):
    path = tmp_path / "wide.h5"
    content = arrays(networks["musicnn"])
    write_published(path, "musicnn", content)
    kernel = content["midend1/kernel"]
    _replace(path, "model_weights/midend_conv1/midend_conv1/kernel:0", data=np.stack([kernel, kernel], axis=2))
    refused(networks["musicnn"], path, WeightsMismatchError, "of another shape: midend1/kernel", "musicnn")


def test_a_header_that_lies_about_sizes_costs_nothing(networks, vgg):
    """HDF5 can declare terabytes in a few bytes: chunks that were never written."""
    _replace(vgg, "model_weights/1CNN/1CNN/bias:0", shape=(1 << 42,), dtype="float32", chunks=(1024,))
    tracemalloc.start()
    refused(networks["vgg"], vgg, CorruptWeightsError, r"its arrays have 17,592,186,0[\d,]+ bytes, the whole file")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


def test_texts_are_no_weights(networks, vgg):
    _replace(vgg, "model_weights/1CNN/1CNN/bias:0", data=np.zeros(4, "S4"))
    refused(networks["vgg"], vgg, CorruptWeightsError, "1CNN/1CNN/bias:0 is not numeric")


@pytest.mark.parametrize("kind", ["int32", "complex64"])
def test_another_type(networks, vgg, kind):
    _replace(vgg, "model_weights/1CNN/1CNN/bias:0", data=np.zeros(4, kind))
    refused(networks["vgg"], vgg, WeightsMismatchError, "must be float16, float32 or float64; conv1/bias is ")


def test_what_is_not_finite_is_refused(networks, vgg):
    _replace(vgg, "model_weights/1CNN/1CNN/bias:0", data=np.full(4, np.nan, "float32"))
    refused(networks["vgg"], vgg, CorruptWeightsError, "holds NaN or infinity in conv1/bias")


def test_the_file_of_another_architecture(networks, published):
    architecture, path = published
    other = "vgg" if architecture == "musicnn" else "musicnn"
    refused(networks[other], path, WeightsMismatchError, f"the importer '{other}' does not know: ", other)


def test_an_architecture_without_an_importer(vgg):
    with pytest.raises(WeightsMismatchError, match=r"need the importer 'tiny', which is not registered"):
        load(kmt.build_model("tiny"), vgg, "tiny")


# === What is no file of the kind ===


@pytest.mark.parametrize("content", [b"", b"<html>" * 100, b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_no_hdf5_file(networks, tmp_path, content):
    path = tmp_path / "file.h5"
    path.write_bytes(content)
    refused(networks["vgg"], path, CorruptWeightsError, "cannot be read as Keras HDF5 weights: .*Get it again")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_file(networks, vgg, part):
    content = vgg.read_bytes()
    vgg.write_bytes(content[: int(len(content) * part)])
    refused(networks["vgg"], vgg, CorruptWeightsError, "cannot be read as Keras HDF5 weights")


def test_no_file(networks, tmp_path):
    refused(networks["vgg"], tmp_path / "nothing.h5", CorruptWeightsError, "cannot be read as Keras HDF5 weights")


def _without_weights(file):
    del file["model_weights"]


def _without_layer_names(file):
    del file["model_weights"].attrs["layer_names"]


def _without_weight_names(file):
    del file["model_weights/1CNN"].attrs["weight_names"]


def _without_layer(file):
    del file["model_weights/1CNN"]


def _without_dataset(file):
    del file["model_weights/1CNN/1CNN/bias:0"]


def _group_for_dataset(file):
    del file["model_weights/1CNN/1CNN/bias:0"]
    file.create_group("model_weights/1CNN/1CNN/bias:0")


def _numbers_for_names(file):
    file["model_weights"].attrs["layer_names"] = 7


def _not_utf8(file):
    file["model_weights"].attrs["layer_names"] = [b"\xff\xfe"]


@pytest.mark.parametrize(
    "damage",
    [
        _without_weights,
        _without_layer_names,
        _without_weight_names,
        _without_layer,
        _without_dataset,
        _group_for_dataset,
        _numbers_for_names,
        _not_utf8,
    ],
)
def test_a_damaged_structure(networks, vgg, damage):
    with h5py.File(vgg, "a") as file:
        damage(file)
    refused(networks["vgg"], vgg, CorruptWeightsError, "cannot be read as Keras HDF5 weights")
