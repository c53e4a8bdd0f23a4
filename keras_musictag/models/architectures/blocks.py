"""Pieces that several architectures share. Images are `(batch, height, width, channels)` on every backend."""

from __future__ import annotations

from typing import Any

from keras import layers

from ...errors import SpecError


def as_image(log_mel: Any) -> Any:
    """`(batch, mels, frames)` -> `(batch, mels, frames, 1)`."""
    return layers.Reshape((*log_mel.shape[1:], 1), name="image")(log_mel)


def check_input(architecture: str, input_shape: tuple[int, int], least: tuple[int, int]) -> None:
    """Refuse a spectrogram that the pooling would shrink to nothing.

    Raises:
        SpecError: fewer mels or frames than `least`.
    """
    if len(input_shape) != 2 or any(have < need for have, need in zip(input_shape, least, strict=True)):
        raise SpecError(
            f"{architecture} pools over at least {least[0]} mels x {least[1]} frames; "
            f"got input_shape={tuple(input_shape)}."
        )


# Of batch norms of networks that come from PyTorch; its momentum of 0.1 is 0.9 in Keras.
TORCH_NORM = {"epsilon": 1e-5, "momentum": 0.9}


def conv_block(
    x: Any, index: int, filters: int, pool: tuple[int, int], dropout: float = 0.0, **norm_options: float
) -> Any:
    """3x3 convolution, batch norm, ReLU, max-pooling over (mels, frames), dropout: `conv<index>`, `bn<index>`, ..."""
    x = layers.Conv2D(
        filters,
        3,
        padding="same",
        data_format="channels_last",
        # He initialisation: with Glorot's, five ReLU layers in, the signal has shrunk too far for training to leave
        # the constant predictor.
        kernel_initializer="he_normal",
        name=f"conv{index}",
    )(x)
    x = layers.BatchNormalization(**norm_options, name=f"bn{index}")(x)
    x = layers.ReLU(name=f"relu{index}")(x)
    x = layers.MaxPooling2D(pool, data_format="channels_last", name=f"pool{index}")(x)
    return layers.Dropout(dropout, name=f"dropout{index}")(x) if dropout else x


def tag_head(x: Any, num_tags: int, activation: str | None) -> Any:
    """The classifier. Its name is the contract that `embed` and fine-tuning rely on."""
    # Probabilities stay float32 under mixed precision.
    return layers.Dense(num_tags, activation=activation, dtype="float32", name="head")(x)
