"""Cross-entropy with a weight for each tag."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

_EPSILON = 1e-6


class BalancedCrossentropy(keras.losses.Loss):
    """Binary cross-entropy of probabilities, as a weighted mean over outputs.

    Args:
        weights: float array `(outputs,)`, 0 or more.

    Example:
        >>> loss = BalancedCrossentropy([1.0, 0.0])
        >>> round(float(loss(np.array([[1.0, 1.0]]), np.array([[0.5, 0.1]]))), 3)  # -log(0.5) / 2
        0.347
    """

    def __init__(self, weights: Any, name: str = "balanced_crossentropy") -> None:
        """Store the weights."""
        super().__init__(name=name)
        self.weights = np.asarray(weights, "float32")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the losses `(batch,)` of targets and probabilities `(batch, outputs)`."""
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        y_pred = ops.clip(y_pred, _EPSILON, 1 - _EPSILON)
        losses = -(y_true * ops.log(y_pred) + (1 - y_true) * ops.log(1 - y_pred))
        return ops.mean(losses * ops.convert_to_tensor(self.weights), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {"weights": self.weights.tolist(), "name": self.name}


def balance_weights(targets: np.ndarray, balance: float) -> np.ndarray:
    """Return weights with which rare tags are learned as fast as frequent ones.

    The loss of a tag can fall by the mean divergence of its targets from their mean. It is small for rare tags, which
    would be learned last.

    Args:
        targets: float array `(n, tags)` in [0, 1].
        balance: 0 for equal weights, 1 for equal shares of the loss; the weights are the inverse of the divergence to
            this power.

    Returns:
        float32 array `(tags,)` with mean 1; all equal if no tag varies.

    Example:
        >>> balance_weights(np.array([[0.0, 0.4], [1.0, 0.6]]), 1.0).round(2)
        array([0.06, 1.94], dtype=float32)
    """
    targets = np.clip(np.asarray(targets, "float64"), _EPSILON, 1 - _EPSILON)
    divergence = _entropy(targets.mean(axis=0)) - _entropy(targets).mean(axis=0)
    if not divergence.max() > 0:
        return np.ones(targets.shape[1], "float32")
    weights = np.maximum(divergence, 1e-2 * divergence.max()) ** -balance
    return (weights / weights.mean()).astype("float32")


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))
