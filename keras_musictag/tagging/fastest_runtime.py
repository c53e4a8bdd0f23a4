"""The fastest runtime for a model on this machine, measured at first use and kept in the cache."""

from __future__ import annotations

import logging
import platform
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import __version__
from ..utils import kept_results
from ..utils.backend import configured_backend, installed_version
from ..utils.cores import available_cores, processor
from ..utils.files import cached_path
from .base_tagger import BaseTagger
from .runtimes import FILE_RUNTIMES

_log = logging.getLogger(__name__)

_WARM_UP, _ROUNDS = 2, 7


def conditions(model: str, threads: int | None) -> dict[str, Any]:
    """Return what the fastest runtime depends on: model, processor, cores, threads and versions.

    Args:
        model: digest of the network and its input.
        threads: number of CPU threads, `None` for all cores.
    """
    backend = configured_backend()  # without importing Keras, which exported models do not need
    versions = {name: version for name, entry in FILE_RUNTIMES.items() if (version := entry.version())}
    return {
        "model": model,
        "processor": processor(),
        "cores": available_cores(),
        "threads": threads,
        "python": platform.python_version(),
        "keras_musictag": __version__,
        "keras": installed_version("keras"),
        "backend": backend,
        **versions,
    }


def measure(taggers: Mapping[str, BaseTagger]) -> dict[str, float]:
    """Time taggers of one model in turns, from the samples of one window to tags.

    Args:
        taggers: name of the runtime -> tagger.

    Returns:
        Median milliseconds by name.
    """
    spec = next(iter(taggers.values())).spec
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, spec.window_samples).astype("float32")
    times: dict[str, list[float]] = {name: [] for name in taggers}
    for turn in range(_WARM_UP + _ROUNDS):
        for name, tagger in taggers.items():
            started = time.perf_counter()
            tagger.tag(noise, spec.audio.sr)
            if turn >= _WARM_UP:
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def recall(conditions: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the times measured under these conditions, `None` without any."""
    try:
        times = kept_results.recall(cached_path("runtimes"), conditions)
        return {str(name): float(value) for name, value in times.items()} or None
    except (OSError, ValueError, AttributeError, TypeError):
        return None  # missing or damaged


def remember(conditions: Mapping[str, Any], times: Mapping[str, float]) -> None:
    """Write measured times to the cache; log a warning if it cannot be written."""
    try:
        kept_results.keep(cached_path("runtimes"), conditions, times)
    except OSError as error:
        _log.warning("The times of the runtimes cannot be kept and will be measured again: %s", error)
