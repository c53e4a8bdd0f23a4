r"""Lists of paths, as players and people write them.

A list has a path per line, relative to its own folder. Whatever program wrote it, the file that is meant is found:
lines end with LF or CRLF, folders are separated by `/` or `\`, names are UTF-8 or Windows' cp1252, accents are
composed or not (Unicode NFC, or NFD as macOS writes them), and a line may be a `file:` URL, its bytes as `%20`. In
`.pls`, paths are the values of `File1=`, `File2=`, ...; in `.xspf`, an XML format, the locations of tracks.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
import urllib.parse
import xml.etree.ElementTree
from collections.abc import Iterator

from .library_rows import LibraryError

_BOM = b"\xef\xbb\xbf"
_COMMENTED = (".m3u", ".m3u8")


def read(path: str) -> Iterator[str]:
    """The paths of a list.

    Args:
        path: list; in `.m3u` and `.m3u8`, lines that begin with `#` are comments.

    Yields:
        Absolute paths, as the file system has them if there is such a file, else as they are written.

    Raises:
        LibraryError: the list cannot be read, or has null characters, as UTF-16 does.
    """
    suffix = os.path.splitext(path)[1].lower()
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise LibraryError(f"The list {path!r} cannot be read ({error.strerror}). Check its permissions.") from error
    if suffix == ".xspf":
        yield from (_meant(location, os.path.dirname(path)) for location in _locations(path, data))
        return
    for number, line in enumerate(data.removeprefix(_BOM).splitlines(), 1):
        if b"\0" in line:
            raise LibraryError(f"Line {number} of {path!r} is no path: it has null characters. Save the list as UTF-8.")
        if suffix == ".pls":
            value = re.match(rb"\s*File\d+\s*=(.*)", line, re.IGNORECASE)
            line = b"" if value is None else value[1]
        if line.strip() and not (suffix in _COMMENTED and line.startswith(b"#")):
            yield _meant(line.strip(), os.path.dirname(path))


def _locations(path: str, data: bytes) -> Iterator[bytes]:
    """Locations in an XSPF playlist: URLs, absolute or relative to it."""
    try:
        root = xml.etree.ElementTree.fromstring(data)
    except (xml.etree.ElementTree.ParseError, ValueError) as error:
        raise LibraryError(f"The playlist {path!r} is not XML ({error}). Save it again.") from error
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "location" and element.text and element.text.strip():
            yield element.text.strip().encode()


def _meant(line: bytes, folder: str) -> str:
    """The path that a line means: the first way to read it by which there is a file, else as it is written."""
    ways = [os.path.normpath(os.path.join(folder, name)) for name in _names(line)]
    for way in ways:
        found = existing(way)
        if os.path.lexists(found):
            return found
    return ways[0]


def _names(line: bytes) -> Iterator[str]:
    """Ways to read a line, the most literal first."""
    url = line[:5].lower() == b"file:"
    unquoted = urllib.parse.unquote_to_bytes(line)
    if url:  # file:///music/a.mp3, file://localhost/music/a.mp3, file:/music/a.mp3
        unquoted = unquoted[5:]
        if unquoted.startswith(b"//"):
            unquoted = b"/" + unquoted[2:].partition(b"/")[2]
    for data in (unquoted,) if url else (line, unquoted):
        for name in (os.fsdecode(data), data.decode("cp1252", "replace")):
            yield name
            yield name.replace("\\", "/")


def existing(path: str) -> str:
    """A path as the file system has it: some folder or file of it may be written with other accents (NFC, NFD).

    Args:
        path: absolute.

    Returns:
        The path itself if it is there, or if nothing is there that is written differently.
    """
    if os.path.lexists(path):
        return path
    folder, name = os.path.split(path)
    if not name:
        return path
    folder = existing(folder)
    return os.path.join(folder, _entries(folder).get(unicodedata.normalize("NFC", name), name))


def forget_folders() -> None:
    """Read folders anew, which `existing` remembers."""
    _entries.cache_clear()


@functools.lru_cache(maxsize=64)
def _entries(folder: str) -> dict[str, str]:
    """Names in a folder that have other forms: composed form -> name."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):
        return {}
    return {unicodedata.normalize("NFC", name): name for name in names if not name.isascii()}
