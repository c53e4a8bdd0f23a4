"""The VGG-style baseline published with musicnn.

Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", ISMIR late-breaking 2019
(https://arxiv.org/abs/1909.06654), after Choi et al. 2016; code and weights at
https://github.com/jordipons/musicnn (ISC).
"""

from __future__ import annotations

import keras
from keras import layers

from ..registry import register_model
from ._blocks import as_image, check_input, tag_head

# (pool size, strides) over (frames, mels). The first pool of the published files is 4x1 with stride 2.
_POOL = (((4, 1), 2), ((2, 2), 2), ((2, 2), 2), ((2, 2), 2), ((4, 4), 4))


@register_model
def vgg(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 187),
    filters: int = 128,
    classifier_activation: str | None = "sigmoid",
    name: str = "vgg",
) -> keras.Model:
    """Five 3x3 convolutions: 605,748 trainable parameters at 50 tags and the published width.

    The published network returns logits; `classifier_activation="sigmoid"` turns them into probabilities.

    Args:
        num_tags: number of tags.
        input_shape: `(mels, frames)`; the default is 3 s at 16 kHz.
        filters: number of filters of each convolution.
        classifier_activation: `"sigmoid"`, `"softmax"` or `None` for logits.
        name: name of the model.

    Returns:
        `keras.Model`: log-mel `(batch, mels, frames)` to `(batch, num_tags)`.

    Raises:
        SpecError: `input_shape` is too small for the pooling.
    """
    check_input("vgg", input_shape, (63, 66))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = as_image(layers.Permute((2, 1), name="time_major")(log_mel))  # (frames, mels, 1), as published
    x = layers.BatchNormalization(name="bn_input")(x)
    for index, (pool, strides) in enumerate(_POOL, start=1):
        # ReLU before batch norm, as published.
        x = layers.Conv2D(
            filters, 3, padding="same", activation="relu", data_format="channels_last", name=f"conv{index}"
        )(x)
        x = layers.BatchNormalization(name=f"bn{index}")(x)
        x = layers.MaxPooling2D(pool, strides=strides, data_format="channels_last", name=f"pool{index}")(x)
        if index < len(_POOL):
            x = layers.Dropout(0.25, name=f"dropout{index}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(0.5, name="dropout_flat")(x)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)
