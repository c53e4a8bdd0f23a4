"""The CRNN of Won et al.: four convolutions and two GRUs of 32.

Won, Ferraro, Bogdanov & Serra, "Evaluation of CNN-based automatic music tagging models", SMC 2020
(https://arxiv.org/abs/2006.00751), after Choi, Fazekas, Sandler & Cho, "Convolutional recurrent neural networks for
music classification", ICASSP 2017 (https://arxiv.org/abs/1609.04243).
"""

from __future__ import annotations

import keras
from keras import layers

from ..registry import register_model
from ._blocks import TORCH_NORM, as_image, as_sequence, check_input, conv_block, tag_head

_CONV = ((64, (2, 2)), (128, (3, 3)), (128, (4, 4)), (128, (4, 4)))  # (filters, pooling over (mels, frames))


@register_model
def won_crnn(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 1813),
    classifier_activation: str | None = "sigmoid",
    name: str = "won_crnn",
) -> keras.Model:
    """Won's CRNN: 394,100 trainable parameters at 50 tags.

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
        >>> won_crnn().count_params()
        394998
    """
    check_input("won_crnn", input_shape, (96, 96))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = layers.BatchNormalization(**TORCH_NORM, name="bn_input")(as_image(log_mel))
    for index, (filters, pool) in enumerate(_CONV, start=1):
        x = conv_block(x, index, filters, pool, dropout=0.1, **TORCH_NORM)
    x = as_sequence(x)
    x = layers.GRU(32, return_sequences=True, name="gru1")(x)
    x = layers.GRU(32, name="gru2")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)
