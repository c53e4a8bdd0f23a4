"""Parts of files with their own rows: tracks of cue sheets, and chapters of audio books.

The path of a part is `FILE#t=START,END` in seconds, as in W3C media fragments; the last part has no end.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ...audio.pyav_decoder import open_container

_SUFFIX = re.compile(r"#t=[0-9.]+(,[0-9.]+)?$")
_CHAPTERED = (".m4b", ".m4a", ".mka", ".mp4")

# FILE "name" WAVE; TRACK 01 AUDIO; TITLE "name"; INDEX 01 mm:ss:ff
_COMMAND = re.compile(r'\s*(FILE|TRACK|TITLE|INDEX)\s+("[^"]*"|\S+)\s*(.*?)\s*$', re.IGNORECASE)
_TIME = re.compile(r"(\d+):([0-5]?\d):([0-6]?\d|7[0-4])")
_FRAMES = 75  # of a CD per second


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a file.

    Attributes:
        file: absolute path.
        start, end: seconds; `None` is the end of the file.
        title: title in the cue sheet or the container.
    """

    file: str
    start: float
    end: float | None
    title: str

    @property
    def path(self) -> str:
        """Path of the part, for rows.

        Example:
            >>> Segment("/music/a.flac", 61.5, None, "Two").path
            '/music/a.flac#t=61.5'
        """
        times = [f"{time:.3f}".rstrip("0").rstrip(".") for time in (self.start, self.end) if time is not None]
        return f"{self.file}#t={','.join(times)}"


class CueError(Exception):
    """A cue sheet is faulty."""


def file_of(path: str) -> str:
    """Return the file of a part, or a whole file as it is.

    Example:
        >>> file_of("/music/a.flac#t=61.5,70"), file_of("/music/a.flac")
        ('/music/a.flac', '/music/a.flac')
    """
    return _SUFFIX.sub("", path)


def is_segment(path: str) -> bool:
    """Return whether a path is that of a part."""
    return _SUFFIX.search(path) is not None


# === Cue sheets ===


def read_cue(path: str) -> tuple[list[Segment], list[str]]:
    """Read the tracks of a cue sheet.

    Args:
        path: sheet, in UTF-8 or cp1252.

    Returns:
        Tracks of files with more than one track, and faults: files that are outside the sheet's folder, do not exist,
        or have times that do not ascend.

    Raises:
        CueError: the sheet cannot be read, or is not a cue sheet.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise CueError(f"The cue sheet {path!r} cannot be read ({error.strerror}). Check its permissions.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    tracks, faults = list[Segment](), list[str]()
    files = list(_files(text))
    if not files:
        raise CueError(f"The cue sheet {path!r} names no file with tracks. Correct it, or remove it.")
    for name, found in files:
        try:
            tracks += _split_file(path, name, found)
        except CueError as error:
            faults.append(str(error))
    return tracks, faults


def _files(text: str) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Yield the names of files, each with the titles and start times of its tracks."""
    name, tracks, title = "", list[tuple[str, float]](), None
    for line in text.splitlines():
        command = _COMMAND.match(line)
        if command is None:
            continue
        word, value = command[1].upper(), command[2].strip('"')
        if word == "FILE":
            if name and tracks:
                yield name, tracks
            name, tracks = value, []
        elif word == "TRACK":
            title = f"Track {value}"
        elif word == "TITLE" and title is not None:  # before the first track, it is the title of the album
            title = value
        elif word == "INDEX" and value == "01" and (time := _TIME.fullmatch(command[3])):
            minutes, seconds, frames = map(int, time.groups())
            tracks.append((title or "", 60 * minutes + seconds + frames / _FRAMES))
    if name and tracks:
        yield name, tracks


def _split_file(sheet: str, name: str, tracks: Sequence[tuple[str, float]]) -> list[Segment]:
    if len(tracks) < 2:
        return []  # the sheet is for files of one track each
    starts = [start for _, start in tracks]
    folder = os.path.dirname(sheet)
    if os.path.dirname(os.path.normpath(os.path.join(folder, name.replace("\\", "/")))) != folder:
        raise CueError(
            f"The cue sheet {sheet!r} names a file outside its folder, {name!r}. Move the sheet or the file."
        )
    if starts != sorted(set(starts)):
        raise CueError(f"Times of tracks in the cue sheet {sheet!r} do not ascend. Correct it, or remove it.")
    file = _find_file(folder, os.path.basename(name.replace("\\", "/")))
    if file is None:
        raise CueError(f"The cue sheet {sheet!r} names {name!r}, which does not exist. Correct it, or remove it.")
    ends = [*starts[1:], None]
    return [Segment(file, start, end, title) for (title, start), end in zip(tracks, ends, strict=True)]


def _find_file(folder: str, name: str) -> str | None:
    """Find the file of this name, or one that it was converted to."""
    stem = os.path.splitext(name)[0]
    for other in (name, *(stem + suffix for suffix in (".flac", ".wav", ".wv", ".ape", ".tta", ".m4a", ".mp3"))):
        path = os.path.join(folder, other)
        if os.path.isfile(path):
            return path
    return None


# === Chapters ===


def chapters(path: str) -> list[Segment]:
    """Read the chapters of a container: m4b, m4a, mp4 and mka.

    Returns:
        Chapters; none if there is only one, or if the file cannot be opened, which is reported when it is decoded.
    """
    if os.path.splitext(path)[1].lower() not in _CHAPTERED or not os.path.isfile(path):
        return []
    av: Any = importlib.import_module("av")
    try:
        with open(path, "rb") as file, open_container(file) as container:
            found = container.chapters()
    except (av.FFmpegError, OSError, ValueError):
        return []
    segments = []
    for number, chapter in enumerate(found, 1):
        start, end = (float(chapter[name] * chapter["time_base"]) for name in ("start", "end"))
        if end > start >= 0:
            segments.append(Segment(path, start, end, chapter["metadata"].get("title", f"Chapter {number}")))
    return segments if len(segments) > 1 else []
