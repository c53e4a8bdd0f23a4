"""Files: written completely or not at all, hashed once, and the folder that downloads are kept in.

Environment:
    KERAS_MUSICTAG_CACHE: folder for what is downloaded and computed; default is the user's cache folder.
    KERAS_MUSICTAG_OFFLINE, HF_HUB_OFFLINE: set to 1 to never touch the network.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import CacheError

PART = ".part"  # last letters of a file that is still being written
_TRUE = {"1", "true", "yes", "on"}


# === Writing ===


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name when the block ends without an exception, and vanishes otherwise.

    Raises:
        OSError: it cannot be written; what was at `path` before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either there in full or not at all.

    Raises:
        CacheError: the folder cannot be written or the disk is full.
    """
    try:
        with replacing(path) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
    except OSError as error:
        raise CacheError(f"{path} cannot be written: {error}. Nothing was changed.") from error


# === Checksums ===


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file; remembered until the file is written again.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# === Folders and settings ===


def cache_folder() -> Path:
    """Where downloads by URL are kept."""
    configured = os.environ.get("KERAS_MUSICTAG_CACHE")
    if configured:
        return Path(os.path.expanduser(configured))
    import platformdirs

    return Path(platformdirs.user_cache_dir("keras_musictag", appauthor=False))


def is_offline() -> bool:
    """Whether the user has forbidden network access."""
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("KERAS_MUSICTAG_OFFLINE", "HF_HUB_OFFLINE"))
