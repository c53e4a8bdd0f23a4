"""Estimate of the duration of fine-tuning on this machine, from one timed call of the network."""

from __future__ import annotations

import time

import numpy as np

from ...audio import reading as audio
from ...models.keras_runtime import KerasRuntime
from ...tagging.network_tagger import NetworkTagger
from .labelled_data import FineTuneData
from .settings import FineTuneSpec

_DECODED_PER_SECOND = 300.0  # seconds of audio converted to log-mels per second: 300 to 700 on two cores
_TRAINING_COST = 2.5  # time of a training step relative to a call: 2 to 3 on two cores
_BATCH = 8  # windows per call


def seconds_for(base: NetworkTagger, data: FineTuneData, settings: FineTuneSpec) -> tuple[float, float]:
    """Return the seconds of the first stage and everything before it, and of the second stage without early stop."""
    spec = base.spec
    runtime = KerasRuntime(base.core)
    batch = np.zeros((_BATCH, *spec.input_shape), "float32")
    runtime.predict(batch)  # compiles
    started = time.perf_counter()
    runtime.predict(batch)
    window_cost = (time.perf_counter() - started) / _BATCH
    audio_seconds, windows = 0.0, {}
    for name, part in data.parts.items():
        lengths = [_seconds(row.path, row.duration) for row in part]
        audio_seconds += sum(lengths)
        windows[name] = sum(max(1.0, length / spec.window_seconds) for length in lengths)
    first = audio_seconds / _DECODED_PER_SECOND + sum(windows.values()) * window_cost
    if settings.stages == "head":
        return first, 0.0
    steps = settings.epochs * settings.steps_per_epoch(len(data.train))
    validation = settings.epochs * windows.get("validation", 0.0) * window_cost
    return first, steps * settings.batch_size * window_cost * _TRAINING_COST + validation


def duration_text(seconds: float) -> str:
    """Format a duration: seconds below 100 s, then minutes.

    Example:
        >>> duration_text(59.7), duration_text(600)
        ('60 s', '10 min')
    """
    return f"{max(1, round(seconds)):d} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _seconds(path: object, duration: float | None) -> float:
    return duration or audio.duration_of(path) or 30.0  # type: ignore[arg-type]
