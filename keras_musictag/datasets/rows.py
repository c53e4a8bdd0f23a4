"""The row of a `Manifest`: an audio file and its labels."""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MusicTagError

AnyPath = str | os.PathLike[str]

SPLITS = ("train", "valid", "test")


class DataError(MusicTagError, ValueError):
    """Data that cannot be used: a malformed table, an incomplete data set, rows that contradict each other."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """An audio file, or a part of one, with its tags.

    Attributes:
        path: path of the audio file; made absolute.
        start: offset in seconds.
        duration: duration in seconds, `None` for the rest of the file.
        split: `"train"`, `"valid"`, `"test"`, or `""` for none.
        tags: names of its tags.
        targets: instead of `tags`, a number from 0 to 1 for each of the manifest's tags, in their order.
        group: artist, album or another group that must not be in two splits.
        source: origin, e.g. the data set and the identifier in it.
        licence: licence of the audio.
        where: file and line that the row was read from, for messages; not compared.

    Raises:
        DataError: a value is not valid.

    Example:
        >>> Row(path=Path("song.mp3"), tags=("rock", "loud"), split="train").duration is None
        True
    """

    path: Path
    start: float = 0.0
    duration: float | None = None
    split: str = ""
    tags: tuple[str, ...] = ()
    targets: tuple[float, ...] | None = None
    group: str = ""
    source: str = ""
    licence: str = ""
    where: str = dataclasses.field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        """Make the path absolute and validate the other fields."""
        object.__setattr__(self, "path", Path(os.path.abspath(self.path)))
        if not _is_seconds(self.start) or self.start < 0:
            raise DataError(f"start must be a number of seconds, 0 or more; got {self.start!r}.")
        if self.duration is not None and (not _is_seconds(self.duration) or self.duration <= 0):
            raise DataError(
                f"duration must be a number of seconds above 0, or None for the rest; got {self.duration!r}."
            )
        if self.split not in ("", *SPLITS):
            raise DataError(f"split must be {', '.join(SPLITS)} or empty; got {self.split!r}.")
        if isinstance(self.tags, str):
            raise DataError(f"tags must be a tuple of names; got the string {self.tags!r}. Put it into a tuple.")
        object.__setattr__(self, "tags", tag_names(self.tags))
        if self.targets is not None:
            if self.tags:
                raise DataError(f"A row has either tags or targets; got both: {self.tags!r} and {self.targets!r}.")
            values = tuple(float(value) for value in self.targets)
            wrong = [value for value in values if not 0 <= value <= 1]
            if wrong:
                raise DataError(f"targets must be numbers from 0 to 1; got {wrong[0]!r}.")
            object.__setattr__(self, "targets", values)


def _is_seconds(value: Any) -> bool:
    return (
        isinstance(value, (int, float, np.integer, np.floating))
        and not isinstance(value, bool)
        and math.isfinite(float(value))
    )


def tag_names(tags: Iterable[str]) -> tuple[str, ...]:
    """Require distinct, non-empty names without surrounding spaces; returns them as a tuple."""
    names = tuple(tags)
    for name in names:
        if not isinstance(name, str) or not name.strip() or name != name.strip():
            raise DataError(f"A tag must be a name without spaces around it; got {name!r}. Correct or remove it.")
        if any(unicodedata.category(character) == "Cc" for character in name):
            raise DataError(f"A tag must be one line without control characters; got {name!r}. Rename it.")
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"Tags occur more than once: {', '.join(map(repr, repeated))}. Remove the duplicates.")
    return names


Table = tuple[tuple[Row, ...], tuple[str, ...]]  # rows, and tags in the order of the targets
