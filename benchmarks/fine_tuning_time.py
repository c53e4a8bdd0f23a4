"""How long fine-tuning takes from the shell: 10 s clips of a folder per tag, nothing cached and then everything.

    python benchmarks/fine_tuning_time.py FOLDER [--model musicnet_crnn]

Clips are cut, or repeated, to the same length and written as FLAC into a temporary folder; caches are there too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import soundfile
from tqdm import tqdm

from keras_musictag.datasets import Manifest


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="musicnet_crnn", show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Length of each clip.")
def main(folder: Path, model: str, seconds: float) -> None:
    """Print the seconds of `keras-musictag finetune` on labelled clips (a folder per tag, or a table)."""
    clips = Manifest.load(folder)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for number, row in enumerate(tqdm(clips, desc="cutting", delay=2)):
            path = work / "clips" / row.tags[0] / f"{number}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples, rate = soundfile.read(row.path, always_2d=True)
            wanted = round(seconds * rate)
            soundfile.write(path, np.resize(samples, (wanted, samples.shape[1])), rate)
        click.echo(f"{len(clips)} clips of {seconds:g} s, {len(clips.tags)} tags, {model}")
        for what, stages, cache in (
            ("head, nothing cached", "head", "a"),
            ("head, log-mels and embeddings cached", "head", "a"),
            ("head and whole network, nothing cached", "full", "b"),
        ):
            out = work / f"out{time.monotonic_ns()}"
            click.echo(f"{what}: {run(model, work / 'clips', stages, work / cache, out):.0f} s")


def run(model: str, clips: Path, stages: str, cache: Path, out: Path) -> float:
    """Seconds of one command."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "keras_musictag.cli", "finetune", model, "--data", clips, "--stages", stages]
    subprocess.run([*map(str, command), "--cache", str(cache), "--out", str(out)], check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
