"""Download large public files, resuming interrupted downloads, and unpack archives that are split into parts.

A download is called `<name>.part` until it is complete and verified, and an unpacked file gets its name after its
checksum was verified. A killed process therefore loses at most the file it was unpacking.
"""

from __future__ import annotations

import bisect
import io
import itertools
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import CacheError, DownloadError, OfflineError
from ..utils import transfers
from ..utils.files import is_offline, replacing, sha256_of
from .rows import DataError

_CHUNK = 1 << 15  # bytes


# === Downloads ===


def fetch(url: str, path: Path, *, sha256: str | None = None, begins: Sequence[bytes] = ()) -> None:
    """Download a file, resuming `<path>.part` of an earlier attempt if the file has not changed on the server.

    Args:
        url: http or https address.
        path: path of the complete file.
        sha256: expected checksum, if known.
        begins: possible first bytes, if known.

    Raises:
        DownloadError: the server cannot be reached, refuses or breaks off; the received part is kept.
        DataError: the server sent something else. Nothing is kept.
        OfflineError: offline mode is on.
        CacheError: the file cannot be written.
    """
    if is_offline():
        raise OfflineError(
            f"{path.name} is needed and offline mode is on. Unset KERAS_MUSICTAG_OFFLINE and HF_HUB_OFFLINE, or "
            f"download {url} elsewhere and put it into {path.parent}."
        )
    part = path.with_name(f"{path.name}.part")
    try:
        transfers.transfer(url, part, label=path.name)
        _check(url, part, sha256, begins)
        transfers.finish(part, path)
    except transfers.TransferError as error:
        raise DownloadError(
            f"{url} could not be downloaded: {error}. {transfers.size_of(part):,} bytes are kept in {part}; check the "
            "connection and run this again to resume."
        ) from None
    except transfers.ContentError as error:
        raise DataError(str(error)) from None
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(f"{part} cannot be written: {error}. Make room there, or choose another folder.") from error


def remote_size(url: str) -> int | None:
    """Return the size in bytes of the file at an address, `None` if the server does not state it.

    Raises:
        DownloadError: the server cannot be reached or refuses.
    """
    try:
        return transfers.remote_size(url)
    except transfers.TransferError as error:
        raise DownloadError(f"The size of {url} could not be read: {error}. Check the connection.") from None


def _check(url: str, part: Path, sha256: str | None, begins: Sequence[bytes]) -> None:
    """Verify the first bytes and the checksum; remove the download and raise if they are wrong."""
    problem = ""
    with part.open("rb") as file:
        head = file.read(16)
    if begins and not head.startswith(tuple(begins)):
        problem = f"begins with {head!r}, expected {' or '.join(map(repr, begins))}"
    elif sha256 is not None and sha256_of(part) != sha256:
        problem = f"has the sha256 {sha256_of(part)}, expected {sha256}"
    if problem:
        size = transfers.size_of(part)
        transfers.discard(part)
        raise DataError(
            f"The file from {url} ({size:,} bytes) {problem}. Nothing was kept. Try again; if the error persists, a "
            "proxy sends something else or the file has changed: report it."
        )


# === Archives ===


class _Joined(io.RawIOBase):
    """A binary file made of several files, so the parts of an archive need not be joined on disk."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb") for path in paths]
        self._starts = [0, *itertools.accumulate(path.stat().st_size for path in paths)]
        self._position = 0

    def readable(self) -> bool:
        """Return `True`."""
        return True

    def seekable(self) -> bool:
        """Return `True`."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position in the joined file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        if base + offset < 0:
            raise OSError("negative position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read at most up to the end of the current part."""
        if self._position >= self._starts[-1]:
            return 0
        number = bisect.bisect_right(self._starts, self._position) - 1
        file = self._files[number]
        file.seek(self._position - self._starts[number])
        wanted = min(len(buffer), self._starts[number + 1] - self._position)
        count = file.readinto(memoryview(buffer)[:wanted])
        self._position += count
        return count

    def close(self) -> None:
        """Close the parts."""
        for file in self._files:
            file.close()
        super().close()


def unzip(parts: Sequence[Path], folder: Path) -> int:
    """Unpack a zip archive that is split into parts. Files that exist with the right size are not unpacked again.

    Args:
        parts: parts in their order.
        folder: target folder; no file can be written outside of it.

    Returns:
        Number of files unpacked by this call.

    Raises:
        DataError: the archive is damaged or has names outside of the folder.
        CacheError: a file cannot be written.
    """
    from tqdm.auto import tqdm

    names = ", ".join(part.name for part in parts)
    advice = f"Delete {names} in {parts[0].parent} and download again."
    count = 0
    try:
        with io.BufferedReader(_Joined(parts)) as file, zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            targets = [(member, folder / _safe(member, names)) for member in members]  # validates all names first
            wanted = [(member, path) for member, path in targets if not _has_size(path, member.file_size)]
            transfers.require_room(folder, sum(member.file_size for member, _ in wanted))
            for member, path in tqdm(wanted, desc="unpacking", unit="file", disable=None):
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, replacing(path) as unpacked:
                    shutil.copyfileobj(packed, unpacked, _CHUNK)
                    if unpacked.tell() != member.file_size:  # zipfile detects only files that are too long
                        raise zipfile.BadZipFile(f"{member.filename!r} ends before the size it declares")
                count += 1
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, RuntimeError) as error:
        # RuntimeError: an unknown compression method or encryption, either of which can be due to damage.
        raise DataError(f"{names} are not an intact zip archive: {error}. {advice}") from error
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(f"{folder} cannot be written: {error}. Make room there, or choose another folder.") from error
    return count


def _safe(member: zipfile.ZipInfo, names: str) -> Path:
    """Return the path of a member relative to the folder."""
    path = PurePosixPath(member.filename)
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", member.filename) or is_link or not path.parts:
        raise DataError(
            f"{names} have a file {member.filename!r} outside of the folder. This is not the published archive; "
            "nothing was unpacked."
        )
    return Path(*path.parts)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
