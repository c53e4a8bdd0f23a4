"""MusicNet CRNN: four convolutions and two GRUs, 397,818 trainable parameters at 50 tags.

The layout follows the convolutional recurrent network of Choi, Fazekas, Sandler & Cho, "Convolutional recurrent neural
networks for music classification", ICASSP 2017 (https://arxiv.org/abs/1609.04243).
"""

from __future__ import annotations

import keras

from ..registry import register_model
from ._blocks import as_image, as_sequence, check_input, conv_block, grus, tag_head

# (filters, pooling over (mels, frames), dropout)
_CONV = (
    (44, (2, 4), 0.10),
    (76, (2, 4), 0.15),
    (108, (2, 4), 0.20),
    (128, (3, 4), 0.25),
)
_GRU = ((86, 0.3), (32, 0.4))  # (units, dropout of the output)


@register_model
def musicnet_crnn(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 1366),
    classifier_activation: str | None = "sigmoid",
    name: str = "musicnet_crnn",
) -> keras.Model:
    """MusicNet CRNN: 397,818 trainable parameters at 50 tags.

    Args:
        num_tags: number of tags.
        input_shape: `(mels, frames)`; the default is 29.12 s at 12 kHz.
        classifier_activation: `"sigmoid"` for independent tags, `"softmax"` for exclusive ones, `None` for logits.
        name: name of the model.

    Returns:
        `keras.Model`: log-mel `(batch, mels, frames)` to `(batch, num_tags)`.

    Raises:
        SpecError: `input_shape` is too small for the pooling.

    Example:
        >>> musicnet_crnn().count_params()
        398530
    """
    check_input("musicnet_crnn", input_shape, (24, 256))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = as_image(log_mel)
    for index, (filters, pool, dropout) in enumerate(_CONV, start=1):
        x = conv_block(x, index, filters, pool, dropout)
    x = grus(as_sequence(x), _GRU)  # (4 mels, 5 frames, 128 channels) -> (5 frames, 4 * 128 features)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)
