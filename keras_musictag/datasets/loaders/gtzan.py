"""GTZAN: 1,000 excerpts of 30 s in ten genres (Tzanetakis and Cook, 2002), with the fault-filtered split.

As published, the folder `genres` has a folder per genre with `blues.00000.au` to `blues.00099.au` and so on, 22,050 Hz
mono. The copy on Kaggle has `.wav` files in `genres_original`.

Sturm ("The GTZAN dataset", 2013) found repetitions, wrong labels and distortions; random splits have the same artists
in several parts, so their scores are too high. Kereliuk, Sturm and Larsen (2015) made the split used here: 930 excerpts
without repetitions, each artist in one part, 443 for training, 197 for validation and 290 for testing.
`gtzan_filtered.txt` is made of the lists in github.com/jordipons/sklearn-audio-transfer-learning (data/index/GTZAN),
which are also in torchaudio.

`jazz.00054` of the split train cannot be read in some copies. It is then left out, with a warning.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ..info import DatasetInfo
from ..manifest import Manifest
from ..rows import AnyPath, Row
from .published_files import as_folder, file_sizes, find, require_complete, what_is_missing

_log = logging.getLogger(__name__)

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")

info = DatasetInfo(
    name="GTZAN",
    description="1,000 excerpts of 30 s in ten genres; the fault-filtered split has 930 of them.",
    url="http://marsyas.info/downloads/datasets.html",
    licence="none is stated; the excerpts are of commercial recordings and radio, so for research only",
    citation=(
        "George Tzanetakis and Perry Cook. Musical genre classification of audio signals. IEEE Transactions on Speech "
        "and Audio Processing 10(5), 2002. The split: Corey Kereliuk, Bob L. Sturm and Jan Larsen. Deep learning and "
        "music adversaries. IEEE Transactions on Multimedia 17(11), 2015."
    ),
    splits={"fault-filtered": {"train": 443, "valid": 197, "test": 290}},
    size="1.2 GB",
    obtain=(
        "Get genres.tar.gz (http://opihi.cs.uvic.ca/sound/genres.tar.gz, or data/genres.tar.gz of "
        "https://huggingface.co/datasets/marsyas/gtzan; torchaudio states the sha256 "
        "24347e0223d2ba798e0a558c4c172d9d4a19c00bb7963fe055d183dadb4ef2c6), unpack it, and pass the folder that has "
        "the folders blues to rock, or the one above it."
    ),
)

UNREADABLE = "jazz/jazz.00054"

_PLACES = (".", "genres", "genres_original", "Data/genres_original")
_SUFFIXES = (".au", ".wav", ".flac", ".ogg", ".opus", ".mp3")  # as published, as on Kaggle, and conversions


def gtzan(folder: AnyPath, *, partial: bool = False) -> Manifest:
    """Read GTZAN with its fault-filtered split.

    Args:
        folder: folder with the folders `blues` to `rock`, or the one above it.
        partial: accept missing excerpts, with a warning.

    Returns:
        `Manifest` with one tag per row, the genre. The artists are not published, so rows have no `group`; the split
        has each artist in one part. `jazz.00054` is left out, with a warning, if it cannot be read.

    Raises:
        DataError: files are missing or empty, or this is not GTZAN.

    Example:
        >>> gtzan("no/such/folder")
        Traceback (most recent call last):
        keras_musictag.datasets.rows.DataError: ...no/such/folder is not a folder. Get genres.tar.gz ...
    """
    top = as_folder(folder, info)
    root = find(top, _PLACES, _has_genres, f"folders {GENRES[0]} to {GENRES[-1]}", info)
    sizes = file_sizes(root, GENRES)
    files = {name: _file_of(name, sizes) for name in filtered_split()}
    wanted = {name: None if path is None else sizes[path] for name, path in files.items()}
    fault = _fault_of(root, files[UNREADABLE], wanted.pop(UNREADABLE))
    if fault:
        _log.warning("%s is left out: %s.", UNREADABLE, fault)
    require_complete(info, what_is_missing(root, wanted), partial)
    rows = [
        Row(
            path=root / path,
            split=split,
            tags=(name.partition("/")[0],),
            source=f"gtzan:{name.partition('/')[2]}",
            where=f"{_LIST.name}:{number}",
        )
        for number, (name, split) in enumerate(filtered_split().items(), 1)
        if (path := files[name]) is not None and sizes[path] and not (fault and name == UNREADABLE)
    ]
    return Manifest(tuple(rows), GENRES)


_LIST = Path(__file__).with_name("gtzan_filtered.txt")


def filtered_split() -> dict[str, str]:
    """Return the fault-filtered split: `genre/name`, without suffix -> `"train"`, `"valid"` or `"test"`.

    Example:
        >>> filtered_split()["blues/blues.00029"]
        'train'
    """
    pairs = (line.split() for line in _LIST.read_text(encoding="ascii").splitlines())
    return {f"{name.partition('.')[0]}/{name}": split for name, split in pairs}


def _has_genres(path: Path) -> bool:
    """Return whether a folder has all ten genres, or some with files that are named as in GTZAN."""
    present = [genre for genre in GENRES if (path / genre).is_dir()]
    return len(present) == len(GENRES) or any(any((path / genre).glob(f"{genre}.0*")) for genre in present)


def _file_of(name: str, sizes: dict[str, int]) -> str | None:
    """Return the file of an excerpt, if possible one that is not empty; `None` if it is missing."""
    present = [name + suffix for suffix in _SUFFIXES if name + suffix in sizes]
    return next((path for path in present if sizes[path]), present[0] if present else None)


def _fault_of(root: Path, path: str | None, size: int | None) -> str:
    """Return why an excerpt cannot be used; empty if it can."""
    from ...audio import reading as audio
    from ...errors import AudioError

    if path is None:
        return "it is missing"
    if not size:
        return "the file is empty (0 bytes)"
    try:
        for _ in audio.stream(root / path, target_sr=22_050):
            pass
    except AudioError as error:
        return str(error).rstrip(".")
    return ""
