"""Labelled sounds for measuring `tiny`: python tests/labelled_sounds.py FOLDER.

Each artist has a habit: some bury everything in noise, so scores of one artist's sounds resemble each other.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

TAGS = ("noise", "tone", "clicks", "sweep", "guitar")  # `tiny` knows all but the last; no sound has a sweep
RATE = 16_000


def labelled_sounds(folder, count=40, seconds=2.5, per_artist=4, seed=0):
    """Write sounds of test data and `manifest.csv` with artists to the folder; returns the table's path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    table = folder / "manifest.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "split", "artist", *TAGS])
        for number in range(count):
            artist = number // per_artist
            has = rng.random(3) < 0.5
            hidden = np.random.default_rng([seed, artist]).uniform(0.02, 0.4)
            parts = (
                rng.uniform(-1, 1, len(t)),
                0.7 * np.sin(2 * np.pi * rng.uniform(150, 2000) * t),
                (np.arange(len(t)) % round(RATE * rng.uniform(0.1, 0.3)) < 20) * 1.0,
            )
            y = sum(part * on * rng.uniform(0.05, 1) for part, on in zip(parts, has, strict=True))
            y = y + hidden * rng.uniform(-1, 1, len(t))
            name = f"{number:02}.wav"
            soundfile.write(folder / name, 0.3 * y, RATE)
            rows.writerow([name, "test", f"artist {artist}", *has.astype(int), 0, int(number % 2)])
    return table


if __name__ == "__main__":
    print(labelled_sounds(sys.argv[1]))
