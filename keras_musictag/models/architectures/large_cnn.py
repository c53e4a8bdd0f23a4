"""The wider baseline CNN: a fully convolutional network of five layers."""

from __future__ import annotations

import keras

from ..registry import register_model
from ._fcn import fcn


@register_model
def large_cnn(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 1366),
    classifier_activation: str | None = "sigmoid",
    name: str = "large_cnn",
) -> keras.Model:
    """FCN-5 with 40-152-152-224-304 filters: 1,201,922 parameters at 50 tags.

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
        >>> large_cnn().count_params()
        1201922
    """
    return fcn("large_cnn", (40, 152, 152, 224, 304), num_tags, input_shape, classifier_activation, name)
