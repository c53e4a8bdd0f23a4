"""The published data sets that can be named: `gtzan:FOLDER`, `jamendo-3:FOLDER`."""

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
        key: what it is called in commands.
        info: what it is. The versions in `info.splits` can be named, the first is the default.
        reader: takes folder, version and `partial`.
        version_form: what a version is called in titles: `"{} split"`.
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
        """What a command calls a version of it: `"jamendo-3"`, and just `"jamendo"` for the first."""
        return self.key if version == self.versions[0] else f"{self.key}-{version}"

    def version_title(self, version: str) -> str:
        """What cards call a version."""
        return self.version_form.format(version)

    def load(self, folder: AnyPath, version: str = "", *, partial: bool = False) -> Manifest:
        """Read a version of it, by default the first.

        Raises:
            DataError: it is not there, not complete or not as published.
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
    """Whether a name looks like that of a data set, perhaps misspelt: if so, `find` gives it or says what is wrong."""
    key = name.partition("-")[0]
    return key in ENTRIES or bool(difflib.get_close_matches(key.lower(), ENTRIES, n=1, cutoff=0.75))


def find(name: str) -> tuple[Entry, str]:
    """The data set and the version that a name stands for.

    Args:
        name: a key, or key-version.

    Raises:
        DataError: there is none; says which there are.

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
