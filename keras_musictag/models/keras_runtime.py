"""Keras models on NumPy arrays: compiled once, then called.

`keras.Model.predict` builds a data pipeline for every call: 56 ms for one clip whose network takes 13. Calling the
model inside a compiled function costs the network and little else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .keras_state import check_process, default_settings

if TYPE_CHECKING:
    import keras


class KerasRuntime:
    """A Keras model as a compiled function from array to array, on whichever backend Keras runs.

    Batch norms are folded into convolutions; variables stay those of the model, so what is done to them later counts.

    Args:
        model: functional model with one input.

    Example:
        >>> import numpy as np, keras_musictag as kmt
        >>> run = KerasRuntime(kmt.models.tiny())
        >>> run.predict(np.zeros((2, 32, 63), "float32")).shape
        (2, 5)
    """

    def __init__(self, model: keras.Model) -> None:
        """Choose the backend's way of compiling.

        Raises:
            ForkedProcessError: Keras was started before this process was forked.
        """
        check_process()
        import keras

        compilers = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
        backend = keras.backend.backend()
        if backend not in compilers:
            raise ValueError(f"KERAS_BACKEND must be tensorflow, jax or torch to run models; it is {backend!r}.")
        self.backend = backend
        from .folding import folded

        with default_settings():
            self._call = compilers[backend](folded(model))

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Outputs for a batch: float32 in, float32 out.

        Raises:
            ForkedProcessError: Keras was started before this process was forked.
        """
        check_process()
        with default_settings():
            return self._call(np.ascontiguousarray(batch, "float32"))


_Call = Callable[[np.ndarray], np.ndarray]


def _tensorflow(model: keras.Model) -> _Call:
    import tensorflow as tf

    # The batch dimension stays open, so there is one trace however many windows a track has.
    shape = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)

    @tf.function(input_signature=[shape], autograph=False)
    def call(batch: Any) -> Any:
        return model(batch, training=False)

    # Traced once and called without TensorFlow's guard against retracing, which counts the functions of all taggers.
    concrete = call.get_concrete_function()

    def run(batch: np.ndarray) -> np.ndarray:
        return np.asarray(concrete(tf.constant(batch)).numpy())

    return run


def _jax(model: keras.Model) -> _Call:
    import jax

    @jax.jit
    def call(trainable: Any, frozen: Any, batch: Any) -> Any:
        return model.stateless_call(trainable, frozen, batch, training=False)[0]

    def run(batch: np.ndarray) -> np.ndarray:
        # JAX compiles for each shape: round the batch up to a power of two, so that there are few of them.
        count = len(batch)
        padded = np.pad(batch, [(0, (1 << (count - 1).bit_length()) - count)] + [(0, 0)] * (batch.ndim - 1))
        trainable = [variable.value for variable in model.trainable_variables]
        frozen = [variable.value for variable in model.non_trainable_variables]
        return np.asarray(call(trainable, frozen, padded))[:count]

    return run


def _torch(model: keras.Model) -> _Call:
    import torch

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(batch), training=False).cpu().numpy()

    return run


def limit_threads(threads: int) -> None:
    """Let Keras' backend compute with so many threads, in the whole process.

    Raises:
        ValueError: TensorFlow has started with another number, or the backend is JAX, which takes none.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
        return
    if backend != "tensorflow":
        raise ValueError(
            f"threads={threads}: the backend {backend} takes no number of threads. Choose another runtime."
        )
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise ValueError(
            f"threads={threads}: TensorFlow has started already and cannot change its number of threads. Load the "
            "tagger with threads before anything else runs on TensorFlow, or choose another runtime."
        ) from error
