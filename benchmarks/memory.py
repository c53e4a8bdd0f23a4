"""Peak memory of the commands `tag`, `library` and `serve`, by model and runtime.

    python benchmarks/memory.py [MODEL...] [--runtimes NAME...] [--work FOLDER] [--write]

Each command runs as a user would start it: `tag` and `serve` with one MP3 of `--seconds`, `library` with `--files` of
them. The memory is that of all its processes together, looked at every 0.05 s: the resident set of the largest, and of
the others what they share with nobody. Exports are written before anything is measured. `--write` keeps the figures in
`results/memory.json`, of which `run.py --page` makes a table. With `--work` the same command resumes. Other work on the
machine does not matter much.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.apps.benchmarking.machine import conditions
from keras_musictag.audio.demo import demo_clip
from keras_musictag.tagging.runtimes import is_installed, runtimes
from keras_musictag.utils import kept_results
from keras_musictag.utils.cores import available_cores
from keras_musictag.utils.files import write_atomically

RESULT = Path(__file__).parent / "results" / "memory.json"
RATE = 44_100  # Hz, of the files
_PERIOD = 0.05  # seconds between two looks
_CLI = (sys.executable, "-m", "keras_musictag.cli")
_TIMEOUT = 600.0


# === Watching ===


def _processes(root: int) -> list[int]:
    """A process and its descendants."""
    found = [root]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def _memory_mb(process: int) -> tuple[float, float]:
    """Resident memory of a process, and the part of it that no other process has."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:  # has ended
        return 0.0, 0.0
    kilobytes = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    own = kilobytes.get("Private_Clean", 0) + kilobytes.get("Private_Dirty", 0)
    return kilobytes.get("Rss", 0) / 1024, own / 1024


def _together_mb(root: int) -> float:
    """Memory of a process and its descendants: all that the largest has, and what the others have for themselves."""
    found = sorted(map(_memory_mb, _processes(root)))
    return found[-1][0] + sum(own for _, own in found[:-1])


class Watch:
    """Peak memory of a process and its descendants, while the block runs."""

    def __init__(self, process: int) -> None:
        """Prepare to watch."""
        self.peak_mb = 0.0
        self._process, self._ended = process, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._ended.wait(_PERIOD):
            try:
                self.peak_mb = max(self.peak_mb, _together_mb(self._process))
            except OSError:  # one ended in between
                continue

    def __enter__(self) -> Watch:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._ended.set()
        self._thread.join()


# === Commands ===


def _of_command(*words: str | Path) -> float:
    """Run a command to its end; return its peak in MB."""
    with subprocess.Popen(
        [*_CLI, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        with Watch(process.pid) as watch:
            try:
                _, errors = process.communicate(timeout=_TIMEOUT)
            except BaseException:  # out of time, or interrupted: leaving the block waits for its end
                process.kill()
                raise
        if process.returncode:
            raise RuntimeError(f"{shlex.join(map(str, words))} failed: {errors.strip()}")
    return watch.peak_mb


def of_tag(options: list[str], music: Path, folder: Path) -> float:
    """`tag` with one file."""
    return _of_command("tag", next(music.iterdir()), *options)


def of_library(options: list[str], music: Path, folder: Path) -> float:
    """`library` with all files."""
    return _of_command("library", music, "--out", folder / "tags.csv", *options)


def of_serve(options: list[str], music: Path, folder: Path) -> float:
    """`serve`, asked for one file."""
    from gradio_client import Client, handle_file

    with (
        subprocess.Popen([*_CLI, "serve", *options], stderr=subprocess.PIPE, text=True) as process,
        Watch(process.pid) as watch,
    ):
        assert process.stderr
        try:
            line = ""
            while not line.startswith("http"):
                line = process.stderr.readline()
                if not line:
                    raise RuntimeError(f"serve {shlex.join(options)} did not start")
            client = Client(line.split()[0], verbose=False)
            answer = client.predict(handle_file(next(music.iterdir())), options[1], "none", api_name="/tag")
            if "tags" not in str(answer):
                raise RuntimeError(f"serve {shlex.join(options)} answered {answer!r}")
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.close()
    return watch.peak_mb


COMMANDS: dict[str, Callable[[list[str], Path, Path], float]] = {
    "tag": of_tag, "library": of_library, "serve": of_serve,
}  # fmt: skip


def measure(model: str, runtime: str, music: Path) -> dict[str, float]:
    """Peak in MB of each command."""
    options = ["--model", model, "--runtime", runtime]
    with tempfile.TemporaryDirectory() as folder:
        if runtime != "keras":
            _of_command("tag", next(music.iterdir()), *options)  # writes the export, if there is none yet
        return {name: round(peak(options, music, Path(folder)), 1) for name, peak in COMMANDS.items()}


def make_music(folder: Path, count: int, seconds: float) -> None:
    """Write the bundled clip, repeated, as MP3 files that differ."""
    folder.mkdir()
    clip = kmt.audio.load(demo_clip(), target_sr=RATE)
    for number in range(count):
        y = np.resize(np.roll(clip, number * RATE), round(seconds * RATE))
        soundfile.write(folder / f"{number:03}.mp3", np.stack([y, y], axis=1), RATE, format="MP3")


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description="Peak memory of tag, library and serve.")
    parser.add_argument("models", nargs="*", help="default: all pretrained ones but tiny, which is for tests")
    parser.add_argument("--runtimes", nargs="*", help="default: those that are installed")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each file")
    parser.add_argument("--files", type=int, default=20, help="of the library")
    parser.add_argument("--work", type=Path, help="folder that keeps finished rows; the same command resumes")
    parser.add_argument("--write", action="store_true", help="keep the figures")
    given = parser.parse_args()
    if not Path("/proc/self/smaps_rollup").exists():
        parser.error("this needs Linux, whose /proc says how much memory a process has to itself.")
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    models = given.models or [name for name in kmt.list_models(pretrained=True) if name != "tiny"]
    wanted = given.runtimes or [name for name in runtimes() if is_installed(name)]
    machine = conditions(available_cores())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        music = Path(folder) / "music"
        make_music(music, given.files, given.seconds)
        for model, runtime in tqdm([(model, runtime) for model in models for runtime in wanted], unit="row"):
            settings = {"model": model, "runtime": runtime, "seconds": given.seconds, "files": given.files, **machine}
            found = kept_results.recall(given.work, settings) if given.work else None
            if found is None:
                found = measure(model, runtime, music)
                if given.work:
                    kept_results.keep(given.work, settings, found)
            rows.append({"model": model, "runtime": runtime, **found})
            tqdm.write(f"{model}, {runtime}: {', '.join(f'{name} {mb:.0f} MB' for name, mb in found.items())}")
    if given.write:
        words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
        about = {
            "command": shlex.join(["python", "benchmarks/memory.py", *words]),
            "date": datetime.date.today().isoformat(), "machine": machine,
            "seconds": given.seconds, "files": given.files,
        }  # fmt: skip
        write_atomically(RESULT, (json.dumps(about | {"rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
