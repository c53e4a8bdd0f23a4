"""Audio files: reading, decoding, and checks of their containers.

`load` and `stream` are the only functions of the package that decode and resample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_attributes

if TYPE_CHECKING:  # the same names, for type checkers
    from .decoding import describe as describe
    from .reading import Source as Source
    from .reading import duration_of as duration_of
    from .reading import load as load
    from .reading import stream as stream

__all__ = ["Source", "describe", "duration_of", "load", "stream"]

__getattr__, __dir__ = lazy_attributes(
    __name__, {"describe": ".decoding", **dict.fromkeys(("Source", "duration_of", "load", "stream"), ".reading")}
)
