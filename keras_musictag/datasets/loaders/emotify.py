"""Emotify: 400 excerpts of one minute, and the emotions that listeners felt (Aljanaki, Wiering and Veltkamp, 2015).

The excerpts, 100 each of classical, electronic, pop and rock music from Magnatune, are in folders per genre,
`emotifymusic/classical/1.mp3` to `100.mp3`. `data.csv` has a line per listener and excerpt: the track's number from 1
to 400 (1 to 100 classical, 101 to 200 electronic, 201 to 300 pop, 301 to 400 rock, so that 215 is `pop/15.mp3`), its
genre, 1 for each of nine emotions that was felt (three at most), and facts about the listener.

There is no official split. Here artists are shared out, 60 % of the excerpts to train, 20 % to validate and 20 % to
test on, with the genres in proportion, and in the same way whatever the labels are; who plays is read from the files'
own tags. Say so with every score: nobody else has this split.
"""

from __future__ import annotations

import csv
import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from ..info import DatasetInfo
from ..manifest import Manifest
from ..readers import decode_text
from ..rows import AnyPath, DataError, Row
from .published_files import as_folder, file_sizes, find, require_complete, what_is_missing

_log = logging.getLogger(__name__)

GENRES = ("classical", "electronic", "pop", "rock")
EMOTIONS = (
    "amazement",
    "solemnity",
    "tenderness",
    "nostalgia",
    "calmness",
    "power",
    "joyful_activation",
    "tension",
    "sadness",
)
PER_GENRE = 100
Labels = Literal["emotions", "votes", "genre"]
FRACTIONS = {"train": 0.6, "valid": 0.2, "test": 0.2}

info = DatasetInfo(
    name="Emotify",
    description=(
        "400 excerpts of one minute in four genres, and which of nine emotions their listeners felt. There is no "
        "official split; here artists are shared out, 60 % to train, 20 % to validate and 20 % to test on."
    ),
    url="http://www2.projects.science.uu.nl/memotion/emotifydata/",
    licence=(
        "none is stated for the annotations, whose makers ask to be cited; music from Magnatune, CC-BY-NC-SA as "
        "Magnatune states"
    ),
    citation=(
        "Anna Aljanaki, Frans Wiering and Remco C. Veltkamp. Studying emotion induced by music through a crowdsourcing "
        "game. Information Processing & Management, 2015."
    ),
    splits={name: {"all": len(GENRES) * PER_GENRE} for name in ("emotions", "votes", "genre")},
    size="363 MB",
    obtain=(
        "Get data.csv and emotifymusic.zip from http://www2.projects.science.uu.nl/memotion/emotifydata/, unpack the "
        "archive, and pass the folder that has data.csv and emotifymusic."
    ),
)

_TABLE = "data.csv"
_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg", ".opus")  # as published, and conversions


def emotify(
    folder: AnyPath,
    labels: Labels = "emotions",
    *,
    artists: Mapping[int, str] | None = None,
    seed: int = 0,
    partial: bool = False,
) -> Manifest:
    """Read Emotify, with a split that keeps artists apart.

    Args:
        folder: the folder with `data.csv` and the folder `emotifymusic`.
        labels: `"emotions"`: an excerpt has an emotion if the share of its listeners who felt it is above the median of
            all excerpts; `"votes"`: the shares themselves, as soft targets; `"genre"`: one of four.
        artists: of the excerpts by number, 1 to 400; by default as the files' own tags say.
        seed: of the split.
        partial: take the excerpts that are there, with a warning that says what is missing.

    Returns:
        `Manifest` in the order of the numbers; `group` is the artist. Excerpts whose artist is not known, of which a
        warning tells, are shared out one by one.

    Raises:
        DataError: what exactly is missing or empty, or that this is not the published table.

    Example:
        >>> emotify("no/such/folder")
        Traceback (most recent call last):
        keras_musictag.datasets.rows.DataError: ...no/such/folder is not a folder. Get data.csv ...
    """
    if labels not in info.splits:
        raise DataError(f"labels must be {', '.join(map(repr, info.splits))}; got {labels!r}.")
    top = as_folder(folder, info)
    table = find(top, (".", "emotifymusic"), lambda path: (path / _TABLE).is_file(), _TABLE, info) / _TABLE
    root = find(top, ("emotifymusic", "."), _has_genres, f"folders {', '.join(GENRES)}", info)
    shares = _shares(table)
    sizes = file_sizes(root, GENRES)
    files = {number: _file_of(number, sizes) for number in range(1, len(GENRES) * PER_GENRE + 1)}
    missing = what_is_missing(root, {path: sizes.get(path) for path in files.values()})
    require_complete(info, "; ".join(filter(None, (missing, _what_is_unrated(table, files, shares)))), partial)
    there = {number: path for number, path in files.items() if number in shares and sizes.get(path)}
    medians = np.median(list(shares.values()), axis=0)  # of all that were rated, whatever is there
    rows = [
        Row(
            path=root / path,
            tags=(path.partition("/")[0],),
            group=_artist(root / path) if artists is None else artists.get(number, ""),
            source=f"emotify:{number}",
            licence="CC-BY-NC-SA (Magnatune)",
        )
        for number, path in there.items()
    ]
    _warn_of_unknown_artists(rows)
    genres = Manifest(tuple(rows), GENRES).grouped_split(FRACTIONS, seed=seed)  # the same split for all labels
    if labels == "genre":
        return genres
    felt = zip(genres, (shares[number] for number in there), strict=True)
    return Manifest(tuple(_rated(row, share, None if labels == "votes" else medians) for row, share in felt), EMOTIONS)


def _what_is_unrated(table: Path, files: Mapping[int, str], shares: Mapping[int, np.ndarray]) -> str:
    unrated = [number for number in files if number not in shares]
    return f"{table} has no votes for {len(unrated)} of {len(files)} excerpts, first {unrated[0]}" if unrated else ""


def _warn_of_unknown_artists(rows: list[Row]) -> None:
    unknown = sum(not row.group for row in rows)
    if unknown:
        _log.warning(
            "The artists of %d of %d excerpts of Emotify are not known, so some may be on two sides of the split; "
            "pass artists={number: name}.",
            unknown,
            len(rows),
        )


def _rated(row: Row, shares: np.ndarray, medians: np.ndarray | None) -> Row:
    """The row with the emotions that were felt: by more than the medians, or as soft targets."""
    if medians is None:
        return dataclasses.replace(row, tags=(), targets=tuple(map(float, shares)))
    tags = (emotion for emotion, share, median in zip(EMOTIONS, shares, medians, strict=True) if share > median)
    return dataclasses.replace(row, tags=tuple(tags))


def _shares(table: Path) -> dict[int, np.ndarray]:
    """By number of the excerpt, which share of its listeners felt each emotion: float arrays (emotions,)."""
    lines = decode_text(table, "utf-8-sig").splitlines()
    columns = [name.strip() for name in next(csv.reader(lines[:1]), [])]
    wanted = ("track id", "genre", *EMOTIONS)
    absent = [name for name in wanted if name not in columns]
    if absent:
        raise DataError(
            f"{table} has no column {', '.join(map(repr, absent))}; its columns are {', '.join(columns)[:200]!r}. Get "
            f"the published one from {info.url}."
        )
    at = [columns.index(name) for name in wanted]
    votes: dict[int, list[list[int]]] = {}
    for place, cells in enumerate(csv.reader(lines[1:]), 2):
        if not cells:
            continue
        number, genre, *felt = (cells[column].strip() if column < len(cells) else "" for column in at)
        if not number.isdecimal() or genre != _genre_of(int(number)) or set(felt) - {"0", "1"}:
            raise DataError(
                f"{table} line {place} is not as published: track id {number!r}, genre {genre!r}, emotions "
                f"{','.join(felt)!r}. Get the published one from {info.url}."
            )
        votes.setdefault(int(number), []).append([int(value) for value in felt])
    if not votes:
        raise DataError(f"{table} has no votes. Get the published one from {info.url}.")
    return {number: np.mean(given, axis=0) for number, given in votes.items()}


def _genre_of(number: int) -> str | None:
    return GENRES[(number - 1) // PER_GENRE] if 1 <= number <= len(GENRES) * PER_GENRE else None


def _file_of(number: int, sizes: Mapping[str, int]) -> str:
    """The file of an excerpt, numbered within its genre; as published if there is none."""
    name = f"{_genre_of(number)}/{(number - 1) % PER_GENRE + 1}"
    there = [name + suffix for suffix in _SUFFIXES if sizes.get(name + suffix)]
    return there[0] if there else name + _SUFFIXES[0]


def _has_genres(path: Path) -> bool:
    return any((path / genre).is_dir() for genre in GENRES)


def _artist(path: Path) -> str:
    """Who plays, as the file's own tags say; nothing if they do not."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            return str(file.artist).strip()
    except (OSError, RuntimeError):  # what cannot be decoded is told by Manifest.validate
        return ""
