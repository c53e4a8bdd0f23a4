"""Leaving room for others on a machine: fewer cores, a lower priority, and pauses while they work."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from ...utils.cores import available_cores
from .library_rows import LibraryError

_APART = 1.0  # seconds between two looks at what others do


def limit_cores(count: int) -> None:
    """Run this process, and those it starts, on so many cores at most; call it before a model is loaded.

    Raises:
        LibraryError: the system cannot do that (it has to be Linux).
    """
    if not hasattr(os, "sched_setaffinity"):
        raise LibraryError("Only Linux can limit cores (--max-cores). Give fewer --workers instead.")
    cores = sorted(os.sched_getaffinity(0))[:count]
    for thread in _threads():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)


def lower_priority(by: int) -> None:
    """Let other programs go first, from 1 (a little) to 19; it cannot be undone in this process."""
    if hasattr(os, "setpriority"):
        for thread in _threads():
            with contextlib.suppress(ProcessLookupError):
                now = os.getpriority(os.PRIO_PROCESS, thread)
                os.setpriority(os.PRIO_PROCESS, thread, min(now + by, 19))


def _threads() -> list[int]:
    """Threads of this process, which on Linux have cores and priorities of their own."""
    return [int(name) for name in os.listdir("/proc/self/task")] if sys.platform == "linux" else [0]


class Others:
    """How many cores other programs use.

    Args:
        most: of which a run may go on.

    Raises:
        LibraryError: the system does not say it (it has to be Linux).
    """

    def __init__(self, most: float) -> None:
        """Begin to count."""
        if sys.platform != "linux":
            raise LibraryError("Only Linux says what other programs do (--pause-on-load). Use --nice instead.")
        self._most = most
        self._counted = time.monotonic(), *_seconds()
        self._busy = False

    def busy(self) -> bool:
        """Whether they use more than `most` cores, on average over the last second or more."""
        then, *before = self._counted
        now = time.monotonic()
        if now - then >= _APART:
            everybody, own = _seconds()
            used = (everybody - before[0] - (own - before[1])) / (now - then)
            self._counted, self._busy = (now, everybody, own), used > self._most
        return self._busy


def half_the_cores() -> float:
    """From this many cores on that others use, a run pauses unless told otherwise."""
    return available_cores() / 2


def _seconds() -> tuple[float, float]:
    """Processor time since the start: of all programs, and of this process with those it has started."""
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/stat", "rb") as file:
        user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:8])
    own = sum(map(_ticks, _family(os.getpid())))
    return (user + nice + system + sum(interrupts)) / ticks, own / ticks


def _family(process: int) -> Iterator[int]:
    yield process
    for thread in _listed(f"/proc/{process}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{process}/task/{thread}/children", "rb") as file:
            for child in file.read().split():
                yield from _family(int(child))


def _listed(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return []


def _ticks(process: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{process}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
        return sum(map(int, fields[11:15]))  # its own, and those of children that have ended
    return 0
