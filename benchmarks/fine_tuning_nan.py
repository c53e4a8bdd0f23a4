"""Does default fine-tuning ever end in NaN, here? Twenty in a row, each of 64 clips in ten classes.

    python benchmarks/fine_tuning_nan.py [--model musicnet_crnn] [--runs 20] [--precision float32] [--seconds 3]

Every run has clips of its own: each class is a pitch with a timbre, in noise. Prints a line per run: seconds, the stage
that was kept, accuracy, and whether training had to go back (`FineTuneReport.notes`). The exit status is 1 if a run
failed, or had to go back.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

CLASSES, CLIPS, RATE = 10, 64, 16_000


def write_clips(folder: Path, seconds: float, seed: int) -> None:
    """A folder per class, with six or seven clips each."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    for number in range(CLIPS):
        kind = number % CLASSES
        pitch = 110 * 2 ** (kind / 2 + rng.normal(0, 0.02))
        partials = np.arange(1, 2 + kind % 4)
        y = sum(np.sin(2 * np.pi * pitch * k * t + rng.uniform(0, 6)) / k for k in partials if pitch * k < RATE / 2)
        y = y * np.exp(-t * (kind % 3)) + rng.uniform(0.05, 1) * rng.standard_normal(t.size)
        path = folder / f"class {kind}" / f"{number:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.5 * y / np.abs(y).max(), RATE)


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="musicnet_crnn")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()

    import keras_musictag as kmt
    from keras_musictag.errors import MusicTagError
    from keras_musictag.training import precision

    print(precision.conditions(), flush=True)
    base, bad = kmt.load(given.model), 0
    settings = kmt.FineTuneSpec(precision=given.precision)
    for run in range(given.runs):
        folder, started = Path(tempfile.mkdtemp()), time.perf_counter()
        try:
            write_clips(folder / "clips", given.seconds, seed=run)
            tagger = base.fine_tune(
                folder / "clips", cache=folder / "cache" / "log-mels", settings=settings, progress=False
            )
            report = tagger.report
            weights = all(np.isfinite(values).all() for values in tagger.core.get_weights())
            told = f"kept {report.kept} ({report.precision}), accuracy {report.accuracy.value:.2f}"
            bad += bool(report.notes and "went back" in " ".join(report.notes)) or not weights
            told += f", weights {'finite' if weights else 'NOT FINITE'}; {' '.join(report.notes) or 'no notes'}"
        except MusicTagError as error:
            bad, told = bad + 1, f"FAILED: {error}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"run {run + 1:2}: {time.perf_counter() - started:.0f} s, {told}", flush=True)
    print(f"{given.model}: {bad} of {given.runs} runs failed or went back")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
