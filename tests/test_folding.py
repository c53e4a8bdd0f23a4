"""Models made ready for inference say the same, with fewer operations, and follow their variables."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_musictag as kmt
from keras_musictag.models.batch_norm_folding import FoldedConvolution, folded
from keras_musictag.models.keras_runtime import KerasRuntime
from keras_musictag.models.registry import build_model

pytestmark = pytest.mark.contract


def randomise(model):
    """Statistics and weights as after training, factors of both signs."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.path.endswith(("gamma", "beta", "moving_mean", "bias")):
            variable.assign(rng.uniform(-1.5, 1.5, variable.shape))
        elif variable.path.endswith("moving_variance"):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    return model


def says(model, x):
    return ops.convert_to_numpy(model(x, training=False))


def noise(model, count=2):
    return np.random.default_rng(1).normal(size=(count, *model.input_shape[1:])).astype("float32")


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def image(*body, shape=(12, 20, 3)):
    x = inputs = keras.Input(shape)
    for layer in body:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("tiny", 2),
        ("musicnet_crnn", 4),
        ("musicnet_crnn_fast", 4),
        ("baseline_cnn", 5),
        ("large_cnn", 5),
        ("choi_crnn", 4),
        ("vgg", 0),
    ],
)
def test_networks_of_the_zoo(name, count):
    model = randomise(build_model(name))
    ready = folded(model)
    assert kinds(ready).count("FoldedConvolution") == count
    assert kinds(ready).count("BatchNormalization") == kinds(model).count("BatchNormalization") - count
    np.testing.assert_allclose(says(ready, noise(model)), says(model, noise(model)), atol=2e-5)


@pytest.mark.parametrize(
    "body",
    [
        [layers.Conv2D(5, (3, 4), padding="same", strides=2), layers.BatchNormalization(), layers.ReLU()],
        [
            layers.Conv2D(5, 3, use_bias=False, dilation_rate=2),
            layers.BatchNormalization(center=False),
            layers.Activation("relu"),
            layers.MaxPooling2D((2, 3), strides=1, padding="same"),
        ],
        [
            layers.Conv2D(5, 3),
            layers.BatchNormalization(scale=False),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.MaxPooling2D(),
        ],
        [
            layers.Reshape((60, 12)),
            layers.Conv1D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling1D(),
        ],
        [layers.Conv2D(5, 3), layers.BatchNormalization(), layers.ELU(alpha=0.5), layers.MaxPooling2D()],
        [layers.Conv2D(5, 3), layers.BatchNormalization(), layers.Activation("elu")],
    ],
)
def test_convolutions_of_all_sorts(body):
    model = randomise(image(*body))
    ready = folded(model)
    assert "FoldedConvolution" in kinds(ready) and "BatchNormalization" not in kinds(ready)
    np.testing.assert_allclose(says(ready, noise(model)), says(model, noise(model)), atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        [layers.Conv2D(4, 3), layers.ReLU(), layers.BatchNormalization(), layers.MaxPooling2D()],
        [layers.Conv2D(4, 3, activation="tanh"), layers.BatchNormalization(), layers.ReLU()],
        [layers.Conv2D(4, 3), layers.BatchNormalization(axis=1), layers.ReLU()],
        [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(max_value=1.0)],
        [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ELU(alpha=-0.5), layers.MaxPooling2D()],
        [layers.Conv2D(6, 3, groups=3), layers.BatchNormalization(), layers.ReLU()],
        [layers.Conv2D(4, 3, dtype="mixed_bfloat16"), layers.BatchNormalization(), layers.ReLU()],
        [layers.Dense(4), layers.BatchNormalization(), layers.ReLU()],
    ],
)
def test_what_is_left_alone(body):
    model = image(*body)
    assert folded(model) is model


def test_a_tensor_that_is_used_elsewhere_is_not_folded_away():
    inputs = keras.Input((12, 20, 3))
    convolved = layers.Conv2D(4, 3)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(convolved))
    assert folded(keras.Model(inputs, [x, convolved])).outputs[1].shape[-1] == 4
    assert not [
        layer for layer in folded(keras.Model(inputs, [x, convolved])).layers if isinstance(layer, FoldedConvolution)
    ]
    pooled = layers.MaxPooling2D()(x)  # a ReLU that somebody else hears ends the chain before the pooling
    both = randomise(keras.Model(inputs, [pooled, x]))
    assert kinds(folded(both)).count("FoldedConvolution") == kinds(folded(both)).count("MaxPooling2D") == 1
    for found, expected in zip(folded(both)(noise(both)), both(noise(both), training=False), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(expected), atol=1e-5)


def test_a_model_in_a_model_and_one_that_is_no_graph():
    class Own(keras.Model):
        def call(self, x):
            return x

    inner = randomise(build_model("tiny"))
    inputs = keras.Input(inner.input_shape[1:])
    outer = keras.Model(inputs, layers.Rescaling(2.0)(inner(layers.Rescaling(0.5)(inputs))))
    ready = folded(outer)
    assert ready is not outer and [kinds(layer) for layer in ready.layers if isinstance(layer, keras.Model)]
    np.testing.assert_allclose(says(ready, noise(outer)), says(outer, noise(outer)), atol=1e-5)
    own = Own()
    assert folded(own) is own


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")  # Keras 3.10, of a model read back
@pytest.mark.filterwarnings("ignore:Exception encountered when calling Functional.call")
def test_variables_are_shared_and_nothing_of_the_model_changes(tmp_path):
    model = randomise(build_model("tiny"))
    model.compile("sgd", "mse")
    names, run = kinds(model), KerasRuntime(model)
    x = noise(model)
    before = run.predict(x)
    assert {id(variable) for variable in folded(model).variables} == {id(variable) for variable in model.variables}
    for weight in model.weights:
        weight.assign(weight * 1.1)
    after = run.predict(x)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, says(model, x), atol=1e-5)
    model.fit(x, np.zeros((2, 5)), verbose=0)
    np.testing.assert_allclose(run.predict(x), says(model, x), atol=1e-5)
    assert kinds(model) == names
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(says(keras.models.load_model(tmp_path / "model.keras"), x), says(model, x), atol=1e-6)


def test_a_tagger_says_what_its_model_says():
    tagger = kmt.load("tiny")
    window = np.random.default_rng(0).normal(0, 0.1, (1, tagger.spec.window_samples)).astype("float32")
    np.testing.assert_allclose(tagger._waveform_runtime.predict(window), says(tagger.model, window), atol=1e-6)
