"""MobileNetV3 on spectrograms, as in EfficientAT: inverted bottlenecks, squeeze-and-excitation and an MLP head.

Schmid, Koutini & Widmer, "Efficient large-scale audio tagging via transformer-to-CNN knowledge distillation", ICASSP
2023 (https://arxiv.org/abs/2211.04772), after Howard et al., "Searching for MobileNetV3", ICCV 2019
(https://arxiv.org/abs/1905.02244); weights at https://github.com/fschmid56/EfficientAT (MIT).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from ..registry import register_model
from ._blocks import as_image, check_input, tag_head

# MobileNetV3-Large at width 1: (kernel, expanded, output, squeeze and excite, activation, stride)
_BLOCKS = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_silu", 2),
    (3, 200, 80, False, "hard_silu", 1),
    (3, 184, 80, False, "hard_silu", 1),
    (3, 184, 80, False, "hard_silu", 1),
    (3, 480, 112, True, "hard_silu", 1),
    (3, 672, 112, True, "hard_silu", 1),
    (5, 672, 160, True, "hard_silu", 2),
    (5, 960, 160, True, "hard_silu", 1),
    (5, 960, 160, True, "hard_silu", 1),
)
_NORM = {"epsilon": 1e-3, "momentum": 0.99}


@register_model
def mobilenet_v3(
    num_tags: int = 527,
    *,
    input_shape: tuple[int, int] = (128, 1000),
    width: float = 0.4,
    dense_units: int | None = None,
    classifier_activation: str | None = "sigmoid",
    name: str = "mobilenet_v3",
) -> keras.Model:
    """MobileNetV3-Large, 983,599 trainable parameters at 527 tags and width 0.4 (EfficientAT's mn04).

    Args:
        num_tags: number of tags.
        input_shape: `(mels, frames)`; the default is 10 s at 32 kHz.
        width: multiplier of the number of channels of every layer.
        dense_units: units of the layer before the head; by default 1280 times `width`.
        classifier_activation: `"sigmoid"`, `"softmax"` or `None` for logits.
        name: name of the model.

    Returns:
        `keras.Model`: log-mel `(batch, mels, frames)` to `(batch, num_tags)`. The output of the layer `"pooled"`,
        `(batch, 960 * width)`, is EfficientAT's embedding; the input of the head is `(batch, dense_units)`.

    Raises:
        SpecError: `input_shape` is too small for the strides.

    Example:
        >>> mobilenet_v3().count_params()
        993439
    """
    check_input("mobilenet_v3", input_shape, (32, 32))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = _convolution(as_image(log_mel), "stem", _multiple_of_8(16 * width), 3, 2, "hard_silu")
    inputs, stage = _multiple_of_8(16 * width), 0
    for index, (kernel, expanded, output, squeeze, activation, stride) in enumerate(_BLOCKS, start=1):
        block, y = f"block{index}", x
        expanded, output = _multiple_of_8(expanded * width), _multiple_of_8(output * width)
        if expanded != inputs:
            y = _convolution(y, f"{block}_expand", expanded, 1, 1, activation)
        y = _depthwise(y, f"{block}_depthwise", kernel, stride, activation)
        if squeeze:
            y = _squeeze_excite(y, f"{block}_squeeze", _multiple_of_8(expanded // 4))
        y = _convolution(y, f"{block}_project", output, 1, 1, None)
        if stride == 1 and inputs == output:
            y = layers.Add(name=f"{block}_add")([x, y])
        x, inputs = y, output
        ends_stage = index == len(_BLOCKS) or _BLOCKS[index][5] == 2  # the next block has a stride
        if ends_stage:
            stage += 1
            x = layers.Identity(name=f"stage{stage}")(x)  # a name by which fine-tuning can tap the stage
    x = _convolution(x, "last", 6 * inputs, 1, 1, "hard_silu")
    x = layers.GlobalAveragePooling2D(data_format="channels_last", name="pooled")(x)
    units = dense_units or _multiple_of_8(1280 * width)
    x = layers.Dense(units, name="dense")(x)
    x = layers.Activation("hard_silu", name="dense_hard_silu")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)


def _multiple_of_8(width: float) -> int:
    """Round a width to a multiple of 8 that is at least 0.9 times the width."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


def _convolution(x: Any, name: str, filters: int, kernel: int, stride: int, activation: str | None) -> Any:
    x = _padded(x, name, kernel)
    x = layers.Conv2D(
        filters, kernel, strides=stride, use_bias=False, data_format="channels_last", name=f"{name}_conv"
    )(x)
    return _normed(x, name, activation)


def _depthwise(x: Any, name: str, kernel: int, stride: int, activation: str) -> Any:
    x = _padded(x, name, kernel)
    x = layers.DepthwiseConv2D(
        kernel, strides=stride, use_bias=False, data_format="channels_last", name=f"{name}_conv"
    )(x)
    return _normed(x, name, activation)


def _padded(x: Any, name: str, kernel: int) -> Any:
    """Pad with as many zeros before as after, like PyTorch; Keras' `"same"` pads unevenly when the stride is 2."""
    if kernel == 1:
        return x
    return layers.ZeroPadding2D(kernel // 2, data_format="channels_last", name=f"{name}_pad")(x)


def _normed(x: Any, name: str, activation: str | None) -> Any:
    x = layers.BatchNormalization(**_NORM, name=f"{name}_bn")(x)
    if activation is None:
        return x
    if activation == "relu":
        return layers.ReLU(name=f"{name}_relu")(x)
    return layers.Activation(activation, name=f"{name}_{activation}")(x)


def _squeeze_excite(x: Any, name: str, units: int) -> Any:
    """Scale each channel by a factor computed from the means of all channels."""
    channels = x.shape[-1]
    scale = layers.GlobalAveragePooling2D(data_format="channels_last", name=f"{name}_mean")(x)
    scale = layers.Dense(units, activation="relu", name=f"{name}_reduce")(scale)
    scale = layers.Dense(channels, activation="sigmoid", name=f"{name}_expand")(scale)
    scale = layers.Reshape((1, 1, channels), name=f"{name}_scale")(scale)
    return layers.Multiply(name=name)([x, scale])
