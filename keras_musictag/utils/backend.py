"""The Keras backend that is configured, and installed versions, without importing either."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tf-nightly")  # packages that provide TensorFlow


def configured_backend() -> str:
    """Return the name of the Keras backend, found by Keras's rules without importing Keras."""
    home = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))  # not an error without a home
    try:
        chosen = json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):
        chosen = None
    return os.environ.get("KERAS_BACKEND") or chosen or "tensorflow"


def backend_version(backend: str) -> str | None:
    """Return the installed version of a Keras backend, `None` without one."""
    return installed_version(*(_TENSORFLOW if backend == "tensorflow" else (backend,)))


def installed_version(*packages: str) -> str | None:
    """Return the version of the first of these packages that is installed, `None` if none is."""
    import importlib.metadata  # a fifth of the time of the command line's start

    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return None
