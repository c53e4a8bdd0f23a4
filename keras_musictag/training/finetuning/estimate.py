"""How long fine-tuning will take here, from one timed call of the network."""

from __future__ import annotations

import time

import numpy as np

from ...audio import reading as audio
from ...models.keras_runtime import KerasRuntime
from ...tagging.network_tagger import NetworkTagger
from .labelled_data import FineTuneData
from .settings import FineTuneSpec

_DECODED_PER_SECOND = 300.0  # seconds of sound that become log-mels in a second: 300 to 700 on two cores
_BACKWARD = 2.5  # what a window costs in training, in calls: 2 to 3 on two cores
_BATCH = 8  # windows in a call


def seconds_for(base: NetworkTagger, data: FineTuneData, settings: FineTuneSpec) -> tuple[float, float]:
    """Seconds of the first stage with everything before it, and of the second stage if it runs to its end."""
    spec = base.spec
    run = KerasRuntime(base.core)
    batch = np.zeros((_BATCH, *spec.input_shape), "float32")
    run.predict(batch)
    started = time.perf_counter()
    run.predict(batch)
    window = (time.perf_counter() - started) / _BATCH
    lengths = {name: [_seconds(row.path, row.duration) for row in part] for name, part in data.parts.items()}
    windows = {name: sum(max(1.0, length / spec.window_seconds) for length in all_) for name, all_ in lengths.items()}
    first = sum(map(sum, lengths.values())) / _DECODED_PER_SECOND + sum(windows.values()) * window
    if settings.stages == "head":
        return first, 0.0
    steps = settings.epochs * settings.steps_per_epoch(len(data.train))
    validation = settings.epochs * windows.get("validation", 0.0) * window
    return first, steps * settings.batch_size * window * _BACKWARD + validation


def duration_text(seconds: float) -> str:
    """In words: seconds up to a minute and a half, then minutes.

    Example:
        >>> duration_text(59.7), duration_text(600)
        ('60 s', '10 min')
    """
    return f"{max(1, round(seconds)):d} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _seconds(path: object, duration: float | None) -> float:
    return duration or audio.duration_of(path) or 30.0  # type: ignore[arg-type]
