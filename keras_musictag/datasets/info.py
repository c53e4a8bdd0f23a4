"""What a published data set is, who made it and on which terms it may be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .rows import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A published data set. Nothing may be left empty: data without a licence or a citation cannot be used.

    Attributes:
        name: what it is called.
        description: one or two sentences.
        url: its home page.
        licence: terms of the annotations and of the sound.
        citation: the paper to cite.
        splits: version -> split -> number of rows, as the literature uses them.

    Raises:
        DataError: something is empty.

    Example:
        >>> from keras_musictag.datasets.magnatagatune import info
        >>> info.splits["clean"]["test"]
        4332
    """

    name: str
    description: str
    url: str
    licence: str
    citation: str
    splits: Mapping[str, Mapping[str, int]]

    def __post_init__(self) -> None:
        """Refuse an entry that leaves something out."""
        empty = [field.name for field in dataclasses.fields(self) if not getattr(self, field.name)]
        if empty:
            raise DataError(f"The data set {self.name!r} does not state its {', '.join(empty)}. Fill them in.")
