"""First stage: which files there are. Nothing is opened but folders, lists and tables."""

from __future__ import annotations

import collections
import dataclasses
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ...datasets.folders import ending, is_sound
from . import lists, segments
from .library_rows import LibraryError
from .segments import CueError, Segment

if TYPE_CHECKING:
    from ...datasets import Manifest

Sources: TypeAlias = "str | os.PathLike[str] | Manifest | Iterable[str | os.PathLike[str]]"

_LISTS = (".txt", ".m3u", ".m3u8", ".pls", ".xspf")
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclasses.dataclass(frozen=True)
class Listed:
    """A file to tag, or a folder that could not be looked into.

    Attributes:
        path: absolute, as the file system has it (`os.fsdecode`); of a part, `FILE#t=START,END`.
        error, kind: why it needs no further look, as in `LibraryRow`; empty if it does.
        state: size and modification time, where the listing already said them (storage elsewhere).
        segment: the part of a file that this is: a track of a cue sheet, or a chapter; `None` for a whole file.
    """

    path: str
    error: str = ""
    kind: str = ""
    state: tuple[int, float] | None = None
    segment: Segment | None = None

    @property
    def file(self) -> str:
        """The file that this is, or that it is a part of."""
        return self.path if self.segment is None else self.segment.file


@dataclasses.dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        files: each once, in the order of sources and names.
        folders: those that were walked through as a whole.
        passed_over: ending of a name, in lower case -> files in the folders that are not named like sounds.
    """

    files: tuple[Listed, ...]
    folders: tuple[str, ...]
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)


def find(sources: Sources, *, chapters: bool = False, progress: bool = False) -> Listing:
    """Find the files of a library.

    Folders are walked through; of the files in them, those count that are named like sounds, but no hidden ones. Links
    are followed, but no folder is entered twice, and a link to a folder above is reported. Others are counted. Lists
    (`.txt`, `.m3u`, `.m3u8`, `.pls`, `.xspf`: see `lists`) and tables (`.csv`, `.tsv`, `.jsonl`, `.parquet`, see
    `Manifest`) give the files they name; any other file stands for itself. In the place of a file that a cue sheet in
    its folder cuts into tracks, there are the tracks.

    Args:
        sources: folders, lists, tables and files, or a `Manifest`.
        chapters: list chapters of m4b, m4a, mp4 and mka files instead of the whole file; it is opened for that.
        progress: show how many were found, on standard error.

    Returns:
        `Listing`.

    Raises:
        LibraryError: a source does not exist, a list cannot be read, or a table has parts of files.
        DataError: a table cannot be read.
    """
    from tqdm.auto import tqdm

    from ...datasets import Manifest

    if isinstance(sources, Manifest):
        return Listing(once(_of_manifest(sources, "The manifest")), ())
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    lists.forget_folders()
    found: list[Listed] = []
    folders, cues = list[str](), list[str]()
    passed_over: collections.Counter[str] = collections.Counter()
    for source in sources:
        path = os.path.abspath(os.fspath(source))
        suffix = os.path.splitext(path)[1].lower()
        if os.path.isdir(path):
            folders.append(path)
            with tqdm(desc="listing", unit="file", delay=2, disable=not progress) as bar:
                for some in _walk(path, passed_over, cues):
                    found += some
                    bar.update(len(some))
        elif not os.path.lexists(path):
            raise LibraryError(f"{os.fspath(source)!r} does not exist. Give folders, sound files, lists or tables.")
        elif suffix == ".cue" and os.path.isfile(path):
            cues.append(path)
        elif suffix in _LISTS and os.path.isfile(path):
            found += map(Listed, lists.read(path))
        elif suffix in _TABLES and os.path.isfile(path):
            found += _of_manifest(Manifest.load(path, untagged=True), path)
        else:
            found.append(Listed(path))
    found = _cut(found, cues)
    if chapters:
        found = [one for listed in found for one in _chapters(listed)]
    return Listing(once(found), tuple(folders), passed_over)


def once(found: Iterable[Listed]) -> tuple[Listed, ...]:
    """Each path once, where it came first."""
    return tuple({listed.path: listed for listed in found}.values())


# === Parts of files ===


def _cut(found: list[Listed], cues: Iterable[str]) -> list[Listed]:
    """Put tracks in the place of files that cue sheets cut; sheets that are wrong are reported."""
    tracks: dict[str, list[Listed]] = {}
    reports = []
    for cue in dict.fromkeys(cues):
        try:
            cut, wrong = segments.read_cue(cue)
        except CueError as error:
            cut, wrong = [], [str(error)]
        if wrong:
            reports.append(Listed(cue, " ".join(wrong), "cue sheet"))
        for file in dict.fromkeys(segment.file for segment in cut):  # the first of two sheets for a file counts
            own = [Listed(segment.path, segment=segment) for segment in cut if segment.file == file]
            tracks.setdefault(file, own)
    cut_up = [one for listed in found for one in tracks.pop(listed.path, [listed])]
    return [*cut_up, *(one for some in tracks.values() for one in some), *reports]


def _chapters(listed: Listed) -> list[Listed]:
    parts = [] if listed.kind or listed.segment else segments.chapters(listed.path)
    return [Listed(part.path, segment=part) for part in parts] or [listed]


# === Tables ===


def _of_manifest(manifest: Manifest, name: str) -> Iterator[Listed]:
    for row in manifest:
        if row.start or row.duration is not None:
            raise LibraryError(
                f"{name} lists a part of {str(row.path)!r} (start {row.start:g} s); a library has whole files. Leave "
                "out start and duration, or use tag() with offset and duration."
            )
        yield Listed(lists.existing(os.path.abspath(row.path)))


# === Folders ===


def _walk(root: str, passed_over: collections.Counter[str], cues: list[str]) -> Iterator[list[Listed]]:
    """The sounds of a folder and of each one below.

    Linked folders come last: what is also there without a link is listed without it.
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
        except FileNotFoundError:  # it has just gone
            continue
        except OSError as error:
            reason = f"The folder {folder!r} cannot be read ({error.strerror}). Check its permissions."
            yield [Listed(folder, reason, "unreadable")]
            continue
        below, found = [], []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            kind = _kind(entry)
            if kind == "folder":
                below.append(entry.path)
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
        ahead += reversed(below)
        yield found


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, `link` to a folder, `loop` or, for everything else, `file`."""
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
    """Whether a path is one of the folders or below one.

    Example:
        >>> within("/music/a", ["/music"]), within("/musical", ["/music"])
        (True, False)
    """
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def fault_of(path: str) -> tuple[str, str] | None:
    """Why a path is no file that can be read, as reason and kind; `None` if it may be one.

    Looks without opening: to open a pipe could take for ever.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return f"{path!r} links to itself. Remove the link.", "link loop"
        if isinstance(error, FileNotFoundError):
            return f"{path!r} does not exist. Was it moved, or is it a link to nothing?", "unreadable"
        return f"{path!r} cannot be looked at ({error.strerror}). Check the permissions.", "unreadable"
    except ValueError:
        return f"{path!r} is no path: it has a null character.", "unreadable"
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        return f"{path!r} is {what}, not a regular file.", "not a file"
    return None


def state_of(path: str) -> tuple[int, float]:
    """Size and modification time of a file: as long as they stay the same, so does the content."""
    status = os.stat(path)
    return status.st_size, status.st_mtime
