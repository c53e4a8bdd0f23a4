"""Description, licence and citation of published data sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from .rows import DataError, Row

_SHOWN = 10  # licences that are named


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Information on a published data set. All fields but `size` and `obtain` are required.

    Attributes:
        name: name of the data set.
        description: one or two sentences.
        url: home page.
        licence: licences of the annotations and of the audio.
        citation: the paper to cite.
        splits: version -> split -> number of rows, as in the literature; `"all"` is the number in all splits, if only
            that is published.
        size: size of the download, if known.
        obtain: how to get the data set and what its folder must contain, in a sentence.

    Raises:
        DataError: a required field is empty.

    Example:
        >>> from keras_musictag.datasets.loaders.magnatagatune import info
        >>> info.splits["clean"]["test"]
        4332
    """

    name: str
    description: str
    url: str
    licence: str
    citation: str
    splits: Mapping[str, Mapping[str, int]]
    size: str = ""
    obtain: str = ""

    def __post_init__(self) -> None:
        """Require the fields that have no default."""
        required = [field.name for field in dataclasses.fields(self) if field.default is dataclasses.MISSING]
        empty = [name for name in required if not getattr(self, name)]
        if empty:
            raise DataError(f"The data set {self.name!r} does not state its {', '.join(empty)}. Fill them in.")


def named_licences(rows: Iterable[Row]) -> str:
    """Return the licences of rows, each once and at most ten, or `"not stated"`."""
    names = list(dict.fromkeys(row.licence for row in rows if row.licence))
    more = f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "not stated"
