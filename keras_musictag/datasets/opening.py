"""Open data: read a table, a folder, `"gtzan:FOLDER"` or a `Manifest` into a `Manifest`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

from . import catalogue
from .manifest import Manifest
from .rows import DataError

MAGNATAGATUNE = "magnatagatune"  # the data set that may also be given as a bare folder
_TABLE = "annotations_final.csv"  # one of its files

Source = Manifest | str | os.PathLike[str]


class SourceError(DataError):
    """A source that is not complete: a data set without a folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Settings for reading data; the table `[data]` of a recipe.

    Attributes:
        source: a table, a folder or `"gtzan:FOLDER"`, relative to the recipe; or `"magnatagatune"`, whose folder is
            given when the recipe is run.
        name: name of the data in cards; by default that of the file or folder.
        split: version of MagnaTagATune: `"full"` or `"clean"`.
        validation: data to validate on, as `source`.
        tags: tags to learn, in order; by default all tags of the data.
        allow_untagged: whether clips may have none of the tags.
        shared_groups: whether the splits of the data may have artists in common.
        group_folders: as in `Manifest.from_files`.
    """

    source: str = ""
    name: str = ""
    split: Literal["full", "clean"] = "full"
    validation: str = ""
    tags: tuple[str, ...] = ()
    allow_untagged: bool = False
    shared_groups: bool = False
    group_folders: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Name and version of a data set.

    Attributes:
        name: name of the data set, file or folder.
        version: version of a published data set, e.g. `"full split"`.
        grouped_by: what its groups are (`artist`, `album`), if known.
    """

    name: str
    version: str = ""
    grouped_by: str = ""

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name}, {self.version}" if self.version else self.name


def open_data(
    source: Source,
    settings: DataSettings | None = None,
    *,
    untagged: bool = False,
    root: Path | None = None,
) -> tuple[Manifest, Origin]:
    """Read data without checking its splits.

    Args:
        source: a manifest; a table or folder as for `Manifest.load`; a data set of `datasets.catalogue` as
            `"gtzan:FOLDER"` or `"jamendo-3:FOLDER"`; MagnaTagATune also as a folder that has its tables.
        settings: tags and other options.
        untagged: do not read tags, and read a folder with `Manifest.from_files`.
        root: folder that relative paths start at.

    Returns:
        The manifest, and the name of the data.

    Raises:
        SourceError: the source is a data set without a folder.
        DataError: the data cannot be read.
    """
    settings = settings or DataSettings()
    if isinstance(source, Manifest):
        manifest = source.with_tags(settings.tags) if settings.tags else source
        return manifest, Origin(name=settings.name or "manifest")
    name, path = locate(os.fspath(source), root)
    if not name and not _is_magnatagatune(path, settings):
        return _read_other(path, settings, untagged)
    entry, version = catalogue.find(name or MAGNATAGATUNE)
    if name in ("", MAGNATAGATUNE):
        version = settings.split
    manifest = entry.load(str(path), version)
    if settings.tags:
        manifest = manifest.with_tags(settings.tags)
    return manifest, Origin(
        name=settings.name or entry.info.name, version=entry.version_title(version), grouped_by=entry.grouped_by
    )


def _is_magnatagatune(path: Path, settings: DataSettings) -> bool:
    return path.is_dir() and (settings.source == MAGNATAGATUNE or (path / _TABLE).is_file())


def _read_other(path: Path, settings: DataSettings, untagged: bool) -> tuple[Manifest, Origin]:
    options: dict[str, Any] = {}
    if untagged:
        options["untagged"] = True
        if path.is_dir():
            options["group_folders"] = settings.group_folders
    elif settings.tags and not path.is_dir():
        options["tags"] = settings.tags
    manifest = Manifest.load(path, **options)
    if settings.tags and not untagged:
        manifest = manifest.with_tags(settings.tags)
    return manifest, Origin(name=settings.name or path.resolve().stem)


def locate(text: str, root: Path | None) -> tuple[str, Path]:
    """Split `NAME:FOLDER` into the name of a published data set and its folder; the name of a plain path is empty.

    Raises:
        SourceError: the folder is missing.
    """
    base = root or Path()
    name, colon, folder = text.partition(":")
    if not colon or not catalogue.is_meant(name) or (base / text).exists():
        return "", base / text
    if not folder:
        raise SourceError(f"{text!r} names no folder. Write {text}FOLDER.")
    return name, base / folder
