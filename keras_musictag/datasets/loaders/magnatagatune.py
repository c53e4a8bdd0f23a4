"""MagnaTagATune: 25,863 clips of 29 s with 188 tags given by players of a game (Law et al., ISMIR 2009).

As published, the folder has `annotations_final.csv` (tab separated, quoted: clip_id, a column of 0 and 1 per tag,
mp3_path), `clip_info_final.csv` (clip_id, track_number, title, artist, album, url, segmentStart, segmentEnd,
original_url, mp3_path) and the clips in folders `0` to `f`. The clips are 16 kHz mono MP3.

The literature uses the 50 most frequent tags, in the order of `tags/mtt50.txt` (frequencies have ties), and a split by
folder: 0 to b for training, c for validation, d, e and f for testing. Three clips are empty files and are left out:
25,860 remain ("full"). Many papers also leave out the clips with none of the 50 tags ("clean"). PR-AUC differs by 5 to
7 points between the two, so state the one you use. Folders were chosen by album, so an album is in one split, but an
artist can be in several.
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

# File -> published sha256. Empty, as the site publishes none; add only checksums published by the authors.
_SHA256: Mapping[str, str] = {}

_TABLE_BEGINS = (b'"clip_id"', b"clip_id", b"\xef\xbb\xbf")  # the last is a byte order mark
_BEGINS = {_ANNOTATIONS: _TABLE_BEGINS, _CLIP_INFO: _TABLE_BEGINS, _PARTS[0]: (b"PK",)}

_FOLDERS = {**dict.fromkeys("0123456789ab", "train"), "c": "valid", **dict.fromkeys("def", "test")}
_CLIP_LICENCE = "CC-BY-NC-SA-1.0"

# Clips that are empty files in the published archive.
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
        folder: folder with the two tables and the folders `0` to `f` (or `mp3/0` to `mp3/f`).
        split: `"full"` has 18,706/1,825/5,329 rows, `"clean"` the 15,247/1,529/4,332 with any of the 50 tags.
        partial: accept missing clips, with a warning. Scores on a part of the test set are not comparable.

    Returns:
        `Manifest` in the order of the annotations; `group` is the artist.

    Raises:
        DataError: files are missing or empty, or the tables are not the published ones.

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
            f"download_magnatagatune({str(folder)!r}), or pass partial=True to use the existing files."
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
    """Require the published number of rows per split, or warn with `partial`."""
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


# === Files ===


def _require_tables(folder: Path) -> None:
    """Require both tables; the message suggests a folder nearby that has them."""
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
    """Return the folder that has the folders `0` to `f`."""
    inner = folder / "mp3"
    has_clips = any((folder / name).is_dir() for name in _FOLDERS)
    return inner if not has_clips and inner.is_dir() else folder


def _what_is_missing(annotated: Iterable[tuple[str, str, str, object]], sizes: Mapping[str, int], clips: Path) -> str:
    """Describe missing folders, missing clips and empty clips; empty if there are none."""
    wanted = [path for _, _, path, _ in annotated if path not in _BROKEN]
    problems = []
    folders = [name for name in _FOLDERS if not (clips / name).is_dir() and any(path[0] == name for path in wanted)]
    if folders:
        problems.append(f"{clips} has no folder{'s' if len(folders) > 1 else ''} {', '.join(folders)}")
    for what, paths in (
        ("missing", [path for path in wanted if path not in sizes]),
        ("empty (0 bytes)", [path for path in wanted if sizes.get(path) == 0]),
    ):
        if paths:
            counts = collections.Counter(path[0] for path in paths)
            by_folder = ", ".join(f"{name}: {counts[name]:,}" for name in _FOLDERS if counts[name])
            problems.append(
                f"{len(paths):,} of {len(wanted):,} clips are {what} (by folder {by_folder}; first {paths[0]})"
            )
    return "; ".join(problems)


# === Tables ===


def _table(path: Path, needed: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield file and line, and the cells in the order of `needed`, of every row.

    Each line is parsed as a row: titles contain quotation marks, and one that is not closed must not join lines.
    """
    lines = decode_text(path, "utf-8-sig").split("\n")
    header = next(csv.reader([lines[0].rstrip("\r")], delimiter="\t"), [])
    absent = [name for name in needed if name not in header]
    if absent:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, absent))}; it begins with {lines[0][:60]!r}. The published "
            "table has columns separated by tabs: download it again."
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
    """Return file and line, clip, path and tags of every annotated clip."""
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
    """Return clip -> artist."""
    return {clip: artist.strip() for _, (clip, artist) in _table(folder / _CLIP_INFO, ("clip_id", "artist"))}


def _artist_of(path: str) -> str:
    """Return the artist in the file name of a clip, which is artist-album-number-title-start-end."""
    return path[2:].partition("-")[0]


# === Downloading ===


def download_magnatagatune(folder: AnyPath, *, base_url: str = BASE_URL) -> Path:
    """Download MagnaTagATune (3 GB, and 3 GB unpacked) from City, University of London, and unpack it.

    Call it again after an interruption: it resumes the download, also within a file. Complete files are not downloaded
    again; once all clips are unpacked, the three `mp3.zip` parts can be deleted.

    The site publishes no checksums, so a first download is verified only by its size, its first bytes and the checksums
    in the archive. The sha256 of each file is written to `SHA256SUMS` and compared by later calls, which detects files
    that have changed since the download.

    Args:
        folder: target folder; created if needed.
        base_url: address of the files, e.g. of a mirror.

    Returns:
        The folder, for `magnatagatune`.

    Raises:
        DownloadError: the server cannot be reached or breaks off repeatedly; call it again later.
        DataError: a downloaded or existing file is not the published one.
        OfflineError: offline mode is on.
        CacheError: a file cannot be written.
    """
    if not base_url.startswith(("https://", "http://")):
        raise DataError(f"base_url must begin with https:// or http://; got {base_url!r}.")
    folder = Path(os.path.abspath(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"{folder} cannot be created: {error}. Choose another folder.") from error
    for name in (_ANNOTATIONS, _CLIP_INFO):
        _get(folder, name, base_url)
    if not _missing_clips(folder):
        return folder
    for name in _PARTS:
        _get(folder, name, base_url)
    unzip([folder / name for name in _PARTS], folder)
    missing = _missing_clips(folder)
    if missing:
        raise DataError(
            f"The archive is unpacked, but {missing}. These are the parts of another data set: "
            f"delete {', '.join(_PARTS)} and download them again."
        )
    return folder


def _missing_clips(folder: Path) -> str:
    clips = _clip_folder(folder)
    return _what_is_missing(_annotations(folder), file_sizes(clips, _FOLDERS), clips)


def _get(folder: Path, name: str, base_url: str) -> None:
    """Download a file unless it exists, verify it and record its checksum."""
    path, url = folder / name, f"{base_url.rstrip('/')}/{name}"
    recorded = _recorded(folder)
    if path.is_file() and name not in recorded and not is_offline():
        _adopt(path, url)
    if not path.is_file():
        fetch(url, path, sha256=_SHA256.get(name), begins=_BEGINS.get(name, ()))
        recorded.pop(name, None)  # checksum of an earlier download that has been deleted
    digest = sha256_of(path)
    expected = _SHA256.get(name) or recorded.get(name, digest)
    if digest != expected:
        raise DataError(
            f"{path} is not the downloaded file: its sha256 is {digest}, expected {expected}. Delete it and run "
            "this again."
        )
    if name not in recorded:
        lines = [f"{value}  {key}\n" for key, value in sorted({**recorded, name: digest}.items())]
        write_atomically(folder / _CHECKSUMS, "".join(lines).encode())


def _adopt(path: Path, url: str) -> None:
    """Check the size of a file that was downloaded by other means; an incomplete one is resumed."""
    size, expected = path.stat().st_size, remote_size(url)
    if expected is not None and size > expected:
        raise DataError(f"{path} has {size:,} bytes, but {expected:,} on the server. Delete it and run this again.")
    if expected is not None and size < expected:
        path.replace(path.with_name(f"{path.name}.part"))


def _recorded(folder: Path) -> dict[str, str]:
    """Return file -> sha256, as recorded after the download."""
    path = folder / _CHECKSUMS
    if not path.is_file():
        return {}
    found = re.findall(r"^([0-9a-f]{64}) [ *](.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: digest for digest, name in found}
