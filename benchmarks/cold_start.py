"""From shell to tags: `keras-musictag tag` in fresh processes, on Keras and with exports of the same model.

    python benchmarks/cold_start.py SOUND [MODEL] [--rounds 5]

Exports are made first, at float32, for each runtime that is installed. Then the commands take turns, so that whatever
else the machine does falls on all of them alike. Times are medians of wall-clock seconds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras_musictag as kmt
from keras_musictag.exported import Format
from keras_musictag.runtime import is_installed

_EXPORTS: dict[str, Format] = {"onnxruntime": "onnx", "openvino": "onnx", "litert": "litert"}


def seconds(sound: Path, model: str | Path, runtime: str) -> float:
    """Wall-clock time of one command."""
    command = [sys.executable, "-m", "keras_musictag.cli", "tag", sound, "--model", model, "--runtime", runtime]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="From shell to tags, in fresh processes.")
    parser.add_argument("sound", type=Path)
    parser.add_argument("model", nargs="?", default="musicnet_crnn")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    models: dict[str, str | Path] = {"keras": given.model}
    with tempfile.TemporaryDirectory() as scratch:
        tagger = kmt.load(given.model)
        for runtime, file_format in _EXPORTS.items():
            folder = Path(scratch, file_format)
            if is_installed(runtime):
                models[runtime] = folder
                if not folder.exists():
                    tagger.export(folder, format=file_format, input="log_mel")
        times: dict[str, list[float]] = {runtime: [] for runtime in models}
        for _ in range(given.rounds):
            for runtime, model in models.items():
                times[runtime].append(seconds(given.sound, model, runtime))
    medians = {runtime: statistics.median(taken) for runtime, taken in times.items()}
    for runtime, median in medians.items():
        print(f"{runtime:12} {median:6.2f} s  {median / medians['keras']:.2f} x")


if __name__ == "__main__":
    main()
