"""What loaders of published data sets have in common: where the sounds are, what is missing, and how to say so."""

from __future__ import annotations

import collections
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..info import DatasetInfo
from ..rows import AnyPath, DataError

_log = logging.getLogger(__name__)
_SHOWN = 10  # names listed in a message


def as_folder(folder: AnyPath, info: DatasetInfo) -> Path:
    """The absolute path of a folder that is there.

    Raises:
        DataError: it is not; says how to get the data set.
    """
    path = Path(os.path.abspath(folder))
    if not path.is_dir():
        raise DataError(f"{path} is not a folder. {info.obtain}")
    return path


def find(folder: Path, places: Sequence[str], is_it: Callable[[Path], bool], what: str, info: DatasetInfo) -> Path:
    """The first of the places below the folder that has what is looked for.

    Args:
        folder: where to look.
        places: relative to the folder; `"."` is the folder itself.
        is_it: whether a place has it.
        what: what is looked for, for the message.
        info: of the data set.

    Raises:
        DataError: none has it; says what is there, where it is if that is near by, and how to get the data set.
    """
    for place in places:
        if is_it(folder / place):
            return folder / place
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:_SHOWN]) or "nothing"
    near = [folder.parent, *sorted(path for path in folder.iterdir() if path.is_dir())]
    better = [path for path in near if any(is_it(path / place) for place in places)]
    advice = f"Did you mean {better[0]}?" if better else info.obtain
    raise DataError(f"{folder} has no {what}; it has: {there}. {advice}")


def file_sizes(root: Path, folders: Iterable[str]) -> dict[str, int]:
    """Bytes of every file in the folders below the root, by `folder/name`."""
    sizes: dict[str, int] = {}
    for name in folders:
        if (root / name).is_dir():
            with os.scandir(root / name) as entries:
                sizes |= {f"{name}/{entry.name}": entry.stat().st_size for entry in entries if entry.is_file()}
    return sizes


def what_is_missing(root: Path, wanted: Mapping[str, int | None]) -> str:
    """Missing and empty files in words; nothing if there is nothing to say.

    Args:
        root: folder of the sounds.
        wanted: bytes by `folder/name`; `None` for a file that is not there.
    """
    said = []
    for what, paths in (
        ("missing", [path for path, size in wanted.items() if size is None]),
        ("empty (0 bytes)", [path for path, size in wanted.items() if size == 0]),
    ):
        if paths:
            counts = collections.Counter(path.partition("/")[0] for path in paths)
            shown = [f"{name}: {count:,}" for name, count in sorted(counts.items())]
            by_folder = ", ".join([*shown[:_SHOWN], *(["..."] if len(shown) > _SHOWN else [])])
            said.append(
                f"{len(paths):,} of {len(wanted):,} sounds in {root} are {what} (by folder {by_folder}; "
                f"first {paths[0]})"
            )
    return "; ".join(said)


def require_complete(info: DatasetInfo, problem: str, partial: bool) -> None:
    """Raise if there is a problem, or with `partial` only warn of it.

    Raises:
        DataError: the data set is not as published.
    """
    if problem and not partial:
        raise DataError(
            f"{info.name} is not complete: {problem}. {info.obtain} Or pass partial=True to use what is there."
        )
    if problem:
        _log.warning("%s is not complete: %s.", info.name, problem)
