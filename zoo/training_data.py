"""Collect the sound that students are distilled on: shared music, free music and rendered scores become one manifest.

    python zoo/training_data.py OUT --music MUSIC/index.csv --free FREE/index.csv --rendered RENDERED/index.csv

`--music` is a table as in `distillation_data.py`, whose split is kept: the same tracks test and validate. `--free`
comes from `fetch_free_music.py`, `--rendered` from `render_scores.py`; all of both trains. Tracks with human tags
(column `mtt_tags`) do not train, nor does any other track by an artist of a test, validation or human-tagged track.
Free music is converted once to 16 kHz mono FLAC in `OUT/audio`, in an order that does not depend on where a run was
stopped; `--limit` takes the first hours of it. `--derive` adds recordings made of the shared music that trains, as in
`distillation_data.py`: other speeds and mixtures.

Written are `OUT/manifest.csv` (splits train, valid, test), `OUT/free.csv` (the same without training tracks whose
licence is not free beyond doubt), `OUT/genres.csv` (the main collection with its genres), `OUT/instruments.csv`
(recordings with a label, which do not train), `OUT/human.csv` (tracks with human tags) and `OUT/hours.csv` (hours by
source and licence of what trains).
"""

from __future__ import annotations

import argparse
import collections
import csv
import dataclasses
from pathlib import Path

import numpy as np
import soundfile
from distillation_data import FRACTIONS, MAIN, SR, derived, genres_of, rows_of, write
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.audio import load
from keras_musictag.datasets import Manifest, Row
from keras_musictag.errors import AudioError

# Collections all of whose tracks may be used, changed and sold by anybody, and a licence among them that says less.
FREE = ("free music", "rendered scores", "enigma_anthems", "valyriatear")
NOT_FREE = "NOT sold alone"

Table = list[dict[str, str]]


def read(index: Path | None) -> Table:
    """Rows of a table, `file` made absolute; none without a table."""
    if index is None:
        return []
    with index.open(encoding="utf-8", newline="") as file:
        return [row | {"file": str((index.parent / row["file"]).resolve())} for row in csv.DictReader(file)]


def split_music(index: Path, seed: int) -> list[Row]:
    """The split of `distillation_data.py`, without what it derives."""
    rows = rows_of(index)
    main = Manifest(tuple(row for row in rows if row.source == MAIN)).grouped_split(FRACTIONS, seed=seed)
    others = Manifest(tuple(row for row in rows if row.source != MAIN))
    return [*main.rows, *others.grouped_split({"train": 0.9, "test": 0.1}, seed=seed).rows]


def human(index: Path, tags: tuple[str, ...]) -> list[Row]:
    """Tracks with human tags, of MagnaTagATune's validation split."""
    rows = []
    for entry in read(index):
        if entry.get("mtt_tags"):
            known = tuple(tag for tag in entry["mtt_tags"].split("|") if tag in tags)
            rows.append(Row(path=Path(entry["file"]), tags=known, group=entry["artist"], source=entry["collection"]))
    return rows


def converted(table: Table, folder: Path, limit: float, seed: int) -> list[Row]:
    """Free music as 16 kHz mono files, what is there already and, up to `limit` hours, what is not."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, hours = [], 0.0
    for number in tqdm(np.random.default_rng(seed).permutation(len(table)), unit="track", desc="converting"):
        entry = table[number]
        file = folder / f"{entry['package']}-{Path(entry['member']).stem}-{number}.flac"
        if not file.is_file():
            if hours >= limit:
                break
            try:
                write(file, load(entry["file"], target_sr=SR))
            except AudioError as error:
                tqdm.write(f"left out: {error}")
                continue
        hours += soundfile.info(file).duration / 3600
        group = entry["artist"] or entry["package"]
        rows.append(Row(path=file, group=group, source=entry["collection"], licence=entry["licence"], split="train"))
    return rows


def rendered(table: Table) -> list[Row]:
    """Rendered scores; all takes of one score are of one group."""
    return [
        Row(
            path=Path(entry["file"]), group=entry["artist"], source=entry["collection"], licence=entry["licence"],
            split="train",
        )
        for entry in table
    ]  # fmt: skip


def is_free(row: Row) -> bool:
    """Whether the track, or the one that it was made of, is freely licensed beyond doubt."""
    return (row.source or "").partition(", ")[0] in FREE and NOT_FREE not in (row.licence or "")


def write_labelled(index: Path, file: Path) -> None:
    """Recordings of `index` with the labels that it states."""
    rows = [
        Row(path=Path(entry["file"]), tags=(entry["label"],), source=entry["collection"])
        for entry in read(index)
        if entry.get("label")
    ]
    if rows:
        Manifest(tuple(rows)).to_csv(file)


def write_hours(rows: list[Row], file: Path) -> None:
    """Hours and tracks by source and licence, as CSV, and sums by source on the screen."""
    hours: collections.Counter[tuple[str, str]] = collections.Counter()
    tracks: collections.Counter[tuple[str, str]] = collections.Counter()
    for row in rows:
        key = (row.source or "", row.licence or "")
        hours[key] += soundfile.info(row.path).duration / 3600
        tracks[key] += 1
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["source", "licence", "tracks", "hours"])
        writer.writerows([*key, tracks[key], f"{hours[key]:.3f}"] for key in sorted(hours))
    for source in sorted({source for source, _ in hours}):
        own = [key for key in hours if key[0] == source]
        print(f"{source}: {sum(hours[key] for key in own):.2f} h in {sum(tracks[key] for key in own)} tracks")
    print(f"together: {sum(hours.values()):.2f} h in {sum(tracks.values())} tracks")


def main() -> None:
    """Make the tables."""
    parser = argparse.ArgumentParser(description="Collect the sound that the zoo's students are distilled on.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--music", type=Path, required=True, help="index.csv of the music with a split")
    parser.add_argument("--free", type=Path, help="index.csv of fetch_free_music.py")
    parser.add_argument("--rendered", type=Path, help="index.csv of render_scores.py")
    parser.add_argument("--limit", type=float, default=1e9, help="hours of free music to convert")
    parser.add_argument("--derive", action="store_true", help="add other speeds and mixtures of the shared music")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    music, labelled = split_music(given.music, given.seed), human(given.music, kmt.model_info("musicnet_crnn").tags)
    held_out = {row.group for row in (*music, *labelled) if row in labelled or row.split != "train"}
    free = converted(read(given.free), given.out / "audio", given.limit, given.seed)
    rows = [*music, *free, *rendered(read(given.rendered))]
    kept = [row for row in rows if row.split != "train" or row.group not in held_out]
    print(f"{len(rows) - len(kept)} tracks are left out, whose artists are those of test or validation tracks")
    if given.derive:
        train = [row for row in music if row.split == "train" and row.group not in held_out]
        main_rows, others = ([row for row in train if (row.source == MAIN) == main] for main in (True, False))
        kept += derived(main_rows, others, given.out / "derived", given.seed)
    Manifest(tuple(kept)).to_csv(given.out / "manifest.csv")
    Manifest(tuple(row for row in kept if row.split != "train" or is_free(row))).to_csv(given.out / "free.csv")
    Manifest(tuple(labelled), tags=kmt.model_info("musicnet_crnn").tags).to_csv(given.out / "human.csv")
    genres = genres_of(given.music)
    with_genres = [dataclasses.replace(row, tags=(genres[row.path],)) for row in music if row.source == MAIN]
    Manifest(tuple(with_genres)).to_csv(given.out / "genres.csv")
    write_labelled(given.music, given.out / "instruments.csv")
    write_hours([row for row in kept if row.split == "train"], given.out / "hours.csv")


if __name__ == "__main__":
    main()
