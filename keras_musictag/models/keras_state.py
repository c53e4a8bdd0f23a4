"""Isolation from Keras' global settings, and detection of forked processes.

Models are built and run with Keras' default `floatx`, dtype policy and image data format, so that results do not depend
on the user's settings, which are restored afterwards.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from ..errors import ForkedProcessError

_lock = threading.Lock()
_users = 0  # number of active `default_settings` blocks in all threads
_set_by_user = ("float32", "channels_last")  # floatx and image data format, restored by the last active block
_started_in: int | None = None  # id of the process in which Keras was started


@contextlib.contextmanager
def default_settings() -> Iterator[None]:
    """Use Keras' default `floatx`, dtype policy and image data format in a block.

    Blocks may be nested and used by several threads at the same time. The dtype policy is set per thread. The other two
    are set per process, so the last active block restores them.

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
        policy = config.dtype_policy()  # created from the user's floatx on first access in a thread
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
    """Record that Keras runs in this process, and raise if it was started before the process was forked.

    A forked child does not have the threads of its parent, for which TensorFlow, JAX and PyTorch would wait forever.

    Raises:
        ForkedProcessError: Keras was used before the fork.
    """
    global _started_in
    if _started_in is None:
        _started_in = os.getpid()
    elif _started_in != os.getpid():
        raise ForkedProcessError(
            f"Keras was started in process {_started_in}; this process, {os.getpid()}, was forked from it without its "
            "threads, so a model would hang. Start workers with multiprocessing.get_context('spawn') (PyTorch's "
            "DataLoader: multiprocessing_context='spawn'), or use another runtime, e.g. "
            "load(..., runtime='onnxruntime'), which works after a fork."
        )


def _renew_lock() -> None:
    """Replace the lock after a fork, because another thread of the parent may have held it."""
    global _lock, _users
    _lock, _users = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
