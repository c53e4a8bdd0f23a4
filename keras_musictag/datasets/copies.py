"""Files that are copies of each other, found without reading all of them.

Only files of one size can be copies. Of these, 48 KiB are read (recordings of one length and format have one size), and
only those that agree in that are read to the end.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path

from ..utils.files import sha256_of
from ..utils.parallel import parallel

_SAMPLE = 16_384  # bytes at the beginning, in the middle and at the end


def copies(paths: Iterable[Path], workers: int = 2) -> dict[Path, Path]:
    """File -> the first, in the order of their names, of those with the same content; only files that have copies.

    Args:
        paths: files; what is missing, empty, no file or cannot be read has no copies.
        workers: files read at once.

    Returns:
        The first of several copies stands for itself.
    """
    sizes = {path: size for path in dict.fromkeys(paths) if (size := _size(path))}
    alike = list(_parts(sorted(sizes), sizes))
    steps: tuple[Callable[[Path], Hashable], ...] = (_sample, _digest)
    for step in steps:
        found = parallel(step, (path for group in alike for path in group), workers, "copies")
        alike = [part for group in alike for part in _parts(group, found)]
    return {path: group[0] for group in alike for path in group}


def _parts(group: Iterable[Path], found: Mapping[Path, Hashable]) -> Iterator[list[Path]]:
    """The files of a group that agree, without those that nothing agrees with or that could not be read."""
    by_result: dict[Hashable, list[Path]] = collections.defaultdict(list)
    for path in group:
        by_result[found[path]].append(path)
    return (paths for result, paths in by_result.items() if len(paths) > 1 and result is not None)


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
    """Digest of three parts of a file; remembered until the file is written again."""
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
