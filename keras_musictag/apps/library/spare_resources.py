"""Leave resources to other programs: limit the cores, lower the priority, and pause while they are busy."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from ...utils.cores import available_cores
from .library_rows import LibraryError

_INTERVAL = 1.0  # seconds between two measurements


def limit_cores(count: int) -> None:
    """Limit this process, and those it starts, to a number of cores; call it before loading a model.

    Raises:
        LibraryError: the system is not Linux.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise LibraryError("Only Linux can limit cores (--max-cores). Give fewer --workers instead.")
    cores = sorted(os.sched_getaffinity(0))[:count]
    for thread in _threads():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)


def lower_priority(by: int) -> None:
    """Lower the priority by 1 to 19 (lowest); it cannot be raised again in this process."""
    if hasattr(os, "setpriority"):
        for thread in _threads():
            with contextlib.suppress(ProcessLookupError):
                now = os.getpriority(os.PRIO_PROCESS, thread)
                os.setpriority(os.PRIO_PROCESS, thread, min(now + by, 19))


def _threads() -> list[int]:
    """Return the threads of this process; on Linux, each has its own cores and priority."""
    return [int(name) for name in os.listdir("/proc/self/task")] if sys.platform == "linux" else [0]


class OtherPrograms:
    """Measure how many cores other programs use.

    Args:
        max_cores: number of cores above which other programs count as busy.

    Raises:
        LibraryError: the system is not Linux.
    """

    def __init__(self, max_cores: float) -> None:
        """Start measuring."""
        if sys.platform != "linux":
            raise LibraryError("Only Linux reports the load of other programs (--pause-on-load). Use --nice instead.")
        self._max_cores = max_cores
        self._last = time.monotonic(), *_cpu_seconds()
        self._busy = False

    def busy(self) -> bool:
        """Return whether they use more than `max_cores` cores, on average over the last second or longer."""
        then, *before = self._last
        now = time.monotonic()
        if now - then >= _INTERVAL:
            total, own = _cpu_seconds()
            used = (total - before[0] - (own - before[1])) / (now - then)
            self._last, self._busy = (now, total, own), used > self._max_cores
        return self._busy


def half_the_cores() -> float:
    """Return the default number of cores that other programs may use before a run pauses."""
    return available_cores() / 2


def _cpu_seconds() -> tuple[float, float]:
    """Return the CPU time used so far: by all programs, and by this process and its descendants."""
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/stat", "rb") as file:
        user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:8])
    own = sum(map(_cpu_ticks, _process_tree(os.getpid())))
    return (user + nice + system + sum(interrupts)) / ticks, own / ticks


def _process_tree(process: int) -> Iterator[int]:
    yield process
    for thread in _list_folder(f"/proc/{process}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{process}/task/{thread}/children", "rb") as file:
            for child in file.read().split():
                yield from _process_tree(int(child))


def _list_folder(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return []


def _cpu_ticks(process: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{process}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
        return sum(map(int, fields[11:15]))  # of the process, and of its children that have ended
    return 0
