"""Locks between processes and threads. The operating system releases them when the process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock a file for the duration of a block; the file is created for it and removed afterwards.

    Args:
        path: lock file, in a folder that may be removed in the block.

    Yields:
        Whether the lock was acquired. On a file system without locks, always `True`.

    Raises:
        OSError: the file cannot be created.
    """
    file = _acquire(path)
    if file is None:
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):  # Windows cannot remove an open file
            path.unlink()
        file.close()
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                path.unlink()


def _acquire(path: Path) -> IO[bytes] | None:
    """Return the open lock file, or `None` if another block holds the lock."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        try:
            if sys.platform == "win32":
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                file.close()
                return None
            return file
        # The previous holder may have removed the file after it was opened here: then try again.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
