"""First stage: find the files. Only folders, lists and tables are opened."""

from __future__ import annotations

import collections
import dataclasses
import errno
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ...datasets.folders import ending, is_sound
from . import cue_and_chapters, playlist_reading
from .cue_and_chapters import CueError, Segment
from .library_rows import LibraryError

if TYPE_CHECKING:
    from ...datasets import Manifest

Sources: TypeAlias = "str | os.PathLike[str] | Manifest | Iterable[str | os.PathLike[str]]"

_LISTS = (".txt", ".m3u", ".m3u8", ".pls", ".xspf")
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclasses.dataclass(frozen=True)
class Listed:
    """A file to tag, or a folder that cannot be read.

    Attributes:
        path: absolute path as on disk (`os.fsdecode`); of a part, `FILE#t=START,END`.
        error, kind: why it cannot be tagged, as in `LibraryRow`; empty if it may be.
        state: size and modification time, if the listing contains them (remote storage).
        segment: a track of a cue sheet, or a chapter; `None` for a whole file.
    """

    path: str
    error: str = ""
    kind: str = ""
    state: tuple[int, float] | None = None
    segment: Segment | None = None

    @property
    def file(self) -> str:
        """Path of the file, also for a part of it."""
        return self.path if self.segment is None else self.segment.file


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files found.

    Attributes:
        files: each once, in the order of sources and names.
        folders: folders that were searched completely.
        passed_over: suffix, in lower case -> number of files in the folders that have no suffix of audio files.
    """

    files: tuple[Listed, ...]
    folders: tuple[str, ...]
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)


def find(sources: Sources, *, chapters: bool = False, progress: bool = False) -> Listing:
    """Find the files of a library.

    Folders are searched recursively for files with suffixes of audio files; hidden files are skipped, others counted.
    Links are followed, but no folder is entered twice, and a link to a parent folder is reported. Lists (`.txt`,
    `.m3u`, `.m3u8`, `.pls`, `.xspf`: see `lists`) and tables (`.csv`, `.tsv`, `.jsonl`, `.parquet`, see `Manifest`)
    name files; any other file is taken as it is. A file that a cue sheet in its folder splits into tracks is replaced
    by the tracks.

    Args:
        sources: folders, lists, tables and files, or a `Manifest`.
        chapters: list the chapters of m4b, m4a, mp4 and mka files instead of the whole file, which is opened for this.
        progress: show the number of files found on standard error.

    Returns:
        `Listing`.

    Raises:
        LibraryError: a source does not exist, a list cannot be read, or a table names parts of files.
        DataError: a table cannot be read.
    """
    from tqdm.auto import tqdm

    from ...datasets import Manifest

    if isinstance(sources, Manifest):
        return Listing(once(_from_manifest(sources, "The manifest")), ())
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    playlist_reading.forget_folders()
    found: list[Listed] = []
    folders, cues = list[str](), list[str]()
    passed_over: collections.Counter[str] = collections.Counter()
    for source in sources:
        path = os.path.abspath(os.fspath(source))
        suffix = os.path.splitext(path)[1].lower()
        if os.path.isdir(path):
            folders.append(path)
            with tqdm(desc="listing", unit="file", delay=2, disable=not progress) as bar:
                for batch in _walk(path, passed_over, cues):
                    found += batch
                    bar.update(len(batch))
        elif not os.path.lexists(path):
            raise LibraryError(f"{os.fspath(source)!r} does not exist. Give folders, audio files, lists or tables.")
        elif suffix == ".cue" and os.path.isfile(path):
            cues.append(path)
        elif suffix in _LISTS and os.path.isfile(path):
            found += map(Listed, playlist_reading.read(path))
        elif suffix in _TABLES and os.path.isfile(path):
            found += _from_manifest(Manifest.load(path, untagged=True), path)
        else:
            found.append(Listed(path))
    found = _split_by_cues(found, cues)
    if chapters:
        found = [entry for listed in found for entry in _chapters(listed)]
    return Listing(once(found), tuple(folders), passed_over)


def once(found: Iterable[Listed]) -> tuple[Listed, ...]:
    """Remove repeated paths; keep the first of each."""
    return tuple({listed.path: listed for listed in found}.values())


# === Parts of files ===


def _split_by_cues(found: list[Listed], cues: Iterable[str]) -> list[Listed]:
    """Replace files by the tracks in their cue sheets; report faulty sheets."""
    tracks: dict[str, list[Listed]] = {}
    reports = []
    for cue in dict.fromkeys(cues):
        try:
            parts, faults = cue_and_chapters.read_cue(cue)
        except CueError as error:
            parts, faults = [], [str(error)]
        if faults:
            reports.append(Listed(cue, " ".join(faults), "cue sheet"))
        for file in dict.fromkeys(part.file for part in parts):  # the first of two sheets for a file counts
            tracks.setdefault(file, [Listed(part.path, segment=part) for part in parts if part.file == file])
    with_tracks = [entry for listed in found for entry in tracks.pop(listed.path, [listed])]
    return [*with_tracks, *itertools.chain.from_iterable(tracks.values()), *reports]


def _chapters(listed: Listed) -> list[Listed]:
    parts = [] if listed.kind or listed.segment else cue_and_chapters.chapters(listed.path)
    return [Listed(part.path, segment=part) for part in parts] or [listed]


# === Tables ===


def _from_manifest(manifest: Manifest, name: str) -> Iterator[Listed]:
    for row in manifest:
        if row.start or row.duration is not None:
            raise LibraryError(
                f"{name} lists a part of {str(row.path)!r} (start {row.start:g} s); a library takes whole files. Leave "
                "out start and duration, or use tag() with offset and duration."
            )
        yield Listed(playlist_reading.existing(os.path.abspath(row.path)))


# === Folders ===


def _walk(root: str, passed_over: collections.Counter[str], cues: list[str]) -> Iterator[list[Listed]]:
    """Yield the audio files of a folder and of each folder below.

    Linked folders come last, so that a file is listed by its path without links, if it has one.
    """
    entered: set[tuple[int, int]] = set()
    ahead, links = [root], list[str]()
    while ahead or links:
        folder = ahead.pop() if ahead else links.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except FileNotFoundError:  # it was just removed
            continue
        except OSError as error:
            reason = f"The folder {folder!r} cannot be read ({error.strerror}). Check its permissions."
            yield [Listed(folder, reason, "unreadable")]
            continue
        subfolders, found = [], []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            kind = _kind(entry)
            if kind == "folder":
                subfolders.append(entry.path)
            elif kind == "loop":
                reason = f"{entry.path!r} links to itself or to a folder above it. Remove the link."
                found.append(Listed(entry.path, reason, "link loop"))
            elif kind == "link":
                links.append(entry.path)
            elif ending(entry.name) == ".cue":
                cues.append(entry.path)
            elif is_sound(entry.name):
                found.append(Listed(entry.path))
            else:
                passed_over[ending(entry.name)] += 1
        ahead += reversed(subfolders)
        yield found


def _kind(entry: os.DirEntry[str]) -> str:
    """Return `folder`, `link` (to a folder), `loop`, or `file` for everything else."""
    try:
        if not entry.is_dir():
            return "file"
    except OSError as error:
        return "loop" if error.errno == errno.ELOOP else "file"
    if not entry.is_symlink():
        return "folder"
    here = os.path.realpath(os.path.dirname(entry.path))
    target = os.path.realpath(entry.path)
    return "loop" if within(here, [target]) else "link"


def within(path: str, folders: Sequence[str]) -> bool:
    """Return whether a path is one of the folders or is inside one.

    Example:
        >>> within("/music/a", ["/music"]), within("/musical", ["/music"])
        (True, False)
    """
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def fault_of(path: str) -> tuple[str, str] | None:
    """Return why a path is not a readable file, as error and kind; `None` if it may be one.

    The file is not opened: opening a pipe could block forever.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return f"{path!r} links to itself. Remove the link.", "link loop"
        if isinstance(error, FileNotFoundError):
            return f"{path!r} does not exist. Was it moved, or is it a broken link?", "unreadable"
        return f"{path!r} cannot be accessed ({error.strerror}). Check the permissions.", "unreadable"
    except ValueError:
        return f"{path!r} is not a path: it has a null character.", "unreadable"
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        return f"{path!r} is {what}, not a regular file.", "not a file"
    return None


def state_of(path: str) -> tuple[int, float]:
    """Return size and modification time of a file; while they stay the same, so does the content."""
    status = os.stat(path)
    return status.st_size, status.st_mtime
