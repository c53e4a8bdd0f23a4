"""Fully convolutional networks of five layers: the baseline CNNs in two widths, and Won's.

They follow FCN-5 of Choi, Fazekas & Sandler, "Automatic tagging using deep convolutional neural networks", ISMIR 2016
(https://arxiv.org/abs/1606.00298). `won_fcn` is from Won, Ferraro, Bogdanov & Serra, "Evaluation of CNN-based automatic
music tagging models", SMC 2020 (https://arxiv.org/abs/2006.00751).
"""

from __future__ import annotations

import keras
from keras import layers

from ..registry import register_model
from .blocks import TORCH_NORM, as_image, check_input, conv_block, tag_head

# 96 mels x 1366 frames are pooled to 1 x 1.
_POOL = ((2, 4), (2, 4), (2, 4), (3, 5), (4, 4))


def _fcn(
    architecture: str,
    widths: tuple[int, ...],
    num_tags: int,
    input_shape: tuple[int, int],
    classifier_activation: str | None,
    name: str,
) -> keras.Model:
    check_input(architecture, input_shape, (96, 1280))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = as_image(log_mel)
    for index, (filters, pool) in enumerate(zip(widths, _POOL, strict=True), start=1):
        x = conv_block(x, index, filters, pool)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)


@register_model
def baseline_cnn(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 1366),
    classifier_activation: str | None = "sigmoid",
    name: str = "baseline_cnn",
) -> keras.Model:
    """FCN-5 with 32-128-128-192-256 filters: 864,690 parameters at 50 tags.

    Args:
        num_tags: number of tags.
        input_shape: `(mels, frames)`.
        classifier_activation: `"sigmoid"`, `"softmax"` or `None` for logits.
        name: name of the model.

    Returns:
        `keras.Model`: log-mel `(batch, mels, frames)` to `(batch, num_tags)`.

    Raises:
        SpecError: `input_shape` is too small for the pooling.

    Example:
        >>> baseline_cnn().count_params()
        864690
    """
    return _fcn("baseline_cnn", (32, 128, 128, 192, 256), num_tags, input_shape, classifier_activation, name)


@register_model
def large_cnn(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 1366),
    classifier_activation: str | None = "sigmoid",
    name: str = "large_cnn",
) -> keras.Model:
    """FCN-5 with 40-152-152-224-304 filters: 1,201,922 parameters at 50 tags.

    Arguments, return value and errors are the same as for `baseline_cnn`.

    Example:
        >>> large_cnn().count_params()
        1201922
    """
    return _fcn("large_cnn", (40, 152, 152, 224, 304), num_tags, input_shape, classifier_activation, name)


@register_model
def won_fcn(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 1813),
    classifier_activation: str | None = "sigmoid",
    name: str = "won_fcn",
) -> keras.Model:
    """FCN-5 with 64-128-128-128-64 filters and a batch norm on the input: 447,732 trainable parameters at 50 tags.

    Args:
        num_tags: number of tags.
        input_shape: `(mels, frames)`; the default is 29 s at 16 kHz.
        classifier_activation: `"sigmoid"`, `"softmax"` or `None` for logits.
        name: name of the model.

    Returns:
        `keras.Model`: log-mel `(batch, mels, frames)` to `(batch, num_tags)`.

    Raises:
        SpecError: `input_shape` is too small for the pooling.

    Example:
        >>> won_fcn().count_params()
        448758
    """
    check_input("won_fcn", input_shape, (96, 1280))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = layers.BatchNormalization(**TORCH_NORM, name="bn_input")(as_image(log_mel))
    for index, (filters, pool) in enumerate(zip((64, 128, 128, 128, 64), _POOL, strict=True), start=1):
        x = conv_block(x, index, filters, pool, **TORCH_NORM)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)
