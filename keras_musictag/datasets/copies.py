"""Find copies of files without reading all files.

Only files of equal size can be copies. Of these, 48 KiB are compared first (recordings of the same length and format
have the same size), and only files that agree are read to the end.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path

from ..utils.files import sha256_of
from ..utils.parallel import parallel

_SAMPLE = 16_384  # bytes read at the beginning, in the middle and at the end


def copies(paths: Iterable[Path], workers: int = 2) -> dict[Path, Path]:
    """Map each file that has copies to the first of them in the order of their names; that file maps to itself.

    Args:
        paths: files; those that are missing, empty, not regular or unreadable have no copies.
        workers: number of files read at once.
    """
    sizes = {path: size for path in dict.fromkeys(paths) if (size := _size(path))}
    groups = _subgroups(sorted(sizes), sizes)
    steps: tuple[Callable[[Path], Hashable], ...] = (_sample, _digest)
    for step in steps:
        values = parallel(step, (path for group in groups for path in group), workers, "copies")
        groups = [subgroup for group in groups for subgroup in _subgroups(group, values)]
    return {path: group[0] for group in groups for path in group}


def _subgroups(group: Iterable[Path], values: Mapping[Path, Hashable]) -> list[list[Path]]:
    """Divide a group into files of equal value, without single files and files whose value is `None`."""
    by_value: dict[Hashable, list[Path]] = collections.defaultdict(list)
    for path in group:
        by_value[values[path]].append(path)
    return [paths for value, paths in by_value.items() if len(paths) > 1 and value is not None]


def _size(path: Path) -> int:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: an embedded null character
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _sample(path: Path) -> bytes | None:
    try:
        status = os.stat(path)
        return _sample_of(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=1 << 16)
def _sample_of(path: Path, size: int, _: int) -> bytes:
    """Compute the digest of three parts of a file, cached until the file changes."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        for start in (0, size // 2, size - _SAMPLE):
            file.seek(max(0, start))
            digest.update(file.read(_SAMPLE))
    return digest.digest()


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None
