"""Builder shared by the fully convolutional networks of five layers.

They follow FCN-5 of Choi, Fazekas & Sandler, "Automatic tagging using deep convolutional neural networks", ISMIR 2016
(https://arxiv.org/abs/1606.00298).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from ._blocks import as_image, check_input, conv_block, tag_head

# 96 mels x 1366 frames are pooled to 1 x 1.
_POOL = ((2, 4), (2, 4), (2, 4), (3, 5), (4, 4))


def fcn(
    architecture: str,
    filters: tuple[int, ...],
    num_tags: int,
    input_shape: tuple[int, int],
    classifier_activation: str | None,
    name: str,
    *,
    dropout: float = 0.0,
    input_norm: bool = False,
    **norm_options: Any,
) -> keras.Model:
    """Build a network of five convolution blocks and a classifier.

    Args:
        architecture: name of the architecture, for error messages.
        filters: number of filters of each block.
        num_tags: number of tags.
        input_shape: `(mels, frames)`.
        classifier_activation: `"sigmoid"`, `"softmax"` or `None` for logits.
        name: name of the model.
        dropout: dropout rate before the classifier.
        input_norm: whether to normalise the input by a batch norm.
        norm_options: arguments of every `BatchNormalization`.

    Raises:
        SpecError: `input_shape` is too small for the pooling.
    """
    check_input(architecture, input_shape, (96, 1280))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = as_image(log_mel)
    if input_norm:
        x = layers.BatchNormalization(**norm_options, name="bn_input")(x)
    for index, (width, pool) in enumerate(zip(filters, _POOL, strict=True), start=1):
        x = conv_block(x, index, width, pool, **norm_options)
    x = layers.Flatten(name="flatten")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)
