"""One measurement in a separate process: `python -m keras_musictag.apps.benchmarking.job JOB.json RESULT.json`.

The process is limited to a number of cores before a backend is imported, and its peak memory is that of one tagger.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    import numpy as np

    from ...audio.reading import Source
    from ...models.spec import ModelSpec
    from ...tagging.base_tagger import BaseTagger

_SECONDS = 120.0  # of audio in the largest batch
_BATCHES = (1, 2, 4, 8, 16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Description of one measurement.

    Attributes:
        kind: `"measure"` a tagger; `"export"` one, so that it can be measured; `"evaluate"` one on labelled audio.
        model: name of the model in the results.
        source: argument for `load`.
        runtime: name of a runtime.
        format: format of the file to export.
        precision: precision of the export.
        threads: number of cores to use.
        clip: audio file to time.
        clip_seconds: length of the clip.
        budget: seconds to spend on each timing.
        least: minimum number of calls per timing.
        folder: folder for an export.
        data, dataset, split: data to evaluate on.
        calibration: audio files for int8.
        started: start of the process, in seconds of `time.time`.
    """

    kind: Literal["measure", "export", "evaluate"]
    model: str
    source: str
    runtime: str = "keras"
    format: str = "onnx"
    precision: str = "float32"
    threads: int = 1
    clip: str = ""
    clip_seconds: float = 0.0
    budget: float = 1.0
    least: int = 10
    folder: str = ""
    data: str = ""
    dataset: str = ""
    split: str = "test"
    calibration: tuple[str, ...] = ()
    started: float = 0.0

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of `dataclasses.asdict`."""
        fields = json.loads(text)
        return cls(**fields | {"calibration": tuple(fields["calibration"])})


# === Timing ===


def timed(call: Callable[[], object], budget: float, least: int, warm_up: int = 3) -> dict[str, float]:
    """Time calls for `budget` seconds, at least `least` of them; return median and percentiles in milliseconds."""
    import numpy as np

    for _ in range(warm_up):
        call()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < least or time.perf_counter() - began < budget:
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    p10, median, p90 = (round(float(value), 3) for value in np.percentile(times, (10, 50, 90)))
    return {"median_ms": median, "p10_ms": p10, "p90_ms": p90, "calls": len(times)}


def measure(job: Job) -> dict[str, Any]:
    """Load and time a tagger."""
    from ...loading import load

    options: dict[str, Any] = {"runtime": job.runtime} | ({} if job.runtime == "keras" else {"threads": job.threads})
    tagger = load(job.source, **options)
    cold = time.time() - job.started
    tagger.tag(job.clip)
    first_tags, tag_memory = time.time() - job.started, _peak_memory_mb()
    started = time.perf_counter()
    load(job.source, **options)
    warm = time.perf_counter() - started
    return {
        "windows": len(windows_of(job.clip, tagger.spec)),
        "load_cold_s": round(cold, 3),
        "load_warm_s": round(warm, 3),
        "first_tags_s": round(first_tags, 3),
        "tag_memory_mb": tag_memory,
        **_latency(tagger, job),
        **_throughput(tagger, job),
        "peak_memory_mb": _peak_memory_mb(),
        "version": _version(tagger),
        **(_complexity(tagger) if job.runtime == "keras" else {}),
    }


def windows_of(source: Source, spec: ModelSpec) -> np.ndarray:
    """Return the windows that a model cuts from audio, float32 `(windows, window_samples)`."""
    import numpy as np

    from ...audio import reading as audio
    from ...models import windows

    blocks = audio.stream(source, target_sr=spec.audio.sr, resampler=spec.audio.resampler)
    return np.concatenate([batch.samples for batch in windows.cut(blocks, spec)])


def _latency(tagger: BaseTagger, job: Job) -> dict[str, Any]:
    """Time tagging from a log-mel, a waveform and a file, and the stages before the network."""
    import soundfile

    from ...audio import reading as audio
    from ...models.mel import LogMel

    rate = tagger.spec.audio.sr
    clip = audio.load(job.clip, target_sr=rate, resampler=tagger.spec.audio.resampler)
    native = soundfile.info(job.clip).samplerate
    decoded = audio.load(job.clip, target_sr=native)
    windows = windows_of(job.clip, tagger.spec)
    log_mel, front_end = LogMel(tagger.spec)(windows), _front_end(tagger)
    calls: dict[str, Callable[[], object]] = {
        "log_mel": lambda: tagger.predict_log_mels(log_mel),
        "waveform": lambda: tagger.tag(clip, rate),
        "file": lambda: tagger.tag(job.clip),
        "decode": lambda: audio.load(job.clip, target_sr=native),
        "features": lambda: front_end(windows),
        "resample": lambda: audio.load(decoded, native, target_sr=rate, resampler=tagger.spec.audio.resampler),
    }
    return {name: timed(call, job.budget, job.least) for name, call in calls.items()}


def _front_end(tagger: BaseTagger) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that computes the tagger's log-mels of windows."""
    from ...models.mel import LogMel
    from ...tagging.exported import ExportedTagger

    if isinstance(tagger, ExportedTagger):
        return LogMel(tagger.spec)
    import keras

    from ...models.keras_runtime import KerasRuntime
    from ...models.layers import LogMelSpectrogram

    model = tagger.model  # type: ignore[attr-defined]
    (layer,) = (layer for layer in model.layers if isinstance(layer, LogMelSpectrogram))
    return KerasRuntime(keras.Model(model.inputs, layer.output)).predict


def _throughput(tagger: BaseTagger, job: Job) -> dict[str, Any]:
    """Measure clips per second from waveforms in memory, one at a time and with the best batch size."""
    import numpy as np

    one, rates = windows_of(job.clip, tagger.spec), {}
    for batch in _BATCHES:
        if batch > 1 and batch * job.clip_seconds > _SECONDS:
            break
        windows = np.concatenate([one] * batch)
        spent = timed(lambda windows=windows: tagger.predict_waveforms(windows), job.budget / 2, 3, 1)  # type: ignore[misc]
        rates[batch] = 1000 * batch / spent["median_ms"]
    best = max(rates, key=lambda batch: rates[batch])
    return {"clips_per_s": round(rates[1], 3), "best_batch": best, "best_clips_per_s": round(rates[best], 3)}


def _peak_memory_mb() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _version(tagger: BaseTagger) -> str:
    from ...tagging.exported import ExportedTagger

    if isinstance(tagger, ExportedTagger):
        return tagger.runtime_version
    import keras

    return f"Keras {keras.__version__} on {keras.backend.backend()}"


def _complexity(tagger: Any) -> dict[str, Any]:
    """Return size and complexity of the network, which need Keras."""
    from .complexity import multiply_adds, parameters

    trainable, every = parameters(tagger.core)
    return {
        "parameters": every,
        "trainable_parameters": trainable,
        "multiply_adds_per_window": multiply_adds(tagger.core),
        "window_seconds": round(tagger.spec.window_seconds, 3),
    }


# === Exports and scores ===


def export(job: Job) -> dict[str, Any]:
    """Write an export; return its size and changes."""
    from ...loading import load
    from ...tagging.exporting import export as write

    written = write(
        load(job.source), job.folder, format=job.format, precision=job.precision, input="log_mel",  # type: ignore[arg-type]
        calibration=job.calibration,
    ).info  # fmt: skip
    return {"size": written.size, "mean_change": written.mean_change, "max_change": written.max_change}


def evaluate(job: Job) -> dict[str, Any]:
    """Measure the AUCs on labelled audio."""
    from ...datasets import Manifest
    from ...evaluation.measuring import evaluate as measured
    from ...loading import load

    found = measured(
        load(job.source, runtime=job.runtime), Manifest.load(job.data), dataset=job.dataset, split=job.split,
        progress=False,
    ).to_dict()  # fmt: skip
    keys = [f"{score}{end}" for score in ("roc_auc", "pr_auc") for end in ("", "_low", "_high")]
    return {
        "dataset": job.dataset,
        "split": job.split,
        "n": found["n_clips"],
        **{key: found[key] for key in keys if found.get(key) is not None},
    }


def main(arguments: list[str]) -> None:
    """Run a job and write its result."""
    job = Job.from_json(Path(arguments[0]).read_text(encoding="utf-8"))
    from .machine import keep_to

    keep_to(job.threads)
    result = {"measure": measure, "export": export, "evaluate": evaluate}[job.kind](job)
    Path(arguments[1]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
