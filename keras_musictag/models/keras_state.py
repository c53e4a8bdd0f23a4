"""What a tagger must not share with the rest of the process: Keras' global settings, and threads that a fork loses.

A spec says in which precision its model computes. So whatever this package builds or runs is built and run with
`floatx`, dtype policy and image data format at Keras' defaults; what the user has set comes back afterwards.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from ..errors import ForkedProcessError

_lock = threading.Lock()
_users = 0  # blocks of `default_settings` that are being executed, in all threads
_set_by_user = ("float32", "channels_last")  # floatx and image data format, to be put back by the last of them
_started_in: int | None = None  # process in which Keras has begun to compute


@contextlib.contextmanager
def default_settings() -> Iterator[None]:
    """Set `floatx`, dtype policy and image data format to Keras' defaults in a block, and back again after it.

    Blocks may be nested, and several threads may be in one at a time: the dtype policy belongs to a thread, the two
    others to the process, so the last thread to leave puts those back.

    Example:
        >>> import keras
        >>> keras.config.set_dtype_policy("mixed_float16")
        >>> with default_settings():
        ...     keras.config.dtype_policy().name
        'float32'
        >>> keras.config.dtype_policy().name
        'mixed_float16'
        >>> keras.config.set_dtype_policy("float32")
    """
    global _users, _set_by_user
    import keras

    config = keras.config
    with _lock:
        if not _users:
            _set_by_user = (config.floatx(), config.image_data_format())
        _users += 1
        policy = config.dtype_policy()  # in a thread that has none yet, this makes one of the user's floatx
        if config.floatx() != "float32":
            config.set_floatx("float32")
        if config.image_data_format() != "channels_last":
            config.set_image_data_format("channels_last")
    config.set_dtype_policy("float32")
    try:
        yield
    finally:
        config.set_dtype_policy(policy)
        with _lock:
            _users -= 1
            if not _users:
                floatx, data_format = _set_by_user
                if floatx != config.floatx():
                    config.set_floatx(floatx)
                if data_format != config.image_data_format():
                    config.set_image_data_format(data_format)


def check_process() -> None:
    """Note that Keras computes in this process, or refuse to if it began to in the process that this one is a copy of.

    A forked child has none of its parent's threads. TensorFlow, JAX and PyTorch would wait for theirs for ever.

    Raises:
        ForkedProcessError: Keras has been used before the fork.
    """
    global _started_in
    if _started_in is None:
        _started_in = os.getpid()
    elif _started_in != os.getpid():
        raise ForkedProcessError(
            f"Keras was started in process {_started_in}, of which this one, {os.getpid()}, is a forked copy without "
            "its threads: a model would hang here. Start workers with multiprocessing.get_context('spawn') (PyTorch's "
            "DataLoader: multiprocessing_context='spawn'), or load the tagger on another runtime, e.g. "
            "load(..., runtime='onnxruntime'), which survives a fork."
        )


def _renew_lock() -> None:
    """Another thread of the parent may have held the lock when the process was copied."""
    global _lock, _users
    _lock, _users = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
