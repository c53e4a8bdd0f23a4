"""Musicnn as Won et al. trained it.

Won, Ferraro, Bogdanov & Serra, "Evaluation of CNN-based automatic music tagging models", SMC 2020
(https://arxiv.org/abs/2006.00751), after Pons & Serra (see `musicnn`). It differs from `musicnn`: batch norms precede
the ReLUs, the temporal filters are applied to the mean over mels, and all maxima over time come before all means.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from ..registry import register_model
from ._blocks import TORCH_NORM, as_image, check_input, tag_head

_TIMBRAL = (("timbral77", 0.7), ("timbral74", 0.4))  # (name, share of the mel axis that a filter spans), 7 frames long
_TEMPORAL = (129, 65, 33)  # lengths in frames
_MIDEND_LAYERS = 3


@register_model
def won_musicnn(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 188),
    classifier_activation: str | None = "sigmoid",
    name: str = "won_musicnn",
) -> keras.Model:
    """Won's musicnn: 784,300 trainable parameters at 50 tags.

    Args:
        num_tags: number of tags.
        input_shape: `(mels, frames)`; the default is 3 s at 16 kHz.
        classifier_activation: `"sigmoid"`, `"softmax"` or `None` for logits.
        name: name of the model.

    Returns:
        `keras.Model`: log-mel `(batch, mels, frames)` to `(batch, num_tags)`.

    Raises:
        SpecError: `input_shape` is too small for the filters.

    Example:
        >>> won_musicnn().count_params()
        786208
    """
    check_input("won_musicnn", input_shape, (3, 1))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = as_image(layers.Permute((2, 1), name="time_major")(log_mel))  # (frames, mels, 1)
    x = layers.BatchNormalization(**TORCH_NORM, name="bn_input")(x)
    branches = [_timbral(x, name, int(share * input_shape[0])) for name, share in _TIMBRAL]
    average = layers.AveragePooling2D((1, input_shape[0]), data_format="channels_last", name="mean_mel")(x)
    average = layers.Reshape((input_shape[1], 1), name="mean_sequence")(average)
    branches += [_conv1d(average, 51, length, f"temporal{length}") for length in _TEMPORAL]
    front = layers.Concatenate(name="frontend")(branches)
    x = layers.Concatenate(name="all_levels")(_midend(front))
    loudest = layers.GlobalMaxPooling1D(data_format="channels_last", name="max_time")(x)
    mean = layers.GlobalAveragePooling1D(data_format="channels_last", name="mean_time")(x)
    x = layers.Concatenate(name="pooled")([loudest, mean])
    x = layers.Dense(200, name="dense")(x)
    x = layers.BatchNormalization(**TORCH_NORM, name="bn_dense")(x)
    x = layers.ReLU(name="relu_dense")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)


def _timbral(x: Any, name: str, height: int) -> Any:
    """Apply filters that span most of the mels, max-pooled over the mel axis; returns `(frames, 204)`."""
    frames = x.shape[1]
    x = layers.ZeroPadding2D(((3, 3), (0, 0)), data_format="channels_last", name=f"pad_{name}")(x)
    x = layers.Conv2D(204, (7, height), data_format="channels_last", name=name)(x)
    x = layers.BatchNormalization(**TORCH_NORM, name=f"bn_{name}")(x)
    x = layers.ReLU(name=f"relu_{name}")(x)
    x = layers.MaxPooling2D((1, x.shape[2]), data_format="channels_last", name=f"max_{name}")(x)
    return layers.Reshape((frames, 204), name=f"squeeze_{name}")(x)


def _conv1d(x: Any, filters: int, length: int, name: str) -> Any:
    x = layers.Conv1D(filters, length, padding="same", data_format="channels_last", name=name)(x)
    x = layers.BatchNormalization(**TORCH_NORM, name=f"bn_{name}")(x)
    return layers.ReLU(name=f"relu_{name}")(x)


def _midend(front: Any) -> list[Any]:
    """Apply residual convolutions over time; returns the input and the output of each layer."""
    levels = [front]
    for index in range(1, _MIDEND_LAYERS + 1):
        y = _conv1d(levels[-1], 64, 7, f"midend{index}")
        levels.append(y if index == 1 else layers.Add(name=f"residual{index}")([y, levels[-1]]))
    return levels
