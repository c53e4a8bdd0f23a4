"""Parts of files that get rows of their own: tracks of cue sheets, chapters of audio books.

A part is called `FILE#t=START,END` in seconds, as in W3C media fragments; the last one has no end.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

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
        start, end: seconds; an end of `None` is that of the file.
        title: as the cue sheet or the container has it.
    """

    file: str
    start: float
    end: float | None
    title: str

    @property
    def path(self) -> str:
        """What the part is called.

        Example:
            >>> Segment("/music/a.flac", 61.5, None, "Two").path
            '/music/a.flac#t=61.5'
        """
        times = [f"{time:.3f}".rstrip("0").rstrip(".") for time in (self.start, self.end) if time is not None]
        return f"{self.file}#t={','.join(times)}"


class CueError(Exception):
    """What is wrong with a cue sheet."""


def file_of(path: str) -> str:
    """The file that a part is of.

    Example:
        >>> file_of("/music/a.flac#t=61.5,70"), file_of("/music/a.flac")
        ('/music/a.flac', '/music/a.flac')
    """
    return _SUFFIX.sub("", path)


def is_segment(path: str) -> bool:
    """Whether a path is called like a part of a file."""
    return _SUFFIX.search(path) is not None


# === Cue sheets ===


def read_cue(path: str) -> tuple[list[Segment], list[str]]:
    """Tracks of a cue sheet.

    Args:
        path: sheet, in UTF-8 or cp1252.

    Returns:
        Tracks of files that have more than one, and what is wrong with other files: they are outside the sheet's
        folder, are not there, or have times that do not ascend.

    Raises:
        CueError: the sheet cannot be read, or is none.
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
    tracks, wrong = list[Segment](), list[str]()
    files = list(_files(text))
    if not files:
        raise CueError(f"The cue sheet {path!r} names no file with tracks. Correct it, or remove it.")
    for name, found in files:
        try:
            tracks += _of_file(path, name, found)
        except CueError as error:
            wrong.append(str(error))
    return tracks, wrong


def _files(text: str) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Names of files, each with titles and times of its tracks."""
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
        elif word == "TITLE" and title is not None:  # before the first track it is that of the album
            title = value
        elif word == "INDEX" and value == "01" and (time := _TIME.fullmatch(command[3])):
            minutes, seconds, frames = map(int, time.groups())
            tracks.append((title or "", 60 * minutes + seconds + frames / _FRAMES))
    if name and tracks:
        yield name, tracks


def _of_file(sheet: str, name: str, tracks: Sequence[tuple[str, float]]) -> list[Segment]:
    if len(tracks) < 2:
        return []  # a sheet for files of one track each
    starts = [start for _, start in tracks]
    folder = os.path.dirname(sheet)
    if os.path.dirname(os.path.normpath(os.path.join(folder, name.replace("\\", "/")))) != folder:
        raise CueError(
            f"The cue sheet {sheet!r} names a file outside its folder, {name!r}. Move the sheet or the file."
        )
    if starts != sorted(set(starts)):
        raise CueError(f"Times of tracks in the cue sheet {sheet!r} do not ascend. Correct it, or remove it.")
    file = _existing(folder, os.path.basename(name.replace("\\", "/")))
    if file is None:
        raise CueError(f"The cue sheet {sheet!r} names {name!r}, which is not there. Correct it, or remove it.")
    ends = [*starts[1:], None]
    return [Segment(file, start, end, title) for (title, start), end in zip(tracks, ends, strict=True)]


def _existing(folder: str, name: str) -> str | None:
    """The file that is meant: of this name, or one that it was encoded to since."""
    stem = os.path.splitext(name)[0]
    for other in (name, *(stem + suffix for suffix in (".flac", ".wav", ".wv", ".ape", ".tta", ".m4a", ".mp3"))):
        path = os.path.join(folder, other)
        if os.path.isfile(path):
            return path
    return None


# === Chapters ===


def chapters(path: str) -> list[Segment]:
    """Chapters of a container: m4b, m4a, mp4 and mka.

    Returns:
        Chapters; none if there is only one, or if the file cannot be opened, which is said when it is decoded.
    """
    if os.path.splitext(path)[1].lower() not in _CHAPTERED or not os.path.isfile(path):
        return []
    av: Any = importlib.import_module("av")
    try:
        with open(path, "rb") as file, _opened(av, file) as container:
            found = container.chapters()
    except (av.FFmpegError, OSError, ValueError):
        return []
    made = []
    for number, chapter in enumerate(found, 1):
        start, end = (float(chapter[name] * chapter["time_base"]) for name in ("start", "end"))
        if end > start >= 0:
            made.append(Segment(path, start, end, chapter["metadata"].get("title", f"Chapter {number}")))
    return made if len(made) > 1 else []


def _opened(av: Any, file: BinaryIO) -> Any:
    """A container whose content cannot make FFmpeg open other files or addresses; its tags need not be UTF-8."""
    options = {"protocol_whitelist": "none"}
    try:
        return av.open(file, options=options)
    except UnicodeDecodeError:  # PyAV 18 and older need this option; newer versions do not have it
        file.seek(0)
        return av.open(file, options=options, metadata_errors="replace")
