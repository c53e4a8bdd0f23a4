"""What stages hear, next to what enters a head: the same numbers on every backend, on every architecture."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_musictag as kmt
from keras_musictag.errors import SpecError
from keras_musictag.models.layer_statistics import (
    LEAST_VARIANCE,
    STANDARDISE,
    TapStatistics,
    bands_of,
    is_tap,
    tap_names,
    with_taps,
)
from keras_musictag.models.registry import _load_all, _specs
from keras_musictag.training.training_graph import training_graph

pytestmark = pytest.mark.contract
ARCHITECTURES = {
    "musicnet_crnn": ("pool2", "pool3", "pool4", "gru1"),
    "musicnet_crnn_fast": ("pool3", "pool4", "gru1"),
    "baseline_cnn": ("pool2", "pool3", "pool4"),
    "large_cnn": ("pool2", "pool3", "pool4"),
    "musicnn_mtt": ("all_levels",),
    "vgg_mtt": ("pool2", "pool3", "pool4", "pool5"),
    "tiny": ("pool2",),
    "won_fcn_mtt": ("pool2", "pool3", "pool4"),
    "won_crnn_mtt": ("pool2", "pool3", "pool4", "gru1"),
    "won_musicnn_mtt": ("all_levels",),
    "choi_crnn_msd": ("pool2", "pool3", "pool4", "gru1"),
    "mn04_audioset": ("stage2", "stage3", "stage4", "stage5"),
}


def built(name, **config):
    spec = kmt.model_info(name)
    return kmt.build_model(spec.architecture, num_tags=3, input_shape=spec.input_shape, **{**spec.config, **config})


def outputs(model, x):
    return ops.convert_to_numpy(model(x, training=False))


def sounds(model, count=2):
    return np.random.default_rng(0).normal(0, 1, (count, *model.input_shape[1:])).astype("float32")


# === The layer ===


def expected(x, time_axis):
    """As the docstring says it, in float64."""
    x = np.asarray(x, "float64")
    if x.ndim == 4:
        x = np.moveaxis(x, time_axis, 1)
        count = bands_of(x.shape[2])
        x = np.concatenate([band.mean(axis=2) for band in np.split(x, count, axis=2)], axis=-1)
    return np.concatenate([x.mean(axis=1), np.sqrt(x.var(axis=1) + LEAST_VARIANCE)], axis=-1)


@pytest.mark.parametrize(
    ("shape", "time_axis"), [((2, 12, 9, 5), 2), ((2, 9, 12, 5), 1), ((2, 6, 9, 5), 2), ((3, 9, 5), 2), ((3, 9, 5), 1)]
)
def test_statistics(shape, time_axis):
    x = np.random.default_rng(1).normal(3, 2, shape).astype("float32")
    layer = TapStatistics(time_axis=time_axis)
    found = ops.convert_to_numpy(layer(x))
    # Measured on all three backends: 4e-7 at most.
    np.testing.assert_allclose(found, expected(x, time_axis), atol=1e-5)
    assert layer.compute_output_shape(x.shape) == found.shape
    assert layer.compute_output_spec(keras.KerasTensor((None, *shape[1:]))).shape == (None, found.shape[1])


def test_a_stage_that_hears_nothing_has_a_gradient_all_the_same():
    inputs = keras.Input((8, 4))
    model = keras.Model(inputs, layers.Dense(1)(TapStatistics()(layers.Dense(4)(inputs))))
    model.compile("sgd", "mse")
    model.train_on_batch(np.zeros((2, 8, 4), "float32"), np.ones((2, 1), "float32"))
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_it_is_float32_and_reads_its_own_config():
    layer = TapStatistics(time_axis=1, name="tap_x")
    found = layer(ops.cast(np.ones((1, 4, 4, 2)), "float16"))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    again = TapStatistics.from_config(layer.get_config())
    assert again.time_axis == 1 and again.name == "tap_x"


@pytest.mark.parametrize(("mels", "bands"), [(96, 4), (6, 3), (5, 1), (2, 2), (1, 1), (7, 1)])
def test_bands(mels, bands):
    assert bands_of(mels) == bands


# === Networks with taps ===


def test_every_architecture_of_the_zoo_is_here():
    _load_all()
    ours = {spec.architecture for name, spec in _specs.items() if not name.startswith("plugin")}
    assert {kmt.model_info(name).architecture for name in ARCHITECTURES} >= ours & set(kmt.models.__all__)


@pytest.mark.parametrize(("name", "taps"), ARCHITECTURES.items())
def test_every_architecture_can_be_tapped(name, taps):
    plain = built(name)
    assert tap_names(plain) == taps
    tapped = built(name, taps=list(taps))
    assert tapped.name == plain.name and tapped.output_shape == plain.output_shape == (None, 3)
    by_name = {layer.name: layer for layer in tapped.layers}
    head, standardise = by_name["head"], by_name[STANDARDISE]
    assert tap_names(tapped) == taps, "taps are no stages to tap"
    assert [layer.name for layer in tapped.layers if is_tap(layer)][-1] == STANDARDISE
    # The network's own features come first, unchanged.
    width = plain.get_layer("head").input.shape[1]
    for layer in plain.layers:
        if layer.weights and layer.name != "head":
            by_name[layer.name].set_weights(layer.get_weights())
    x = sounds(plain)
    features = keras.Model(plain.inputs[0], plain.get_layer("head").input)(x, training=False)
    seen = keras.Model(tapped.inputs[0], standardise.input)(x, training=False)
    assert head.input.shape[1] == seen.shape[1] > width
    np.testing.assert_allclose(
        ops.convert_to_numpy(seen)[:, :width], ops.convert_to_numpy(features), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_copy_for_training_is_the_same_function(name):
    model = built(name, taps=list(ARCHITECTURES[name]))
    rng = np.random.default_rng(0)
    for layer in model.layers:  # statistics that no layer passes over unnoticed
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([rng.uniform(0.5, 1.0, weight.shape) for weight in layer.get_weights()])
    graph = training_graph(model, freeze_norms=True)
    norms = [layer for layer in graph.layers if type(layer).__name__ == "BatchNormalization"]
    assert norms and not any(layer.trainable_weights for layer in norms)
    x = sounds(model)
    np.testing.assert_allclose(outputs(graph, x), outputs(model, x), atol=1e-5)


def test_frozen_norms_stay_as_they_are():
    model = built("tiny", taps=["pool2"])
    graph = training_graph(model, freeze_norms=True, precision="mixed_bfloat16")
    before = {layer.name: layer.get_weights() for layer in graph.layers}
    graph.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    graph.train_on_batch(sounds(model, 4), np.eye(3, dtype="float32")[[0, 1, 2, 0]])
    changed = [
        layer.name
        for layer in graph.layers
        if any(not np.array_equal(*pair) for pair in zip(layer.get_weights(), before[layer.name], strict=True))
    ]
    assert {"conv1", "gru1", "head"} <= set(changed) and not {"bn1", "bn2", STANDARDISE} & set(changed)
    assert (
        graph.get_layer(STANDARDISE).compute_dtype == "float32" and graph.get_layer("conv1").compute_dtype != "float32"
    )


def test_a_spec_that_names_taps_is_built_with_them(tmp_path):
    spec = kmt.model_info("tiny").retrained(
        tags=("a", "b"), config={"taps": ["pool2"], "classifier_activation": "softmax"}
    )
    tagger = kmt.Tagger(kmt.ModelSpec.from_dict(json.loads(spec.to_json())), pretrained=False)
    x = sounds(tagger.core)
    tagger.save(tmp_path / "tapped")
    np.testing.assert_allclose(outputs(kmt.load(tmp_path / "tapped").core, x), outputs(tagger.core, x), atol=1e-6)
    np.testing.assert_allclose(outputs(tagger.core, x).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("taps", [["pool9"], ["image", "head"], ["gru1"]])
def test_what_cannot_be_tapped(taps):
    spec = kmt.model_info("tiny")
    with pytest.raises(
        SpecError, match=rf"taps must be layers of tiny with feature maps .* such as pool2.*; got {taps[-1]!r}"
    ):
        kmt.Tagger(dataclasses.replace(spec, config={"taps": taps}), pretrained=False)


def test_a_network_without_stages_has_no_taps():
    flat = keras.Sequential([keras.Input((8, 10)), layers.Flatten(), layers.Dense(2, name="head")])
    assert tap_names(flat) == ()
    inputs = keras.Input((8, 10))
    model = keras.Model(inputs, layers.Dense(2, activation="sigmoid", name="head")(layers.Flatten()(inputs)))
    assert with_taps(model, ()).output_shape == (None, 2)
