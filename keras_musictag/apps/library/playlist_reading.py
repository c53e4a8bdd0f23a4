r"""Read lists of paths, including playlists.

A list has a path per line, relative to its folder. The variants of all programs are read: lines end with LF or CRLF,
folders are separated by `/` or `\`, names are UTF-8 or Windows' cp1252, accents are composed or not (Unicode NFC, or
NFD as on macOS), and a line may be a `file:` URL with escapes such as `%20`. In `.pls`, paths are the values of
`File1=`, `File2=`, ...; in `.xspf`, an XML format, the locations of tracks.
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
    """Yield the paths in a list.

    Args:
        path: list; in `.m3u` and `.m3u8`, lines that begin with `#` are comments.

    Yields:
        Absolute paths: as spelled on disk if the file exists, else as written in the list.

    Raises:
        LibraryError: the list cannot be read, or has null characters, as in UTF-16.
    """
    suffix = os.path.splitext(path)[1].lower()
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise LibraryError(f"The list {path!r} cannot be read ({error.strerror}). Check its permissions.") from error
    if suffix == ".xspf":
        yield from (_resolve(location, os.path.dirname(path)) for location in _locations(path, data))
        return
    for number, line in enumerate(data.removeprefix(_BOM).splitlines(), 1):
        if b"\0" in line:
            raise LibraryError(f"Line {number} of {path!r} is no path: it has null characters. Save the list as UTF-8.")
        if suffix == ".pls":
            value = re.match(rb"\s*File\d+\s*=(.*)", line, re.IGNORECASE)
            line = b"" if value is None else value[1]
        if line.strip() and not (suffix in _COMMENTED and line.startswith(b"#")):
            yield _resolve(line.strip(), os.path.dirname(path))


def _locations(path: str, data: bytes) -> Iterator[bytes]:
    """Yield the locations in an XSPF playlist: URLs, absolute or relative to it."""
    try:
        root = xml.etree.ElementTree.fromstring(data)
    except (xml.etree.ElementTree.ParseError, ValueError) as error:
        raise LibraryError(f"The playlist {path!r} is not XML ({error}). Save it again.") from error
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "location" and element.text and element.text.strip():
            yield element.text.strip().encode()


def _resolve(line: bytes, folder: str) -> str:
    """Return the first reading of a line that names an existing file, else the most literal one."""
    paths = [os.path.normpath(os.path.join(folder, name)) for name in _readings(line)]
    for path in paths:
        found = existing(path)
        if os.path.lexists(found):
            return found
    return paths[0]


def _readings(line: bytes) -> Iterator[str]:
    """Yield the possible readings of a line, the most literal first."""
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
    """Return a path as spelled on disk, where names may have another Unicode form (NFC, NFD).

    Args:
        path: absolute path.

    Returns:
        The path on disk; `path` itself if it exists, or if it does not exist in any form.
    """
    if os.path.lexists(path):
        return path
    folder, name = os.path.split(path)
    if not name:
        return path
    folder = existing(folder)
    return os.path.join(folder, _names_by_nfc(folder).get(unicodedata.normalize("NFC", name), name))


def forget_folders() -> None:
    """Clear the cache of `existing`."""
    _names_by_nfc.cache_clear()


@functools.lru_cache(maxsize=64)
def _names_by_nfc(folder: str) -> dict[str, str]:
    """Map composed form -> name, for the names in a folder that are not ASCII."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):
        return {}
    return {unicodedata.normalize("NFC", name): name for name in names if not name.isascii()}
