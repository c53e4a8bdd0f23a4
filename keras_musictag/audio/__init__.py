"""Audio files: reading, decoding, and checks of their containers.

`load` and `stream` are the only functions of the package that decode and resample.
"""

from .decoders import describe
from .reading import Source, duration_of, load, stream

__all__ = ["Source", "describe", "duration_of", "load", "stream"]
