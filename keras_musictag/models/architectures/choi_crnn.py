"""Choi's CRNN, as its author published it: four convolutions and two GRUs.

Choi, Fazekas, Sandler & Cho, "Convolutional recurrent neural networks for music classification", ICASSP 2017
(https://arxiv.org/abs/1609.04243); weights at https://github.com/keunwoochoi/music-auto_tagging-keras (MIT).
"""

from __future__ import annotations

import keras
from keras import layers

from ..registry import register_model
from ._blocks import as_image, check_input, tag_head

_CONV = ((64, (2, 2)), (128, (3, 3)), (128, (4, 4)), (128, (4, 4)))  # (filters, pooling over (mels, frames))
_PADDING = 37  # frames at each end: 1366 becomes 1440, which the pooling sizes divide
_NORM = {"epsilon": 1e-3}


@register_model
def choi_crnn(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 1366),
    classifier_activation: str | None = "sigmoid",
    name: str = "choi_crnn",
) -> keras.Model:
    """Choi's CRNN: 396,786 trainable parameters at 50 tags.

    The input is normalised over the time axis, with one scale and shift per frame. As in Keras 1, the GRUs apply the
    reset gate before the matrix product, and their gates use a hard sigmoid.

    Args:
        num_tags: number of tags.
        input_shape: `(mels, frames)`; the default is 29.12 s at 12 kHz.
        classifier_activation: `"sigmoid"`, `"softmax"` or `None` for logits.
        name: name of the model.

    Returns:
        `keras.Model`: log-mel `(batch, mels, frames)` to `(batch, num_tags)`.

    Raises:
        SpecError: `input_shape` is too small for the pooling.

    Example:
        >>> choi_crnn().count_params()
        400562
    """
    check_input("choi_crnn", input_shape, (96, 96))
    log_mel = keras.Input(input_shape, name="log_mel")
    x = layers.Permute((2, 1), name="frames_first")(log_mel)
    x = layers.ZeroPadding1D(_PADDING, data_format="channels_last", name="pad_time")(x)
    x = layers.Permute((2, 1), name="mels_first")(x)
    x = as_image(layers.BatchNormalization(**_NORM, name="bn_time")(x))
    for index, (filters, pool) in enumerate(_CONV, start=1):
        x = layers.Conv2D(filters, 3, padding="same", data_format="channels_last", name=f"conv{index}")(x)
        x = layers.BatchNormalization(**_NORM, name=f"bn{index}")(x)
        x = layers.ELU(name=f"elu{index}")(x)
        x = layers.MaxPooling2D(pool, data_format="channels_last", name=f"pool{index}")(x)
        x = layers.Dropout(0.1, name=f"dropout{index}")(x)
    mels, time, channels = x.shape[1:]
    x = layers.Permute((2, 1, 3), name="time_major")(x)  # the sequence axis must be time
    x = layers.Reshape((time, mels * channels), name="sequence")(x)
    for index in (1, 2):
        x = layers.GRU(
            32,
            recurrent_activation="hard_sigmoid",
            reset_after=False,
            return_sequences=index == 1,
            name=f"gru{index}",
        )(x)
    x = layers.Dropout(0.3, name="gru_dropout")(x)
    return keras.Model(log_mel, tag_head(x, num_tags, classifier_activation), name=name)
