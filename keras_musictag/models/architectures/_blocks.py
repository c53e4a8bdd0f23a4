"""Layers shared by several architectures. Images are `(batch, height, width, channels)` on every backend."""

from __future__ import annotations

from typing import Any

from keras import layers

from ...errors import SpecError


def as_image(log_mel: Any) -> Any:
    """Add a channel axis: `(batch, mels, frames)` to `(batch, mels, frames, 1)`."""
    return layers.Reshape((*log_mel.shape[1:], 1), name="image")(log_mel)


def check_input(architecture: str, input_shape: tuple[int, int], minimum: tuple[int, int]) -> None:
    """Validate that the input is large enough for the pooling.

    Raises:
        SpecError: `input_shape` has fewer mels or frames than `minimum`, or is not a pair.
    """
    if len(input_shape) != 2 or input_shape[0] < minimum[0] or input_shape[1] < minimum[1]:
        raise SpecError(
            f"{architecture} needs an input_shape of at least {tuple(minimum)} (mels, frames); "
            f"got {tuple(input_shape)}."
        )


# Batch norm options of networks ported from PyTorch, whose momentum of 0.1 is 0.9 in Keras.
TORCH_NORM = {"epsilon": 1e-5, "momentum": 0.9}


def conv_block(
    x: Any, index: int, filters: int, pool: tuple[int, int], dropout: float = 0.0, **norm_options: float
) -> Any:
    """Apply a 3x3 convolution, batch norm, ReLU, max-pooling over (mels, frames) and dropout.

    Layers are named `conv<index>`, `bn<index>`, and so on.
    """
    x = layers.Conv2D(
        filters,
        3,
        padding="same",
        data_format="channels_last",
        # With Glorot initialisation, activations shrink so much over five ReLU layers that training never gets better
        # than a constant prediction.
        kernel_initializer="he_normal",
        name=f"conv{index}",
    )(x)
    x = layers.BatchNormalization(**norm_options, name=f"bn{index}")(x)
    x = layers.ReLU(name=f"relu{index}")(x)
    x = layers.MaxPooling2D(pool, data_format="channels_last", name=f"pool{index}")(x)
    return layers.Dropout(dropout, name=f"dropout{index}")(x) if dropout else x


def as_sequence(x: Any) -> Any:
    """Turn `(mels, frames, channels)` into `(frames, mels * channels)`: the sequence axis of a GRU must be time."""
    mels, time, channels = x.shape[1:]
    x = layers.Permute((2, 1, 3), name="time_major")(x)
    return layers.Reshape((time, mels * channels), name="sequence")(x)


def grus(x: Any, stack: tuple[tuple[int, float], ...]) -> Any:
    """Apply GRUs, each with `(units, dropout of the output)`, to a sequence; the result is the last one's last output.

    Layers are named `gru<index>` and `gru_dropout<index>`.
    """
    for index, (units, dropout) in enumerate(stack, start=1):
        x = layers.GRU(units, return_sequences=index < len(stack), name=f"gru{index}")(x)
        x = layers.Dropout(dropout, name=f"gru_dropout{index}")(x)
    return x


def tag_head(x: Any, num_tags: int, activation: str | None) -> Any:
    """Apply the classifier, in float32 also under mixed precision. `embed` and fine-tuning find it by its name."""
    return layers.Dense(num_tags, activation=activation, dtype="float32", name="head")(x)
