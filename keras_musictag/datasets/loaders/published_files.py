"""Find the files of published data sets and report missing ones; shared by the loaders."""

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
    """Return the absolute path of an existing folder.

    Raises:
        DataError: it is not a folder; the message says how to get the data set.
    """
    path = Path(os.path.abspath(folder))
    if not path.is_dir():
        raise DataError(f"{path} is not a folder. {info.obtain}")
    return path


def find(folder: Path, places: Sequence[str], has_data: Callable[[Path], bool], what: str, info: DatasetInfo) -> Path:
    """Return the first of several places below a folder that has the data.

    Args:
        folder: folder given by the user.
        places: paths relative to the folder; `"."` is the folder itself.
        has_data: returns whether a place has the data.
        what: description of the data, for the message.
        info: information on the data set.

    Raises:
        DataError: no place has the data; the message lists the content of the folder and suggests a folder nearby, or
            says how to get the data set.
    """
    for place in places:
        if has_data(folder / place):
            return folder / place
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:_SHOWN]) or "nothing"
    near = [folder.parent, *sorted(path for path in folder.iterdir() if path.is_dir())]
    better = [path for path in near if any(has_data(path / place) for place in places)]
    advice = f"Did you mean {better[0]}?" if better else info.obtain
    raise DataError(f"{folder} has no {what}; it has: {there}. {advice}")


def file_sizes(root: Path, folders: Iterable[str]) -> dict[str, int]:
    """Return `folder/name` -> size in bytes of every file in folders below the root."""
    sizes: dict[str, int] = {}
    for name in folders:
        if (root / name).is_dir():
            with os.scandir(root / name) as entries:
                sizes |= {f"{name}/{entry.name}": entry.stat().st_size for entry in entries if entry.is_file()}
    return sizes


def what_is_missing(root: Path, wanted: Mapping[str, int | None]) -> str:
    """Describe missing and empty files; empty if there are none.

    Args:
        root: folder of the audio files.
        wanted: size in bytes by `folder/name`; `None` for a missing file.
    """
    problems = []
    for what, paths in (
        ("missing", [path for path, size in wanted.items() if size is None]),
        ("empty (0 bytes)", [path for path, size in wanted.items() if size == 0]),
    ):
        if paths:
            counts = collections.Counter(path.partition("/")[0] for path in paths)
            shown = [f"{name}: {count:,}" for name, count in sorted(counts.items())]
            by_folder = ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")
            problems.append(
                f"{len(paths):,} of {len(wanted):,} files in {root} are {what} (by folder {by_folder}; "
                f"first {paths[0]})"
            )
    return "; ".join(problems)


def require_complete(info: DatasetInfo, problem: str, partial: bool) -> None:
    """Raise if there is a problem, or warn with `partial`.

    Raises:
        DataError: the data set is not as published.
    """
    if problem and not partial:
        raise DataError(
            f"{info.name} is not complete: {problem}. {info.obtain} Or pass partial=True to use the existing files."
        )
    if problem:
        _log.warning("%s is not complete: %s.", info.name, problem)
