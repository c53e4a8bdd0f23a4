"""MTG-Jamendo: 55,000 whole tracks from Jamendo with the tags of those who uploaded them (Bogdanov et al., 2019).

The tables are in github.com/MTG/mtg-jamendo-dataset: `data/splits/split-0` to `split-4` have, for each set of tags,
`-train.tsv`, `-validation.tsv` and `-test.tsv`, separated by tabs, with a line per track and a cell per tag:

    TRACK_ID        ARTIST_ID       ALBUM_ID      PATH            DURATION  TAGS
    track_0917538   artist_378901   album_108650  38/917538.mp3   126.5     genre---easylistening  instrument---piano

The audio is in folders `00` to `99`: 320 kbit/s stereo as `38/917538.mp3` or, from the smaller archives, mono as
`38/917538.low.mp3`.

The loader reads the 50 most frequent tags (`autotagging_top50tags`), in the order of `data/tags/top50.txt` in the
repository, with any of the five splits by artist. Most papers report split 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..info import DatasetInfo
from ..manifest import Manifest
from ..readers import decode_text
from ..rows import AnyPath, DataError, Row
from .published_files import as_folder, file_sizes, find, require_complete, what_is_missing

info = DatasetInfo(
    name="MTG-Jamendo top 50",
    description=(
        "54,380 whole tracks from Jamendo with the 50 most frequent of their tags: genres, instruments, moods and "
        "themes; five splits by artist, about 60 % to train, 20 % to validate and 20 % to test on."
    ),
    url="https://github.com/MTG/mtg-jamendo-dataset",
    licence="metadata CC-BY-NC-SA-4.0; audio under Creative Commons licences that audio_licenses.txt states per track",
    citation=(
        "Dmitry Bogdanov, Minz Won, Philip Tovstogan, Alastair Porter and Xavier Serra. The MTG-Jamendo dataset for "
        "automatic music tagging. Machine Learning for Music Discovery Workshop, ICML 2019."
    ),
    splits={str(split): {"all": 54_380} for split in range(5)},
    size="508 GB, or 156 GB in low quality",
    obtain=(
        "Clone https://github.com/MTG/mtg-jamendo-dataset, make a folder audio in it, and run python3 "
        "scripts/download/download.py --dataset raw_30s --type audio-low --unpack --remove audio (--type audio for "
        "full quality) there, which compares sha256 sums; then pass the clone."
    ),
)

_PARTS = {"train": "train", "validation": "valid", "test": "test"}  # in the name of a table -> split
_HEADER = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_FOLDERS = tuple(f"{number:02}" for number in range(100))
_TABLES = ("data/splits", "splits", ".", "mtg-jamendo-dataset/data/splits")
_AUDIO = (".", "audio", "audio-low", "raw_30s/audio", "raw_30s/audio-low")
_LICENCE = "Creative Commons, see audio_licenses.txt"


def jamendo(folder: AnyPath, split: int = 0, *, audio: AnyPath | None = None, partial: bool = False) -> Manifest:
    """Read MTG-Jamendo with its 50 most frequent tags and one of its five splits.

    Args:
        folder: clone of the repository, with the folders `00` to `99` in it or in its folder `audio`.
        split: 0 to 4.
        audio: folder with the folders `00` to `99`, if it is elsewhere.
        partial: accept missing tracks, with a warning. Scores on a part of the test set are not comparable.

    Returns:
        `Manifest` in the order of the tables; `group` is the artist. Tags are written as published: `genre---rock`.

    Raises:
        DataError: files are missing or empty, or the tables are not the published ones.

    Example:
        >>> jamendo("no/such/folder")
        Traceback (most recent call last):
        keras_musictag.datasets.rows.DataError: ...no/such/folder is not a folder. Clone ...
    """
    if isinstance(split, bool) or str(split) not in info.splits:
        raise DataError(f"split must be 0, 1, 2, 3 or 4; got {split!r}.")
    top = as_folder(folder, info)
    names = [_table_name(split, part) for part in _PARTS]
    tables = find(top, _TABLES, lambda path: any((path / name).is_file() for name in names), f"table {names[0]}", info)
    found = [track for part in _PARTS for track in _tracks(tables / _table_name(split, part), _PARTS[part])]
    audio_folder = top if audio is None else as_folder(audio, info)
    root = find(audio_folder, _AUDIO, _has_audio, "folders 00 to 99 with audio", info)
    sizes = file_sizes(root, _FOLDERS)
    files = {row["path"]: _file_of(row["path"], sizes) for row in found}
    missing = what_is_missing(root, {path: sizes.get(file) for path, file in files.items()})
    require_complete(info, "; ".join(filter(None, (_what_is_wrong(found, split), missing))), partial)
    rows = [
        Row(
            path=root / files[row["path"]],
            split=row["split"],
            tags=tuple(row["tags"].split("\t")),
            group=row["artist"],
            source=f"mtg-jamendo:{row['track']}",
            licence=_LICENCE,
            where=row["where"],
        )
        for row in found
        if sizes.get(files[row["path"]])
    ]
    return Manifest(tuple(rows), _tags())


def _tags() -> tuple[str, ...]:
    path = Path(__file__).parents[2] / "models" / "tags" / "jamendo50.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())


# === Tables ===


def _table_name(split: int, part: str) -> str:
    return f"split-{split}/autotagging_top50tags-{part}.tsv"


def _tracks(path: Path, split: str) -> Iterator[dict[str, str]]:
    """Yield track, artist, path, tags (separated by tabs), split, and file and line of every line."""
    if not path.is_file():
        raise DataError(f"{path} does not exist. {info.obtain}")
    lines = decode_text(path, "utf-8-sig").split("\n")
    if lines[0].rstrip("\r").split("\t") != _HEADER:
        raise DataError(
            f"{path} begins with {lines[0][:60]!r}, expected {', '.join(_HEADER)} separated by tabs. Clone the "
            "repository again."
        )
    known = set(_tags())
    line_form = re.compile(r"(track_\d+)\t(artist_\d+)\talbum_\d+\t(\d\d/\d+\.mp3)\t[\d.]+\t(.+)")
    for number, line in enumerate(lines[1:], 2):
        line = line.rstrip("\r")
        if not line:
            continue
        match = line_form.fullmatch(line)
        tags = match[4].split("\t") if match else []
        if match is None or len(set(tags)) < len(tags) or not known.issuperset(tags):
            unknown = [tag for tag in tags if tag not in known]
            what = f"unknown tags {', '.join(map(repr, unknown[:5]))}" if unknown else repr(line[:80])
            raise DataError(f"{path} line {number} is not as published: {what}. Clone the repository again.")
        yield {
            "track": match[1],
            "artist": match[2],
            "path": match[3],
            "tags": match[4],
            "split": split,
            "where": f"{path.name}:{number}",
        }


def _what_is_wrong(found: list[dict[str, str]], split: int) -> str:
    """Return the differences from the published tables: number of tracks, repeated tracks, artists in two splits."""
    problems = []
    expected = info.splits[str(split)]["all"]
    tracks = {row["track"] for row in found}
    if len(tracks) != expected:
        problems.append(f"the tables of split {split} have {len(tracks):,} tracks, expected {expected:,}")
    if len(tracks) < len(found):
        problems.append(f"{len(found) - len(tracks):,} of their lines repeat a track")
    splits: dict[str, set[str]] = {}
    for row in found:
        splits.setdefault(row["artist"], set()).add(row["split"])
    shared = sorted(artist for artist, names in splits.items() if len(names) > 1)
    if shared:
        problems.append(f"{len(shared):,} artists are in more than one part of split {split}, e.g. {shared[0]}")
    return "; ".join(problems)


# === Audio files ===


def _has_audio(path: Path) -> bool:
    return any((path / name).is_dir() for name in _FOLDERS)


def _file_of(path: str, sizes: Mapping[str, int]) -> str:
    """Return the file of a track: in low quality if it exists only in that, else in full quality."""
    low = path.removesuffix(".mp3") + ".low.mp3"
    return low if sizes.get(low) and not sizes.get(path) else path
