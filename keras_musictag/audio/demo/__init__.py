"""The bundled clip: about 15 seconds of several instruments, synthesised by `synthesise.py` in this folder."""

from __future__ import annotations

from pathlib import Path


def demo_clip() -> Path:
    """Path of the bundled Ogg file.

    Example:
        >>> demo_clip().name
        'clip.ogg'
    """
    return Path(__file__).with_name("clip.ogg")
