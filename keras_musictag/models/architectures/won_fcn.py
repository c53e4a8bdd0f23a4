"""The fully convolutional network of Won et al.

Won, Ferraro, Bogdanov & Serra, "Evaluation of CNN-based automatic music tagging models", SMC 2020
(https://arxiv.org/abs/2006.00751).
"""

from __future__ import annotations

import keras

from ..registry import register_model
from ._blocks import TORCH_NORM
from ._fcn import fcn


@register_model
def won_fcn(
    num_tags: int = 50,
    *,
    input_shape: tuple[int, int] = (96, 1813),
    classifier_activation: str | None = "sigmoid",
    name: str = "won_fcn",
) -> keras.Model:
    """FCN-5 with 64-128-128-128-64 filters and a batch norm on its input: 447,732 trainable parameters at 50 tags.

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
        >>> won_fcn().count_params()
        448758
    """
    return fcn(
        "won_fcn", (64, 128, 128, 128, 64), num_tags, input_shape, classifier_activation, name,
        dropout=0.5, input_norm=True, **TORCH_NORM,
    )  # fmt: skip
