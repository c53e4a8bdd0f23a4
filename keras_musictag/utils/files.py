"""Atomic writes, checksums and the cache folder.

Environment:
    KERAS_MUSICTAG_CACHE: folder for downloads and computed files; by default the user's cache folder, or a temporary
        one if that cannot be written.
    KERAS_MUSICTAG_OFFLINE, HF_HUB_OFFLINE: set to 1 to forbid network access.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import CacheError

_log = logging.getLogger(__name__)

PART = ".part"  # suffix of a file that is still being written
_TRUE = {"1", "true", "yes", "on"}


# === Writing ===


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends, and is removed if the block raises.

    Raises:
        OSError: it cannot be written; a file that was at `path` before is unchanged.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely or not at all.

    Raises:
        CacheError: the folder cannot be written or the disk is full.
    """
    try:
        with replacing(path) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else the file could be empty after a power failure
    except OSError as error:
        raise CacheError(f"{path} cannot be written: {error}. Nothing was changed.") from error


# === Checksums ===


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file, cached until the file changes.

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
    """Return the folder for downloads and computed files.

    This is the folder named by KERAS_MUSICTAG_CACHE, by default the user's cache folder. If that cannot be written, a
    folder for temporary files is used, with one warning.
    """
    configured = os.environ.get("KERAS_MUSICTAG_CACHE")
    if configured:  # not replaced if it cannot be written: the write raises
        return Path(os.path.expanduser(configured))
    folder = _user_cache()
    return folder if is_writable(folder) else _temporary_cache(folder)


def cached_path(*parts: str) -> Path:
    """Return the path of a file or folder in the cache, or in the user's read-only cache if it exists there."""
    folder = cache_folder()
    if not os.environ.get("KERAS_MUSICTAG_CACHE"):
        path = _user_cache().joinpath(*parts)
        with contextlib.suppress(OSError):
            if path.exists():
                return path
    return folder.joinpath(*parts)


def is_writable(folder: Path) -> bool:
    """Return whether a folder, which is created if needed, can be written to; `False` for a relative path."""
    if not folder.is_absolute():  # "~" for a user without a home folder
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _user_cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("keras_musictag", appauthor=False))


@functools.cache
def _temporary_cache(unusable: Path) -> Path:
    """Create a cache in the folder for temporary files, shared by all processes of the user and by nobody else."""
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    try:
        folder = Path(tempfile.gettempdir(), f"keras_musictag-{user}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        state = folder.lstat()
        # Another user could have created a folder of that name and put weights into it.
        ours = stat.S_ISDIR(state.st_mode) and (not hasattr(os, "getuid") or state.st_uid == os.getuid())
        if not ours or (os.name == "posix" and state.st_mode & 0o022) or not is_writable(folder):
            folder = Path(tempfile.mkdtemp(prefix="keras_musictag-"))
    except OSError:  # nothing can be written anywhere; the first write to the cache raises
        return unusable
    _log.warning(
        "%s cannot be written, so %s is used as the cache. Set KERAS_MUSICTAG_CACHE to a permanent folder.",
        unusable,
        folder,
    )
    return folder


def is_offline() -> bool:
    """Return whether the user has forbidden network access."""
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("KERAS_MUSICTAG_OFFLINE", "HF_HUB_OFFLINE"))


# === Storage errors ===

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
}
# Codes of an `OSError` caused by the disk; others come from the network.
STORAGE_ERRORS = {
    *_REASONS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.EFBIG,
    errno.EIO,
}


def cache_error(folder: Path, error: OSError, variable: str) -> CacheError:
    """Return the error for a folder, chosen by the environment variable, that cannot be written."""
    reason = _REASONS.get(error.errno or 0, "it cannot be written")
    return CacheError(
        f"Weights cannot be stored under {folder}: {reason} ({error}). Nothing was kept. "
        f"Make room there, or choose another folder with {variable}."
    )


def temporary_name(path: Path) -> Path:
    """Return a unique name beside `path` for a file that is still being written."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")


def slug(text: str, default: str = "tagger") -> str:
    """Turn text into a name for a file or folder; `default` if no character is left.

    Example:
        >>> slug("My songs: 2026"), slug("???")
        ('My-songs-2026', 'tagger')
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._") or default
