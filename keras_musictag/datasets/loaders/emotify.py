"""Emotify: 400 excerpts of one minute with the emotions that listeners felt (Aljanaki, Wiering and Veltkamp, 2015).

The excerpts, 100 each of classical, electronic, pop and rock music from Magnatune, are in folders per genre,
`emotifymusic/classical/1.mp3` to `100.mp3`. `data.csv` has a line per listener and excerpt: the track's number from 1
to 400 (1 to 100 classical, 101 to 200 electronic, 201 to 300 pop, 301 to 400 rock, so that 215 is `pop/15.mp3`), its
genre, 1 for each of nine emotions that was felt (at most three), and information on the listener.

There is no official split. The loader splits by artist, read from the tags of the files: 60 % of the excerpts for
training, 20 % for validation and 20 % for testing, with the genres in proportion, and equally for all labels. State
this with every score, as no other publication uses this split.
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
        "400 excerpts of one minute in four genres, with nine emotions that listeners felt. There is no official "
        "split; this one is by artist, 60 % for training, 20 % for validation and 20 % for testing."
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
    """Read Emotify, with a split by artist.

    Args:
        folder: folder with `data.csv` and the folder `emotifymusic`.
        labels: `"emotions"`: an excerpt has an emotion if the share of its listeners who felt it is above the median of
            all excerpts; `"votes"`: these shares as soft targets; `"genre"`: one of four genres.
        artists: artists by number of the excerpt, 1 to 400; by default read from the tags of the files.
        seed: random seed of the split.
        partial: accept missing excerpts, with a warning.

    Returns:
        `Manifest` in the order of the numbers; `group` is the artist. Excerpts of unknown artists are split one by one,
        with a warning.

    Raises:
        DataError: files are missing or empty, or the table is not the published one.

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
    present = {number: path for number, path in files.items() if number in shares and sizes.get(path)}
    medians = np.median(list(shares.values()), axis=0)  # of all rated excerpts, missing ones included
    rows = [
        Row(
            path=root / path,
            tags=(path.partition("/")[0],),
            group=_artist(root / path) if artists is None else artists.get(number, ""),
            source=f"emotify:{number}",
            licence="CC-BY-NC-SA (Magnatune)",
        )
        for number, path in present.items()
    ]
    _warn_of_unknown_artists(rows)
    genres = Manifest(tuple(rows), GENRES).grouped_split(FRACTIONS, seed=seed)  # the same split for all labels
    if labels == "genre":
        return genres
    thresholds = medians if labels == "emotions" else None
    rated = (_rated(row, shares[number], thresholds) for row, number in zip(genres, present, strict=True))
    return Manifest(tuple(rated), EMOTIONS)


def _what_is_unrated(table: Path, files: Mapping[int, str], shares: Mapping[int, np.ndarray]) -> str:
    unrated = [number for number in files if number not in shares]
    return f"{table} has no votes for {len(unrated)} of {len(files)} excerpts, first {unrated[0]}" if unrated else ""


def _warn_of_unknown_artists(rows: list[Row]) -> None:
    unknown = sum(not row.group for row in rows)
    if unknown:
        _log.warning(
            "The artists of %d of %d excerpts of Emotify are not known, so some may be in several splits; pass "
            "artists={number: name}.",
            unknown,
            len(rows),
        )


def _rated(row: Row, shares: np.ndarray, thresholds: np.ndarray | None) -> Row:
    """Return the row with the emotions whose shares exceed the thresholds, or with the shares as soft targets."""
    if thresholds is None:
        return dataclasses.replace(row, tags=(), targets=tuple(map(float, shares)))
    tags = (emotion for emotion, share, least in zip(EMOTIONS, shares, thresholds, strict=True) if share > least)
    return dataclasses.replace(row, tags=tuple(tags))


def _shares(table: Path) -> dict[int, np.ndarray]:
    """Return number of the excerpt -> share of its listeners who felt each emotion, float array `(emotions,)`."""
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
    """Return the file of an excerpt, which is numbered within its genre; the published name if it is missing."""
    name = f"{_genre_of(number)}/{(number - 1) % PER_GENRE + 1}"
    present = [name + suffix for suffix in _SUFFIXES if sizes.get(name + suffix)]
    return present[0] if present else name + _SUFFIXES[0]


def _has_genres(path: Path) -> bool:
    return any((path / genre).is_dir() for genre in GENRES)


def _artist(path: Path) -> str:
    """Return the artist in the tags of a file; empty if there is none."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            return str(file.artist).strip()
    except (OSError, RuntimeError):  # Manifest.validate reports files that cannot be decoded
        return ""
