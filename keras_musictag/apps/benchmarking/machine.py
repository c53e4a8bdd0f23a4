"""Describe the machine of a measurement."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...utils.cores import available_cores, processor

_SIZE = 2048  # rows and columns of the matrices
_REPETITIONS = 7


def describe(threads: int) -> dict[str, Any]:
    """Return processor, cores, memory, system, versions, commit, date, and the speed of matrix products.

    Args:
        threads: for the matrix product; the process is kept to as many cores.
    """
    return {
        **conditions(threads),
        "date": datetime.date.today().isoformat(),
        "matmul_gflops": round(matmul_gflops(), 1),
    }


def conditions(threads: int) -> dict[str, Any]:
    """Return processor, cores, memory, system and versions: what two runs must share for their times to compare."""
    return {
        "processor": processor(),
        "cores": available_cores(),
        "threads": threads,
        "memory_gb": _memory_gb(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "keras_musictag": __version__,
        "commit": _commit(),
    }


def keep_to(threads: int) -> None:
    """Limit this process to a number of cores, if the system supports it; call it before importing a backend."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)


def matmul_gflops() -> float:
    """Return the speed of NumPy's float32 matrix product in GFLOP/s, the best of a few runs."""
    a, b = (np.random.default_rng(seed).standard_normal((_SIZE, _SIZE)).astype("float32") for seed in (0, 1))
    best = float("inf")
    for _ in range(_REPETITIONS):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * _SIZE**3 / best / 1e9


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _commit() -> str:
    """Return the commit of the checkout of this package; empty if it is installed."""
    folder = Path(__file__).parents[3]
    if not (folder / ".git").exists():
        return ""
    try:
        run = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip()
