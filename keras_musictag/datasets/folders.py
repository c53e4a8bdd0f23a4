"""Read rows and tags from a folder per tag, or rows without tags from a folder of audio files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from .readers import SPLIT_NAMES
from .rows import DataError, Row, Table

_log = logging.getLogger(__name__)

SUFFIXES = frozenset(
    (".3ga", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape", ".au", ".bwf", ".caf", ".dff", ".dsf",
     ".dts", ".eac3", ".flac", ".it", ".m4a", ".m4b", ".m4r", ".mka", ".mod", ".mp2", ".mp3", ".mp4", ".mpc", ".mpga",
     ".oga", ".ogg", ".opus", ".ra", ".rf64", ".s3m", ".shn", ".snd", ".spx", ".tak", ".tta", ".voc", ".w64", ".wav",
     ".weba", ".webm", ".wma", ".wv", ".xm")
)  # fmt: skip


def read_folders(root: Path) -> Table:
    """Implement `Manifest.from_folders`."""
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Pass the folder that has a folder for each tag.")
    folders = _subfolders(root)
    parts = _split_folders(root, folders)
    if parts:
        classes = [(folder, split) for top, split in parts.items() for folder in _subfolders(top)]
    else:
        classes = [(folder, "") for folder in folders]
    _warn_of_files_outside((root, *parts))
    rows = [
        Row(path=path, tags=(folder.name.strip(),), split=split, where=str(path.relative_to(root)))
        for folder, split in classes
        for path in _audio_files(folder)
    ]
    if not rows:
        raise DataError(
            f"{root} has no folders with audio files; it has: {_content(root)}. Put the files of each tag into a "
            "folder with the name of the tag; if no tags are needed, pass untagged=True."
        )
    return tuple(rows), tuple(sorted({folder.name.strip() for folder, _ in classes}))


def _split_folders(root: Path, folders: list[Path]) -> dict[Path, str]:
    """Return folder -> split if all folders with audio have names of splits, else an empty dictionary."""
    splits = {folder: SPLIT_NAMES.get(folder.name.lower(), "") for folder in folders if _audio_files(folder)}
    named = [folder.name for folder, split in splits.items() if split]
    others = [folder.name for folder, split in splits.items() if not split]
    if others and len({split for split in splits.values() if split}) > 1:  # a single one may be the name of a tag
        raise DataError(
            f"{root} has folders of splits ({', '.join(named)}) and other folders ({', '.join(others[:10])}). Move the "
            "other folders away or into the splits, or state the splits in a table."
        )
    return {} if others else splits


def _warn_of_files_outside(folders: Iterable[Path]) -> None:
    outside = [
        path for folder in folders for path in sorted(folder.iterdir()) if path.is_file() and is_sound(path.name)
    ]
    if outside:
        _log.warning(
            "%d audio files are not in the folder of a tag and are left out; the first is %s.", len(outside), outside[0]
        )


def read_files(root: Path, group_folders: int) -> Table:
    """Implement `Manifest.from_files`."""
    if isinstance(group_folders, bool) or not isinstance(group_folders, int) or group_folders < 0:
        raise DataError(f"group_folders must be a whole number, 0 or more; got {group_folders!r}.")
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Pass the folder that has the audio files.")
    names = [path.relative_to(root) for path in _audio_files(root)]
    if not names:
        raise DataError(
            f"{root} has no audio files; it has: {_content(root)}. Suffixes of audio files are "
            f"{', '.join(sorted(SUFFIXES))}."
        )
    groups = ("/".join(name.parts[:-1][:group_folders]) for name in names)
    return tuple(
        Row(path=root / name, group=group, where=str(name)) for name, group in zip(names, groups, strict=True)
    ), ()


def _content(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _audio_files(folder: Path) -> list[Path]:
    found = []
    for parent, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        found += [Path(parent, name) for name in files if is_sound(name)]
    return sorted(found)


def is_sound(name: str) -> bool:
    """Return whether a file name has a suffix of audio files and is not hidden."""
    return not name.startswith(".") and ending(name) in SUFFIXES


def ending(name: str) -> str:
    """Return the suffix of a file name, with its dot, in lower case; empty if there is none.

    Example:
        >>> ending("Cover.JPG")
        '.jpg'
    """
    return os.path.splitext(name)[1].lower()
