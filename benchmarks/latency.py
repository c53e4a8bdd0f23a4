"""How long tagging takes on a CPU: one window of sound, from three starting points, for the cards of the zoo.

    python benchmarks/latency.py MODEL... [--write]

The clock starts at a log-mel (the network alone), at samples in memory, or at a file. The models take turns, so that
whatever else the machine does falls on all of them alike. `--write` puts the figures into `zoo/MODEL/spec.json`. To use
fewer threads: taskset -c 0 python benchmarks/latency.py MODEL...
"""

from __future__ import annotations

import datetime
import functools
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":  # before anything imports a backend
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import soundfile
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.apps.benchmarking.machine import processor
from keras_musictag.models.cards import update_zoo
from keras_musictag.models.registry import zoo_folder
from keras_musictag.models.spec import SPEC_FILE, Latency
from keras_musictag.utils.cores import available_cores

_WARM_UP = 5  # rounds that are not counted
_LEAST = 30  # repetitions that may be written
_FILE_RATE = 44_100  # Hz, stereo


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--repetitions", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--write", is_flag=True, help="Store the figures in zoo/MODEL/spec.json and write the cards.")
def main(models: Sequence[str], repetitions: int, write: bool) -> None:
    """Print median, 10th and 90th percentile in milliseconds per model and starting point."""
    if write and repetitions < _LEAST:
        raise click.UsageError(f"--write needs at least {_LEAST} repetitions; got {repetitions}.")
    for name in models:
        if write and not (zoo_folder() / name / SPEC_FILE).is_file():
            raise click.UsageError(f"--write: there is no {zoo_folder() / name / SPEC_FILE}. Name a model of the zoo.")
    options = ["--repetitions", str(repetitions), *(["--write"] if write else [])]
    command = shlex.join(["python", "benchmarks/latency.py", *models, *options])
    measured = measure(models, repetitions, command)
    first = measured[models[0]][0]
    click.echo(f"{first.machine}, {first.threads} threads, {first.backend}, {repetitions} calls, {first.date}")
    for name, entries in measured.items():
        for entry in entries:
            times = f"{entry.median_ms:9.2f} ms  [{entry.p10_ms:.2f}, {entry.p90_ms:.2f}]"
            click.echo(f"{name:<16}  {entry.scope:<9}  {times}")
    if write:
        for name, entries in measured.items():
            update_zoo(name, latency=tuple(entries))
        click.echo(f"Cards written: {', '.join(measured)}.")


def measure(models: Sequence[str], repetitions: int, command: str) -> dict[str, list[Latency]]:
    """Time every model from every starting point, in turns."""
    import keras

    setting = {
        "machine": processor(),
        "threads": available_cores(),
        "backend": f"Keras {keras.__version__} on {keras.backend.backend()}",
        "date": datetime.date.today().isoformat(),
        "command": command,
    }
    with tempfile.TemporaryDirectory() as folder:
        taggers = {name: kmt.load(name) for name in models}
        calls = {
            (name, scope): call
            for name, tagger in taggers.items()
            for scope, call in calls_of(tagger, Path(folder) / f"{name}.flac").items()
        }
        times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
        for turn in tqdm(range(_WARM_UP + repetitions), unit="round", delay=2):
            for key, call in calls.items():
                started = time.perf_counter()
                call()
                if turn >= _WARM_UP:
                    times[key].append(1000 * (time.perf_counter() - started))
    measured: dict[str, list[Latency]] = {name: [] for name in models}
    for (name, scope), values in times.items():
        p10, median, p90 = (round(float(value), 3) for value in np.percentile(values, (10, 50, 90)))
        measured[name].append(
            Latency(scope=scope, batch=1, median_ms=median, p10_ms=p10, p90_ms=p90, repetitions=repetitions, **setting)
        )
    return measured


def calls_of(tagger: kmt.Tagger, file: Path) -> dict[str, Callable[[], object]]:
    """Scope -> the call to time; each gives tags to one window of the bundled clip, repeated as often as it takes."""
    from keras import ops

    from keras_musictag.models.keras_runtime import KerasRuntime
    from keras_musictag.models.layers import LogMelSpectrogram

    spec = tagger.spec
    # Exactly one window: a track is padded once on both sides, unless windows are centred one by one.
    samples = spec.window_samples if spec.mel.center else (spec.window.frames - 1) * spec.mel.hop_length
    clip = np.resize(kmt.audio.load(kmt.demo_clip(), target_sr=spec.audio.sr), samples)
    padded = (clip if spec.mel.center else np.pad(clip, spec.mel.n_fft // 2))[None]
    log_mel = ops.convert_to_numpy(LogMelSpectrogram.from_spec(spec.audio, spec.mel)(padded))
    # One sample less: the resampler rounds up and comes out at the same number of samples.
    length = samples * _FILE_RATE // spec.audio.sr - 1
    mono = np.resize(kmt.audio.load(kmt.demo_clip(), target_sr=_FILE_RATE), length)
    soundfile.write(file, np.stack([mono, mono], axis=1), _FILE_RATE, format="FLAC", subtype="PCM_16")
    return {
        "log_mel": functools.partial(KerasRuntime(tagger.core).predict, log_mel),
        "waveform": functools.partial(tagger.tag, clip, spec.audio.sr),
        "file": functools.partial(tagger.tag, file),
    }


if __name__ == "__main__":
    main()
