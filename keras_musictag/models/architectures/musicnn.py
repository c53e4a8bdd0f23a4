"""musicnn: timbral and temporal filters, a residual mid-end and a dense back-end.

Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", ISMIR late-breaking 2019
(https://arxiv.org/abs/1909.06654); code and weights at https://github.com/jordipons/musicnn (ISC).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from ..registry import register_model
from ._blocks import as_image, check_input, tag_head

_TIMBRAL = (("timbral74", 0.4), ("timbral77", 0.7))  # (name, share of the mel axis that a filter spans), 7 frames long
_TEMPORAL = (128, 64, 32)  # lengths in frames; each filter spans one mel band
_MIDEND_LAYERS = 3


@register_model
def musicnn(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 187),
    timbral_filters: int = 204,
    temporal_filters: int = 51,
    midend_filters: int = 64,
    dense_units: int = 200,
    classifier_activation: str | None = "sigmoid",
    name: str = "musicnn",
) -> keras.Model:
    """Musicnn with the published widths: 787,159 trainable parameters at 50 tags.

    Args:
        num_tags: number of tags.
        input_shape: `(mels, frames)`; the default is 3 s at 16 kHz.
        timbral_filters: number of filters of each timbral shape.
        temporal_filters: number of filters of each temporal shape.
        midend_filters: number of filters of each residual layer.
        dense_units: units of the layer before the head, whose output is the embedding.
        classifier_activation: `"sigmoid"`, `"softmax"` or `None` for logits.
        name: name of the model.

    Returns:
        `keras.Model`: log-mel `(batch, mels, frames)` to `(batch, num_tags)`.

    Raises:
        SpecError: `input_shape` is too small for the filters.
    """
    check_input("musicnn", input_shape, (3, 1))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = as_image(layers.Permute((2, 1), name="time_major")(log_mel))  # (frames, mels, 1), as published
    x = layers.BatchNormalization(name="bn_input")(x)
    front = _frontend(x, timbral_filters, temporal_filters)
    x = _backend(layers.Concatenate(name="all_levels")(_midend(front, midend_filters)), dense_units)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)


def _frontend(x: Any, timbral_filters: int, temporal_filters: int) -> Any:
    """Apply timbral and temporal filters, max-pooled over mels; returns `(frames, channels)`."""
    mels = x.shape[2]
    padded = layers.ZeroPadding2D(((3, 3), (0, 0)), data_format="channels_last", name="pad_time")(x)
    branches = [
        _conv_max_mel(padded, name, timbral_filters, (7, int(share * mels)), "valid") for name, share in _TIMBRAL
    ]
    branches += [_conv_max_mel(x, f"temporal{length}", temporal_filters, (length, 1), "same") for length in _TEMPORAL]
    return layers.Concatenate(name="frontend")(branches)


def _conv_max_mel(x: Any, name: str, filters: int, kernel: tuple[int, int], padding: str) -> Any:
    """Apply a convolution, ReLU and batch norm (in the published order) and max-pooling over the mel axis."""
    x = layers.Conv2D(filters, kernel, padding=padding, activation="relu", data_format="channels_last", name=name)(x)
    x = layers.BatchNormalization(name=f"bn_{name}")(x)
    x = layers.MaxPooling2D((1, x.shape[2]), data_format="channels_last", name=f"max_{name}")(x)
    return layers.Reshape((x.shape[1], filters), name=f"squeeze_{name}")(x)


def _midend(front: Any, filters: int) -> list[Any]:
    """Apply residual convolutions over time; returns the input and the output of each layer."""
    levels = [front]
    x = front
    for index in range(1, _MIDEND_LAYERS + 1):
        y = layers.Conv1D(
            filters, 7, padding="same", activation="relu", data_format="channels_last", name=f"midend{index}"
        )(x)
        y = layers.BatchNormalization(name=f"bn_midend{index}")(y)
        x = y if index == 1 else layers.Add(name=f"residual{index}")([y, x])
        levels.append(x)
    return levels


def _backend(x: Any, units: int) -> Any:
    """Pool over time, with the maximum and mean of a channel side by side, and apply the dense layer."""
    channels = x.shape[2]
    loudest = layers.GlobalMaxPooling1D(data_format="channels_last", name="max_time")(x)
    average = layers.GlobalAveragePooling1D(data_format="channels_last", name="mean_time")(x)
    pair = [
        layers.Reshape((channels, 1), name=f"{kind}_column")(pooled)
        for kind, pooled in (("max", loudest), ("mean", average))
    ]
    x = layers.Reshape((2 * channels,), name="pooled")(layers.Concatenate(name="max_and_mean")(pair))
    x = layers.BatchNormalization(name="bn_pooled")(x)
    x = layers.Dropout(0.5, name="dropout_pooled")(x)
    x = layers.Dense(units, activation="relu", name="dense")(x)
    x = layers.BatchNormalization(name="bn_dense")(x)
    return layers.Dropout(0.5, name="dropout_dense")(x)
