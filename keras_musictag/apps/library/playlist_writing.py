"""Write the files found as a playlist: M3U in UTF-8, with paths relative to its folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...utils.files import replacing
from .cue_and_chapters import file_of
from .library_rows import LibraryError

if TYPE_CHECKING:
    from .searching import Found


def write_m3u(found: Iterable[Found], path: str | os.PathLike[str]) -> list[str]:
    """Write a playlist.

    Parts of files have a start and a stop time, which VLC and Kodi use; other players play the whole file.

    Args:
        found: files, in playing order.
        path: `.m3u8` or `.m3u`; replaced if it exists.

    Returns:
        Paths left out because a playlist cannot hold them: with a line break, or bytes that are not UTF-8.

    Raises:
        LibraryError: the name has another suffix, or the file cannot be written.
    """
    path = Path(os.path.abspath(path))
    if path.suffix.lower() not in (".m3u", ".m3u8"):
        raise LibraryError(f"A playlist must end in .m3u8 or .m3u; got {str(path)!r}.")
    lines, left_out = ["#EXTM3U"], []
    for entry in found:
        file = entry.path if entry.start_s is None else file_of(entry.path)
        if (not os.path.lexists(file) and re.search(r"\\x[0-9a-f]{2}", file)) or len(file.splitlines()) != 1:
            left_out.append(entry.path)
            continue
        title = " ".join((entry.title or Path(file).stem).split())
        lines.append(f"#EXTINF:{round(entry.duration_s)},{title}")
        if entry.start_s is not None:
            lines.append(f"#EXTVLCOPT:start-time={entry.start_s:g}")
            lines.append(f"#EXTVLCOPT:stop-time={entry.start_s + entry.duration_s:g}")
        lines.append(_relative(file, path.parent))
    try:
        with replacing(path) as target:
            target.write(("\n".join(lines) + "\n").encode("utf-8"))
    except OSError as error:
        raise LibraryError(f"The playlist {str(path)!r} cannot be written ({error.strerror}).") from error
    return left_out


def _relative(file: str, folder: Path) -> str:
    try:
        name = os.path.relpath(file, folder).replace(os.sep, "/")
    except ValueError:  # on another drive of Windows
        return file
    return f"./{name}" if name.startswith(("#", " ")) else name
