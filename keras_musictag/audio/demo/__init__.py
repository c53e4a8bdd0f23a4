"""The bundled clip: a violin with strings, a solo classical guitar, and techno, 20.8 s. `zoo/demo_clip.py` makes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the clip in which one kind of music plays.

    Attributes:
        name: what plays.
        offset: beginning, in seconds.
        duration: length in seconds.
    """

    name: str
    offset: float
    duration: float


SECTIONS = (
    Section("violin with strings", 0.0, 6.6),
    Section("classical guitar", 6.8, 6.6),
    Section("techno", 13.6, 7.2),
)


def demo_clip() -> Path:
    """Return the path of the bundled Ogg file.

    Example:
        >>> demo_clip().name
        'clip.ogg'
    """
    return Path(__file__).with_name("clip.ogg")
