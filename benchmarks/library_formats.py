"""Files per second of `tag_library`, by format: python benchmarks/library_formats.py [--model NAME_OR_EXPORT].

The formats are those of `decoders.py`, which explains them; each is one sound of `--seconds`, copied with another title
as often as it takes, because a library reads the same file only once. Files per second are those between a run with few
files and one with many, so that starting and the table do not count. Cores busy is the processor time of the second run
by its duration. The share of decoding, resampling, log-mels and network is that of each alone, on one core. Wants a
machine that does nothing else.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before anything imports a backend
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import functools
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from decoders import MODEL, RATE, encode
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.apps.benchmarking.job import timed, windows_of
from keras_musictag.apps.benchmarking.machine import keep_to, processor
from keras_musictag.models.mel import LogMel
from keras_musictag.utils.tables import Table

OPUS_RATE = 48_000  # Hz; Opus has no other


def processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def copies(file: Path, folder: Path, count: int) -> None:
    """The same sound, in files of different content."""
    folder.mkdir()
    for number in range(count):
        title, copy = f"title={number}", folder / f"{number:04}{file.suffix}"
        subprocess.run(["ffmpeg", "-v", "error", "-i", file, "-c", "copy", "-metadata", title, copy], check=True)


def run(music: Path, model: str) -> tuple[float, float]:
    """Tag a folder as a library; return seconds, and processor seconds."""
    out = music.with_name(f"{music.name}.csv")
    command = [sys.executable, "-m", "keras_musictag.cli", "library", music, "--out", out]
    began, used = time.perf_counter(), processor_seconds()
    subprocess.run([*command, "--model", model], check=True, capture_output=True)
    seconds, used = time.perf_counter() - began, processor_seconds() - used
    written = sum(1 for _ in out.open()) - 1
    if written != (count := len(os.listdir(music))):
        raise SystemExit(f"{out} has {written} rows for {count} files.")
    return seconds, used


def stages(file: Path, model: str) -> dict[str, float]:
    """Milliseconds of each stage alone."""
    tagger = kmt.load(model)
    spec, native = tagger.spec, OPUS_RATE if file.suffix == ".opus" else RATE
    samples, windows = kmt.audio.load(file, target_sr=native), windows_of(file, spec)
    log_mel = LogMel(spec)
    log_mels = log_mel(windows)
    calls: dict[str, Callable[[], object]] = {
        "decoding": functools.partial(kmt.audio.load, file, target_sr=native),
        "resampling": functools.partial(kmt.audio.load, samples, native, target_sr=spec.audio.sr),
        "log-mels": functools.partial(log_mel, windows),
        "network": functools.partial(tagger.predict_log_mels, log_mels),
    }
    return {name: timed(call, 1.0, 10)["median_ms"] for name, call in calls.items()}


def stages_on_one_core(file: Path, model: str) -> dict[str, float]:
    """Stages, in a process of their own."""
    command = [sys.executable, __file__, "--stages-of", file, "--model", model]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description="Time tag_library by format.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--files", type=int, nargs=2, default=(20, 120), help="of the two runs")
    parser.add_argument("--model", default=MODEL, help="name, or folder of an export with input log_mel")
    parser.add_argument("--stages-of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stages_of:
        keep_to(1)
        print(json.dumps(stages(given.stages_of, given.model)))
        return
    if shutil.which("ffmpeg") is None:
        parser.error("ffmpeg is needed to make the files. Install it.")
    rows, (few, many) = [], given.files
    with tempfile.TemporaryDirectory() as folder:
        for name, file in tqdm(encode(Path(folder), given.seconds).items(), unit="format"):
            short, long = (Path(folder) / f"{file.name}-{count}" for count in (few, many))
            for music, count in ((short, few), (long, many)):
                copies(file, music, count)
            (before, _), (seconds, used) = (run(music, given.model) for music in (short, long))
            spent = stages_on_one_core(file, given.model)
            shares = (f"{value:.0f} ({value / sum(spent.values()):.0%})" for value in spent.values())
            rate = (many - few) / (seconds - before)
            rows.append((name, f"{rate:.1f}", f"{used / seconds:.2f}", f"{before:.1f}", f"{seconds:.1f}", *shares))
            shutil.rmtree(long)
    titles = ("decoding", "resampling", "log-mels", "network")
    print(f"{processor()}, {Path(given.model).name}, files of {given.seconds:g} s\n")
    columns = ("format", "files/s", "cores busy", f"s for {few}", f"s for {many}", *(f"{name}, ms" for name in titles))
    print(Table(columns, rows, "<>").markdown())


if __name__ == "__main__":
    main()
