"""Network architectures, one per file, which is named after its builder function.

`registry` and `keras_musictag.models` find an architecture by the name of its file. Files whose names start with an
underscore hold parts shared by several architectures.
"""

from __future__ import annotations

import pkgutil

# The names are read from the folder, because importing an architecture imports Keras.
ARCHITECTURES = tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
