"""What is trained is the same function, for as long as its batch norms' scales stay positive."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_musictag as kmt
from keras_musictag.training.loop import TrainingError
from keras_musictag.training.losses import BalancedCrossentropy, balance_weights
from keras_musictag.training.training_graph import (
    SEGMENTS,
    copy_weights,
    segment_frames,
    segment_source,
    training_graph,
)

pytestmark = pytest.mark.contract


def randomised(model, low=0.0):
    """Weights and statistics that no layer passes over unnoticed."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([rng.uniform(low, 1.0, w.shape) for w in layer.get_weights()])
    return model


def outputs(model, x):
    return ops.convert_to_numpy(model(x, training=False))


@pytest.fixture
def clips():
    return np.random.default_rng(1).normal(0, 1, (2, 96, 1366)).astype("float32")


@pytest.mark.parametrize("name", ["musicnet_crnn", "baseline_cnn"])
def test_pooling_first_is_the_same_function(name, clips):
    model = randomised(kmt.build_model(name))
    graph = training_graph(model)
    order = [type(layer).__name__ for layer in graph.layers]
    assert order.index("MaxPooling2D") < order.index("BatchNormalization")
    # Maxima are not rounded: equal to the bit on all three backends.
    np.testing.assert_allclose(outputs(graph, clips), outputs(model, clips), atol=1e-6)


def test_a_negative_scale_stays_where_it_is(clips):
    model = randomised(kmt.build_model("musicnet_crnn"), low=-1.0)
    np.testing.assert_allclose(outputs(training_graph(model), clips), outputs(model, clips), atol=1e-6)


def test_scales_cannot_become_negative():
    model = kmt.models.tiny(num_tags=2)
    graph = training_graph(model)
    norm = next(layer for layer in graph.layers if type(layer).__name__ == "BatchNormalization")
    graph.compile(optimizer=keras.optimizers.SGD(100.0), loss="binary_crossentropy")
    rng = np.random.default_rng(0)
    for _ in range(3):
        graph.train_on_batch(rng.normal(0, 1, (8, 32, 63)), rng.integers(0, 2, (8, 2)).astype("float32"))
    assert ops.convert_to_numpy(norm.gamma).min() >= 0


def test_weights_come_back_by_name(clips):
    model, other = randomised(kmt.build_model("musicnet_crnn")), kmt.build_model("musicnet_crnn")
    copy_weights(training_graph(model, segments=True), other)
    np.testing.assert_allclose(outputs(other, clips), outputs(model, clips), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "count", "frames"), [("musicnet_crnn", 5, 256), ("musicnet_crnn_fast", 5, 128), ("baseline_cnn", 4, 320)]
)
def test_segments_stand_behind_the_tags(name, count, frames, clips):
    model = randomised(kmt.build_model(name))
    clips = clips[:, : model.input_shape[1], : model.input_shape[2]]
    assert segment_frames(model) == (count, frames)
    model.get_layer("head").bias.assign(np.linspace(-1, 1, 50))
    graph = training_graph(model, segments=True)
    out = outputs(graph, clips)
    assert out.shape == (2, 50 * (1 + count))
    np.testing.assert_allclose(out[:, :50], outputs(model, clips), atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(graph.get_layer(SEGMENTS).bias), np.linspace(-1, 1, 50), atol=1e-6)


@pytest.mark.parametrize("name", ["musicnet_crnn", "musicnet_crnn_fast", "baseline_cnn"])
def test_a_segment_hears_its_own_stretch_of_time(name, clips):
    """Sound in the middle of a segment changes its own output, and none that is further away than its neighbours."""
    graph = training_graph(kmt.build_model(name), segments=True)
    clips = clips[:, : graph.input_shape[1], : graph.input_shape[2]]
    count, frames = segment_frames(kmt.build_model(name))
    louder = clips.copy()
    louder[:, :, frames // 2 - 8 : frames // 2 + 8] += 5  # middle of the first segment
    changes = np.abs(outputs(graph, louder) - outputs(graph, clips))[:, 50:].reshape(2, count, 50).max(axis=(0, 2))
    assert changes[0] > 1e-3 and changes[2:].max() < 1e-6


def test_mixed_precision_keeps_float32_weights_and_outputs():
    graph = training_graph(kmt.build_model("musicnet_crnn"), precision="mixed_bfloat16")
    assert {weight.dtype for weight in graph.trainable_variables} == {"float32"}
    assert graph.get_layer("conv1").compute_dtype == "bfloat16"
    assert graph.get_layer("head").compute_dtype == graph.get_layer("gru1").compute_dtype == "float32"


def test_a_network_without_time_has_no_segments():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="head")])
    with pytest.raises(TrainingError, match=r"No layer of .* is known to have a time axis"):
        segment_source(model)
    with pytest.raises(TrainingError, match=r"is known to have a time axis.*segment_weight=0"):
        segment_frames(kmt.build_model("musicnn"))  # its second axis is not time


def test_balanced_crossentropy():
    y, p = np.array([[1.0, 0.3], [0.0, 0.6]], "float32"), np.array([[0.8, 0.2], [0.1, 0.9]], "float32")
    plain = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    np.testing.assert_allclose(float(BalancedCrossentropy([1.0, 1.0])(y, p)), plain.mean(), rtol=1e-5)
    np.testing.assert_allclose(float(BalancedCrossentropy([0.0, 2.0])(y, p)), plain[:, 1].mean(), rtol=1e-5)
    again = BalancedCrossentropy.from_config(BalancedCrossentropy([0.0, 2.0]).get_config())
    np.testing.assert_allclose(float(again(y, p)), plain[:, 1].mean(), rtol=1e-5)


def test_balance_gives_rare_tags_a_say():
    rng = np.random.default_rng(0)
    targets = np.column_stack([rng.beta(2, 2, 500), rng.beta(0.05, 2, 500)])  # common, rare
    common, rare = balance_weights(targets, 1.0)
    assert rare > 1 > common
    np.testing.assert_allclose(balance_weights(targets, 0.0), [1.0, 1.0])
    np.testing.assert_allclose(balance_weights(targets[:1], 0.5), [1.0, 1.0])  # one clip: nothing varies
    assert np.isfinite(balance_weights(np.column_stack([targets, np.full(500, 0.2)]), 1.0)).all()  # one never varies
