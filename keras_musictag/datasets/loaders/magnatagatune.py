"""MagnaTagATune: 25,863 clips of 29 s with 188 tags that players of a game gave them (Law et al., ISMIR 2009).

As published, the folder has `annotations_final.csv` (tab separated, quoted: clip_id, a column of 0 and 1 per tag,
mp3_path), `clip_info_final.csv` (clip_id, track_number, title, artist, album, url, segmentStart, segmentEnd,
original_url, mp3_path) and the clips in folders `0` to `f`. The clips are 16 kHz mono MP3.

The literature uses the 50 most frequent tags, in the order of `tags/mtt50.txt` (ties cannot be sorted again), and
splits by folder: 0 to b for training, c for validation, d, e and f for the test. Three clips are empty files and are
left out: 25,860 remain ("full"). Many papers also leave out the clips with none of the 50 tags ("clean"). PR-AUC
differs by 5 to 7 points between the two, so name the one you used. A clip's folder was chosen by its album: albums are
on one side of the split, artists need not be.
"""

from __future__ import annotations

import collections
import csv
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from ...errors import CacheError
from ...utils.files import is_offline, sha256_of, write_atomically
from ..archives import fetch, remote_size, unzip
from ..info import DatasetInfo
from ..manifest import Manifest
from ..readers import decode_text
from ..rows import AnyPath, DataError, Row
from .published_files import file_sizes

_log = logging.getLogger(__name__)

BASE_URL = "https://mirg.city.ac.uk/datasets/magnatagatune/"

info = DatasetInfo(
    name="MagnaTagATune",
    description="25,863 clips of 29 s from the catalogue of Magnatune, with 188 tags from the game TagATune.",
    url="https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",
    licence="annotations CC-BY-NC-SA-3.0, clips CC-BY-NC-SA-1.0 (Magnatune)",
    citation=(
        "Edith Law, Kris West, Michael Mandel, Mert Bay and J. Stephen Downie. Evaluation of algorithms using games: "
        "the case of music tagging. ISMIR 2009."
    ),
    splits={
        "full": {"train": 18_706, "valid": 1_825, "test": 5_329},
        "clean": {"train": 15_247, "valid": 1_529, "test": 4_332},
    },
    size="3 GB",
    obtain=(
        "In Python, keras_musictag.datasets.download_magnatagatune(folder) downloads and unpacks it; pass that folder."
    ),
)

_ANNOTATIONS, _CLIP_INFO = "annotations_final.csv", "clip_info_final.csv"
_PARTS = ("mp3.zip.001", "mp3.zip.002", "mp3.zip.003")
_CHECKSUMS = "SHA256SUMS"  # what was downloaded, in the format of sha256sum

# File -> published sha256. The site publishes none, so this is empty; add only what its makers vouch for.
_SHA256: Mapping[str, str] = {}

_TABLE_BEGINS = (b'"clip_id"', b"clip_id", b"\xef\xbb\xbf")  # the last: a byte order mark
_BEGINS = {_ANNOTATIONS: _TABLE_BEGINS, _CLIP_INFO: _TABLE_BEGINS, _PARTS[0]: (b"PK",)}

_FOLDERS = {**dict.fromkeys("0123456789ab", "train"), "c": "valid", **dict.fromkeys("def", "test")}
_CLIP_LICENCE = "CC-BY-NC-SA-1.0"

# Zero bytes long in the published archive.
_BROKEN = frozenset(
    (
        "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
        "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
        "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
    )
)


# === Loading ===


def magnatagatune(folder: AnyPath, split: Literal["full", "clean"] = "full", *, partial: bool = False) -> Manifest:
    """Read MagnaTagATune as it was published, with the 50 tags and the split of the literature.

    Args:
        folder: the folder with the two tables and the folders `0` to `f` (or `mp3/0` to `mp3/f`).
        split: `"full"` has 18,706/1,825/5,329 rows, `"clean"` 15,247/1,529/4,332: those with one of the 50 tags.
        partial: take the clips that are there, with a warning that says what is missing. Scores on a part of the test
            set cannot be compared with anyone's.

    Returns:
        `Manifest` in the order of the annotations; `group` is the artist.

    Raises:
        DataError: what exactly is missing or empty, or that these are not the published tables.

    Example:
        >>> magnatagatune("no/such/folder")
        Traceback (most recent call last):
        keras_musictag.datasets.rows.DataError: ...no/such/folder is not a folder. ...
    """
    if split not in info.splits:
        raise DataError(f"split must be {' or '.join(map(repr, info.splits))}; got {split!r}.")
    folder = Path(os.path.abspath(folder))
    _require_tables(folder)
    annotated = _annotations(folder)
    clips = _clip_folder(folder)
    sizes = file_sizes(clips, _FOLDERS)
    missing = _what_is_missing(annotated, sizes, clips)
    if missing and not partial:
        raise DataError(
            f"MagnaTagATune in {folder} is not complete: {missing}. Get them with "
            f"download_magnatagatune({str(folder)!r}), or pass partial=True to use what is there."
        )
    if missing:
        _log.warning("MagnaTagATune in %s is not complete: %s.", folder, missing)
    artists = _artists(folder)
    rows = [
        Row(
            path=clips / path,
            split=_FOLDERS[path[0]],
            tags=tags,
            group=artists.get(clip, "") or _artist_of(path),
            source=f"magnatagatune:{clip}",
            licence=_CLIP_LICENCE,
            where=where,
        )
        for where, clip, path, tags in annotated
        if path not in _BROKEN and sizes.get(path) and (tags or split == "full")
    ]
    manifest = Manifest(tuple(rows), _tags())
    if not missing:
        _check_counts(manifest, split, folder, partial)
    return manifest


def _check_counts(manifest: Manifest, split: str, folder: Path, partial: bool) -> None:
    """All clips are there that the table has; are they all that were published?"""
    sizes, expected = manifest.split_sizes(), dict(info.splits[split])
    if sizes == expected:
        return
    problem = f"{folder / _ANNOTATIONS} is not the published table: {split!r} has {sizes}, expected {expected}."
    if not partial:
        raise DataError(f"{problem} Download it again, or pass partial=True to use it as it is.")
    _log.warning("%s", problem)


def _tags() -> tuple[str, ...]:
    path = Path(__file__).parents[2] / "models" / "tags" / "mtt50.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())


# === What is there ===


def _require_tables(folder: Path) -> None:
    """Raise unless both tables are there; says where they are if that is near by."""
    advice = "Pass the folder that has annotations_final.csv, or get the data with download_magnatagatune(folder)."
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. {advice}")
    missing = [name for name in (_ANNOTATIONS, _CLIP_INFO) if not (folder / name).is_file()]
    if missing:
        near = [folder.parent, *sorted(path for path in folder.iterdir() if path.is_dir())]
        better = [str(path) for path in near if (path / _ANNOTATIONS).is_file() and path != folder]
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        hint = f"Did you mean {better[0]}?" if better and _ANNOTATIONS in missing else advice
        raise DataError(f"{folder} has no {' and no '.join(missing)}; it has: {there}. {hint}")


def _clip_folder(folder: Path) -> Path:
    """Where the folders `0` to `f` are."""
    inner = folder / "mp3"
    has_clips = any((folder / name).is_dir() for name in _FOLDERS)
    return inner if not has_clips and inner.is_dir() else folder


def _what_is_missing(annotated: Iterable[tuple[str, str, str, object]], sizes: Mapping[str, int], clips: Path) -> str:
    """Missing folders, missing clips and empty clips in words; nothing if there is nothing to say."""
    wanted = [path for _, _, path, _ in annotated if path not in _BROKEN]
    said = []
    folders = [name for name in _FOLDERS if not (clips / name).is_dir() and any(path[0] == name for path in wanted)]
    if folders:
        said.append(f"{clips} has no folder{'s' if len(folders) > 1 else ''} {', '.join(folders)}")
    for what, paths in (
        ("missing", [path for path in wanted if path not in sizes]),
        ("empty (0 bytes)", [path for path in wanted if sizes.get(path) == 0]),
    ):
        if paths:
            counts = collections.Counter(path[0] for path in paths)
            by_folder = ", ".join(f"{name}: {counts[name]:,}" for name in _FOLDERS if counts[name])
            said.append(f"{len(paths):,} of {len(wanted):,} clips are {what} (by folder {by_folder}; first {paths[0]})")
    return "; ".join(said)


# === The tables ===


def _table(path: Path, needed: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Place and cells of every line, in the order of `needed`.

    A line is a row here. Titles have quotation marks in them, and one that is not closed must not swallow what follows.
    """
    lines = decode_text(path, "utf-8-sig").split("\n")
    header = next(csv.reader([lines[0].rstrip("\r")], delimiter="\t"), [])
    absent = [name for name in needed if name not in header]
    if absent:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, absent))}; it begins with {lines[0][:60]!r}. The published "
            "table is separated by tabs: download it again."
        )
    chosen = [header.index(name) for name in needed]
    for number, line in enumerate(lines[1:], 2):
        line = line.rstrip("\r")
        if not line:
            continue
        cells = next(csv.reader([line], delimiter="\t"))
        if len(cells) != len(header):
            cells = [cell.strip('"') for cell in line.split("\t")]
        if len(cells) != len(header):
            raise DataError(
                f"{path} line {number} has {len(cells)} cells for {len(header)} columns. The file is damaged: download "
                "it again."
            )
        yield f"{path.name}:{number}", [cells[at] for at in chosen]


def _annotations(folder: Path) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Place, clip, path and tags of every annotated clip."""
    names = _tags()
    rows = []
    for where, (clip, path, *values) in _table(folder / _ANNOTATIONS, ("clip_id", "mp3_path", *names)):
        if re.fullmatch(r"[0-9a-f]/[^/\\:]+", path) is None or set(values) - {"0", "1"}:
            raise DataError(
                f"{folder / where} is not as published: clip {clip!r}, path {path!r}, values "
                f"{', '.join(sorted(set(values)))[:60]}. The file is damaged: download it again."
            )
        rows.append((where, clip, path, tuple(tag for tag, value in zip(names, values, strict=True) if value == "1")))
    return rows


def _artists(folder: Path) -> dict[str, str]:
    """Artist by clip."""
    return {clip: artist.strip() for _, (clip, artist) in _table(folder / _CLIP_INFO, ("clip_id", "artist"))}


def _artist_of(path: str) -> str:
    """The artist as the name of a clip has it, which is artist-album-number-title-start-end."""
    return path[2:].partition("-")[0]


# === Downloading ===


def download_magnatagatune(folder: AnyPath, *, base_url: str = BASE_URL) -> Path:
    """Download MagnaTagATune (3 GB, and 3 GB unpacked) from City, University of London, and unpack it.

    Run it again after any interruption: it goes on where it was, within a file too. What is complete is not downloaded
    again; once all clips are there, the three `mp3.zip` parts can be deleted.

    The site publishes no checksums to compare with, so a first download is only checked for its size, for what it
    begins with and by the checksums within the archive. The sha256 of what came is written to `SHA256SUMS`, and later
    runs compare with that: it tells that a file has changed since, not that it was right in the first place.

    Args:
        folder: where to; made if it is not there.
        base_url: of a mirror with the same files.

    Returns:
        The folder, for `magnatagatune`.

    Raises:
        DownloadError: the server cannot be reached or breaks off again and again; run it again later.
        DataError: what came, or what was there, is not the data.
        OfflineError: offline mode is on.
        CacheError: it cannot be stored.
    """
    if not base_url.startswith(("https://", "http://")):
        raise DataError(f"base_url must begin with https:// or http://; got {base_url!r}.")
    folder = Path(os.path.abspath(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"{folder} cannot be made: {error}. Choose another folder.") from error
    for name in (_ANNOTATIONS, _CLIP_INFO):
        _get(folder, name, base_url)
    if not _lacking(folder):
        return folder
    for name in _PARTS:
        _get(folder, name, base_url)
    unzip([folder / name for name in _PARTS], folder)
    lacking = _lacking(folder)
    if lacking:
        raise DataError(
            f"The archive is unpacked, but {lacking}. These are the parts of another data set: "
            f"delete {', '.join(_PARTS)} and download them again."
        )
    return folder


def _lacking(folder: Path) -> str:
    clips = _clip_folder(folder)
    return _what_is_missing(_annotations(folder), file_sizes(clips, _FOLDERS), clips)


def _get(folder: Path, name: str, base_url: str) -> None:
    """Have a file and its checksum in the folder."""
    path, url = folder / name, f"{base_url.rstrip('/')}/{name}"
    recorded = _recorded(folder)
    if path.is_file() and name not in recorded and not is_offline():
        _adopt(path, url)
    if not path.is_file():
        fetch(url, path, sha256=_SHA256.get(name), begins=_BEGINS.get(name, ()))
        recorded.pop(name, None)  # of an earlier download, which somebody has deleted
    digest = sha256_of(path)
    expected = _SHA256.get(name) or recorded.get(name, digest)
    if digest != expected:
        raise DataError(
            f"{path} is not what was downloaded: its sha256 is {digest}, expected {expected}. Delete it and run "
            "this again."
        )
    if name not in recorded:
        lines = [f"{value}  {key}\n" for key, value in sorted({**recorded, name: digest}.items())]
        write_atomically(folder / _CHECKSUMS, "".join(lines).encode())


def _adopt(path: Path, url: str) -> None:
    """Take over a file that was downloaded by other means; an incomplete one is gone on with."""
    size, expected = path.stat().st_size, remote_size(url)
    if expected is not None and size > expected:
        raise DataError(f"{path} has {size:,} bytes, the server's has {expected:,}. Delete it and run this again.")
    if expected is not None and size < expected:
        path.replace(path.with_name(f"{path.name}.part"))


def _recorded(folder: Path) -> dict[str, str]:
    """File -> sha256, as recorded after its download."""
    path = folder / _CHECKSUMS
    if not path.is_file():
        return {}
    found = re.findall(r"^([0-9a-f]{64}) [ *](.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: digest for digest, name in found}
