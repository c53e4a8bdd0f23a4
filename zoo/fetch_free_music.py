"""Fetch the freely licensed music that students are distilled on: python zoo/fetch_free_music.py FOLDER [PACKAGE ...].

`free_music.csv`, beside this file, lists tracks of Debian packages: package, member, title, artist, licence as the
package's copyright file states it. A member within a zip archive is written `ARCHIVE.d/NAME`; `.../mix.flac` is the mix
of the stems `song.ogg` and `guitar.ogg` in that folder. Tracks go to `FOLDER/PACKAGE/MEMBER`, and `FOLDER/index.csv`
lists what is there, with the columns of the table and `file` and `collection`. What has been fetched before is kept. It
is 2 GB and 33 hours of music when complete. Needs `apt-get` (run `apt-get update` before) and `dpkg-deb`.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import soundfile

TABLE = Path(__file__).with_name("free_music.csv")
COLUMNS = ("file", "collection", "package", "member", "title", "artist", "licence")
STEMS = ("song.ogg", "guitar.ogg")


def read_table() -> list[dict[str, str]]:
    """Rows of the table, with where each track goes."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row | {"file": f"{row['package']}/{row['member']}", "collection": "free music"} for row in rows]


def fetch(package: str, rows: list[dict[str, str]], folder: Path) -> list[str]:
    """Download one package and keep its tracks; returns the members that it does not have."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", package]
        subprocess.run(command, cwd=work, check=True)
        (archive,) = Path(work).glob("*.deb")
        content = Path(work, "content")
        subprocess.run(["dpkg-deb", "--extract", archive, content], check=True)
        return [row["member"] for row in rows if not extract(content, row["member"], folder / row["file"])]


def extract(content: Path, member: str, target: Path) -> bool:
    """Bring one track of an unpacked package to its place, at once and in full; `False` if it is not in there."""
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    source = content / member
    outer, inside, inner = member.partition(".d/")
    if source.is_file():
        shutil.move(source, part)
    elif inside and zipfile.is_zipfile(content / outer):
        with zipfile.ZipFile(content / outer) as archive:
            if inner not in archive.namelist():
                return False
            part.write_bytes(archive.read(inner))
    elif source.name == "mix.flac" and all((source.parent / stem).is_file() for stem in STEMS):
        mix([source.parent / stem for stem in STEMS], part)
    else:
        return False
    part.replace(target)
    return True


def mix(stems: list[Path], out: Path) -> None:
    """Sum of the stems, each mixed to mono, as 16-bit FLAC without clipping."""
    sounds = [soundfile.read(stem, dtype="float32", always_2d=True) for stem in stems]
    total = np.zeros(max(len(samples) for samples, _ in sounds), "float32")
    for samples, _ in sounds:
        total[: len(samples)] += samples.mean(axis=1)
    soundfile.write(out, total / max(1.0, float(np.abs(total).max())), sounds[0][1], format="FLAC", subtype="PCM_16")


def write_index(rows: list[dict[str, str]], folder: Path) -> int:
    """List the tracks that are there; returns how many."""
    there = [row for row in rows if (folder / row["file"]).is_file()]
    with (folder / "index.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(there)
    return len(there)


def main() -> None:
    """Fetch what is missing, package by package; a package that cannot be had is reported, the others are fetched."""
    parser = argparse.ArgumentParser(description="Fetch freely licensed music out of Debian packages.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("packages", nargs="*", help="only these packages; default: all of the table")
    given = parser.parse_args()
    rows = read_table()
    wanted = given.packages or list(dict.fromkeys(row["package"] for row in rows))
    given.folder.mkdir(parents=True, exist_ok=True)
    for package in wanted:
        missing = [row for row in rows if row["package"] == package and not (given.folder / row["file"]).is_file()]
        if not missing:
            continue
        try:
            absent = fetch(package, missing, given.folder)
        except (subprocess.CalledProcessError, OSError, zipfile.BadZipFile, soundfile.SoundFileError) as error:
            print(f"{package}: {error}", file=sys.stderr)
            continue
        for member in absent:
            print(f"{package}: has no {member}", file=sys.stderr)
    print(f"{given.folder / 'index.csv'}: {write_index(rows, given.folder)} of {len(rows)} tracks")


if __name__ == "__main__":
    main()
