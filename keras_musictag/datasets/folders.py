"""A folder per tag -> `Manifest`."""

from __future__ import annotations

import os
from pathlib import Path

from .manifest import Manifest
from .readers import SPLIT_NAMES
from .rows import DataError, Row

SUFFIXES = frozenset(
    (".aac", ".aif", ".aifc", ".aiff", ".alac", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mp2", ".mp3",
     ".mp4", ".mpc", ".oga", ".ogg", ".opus", ".w64", ".wav", ".webm", ".wma", ".wv")
)  # fmt: skip


def read_folders(root: Path) -> Manifest:
    """See `Manifest.from_folders`."""
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Give the folder that has a folder for each tag.")
    folders = _subfolders(root)
    splits = [SPLIT_NAMES.get(folder.name.lower(), "") for folder in folders]
    if folders and all(splits):
        classes = [(folder, split) for top, split in zip(folders, splits, strict=True) for folder in _subfolders(top)]
    else:
        classes = [(folder, "") for folder in folders]
    rows = [
        Row(path=path, tags=(folder.name.strip(),), split=split, where=str(path.relative_to(root)))
        for folder, split in classes
        for path in _sounds(folder)
    ]
    if not rows:
        raise DataError(
            f"{root} has no folders with sound files; it has: "
            f"{', '.join(sorted(path.name for path in root.iterdir())[:10]) or 'nothing'}. Put the sounds of each tag "
            "into a folder named like the tag."
        )
    return Manifest(tuple(rows), tuple(sorted({folder.name.strip() for folder, _ in classes})))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _sounds(folder: Path) -> list[Path]:
    found = []
    for parent, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)
