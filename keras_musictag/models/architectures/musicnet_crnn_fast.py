"""MusicNet CRNN in a third of the time: half as many frames, fewer mels, and a first convolution with strides.

A convolution with strides writes an eighth of what a convolution before its pooling writes; moving those numbers takes
most of the time of the first block of `musicnet_crnn`. `benchmarks/fast_variants.py` has what was tried.
"""

from __future__ import annotations

import keras
from keras import layers

from ..registry import register_model
from ._blocks import as_image, as_sequence, check_input, conv_block, grus, tag_head

_FILTERS, _KERNEL, _STRIDES = 32, (5, 7), (2, 4)  # of the first convolution, over (mels, frames)
# (filters, pooling over (mels, frames), dropout)
_CONV = (
    (48, (2, 4), 0.15),
    (80, (2, 4), 0.20),
    (96, (4, 2), 0.25),
)
_GRU = ((64, 0.3), (32, 0.4))  # (units, dropout of the output)


@register_model
def musicnet_crnn_fast(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (64, 683),
    classifier_activation: str | None = "sigmoid",
    name: str = "musicnet_crnn_fast",
) -> keras.Model:
    """MusicNet CRNN with a strided first convolution: 179,986 trainable parameters at 50 tags.

    Args:
        num_tags: number of tags.
        input_shape: `(mels, frames)`; the default is 29.1 s at 12 kHz with a hop of 512 samples.
        classifier_activation: `"sigmoid"`, `"softmax"` or `None` for logits.
        name: name of the model.

    Returns:
        `keras.Model`: log-mel `(batch, mels, frames)` to `(batch, num_tags)`.

    Raises:
        SpecError: `input_shape` is too small for the pooling.

    Example:
        >>> musicnet_crnn_fast().count_params()
        180498
    """
    check_input("musicnet_crnn_fast", input_shape, (32, 128))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = as_image(log_mel)
    x = layers.ZeroPadding2D((_KERNEL[0] // 2, _KERNEL[1] // 2), data_format="channels_last", name="pad1")(x)
    x = layers.Conv2D(
        _FILTERS, _KERNEL, _STRIDES, data_format="channels_last", kernel_initializer="he_normal", name="conv1"
    )(x)
    x = layers.BatchNormalization(name="bn1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.Dropout(0.10, name="dropout1")(x)
    for index, (filters, pool, dropout) in enumerate(_CONV, start=2):
        x = conv_block(x, index, filters, pool, dropout)
    x = grus(as_sequence(x), _GRU)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)
