"""One embedding for the audio files that a search compares with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .library_rows import LibraryError

if TYPE_CHECKING:
    from ...tagging.base_tagger import BaseTagger

AudioFiles: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"

_EPSILON = 1e-6  # norm below which an embedding counts as zero


class Likeness:
    """Audio files to be similar and dissimilar to; false if there are none.

    Args:
        like, unlike: one audio file, several, or none.
    """

    def __init__(self, like: AudioFiles | None, unlike: AudioFiles | None) -> None:
        """Read nothing yet."""
        self._like, self._unlike = _as_list(like), _as_list(unlike)

    def __bool__(self) -> bool:
        """Return whether there is a file to compare with."""
        return bool(self._like or self._unlike)

    def embedding(self, tagger: BaseTagger) -> list[float]:
        """Return the mean direction of the embeddings of `like`, minus that of `unlike`.

        Raises:
            LibraryError: both are equal.
            AudioError: a file cannot be used.
        """
        if len(self._like) == 1 and not self._unlike:
            return tagger.embed(self._like[0]).tolist()
        both = _direction(tagger, self._like) - _direction(tagger, self._unlike)
        if np.linalg.norm(both) < _EPSILON:
            raise LibraryError("like and unlike name the same audio. Give other files.")
        return both.tolist()


def _as_list(files: AudioFiles | None) -> list[str | os.PathLike[str]]:
    if files is None:
        return []
    return [files] if isinstance(files, (str, os.PathLike)) else list(files)


def _direction(tagger: BaseTagger, files: Sequence[str | os.PathLike[str]]) -> np.ndarray:
    total = np.zeros(())
    for file in files:
        embedding = np.asarray(tagger.embed(file), "float64")
        total = total + embedding / max(float(np.linalg.norm(embedding)), _EPSILON) / len(files)
    return total
