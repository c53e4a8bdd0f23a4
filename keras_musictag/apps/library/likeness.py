"""Sounds that files are to be like, or unlike, as one embedding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .library_rows import LibraryError

if TYPE_CHECKING:
    from ...tagging.base import BaseTagger

Sounds: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"

_NOTHING = 1e-6  # length of the difference of embeddings of the same sound


class Likeness:
    """Sounds to be like and unlike; false if there are none.

    Args:
        like, unlike: a sound, several, or none.
    """

    def __init__(self, like: Sounds | None, unlike: Sounds | None) -> None:
        """Nothing is read yet."""
        self._like, self._unlike = _several(like), _several(unlike)

    def __bool__(self) -> bool:
        """Whether there is a sound to compare with."""
        return bool(self._like or self._unlike)

    def embedding(self, tagger: BaseTagger) -> list[float]:
        """The mean direction of the embeddings of sounds to be like, minus that of those to be unlike.

        Raises:
            LibraryError: both are the same.
            AudioError: a sound cannot be used.
        """
        if len(self._like) == 1 and not self._unlike:
            return tagger.embed(self._like[0]).tolist()
        both = _direction(tagger, self._like) - _direction(tagger, self._unlike)
        if np.linalg.norm(both) < _NOTHING:
            raise LibraryError("The sounds to be like and those to be unlike are the same. Give others.")
        return both.tolist()


def _several(sounds: Sounds | None) -> list[str | os.PathLike[str]]:
    if sounds is None:
        return []
    return [sounds] if isinstance(sounds, (str, os.PathLike)) else list(sounds)


def _direction(tagger: BaseTagger, sounds: Sequence[str | os.PathLike[str]]) -> np.ndarray:
    total = np.zeros(())
    for sound in sounds:
        embedding = np.asarray(tagger.embed(sound), "float64")
        total = total + embedding / max(float(np.linalg.norm(embedding)), _NOTHING) / len(sounds)
    return total
