"""First stage: which files there are. Nothing is opened but folders, lists and tables."""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ...datasets.folders import SUFFIXES
from .library_rows import LibraryError

if TYPE_CHECKING:
    from ...datasets import Manifest

Sources: TypeAlias = "str | os.PathLike[str] | Manifest | Iterable[str | os.PathLike[str]]"

_LISTS = (".txt", ".m3u", ".m3u8")
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclasses.dataclass(frozen=True)
class Listed:
    """A file to tag, or a folder that could not be looked into.

    Attributes:
        path: absolute, as the file system has it (`os.fsdecode`).
        error, kind: why it needs no further look, as in `LibraryRow`; empty if it does.
        state: size and modification time, where the listing already said them (storage elsewhere).
    """

    path: str
    error: str = ""
    kind: str = ""
    state: tuple[int, float] | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        files: each once, in the order of sources and names.
        folders: those that were walked through as a whole.
    """

    files: tuple[Listed, ...]
    folders: tuple[str, ...]


def find(sources: Sources, *, progress: bool = False) -> Listing:
    """Find the files of a library.

    Folders are walked through; of the files in them, those count that are named like sounds, but no hidden ones. Links
    are followed, but no folder is entered twice, and a link to a folder above is reported. Lists (`.txt`, `.m3u`,
    `.m3u8`: a path per line, relative to the list) and tables (`.csv`, `.tsv`, `.jsonl`, `.parquet`, see `Manifest`)
    give the files they name; any other file stands for itself.

    Args:
        sources: folders, lists, tables and files, or a `Manifest`.
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
    found: list[Listed] = []
    folders = []
    for source in sources:
        path = os.path.abspath(os.fspath(source))
        suffix = os.path.splitext(path)[1].lower()
        if os.path.isdir(path):
            folders.append(path)
            with tqdm(desc="listing", unit="file", delay=2, disable=not progress) as bar:
                for some in _walk(path):
                    found += some
                    bar.update(len(some))
        elif not os.path.lexists(path):
            raise LibraryError(f"{os.fspath(source)!r} does not exist. Give folders, sound files, lists or tables.")
        elif suffix in _LISTS and os.path.isfile(path):
            found += _of_list(path, comments=suffix != ".txt")
        elif suffix in _TABLES and os.path.isfile(path):
            found += _of_manifest(Manifest.load(path, untagged=True), path)
        else:
            found.append(Listed(path))
    return Listing(once(found), tuple(folders))


def once(found: Iterable[Listed]) -> tuple[Listed, ...]:
    """Each path once, where it came first."""
    return tuple({listed.path: listed for listed in found}.values())


# === Lists ===


def _of_list(path: str, comments: bool) -> Iterator[Listed]:
    try:
        with open(path, "rb") as file:
            lines = file.read().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise LibraryError(f"The list {path!r} cannot be read ({error.strerror}). Check its permissions.") from error
    for number, line in enumerate(lines, 1):
        if b"\0" in line:
            raise LibraryError(f"Line {number} of {path!r} is no path: it has null characters. Save the list as UTF-8.")
        if line.strip() and not (comments and line.startswith(b"#")):
            name = os.fsdecode(line.strip())
            yield Listed(os.path.normpath(os.path.join(os.path.dirname(path), name)))


def _of_manifest(manifest: Manifest, name: str) -> Iterator[Listed]:
    for row in manifest:
        if row.start or row.duration is not None:
            raise LibraryError(
                f"{name} lists a part of {str(row.path)!r} (start {row.start:g} s); a library has whole files. Leave "
                "out start and duration, or use tag() with offset and duration."
            )
        yield Listed(os.path.abspath(row.path))


# === Folders ===


def _walk(root: str) -> Iterator[list[Listed]]:
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
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                found.append(Listed(entry.path))
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
