"""Found files as a playlist that players open: M3U in UTF-8, with paths relative to its folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...utils.files import replacing
from .library_rows import LibraryError
from .segments import file_of

if TYPE_CHECKING:
    from .searching import Found


def write_m3u(found: Iterable[Found], path: str | os.PathLike[str]) -> list[str]:
    """Write a playlist.

    Parts of files have the time they begin at, which VLC and Kodi heed; other players play the whole file.

    Args:
        found: files, in the order they are played in.
        path: `.m3u8` or `.m3u`; replaced if it is there.

    Returns:
        Paths that no playlist can hold and that were left out: they have a line break, or bytes that are no UTF-8.

    Raises:
        LibraryError: the name has another ending, or the file cannot be written.
    """
    path = Path(os.path.abspath(path))
    if path.suffix.lower() not in (".m3u", ".m3u8"):
        raise LibraryError(f"A playlist must end in .m3u8 or .m3u; got {str(path)!r}.")
    lines, left_out = ["#EXTM3U"], []
    for one in found:
        file = one.path if one.start_s is None else file_of(one.path)
        if (not os.path.lexists(file) and re.search(r"\\x[0-9a-f]{2}", file)) or len(file.splitlines()) != 1:
            left_out.append(one.path)
            continue
        title = " ".join((one.title or Path(file).stem).split())
        lines.append(f"#EXTINF:{round(one.duration_s)},{title}")
        if one.start_s is not None:
            lines.append(f"#EXTVLCOPT:start-time={one.start_s:g}")
            lines.append(f"#EXTVLCOPT:stop-time={one.start_s + one.duration_s:g}")
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
