"""Published data sets that can be opened by name: `gtzan:FOLDER`, `jamendo-3:FOLDER`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from typing import cast

from .info import DatasetInfo
from .loaders.emotify import Labels, emotify
from .loaders.emotify import info as emotify_info
from .loaders.gtzan import gtzan
from .loaders.gtzan import info as gtzan_info
from .loaders.jamendo import info as jamendo_info
from .loaders.jamendo import jamendo
from .loaders.magnatagatune import info as magnatagatune_info
from .loaders.magnatagatune import magnatagatune
from .manifest import Manifest
from .rows import AnyPath, DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set with a loader.

    Attributes:
        key: name in commands.
        info: information on the data set. The keys of `info.splits` are its versions, the first is the default.
        reader: function of folder, version and `partial`.
        version_form: format of a version in titles, e.g. `"{} split"`.
        grouped_by: what the groups of its rows are, in one word.
    """

    key: str
    info: DatasetInfo
    reader: Callable[[AnyPath, str, bool], Manifest]
    version_form: str
    grouped_by: str = ""

    @property
    def versions(self) -> tuple[str, ...]:
        """Names of the versions, the default first."""
        return tuple(self.info.splits)

    def name(self, version: str) -> str:
        """Return the name of a version in commands: `"jamendo-3"`, and `"jamendo"` for the first."""
        return self.key if version == self.versions[0] else f"{self.key}-{version}"

    def version_title(self, version: str) -> str:
        """Return the name of a version in cards."""
        return self.version_form.format(version)

    def load(self, folder: AnyPath, version: str = "", *, partial: bool = False) -> Manifest:
        """Read a version of the data set, by default the first.

        Raises:
            DataError: it is missing, incomplete or not as published.
        """
        return self.reader(folder, version or self.versions[0], partial)


def _magnatagatune(folder: AnyPath, version: str, partial: bool) -> Manifest:
    return magnatagatune(folder, "clean" if version == "clean" else "full", partial=partial)


def _jamendo(folder: AnyPath, version: str, partial: bool) -> Manifest:
    return jamendo(folder, int(version), partial=partial)


def _gtzan(folder: AnyPath, _: str, partial: bool) -> Manifest:
    return gtzan(folder, partial=partial)


def _emotify(folder: AnyPath, version: str, partial: bool) -> Manifest:
    return emotify(folder, cast(Labels, version), partial=partial)


_ENTRIES = (
    Entry(
        key="magnatagatune",
        info=magnatagatune_info,
        reader=_magnatagatune,
        version_form="{} split",
        grouped_by="artist",
    ),
    Entry(key="jamendo", info=jamendo_info, reader=_jamendo, version_form="split {}", grouped_by="artist"),
    Entry(key="gtzan", info=gtzan_info, reader=_gtzan, version_form="{} split"),
    Entry(
        key="emotify",
        info=emotify_info,
        reader=_emotify,
        version_form="{}, split by artist with seed 0",
        grouped_by="artist",
    ),
)
ENTRIES = {entry.key: entry for entry in _ENTRIES}


def is_meant(name: str) -> bool:
    """Return whether a name is that of a data set or similar to one, in which case `find` suggests the right name."""
    key = name.partition("-")[0]
    return key in ENTRIES or bool(difflib.get_close_matches(key.lower(), ENTRIES, n=1, cutoff=0.75))


def find(name: str) -> tuple[Entry, str]:
    """Return the data set and the version of a name.

    Args:
        name: `KEY` or `KEY-VERSION`.

    Raises:
        DataError: the name is unknown; the message lists the known names.

    Example:
        >>> entry, version = find("jamendo-3")
        >>> entry.info.name, version
        ('MTG-Jamendo top 50', '3')
    """
    key, dash, version = name.partition("-")
    if key in ENTRIES:
        entry = ENTRIES[key]
        if not dash:
            return entry, entry.versions[0]
        if version in entry.versions:
            return entry, version
        names = ", ".join(entry.name(version) for version in entry.versions)
        raise DataError(f"{entry.info.name} has no version {version!r}. Write {names}.")
    close = difflib.get_close_matches(key.lower(), ENTRIES, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise DataError(f"There is no data set {name!r}.{hint} There are {', '.join(ENTRIES)}.")
