"""The Keras backend that is configured."""

from __future__ import annotations

import json
import os
from pathlib import Path


def configured_backend() -> str:
    """Return the name of the Keras backend, found by Keras's rules without importing Keras."""
    home = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))  # not an error without a home
    try:
        chosen = json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):
        chosen = None
    return os.environ.get("KERAS_BACKEND") or chosen or "tensorflow"
