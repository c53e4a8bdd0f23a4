"""Inference with Keras models on NumPy arrays by a compiled function.

`keras.Model.predict` builds a data pipeline for every call: it takes 56 ms for a clip whose network takes 13 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .keras_state import check_process, default_settings

if TYPE_CHECKING:
    import keras


class KerasRuntime:
    """A Keras model as a compiled function from array to array, on TensorFlow, JAX or PyTorch.

    Batch norms are folded into convolutions. The variables are those of the model, so later changes take effect.

    Args:
        model: functional model with one input.

    Example:
        >>> import numpy as np, keras_musictag as kmt
        >>> run = KerasRuntime(kmt.models.tiny())
        >>> run.predict(np.zeros((2, 32, 63), "float32")).shape
        (2, 5)
    """

    def __init__(self, model: keras.Model) -> None:
        """Compile the model with the backend.

        Raises:
            ForkedProcessError: Keras was started before this process was forked.
            ValueError: the backend is not supported.
        """
        check_process()
        import keras

        compilers = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
        backend = keras.backend.backend()
        if backend not in compilers:
            raise ValueError(f"KERAS_BACKEND must be tensorflow, jax or torch; got {backend!r}.")
        self.backend = backend
        from .batch_norm_folding import folded

        with default_settings():
            self._call = compilers[backend](folded(model))

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return the outputs for a batch, as float32.

        Raises:
            ForkedProcessError: Keras was started before this process was forked.
        """
        check_process()
        with default_settings():
            return self._call(np.ascontiguousarray(batch, "float32"))


_Call = Callable[[np.ndarray], np.ndarray]


def _tensorflow(model: keras.Model) -> _Call:
    import tensorflow as tf

    # With an open batch dimension, the function is traced once for all batch sizes.
    shape = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)

    @tf.function(input_signature=[shape], autograph=False)
    def call(batch: Any) -> Any:
        return model(batch, training=False)

    # Calling the function itself would warn about retracing if a process has several taggers.
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
        # JAX compiles for each shape. Padding the batch to a power of two keeps the number of shapes small.
        count = len(batch)
        padding = (1 << (count - 1).bit_length()) - count
        padded = np.concatenate([batch, np.zeros((padding, *batch.shape[1:]), batch.dtype)])
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
    """Set the number of threads of Keras' backend for the whole process.

    Raises:
        ValueError: TensorFlow has already started with another number, or the backend is JAX, which has no such
            setting.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
        return
    if backend != "tensorflow":
        raise ValueError(
            f"threads cannot be set for the backend {backend}; got threads={threads}. Choose another runtime."
        )
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise ValueError(
            f"threads={threads} cannot be set: TensorFlow has already started with another number of threads. Load the "
            "tagger before anything else runs on TensorFlow, or choose another runtime."
        ) from error
