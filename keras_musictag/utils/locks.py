"""Locks between processes, and between threads of one. The system holds them, so they end with the process."""

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
    """Hold the lock on a file in a block; the file is made for it and removed after it.

    Args:
        path: in a folder that may be removed in the block.

    Yields:
        Whether this block has it; `False` if another one does. On a file system without locks, always `True`.

    Raises:
        OSError: the file cannot be made.
    """
    file = _try(path)
    if file is None:
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            path.unlink()
        file.close()
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                path.unlink()


def _try(path: Path) -> IO[bytes] | None:
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
        # Whoever had it may have removed the file between the two steps: then this lock is on nothing.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
