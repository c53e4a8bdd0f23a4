"""What a published data set is, who made it and on which terms it may be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .rows import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A published data set. Every field is required: data without a licence or a citation cannot be used.

    Attributes:
        name: what it is called.
        description: one or two sentences.
        url: its home page.
        licence: terms of the annotations and of the sound.
        citation: the paper to cite.
        splits: version -> split -> number of rows, as the literature uses them; `"all"` are those of all splits, where
            only their sum is published.
        size: of the download, if it is known.
        obtain: a sentence that says how to get it and what the folder must have.

    Raises:
        DataError: something is empty.

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
        """Refuse an entry that leaves something out."""
        required = [field.name for field in dataclasses.fields(self) if field.default is dataclasses.MISSING]
        empty = [name for name in required if not getattr(self, name)]
        if empty:
            raise DataError(f"The data set {self.name!r} does not state its {', '.join(empty)}. Fill them in.")
