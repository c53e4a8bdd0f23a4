"""A network of a few thousand parameters for tests and plug-in authors.

It was trained on synthesised test signals and cannot tag music.
"""

from __future__ import annotations

import keras
from keras import layers

from ..registry import register_model
from ._blocks import as_image, check_input, conv_block, tag_head


@register_model
def tiny(
    num_tags: int = 5,
    *,
    input_shape: tuple[int, int] = (32, 63),
    classifier_activation: str | None = "sigmoid",
    name: str = "tiny",
) -> keras.Model:
    """Two convolutions and a GRU, with under 20,000 parameters and the kinds of layers that the zoo uses.

    Args:
        num_tags: number of tags.
        input_shape: `(mels, frames)`.
        classifier_activation: `"sigmoid"`, `"softmax"` or `None` for logits.
        name: name of the model.

    Returns:
        `keras.Model`: log-mel `(batch, mels, frames)` to `(batch, num_tags)`.

    Raises:
        SpecError: `input_shape` is too small for the pooling.
    """
    check_input("tiny", input_shape, (16, 16))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = conv_block(as_image(log_mel), 1, 8, (4, 4))
    x = conv_block(x, 2, 16, (4, 4), dropout=0.1)
    mels, time, channels = x.shape[1:]
    x = layers.Permute((2, 1, 3), name="time_major")(x)
    x = layers.Reshape((time, mels * channels), name="sequence")(x)
    x = layers.GRU(16, name="gru1")(x)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)
