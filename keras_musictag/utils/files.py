"""Files: written completely or not at all, hashed once, and the folder that downloads are kept in.

Environment:
    KERAS_MUSICTAG_CACHE: folder for what is downloaded and computed; default is the user's cache folder, or a temporary
        one where that cannot be written.
    KERAS_MUSICTAG_OFFLINE, HF_HUB_OFFLINE: set to 1 to never touch the network.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import CacheError

_log = logging.getLogger(__name__)

PART = ".part"  # last letters of a file that is still being written
_TRUE = {"1", "true", "yes", "on"}


# === Writing ===


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name when the block ends without an exception, and vanishes otherwise.

    Raises:
        OSError: it cannot be written; what was at `path` before is untouched.
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
    """Where what is downloaded and computed is kept.

    The folder that KERAS_MUSICTAG_CACHE names; else the user's cache folder; else, where that cannot be written, one
    below the folder for temporary files, with one warning.
    """
    configured = os.environ.get("KERAS_MUSICTAG_CACHE")
    if configured:  # whoever names a folder is told if it cannot be written
        return Path(os.path.expanduser(configured))
    folder = _user_cache()
    return folder if is_writable(folder) else _temporary_cache(folder)


def cached_path(*parts: str) -> Path:
    """Path of a file or folder in the cache; in one that can only be read, if it is there."""
    folder = cache_folder()
    if not os.environ.get("KERAS_MUSICTAG_CACHE"):
        kept = _user_cache().joinpath(*parts)
        with contextlib.suppress(OSError):
            if kept.exists():
                return kept
    return folder.joinpath(*parts)


def is_writable(folder: Path) -> bool:
    """Whether files can be written to a folder, which is made if it is not there; `False` for a relative path."""
    if not folder.is_absolute():  # "~" of somebody without a home
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
    """A cache below the folder for temporary files: the same for all processes of a user, and nobody else's."""
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    try:
        folder = Path(tempfile.gettempdir(), f"keras_musictag-{user}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        state = folder.lstat()
        # Anybody can make a folder of that name there, and put weights into it.
        ours = stat.S_ISDIR(state.st_mode) and (not hasattr(os, "getuid") or state.st_uid == os.getuid())
        if not ours or (os.name == "posix" and state.st_mode & 0o022) or not is_writable(folder):
            folder = Path(tempfile.mkdtemp(prefix="keras_musictag-"))
    except OSError:  # nothing can be written anywhere; what needs the cache will say so
        return unusable
    _log.warning(
        "%s cannot be written, so %s is the cache. Set KERAS_MUSICTAG_CACHE to a folder that lasts.", unusable, folder
    )
    return folder


def is_offline() -> bool:
    """Whether the user has forbidden network access."""
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("KERAS_MUSICTAG_OFFLINE", "HF_HUB_OFFLINE"))


# === Storage that fails ===

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
}
# What an `OSError` is about when it is about the disk, not about the network.
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
    """An error to raise: `folder`, which the environment variable chooses, cannot be written."""
    reason = _REASONS.get(error.errno or 0, "it cannot be written")
    return CacheError(
        f"Weights cannot be stored under {folder}: {reason} ({error}). Nothing was kept. "
        f"Make room there, or choose another folder with {variable}."
    )


def temporary_name(path: Path) -> Path:
    """A name beside `path` for a file under way, which no other process uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")
