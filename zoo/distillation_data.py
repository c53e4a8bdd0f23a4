"""The table that the student weights of this zoo were distilled on: a folder of music and its index become a manifest.

    python zoo/distillation_data.py MUSIC/index.csv OUT

`index.csv` has the columns file (relative to it), collection, artist, genre, licence. Written are `OUT/manifest.csv`,
`OUT/genres.csv` (the main collection's rows again, labelled with their genre, for evaluation alone) and
`OUT/derived/*.flac`: recordings made from the training part alone, which the teacher hears and answers for like any
other: every track of the main collection at two other speeds, mixed with another one and with one of another
collection, and every track of the other collections at one other speed. (A mixture's targets are thus what the teacher
hears in it, not the average of two answers.)

Splits are by artist: 70 % of the tracks train, 10 % validate, 20 % test; a file without an artist is a group of
its own. Left out entirely are collections that other evaluations of this project use.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from keras_musictag.audio.reading import load
from keras_musictag.datasets import Manifest, Row

SR = 16000
MAIN = "emotify"
LEFT_OUT = ("instruments10",)  # evaluates fine-tuning
SPEEDS = ((0.84, 0.95), (1.06, 1.19))  # ranges of the two other speeds; pitch moves along, -3 to +3 semitones
FRACTIONS = {"train": 0.7, "valid": 0.1, "test": 0.2}


def rows_of(index: Path) -> list[Row]:
    """A row per file of the index; `group` is the artist, `source` the collection."""
    with index.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                path=index.parent / entry["file"],
                group=entry["artist"] or entry["file"],
                source=entry["collection"],
                licence=entry["licence"],
            )
            for entry in csv.DictReader(file)
            if entry["collection"] not in LEFT_OUT
        ]


def genres_of(index: Path) -> dict[Path, str]:
    """Genre by absolute path."""
    with index.open(encoding="utf-8", newline="") as file:
        return {Path(os.path.abspath(index.parent / entry["file"])): entry["genre"] for entry in csv.DictReader(file)}


def derived(train: list[Row], others: list[Row], out: Path, seed: int) -> list[Row]:
    """Other speeds and mixtures of the training tracks; files that are there already are kept."""
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    partners = rng.permutation(len(train))
    rows = []
    for number, row in enumerate(tqdm(train, unit="track", desc="other speeds and mixtures")):
        speeds, level = [rng.uniform(*between) for between in SPEEDS], rng.uniform(-9, 0)
        rows += [at_speed(row, speed, out) for speed in speeds]
        rows.append(mixed(row, train[partners[number]], level, out))
    for row in tqdm(others, unit="track", desc="other speeds of other collections"):
        rows.append(at_speed(row, rng.uniform(*SPEEDS[rng.integers(2)]), out))
    for row in tqdm(train, unit="track", desc="mixtures with other collections"):
        rows.append(mixed(row, others[rng.integers(len(others))], rng.uniform(-9, 3), out))
    return rows


def at_speed(row: Row, speed: float, out: Path) -> Row:
    """The track, played faster or slower."""
    file = out / f"{row.path.stem}-x{speed:.3f}.flac"
    if not file.is_file():
        write(file, soxr.resample(load(row.path, target_sr=SR), SR * speed, SR))
    return dataclasses.replace(row, path=file, source=f"{row.source}, other speed")


def mixed(row: Row, other: Row, level: float, out: Path) -> Row:
    """Both at once, as long as the first; the second, repeated if need be, is `level` dB louder than it is."""
    file = out / f"{row.path.stem}+{other.path.stem}.flac"
    if not file.is_file():
        first, second = load(row.path, target_sr=SR), load(other.path, target_sr=SR)
        write(file, first + 10 ** (level / 20) * np.resize(second, len(first)))
    return dataclasses.replace(row, path=file, source=f"{row.source}, mixture")


def write(file: Path, samples: np.ndarray) -> None:
    """16-bit FLAC, without clipping."""
    peak = float(np.abs(samples).max())
    part = file.with_suffix(".part")
    soundfile.write(part, samples / max(peak, 1.0), SR, format="FLAC", subtype="PCM_16")
    part.rename(file)


def main() -> None:
    """Make the manifest."""
    parser = argparse.ArgumentParser(description="Make the manifest that the zoo's students were distilled on.")
    parser.add_argument("index", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = rows_of(given.index)
    main_rows = Manifest(tuple(row for row in rows if row.source == MAIN)).grouped_split(FRACTIONS, seed=given.seed)
    others = Manifest(tuple(row for row in rows if row.source != MAIN)).grouped_split(
        {"train": 0.9, "test": 0.1}, seed=given.seed
    )
    train = [row for row in main_rows.rows if row.split == "train"]
    made = derived(train, [row for row in others.rows if row.split == "train"], given.out / "derived", given.seed)
    manifest = Manifest((*main_rows.rows, *others.rows, *made))
    given.out.mkdir(parents=True, exist_ok=True)
    manifest.to_csv(given.out / "manifest.csv")
    genres = genres_of(given.index)
    labelled = [dataclasses.replace(row, tags=(genres[row.path],)) for row in main_rows]
    Manifest(tuple(labelled)).to_csv(given.out / "genres.csv")
    print(f"{given.out / 'manifest.csv'}: {manifest!r}")


if __name__ == "__main__":
    main()
