"""Network architectures, one per file, each named after the function in it that builds it.

A file here is all that a built-in architecture needs: `registry` and `keras_musictag.models` find it by its name. Files
whose names start with an underscore hold parts that several architectures share.
"""

from __future__ import annotations

import pkgutil

# The names are read from the folder, since importing an architecture imports Keras.
ARCHITECTURES = tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
