"""Networks as ONNX nodes: the same numbers as Keras, whatever the layers."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_musictag as kmt
from keras_musictag.models.layers import LogMelSpectrogram
from keras_musictag.models.mel import LogMel, filters_of
from keras_musictag.models.registry import build_model
from keras_musictag.models.spec import MelSpec, WindowSpec
from keras_musictag.tagging.exported import ExportError
from keras_musictag.tagging.exporting import onnx
from keras_musictag.tagging.runtimes import OnnxRuntime

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.contract

SPEC = kmt.model_info("tiny")
SHAPE = SPEC.input_shape
PUBLISHED = ["won_fcn", "won_crnn", "won_musicnn", "choi_crnn", "mobilenet_v3"]


def randomise(model):
    """Batch norms that are not the identity, biases that are not 0."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if len(variable.shape) == 1 and variable.dtype == "float32":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def on_onnxruntime(model, x, spec=SPEC):
    written = onnx.build(model, spec, "float32", "log_mel", None)
    return written, OnnxRuntime([written.SerializeToString()]).run(x)


def check(model):
    model = randomise(model)
    x = np.random.default_rng(1).normal(0, 1, (3, *model.input_shape[1:])).astype("float32")
    written, outputs = on_onnxruntime(model, x)
    expected = ops.convert_to_numpy(model(x, training=False))
    # Measured at most 2e-6 on each backend.
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=2e-5, rtol=2e-5)
    return [node.op_type for node in written.graph.node]


def network(*body, shape=SHAPE, units=5):
    """Layers one after another, on an image `(mels, frames, 1)`, and a head."""
    x = inputs = keras.Input(shape)
    for layer in (layers.Reshape((*shape, 1)), *body, layers.Flatten(), layers.Dense(units, "sigmoid", name="head")):
        x = layer(x)
    return keras.Model(inputs, x)


# Convolutions that pad by odd numbers are padded after, as Keras does it.
@pytest.mark.parametrize(
    "body",
    [
        [layers.Conv2D(3, (4, 3), strides=(3, 2), padding="same", activation="relu")],
        [layers.Conv2D(4, 3, dilation_rate=2, use_bias=False), layers.Conv2D(4, 3, groups=2)],
        [layers.Conv2D(3, 3), layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D(2)],
        [layers.Conv2D(3, 3, activation="tanh"), layers.BatchNormalization(scale=False), layers.AveragePooling2D(3)],
        [layers.BatchNormalization(center=False), layers.MaxPooling2D((3, 2), padding="same")],
        [layers.ZeroPadding2D(((1, 2), (0, 3))), layers.Permute((2, 1, 3)), layers.Dropout(0.5)],
        [layers.Reshape((32, 63)), layers.Conv1D(4, 3, padding="same"), layers.MaxPooling1D(2), layers.GRU(5)],
        [layers.Reshape((32, 63)), layers.GRU(4, return_sequences=True), layers.GRU(3), layers.Activation("softmax")],
        [layers.Reshape((32, 63)), layers.ZeroPadding1D(2), layers.Dense(7), layers.GlobalAveragePooling1D()],
        [layers.Conv2D(4, 3), layers.DepthwiseConv2D(3, strides=2, use_bias=False), layers.BatchNormalization()],
        [layers.DepthwiseConv2D((2, 3), depth_multiplier=3), layers.ELU(0.5), layers.Activation("elu")],
        [layers.Activation("hard_silu"), layers.Dense(3, activation="hard_sigmoid"), layers.Identity()],
        [
            layers.Reshape((32, 63)),
            layers.GRU(4, return_sequences=True, reset_after=False, recurrent_activation="hard_sigmoid"),
            layers.GRU(3, reset_after=False, use_bias=False),
            layers.Reshape((3, 1)),
            layers.GRU(3, reset_after=False, recurrent_activation="hard_sigmoid", use_bias=False),
        ],
        [layers.Conv2D(3, 3), layers.GlobalMaxPooling2D(), layers.Dense(4), layers.BatchNormalization()],
        [layers.Conv2D(3, 3), keras.Sequential([layers.ReLU(), layers.Conv2D(2, 3)]), layers.GlobalAveragePooling2D()],
    ],
    ids=str,
)
def test_layers(body):
    check(network(*(type(layer).from_config(layer.get_config()) for layer in body)))


def test_branches():
    inputs = keras.Input(SHAPE)
    image = layers.Reshape((*SHAPE, 1))(inputs)
    a = layers.Conv2D(4, 3, padding="same")(image)
    b = layers.BatchNormalization()(a)  # `a` is used below too, so this one must not change it
    c = layers.Multiply()([layers.Add()([a, b, a]), b])
    d = layers.Concatenate(axis=2)(
        [layers.Concatenate()([b, c]), layers.Permute((1, 2, 3))(layers.Concatenate()([a, b]))]
    )
    check(keras.Model(inputs, layers.Dense(5, "sigmoid", name="head")(layers.Flatten()(d))))


def test_a_model_in_a_model_changes_nothing_outside():
    inputs = keras.Input(SHAPE)
    a = layers.Conv2D(4, 3)(layers.Reshape((*SHAPE, 1))(inputs))
    b = keras.Sequential([keras.Input(a.shape[1:]), layers.BatchNormalization()])(a)
    check(keras.Model(inputs, layers.Dense(5, "sigmoid", name="head")(layers.Flatten()(layers.Add()([a, b])))))


def test_batch_norms_vanish_into_the_convolutions_before_them():
    model = network(layers.Conv2D(3, 3), layers.BatchNormalization(), layers.ReLU())
    assert "Mul" not in check(model)
    assert "Mul" in check(network(layers.Conv2D(3, 3, activation="relu"), layers.BatchNormalization()))


@pytest.mark.parametrize(
    "name", ["musicnet_crnn", "musicnet_crnn_fast", "musicnn", "tiny", "vgg", "baseline_cnn", *PUBLISHED]
)
def test_architectures_and_their_embeddings(name):
    model = randomise(build_model(name))
    x = np.random.default_rng(0).normal(0, 1, (2, *model.input_shape[1:])).astype("float32")
    both = keras.Model(model.inputs[0], [model.output, model.get_layer("head").input])
    expected = [ops.convert_to_numpy(y) for y in both(x, training=False)]
    spec = dataclasses.replace(SPEC, mel=MelSpec(n_mels=x.shape[1]), window=WindowSpec(frames=x.shape[2]))
    _, outputs = on_onnxruntime(model, x, spec)
    assert list(outputs) == ["probabilities", "embedding"]
    for found, wanted in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=5e-5 * max(1, np.abs(wanted).max()))  # measured 1.3e-5


@pytest.mark.parametrize(
    ("name", "taps"), [("musicnet_crnn", ["pool2", "gru1"]), ("musicnn", ["midend2", "temporal32"])]
)
def test_taps(name, taps):
    spec = next(s for s in map(kmt.model_info, kmt.list_models()) if s.architecture == name)
    model = build_model(name, num_tags=3, taps=taps)
    x = np.random.default_rng(0).normal(0, 1, (2, *model.input_shape[1:])).astype("float32")
    _, outputs = on_onnxruntime(model, x, spec)
    np.testing.assert_allclose(outputs["probabilities"], ops.convert_to_numpy(model(x, training=False)), atol=1e-5)


# === What cannot be written ===


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: layers.LayerNormalization(name="odd"),
            r"'odd' is of type LayerNormalization.*Conv2D.*saved_model or litert",
        ),
        (lambda: layers.ReLU(max_value=6, name="odd"), r"'odd' has max_value=6.*; only None can be written"),
        (lambda: layers.Conv2D(2, 3, activation="gelu", name="odd"), r"'odd' has the activation 'gelu'; relu, sigmoid"),
    ],
)
def test_layers_that_cannot_be_written(layer, message):
    with pytest.raises(ExportError, match=message):
        onnx.build(network(layer()), SPEC, "float32", "log_mel", None)


def test_a_layer_in_two_places():
    inputs = keras.Input(SHAPE)
    dense = layers.Dense(SHAPE[1])
    model = keras.Model(inputs, layers.Flatten()(dense(dense(inputs))))
    with pytest.raises(ExportError, match="uses one of its layers twice"):
        onnx.build(model, SPEC, "float32", "log_mel", None)


# === Preprocessing ===


def sounds(spec):
    rng = np.random.default_rng(0)
    t = np.arange(spec.window_samples) / spec.audio.sr
    loud = 0.5 * np.sin(2 * np.pi * 440 * t) + 0.05 * rng.normal(size=t.size)
    return np.stack([loud, 1e-3 * loud, np.zeros_like(loud)]).astype("float32")


@pytest.mark.parametrize("name", ["tiny", "musicnet_crnn", "musicnn_mtt"])
def test_numpy_hears_what_keras_does(name):
    spec = kmt.model_info(name)
    x = sounds(spec)
    expected = ops.convert_to_numpy(LogMelSpectrogram.from_spec(spec.audio, spec.mel)(x))
    # dB, or log10 of the amplified power: measured 2e-5.
    np.testing.assert_allclose(LogMel(spec)(x), expected, atol=2e-4)


@pytest.mark.parametrize("name", ["tiny", "musicnet_crnn", "musicnn_mtt"])
def test_onnx_hears_what_keras_does(name):
    """The mel matrix is computed in the file, from a few numbers per band."""
    spec = kmt.model_info(name)
    model = keras.Sequential([keras.Input(spec.input_shape), layers.Flatten()])
    written = onnx.build(model, spec, "float32", "waveform", None)
    x = sounds(spec)
    found = OnnxRuntime([written.SerializeToString()]).run(x)["probabilities"].reshape(-1, *spec.input_shape)
    # The STFT is float32: measured 2e-2 dB, some 75 dB below the loudest.
    np.testing.assert_allclose(found, LogMel(spec)(x), atol=0.1)
    assert np.abs(found - LogMel(spec)(x)).mean() < 1e-3


def test_the_mel_matrix_in_the_file():
    import onnxruntime
    from onnx import TensorProto, helper

    spec = kmt.model_info("musicnet_crnn")
    model = keras.Sequential([keras.Input(spec.input_shape), layers.Flatten()])
    written = onnx.build(model, spec, "float32", "waveform", None)
    del written.graph.output[:], written.graph.input[:]
    nodes = {node.output[0]: node for node in written.graph.node}
    wanted, kept = ["front_end/filters"], []
    while wanted:
        if node := nodes.get(wanted.pop()):
            kept.insert(0, node)
            wanted += node.input
    del written.graph.node[:]
    written.graph.node.extend({node.name: node for node in kept}.values())
    written.graph.output.append(helper.make_tensor_value_info("front_end/filters", TensorProto.FLOAT, None))
    (found,) = onnxruntime.InferenceSession(written.SerializeToString()).run(None, {})
    expected = filters_of(spec).T
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())  # measured 3e-7


def test_pooling_comes_first_and_channels_come_out_even():
    model = randomise(build_model("musicnet_crnn"))
    written, _ = on_onnxruntime(model, np.zeros((1, 96, 1366), "float32"), kmt.model_info("musicnet_crnn"))
    kinds = [node.op_type for node in written.graph.node]
    assert kinds.count("Conv") == kinds.count("MaxPool") == kinds.count("Relu") == 4
    for at, node in enumerate(written.graph.node):
        if node.op_type == "Conv":
            assert kinds[at : at + 4] == ["Conv", "MaxPool", "Add", "Relu"] and len(node.input) == 2
    shapes = {tensor.name: tuple(tensor.dims) for tensor in written.graph.initializer}
    assert [shapes[f"network/conv{number}/kernel"][0] for number in range(1, 5)] == [48, 80, 112, 128]
    assert [shapes[f"network/conv{number}/kernel"][1] for number in range(1, 5)] == [1, 48, 80, 112]


@pytest.mark.parametrize("groups", [(1, 3), (3, 1)])
def test_grouped_convolutions_keep_their_channels(groups):
    body = [layers.Conv2D(6, 3, groups=1), *(layers.Conv2D(6, 3, groups=count, activation="relu") for count in groups)]
    check(network(*body))


def test_what_others_use_stays_where_it_is():
    inputs = keras.Input(SHAPE)
    x = layers.Reshape((*SHAPE, 1))(inputs)
    convolved = layers.Conv2D(5, 3, padding="same")(x)
    rectified = layers.ReLU()(convolved)
    pooled = layers.MaxPooling2D(1)(rectified)
    merged = layers.Add()([layers.Conv2D(5, 1)(pooled), rectified])
    check(keras.Model(inputs, layers.Dense(5, "sigmoid", name="head")(layers.Flatten()(merged))))


def test_tiny_weights_become_zero():
    """Products with them are subnormal: a published network took 40 times as long on ONNX Runtime."""
    from onnx import numpy_helper

    model = network(layers.Conv2D(4, 3, activation="relu"), layers.Conv2D(4, 3, activation="relu"))
    kernel = ops.convert_to_numpy(model.layers[2].kernel).copy()
    kernel[..., 1], kernel[..., 2] = 1e-24, -1e-39
    model.layers[2].kernel.assign(kernel)
    x = np.random.default_rng(1).normal(0, 1, (3, *SHAPE)).astype("float32")
    written, outputs = on_onnxruntime(model, x)
    np.testing.assert_allclose(outputs["probabilities"], ops.convert_to_numpy(model(x, training=False)), atol=2e-5)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    assert not any(
        ((array != 0) & (np.abs(array) < 1e-20)).any() for array in found.values() if array.dtype.kind == "f"
    )
    written_kernel = found[f"network/{model.layers[2].name}/kernel"]  # (outputs, inputs, height, width)
    assert [bool(channel.any()) for channel in written_kernel[:4]] == [True, False, False, True]
    np.testing.assert_array_equal(ops.convert_to_numpy(model.layers[2].kernel), kernel)  # the model is left as it is
