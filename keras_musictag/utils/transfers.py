"""Resumable downloads by URL, for weights and data sets.

An incomplete file is called `<name>.part`. Beside it, `<name>.part.version` keeps the ETag or date of the file on the
server, so that a download is resumed only if that file has not changed. The caller verifies checksums, chooses final
names and raises the final error.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import time
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CacheError

if TYPE_CHECKING:
    import requests

_log = logging.getLogger(__name__)

_TIMEOUT = 30  # seconds without a byte before a connection counts as dead
_CHUNK = 1 << 15  # bytes; at most one chunk is lost when a connection drops
_PAUSE = 1.0  # seconds before the second attempt; doubled for each further one
_RETRIED = {408, 425, 429}  # statuses below 500 that are retried; all from 500 on are


class TransferError(Exception):
    """The server cannot be reached, refuses, or breaks off repeatedly.

    Attributes:
        reached: whether the server answered.
        final: whether a retry is pointless.
    """

    def __init__(self, url: str, problem: str, *, reached: bool = True, final: bool = False) -> None:
        """Make the message from the server's name and `problem`."""
        super().__init__(f"{urllib.parse.urlsplit(url).netloc} {problem}")
        self.reached, self.final = reached, final


class ContentError(Exception):
    """The server sent something other than the file."""


def transfer(
    url: str, part: Path, *, size: int | None = None, label: str = "", attempts: int = 5, patient: bool = True
) -> None:
    """Download a file to `part`, continuing from its end; shows a progress bar on a terminal.

    Args:
        url: http or https address; redirects are followed.
        part: file to write or continue. It is kept if the transfer fails.
        size: size of the file in bytes, if known; no more are written.
        label: name in the progress bar.
        attempts: maximum number of consecutive attempts that receive nothing.
        patient: also retry if the server cannot be reached.

    Raises:
        TransferError: the file could not be downloaded completely.
        ContentError: the server sent a web page, or more than `size` bytes. `part` is removed.
        CacheError: there is too little free disk space.
        OSError: `part` cannot be written.
    """
    failures = 0
    while True:
        before = size_of(part)
        try:
            _receive(url, part, size, label)
            return
        except TransferError as error:
            failures = 1 if size_of(part) > before else failures + 1
            if failures >= attempts or error.final or not (patient or error.reached):
                raise
            _log.warning("%s: %s; trying again.", url, error)
            time.sleep(_PAUSE * 2 ** (failures - 1))
        except ContentError:
            discard(part)
            raise


def remote_size(url: str) -> int | None:
    """Return the size in bytes of the file at an address, `None` if the server does not state it.

    Raises:
        TransferError: the server cannot be reached or refuses.
    """
    import requests

    try:
        response = requests.head(url, timeout=_TIMEOUT, allow_redirects=True, headers={"Accept-Encoding": "identity"})
        response.raise_for_status()
    except requests.RequestException as error:
        raise _transfer_error(url, error) from None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def discard(part: Path) -> None:
    """Remove an incomplete file, if there is one."""
    with contextlib.suppress(OSError):
        _version_of(part).unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def finish(part: Path, path: Path) -> None:
    """Rename a complete file to its final name.

    Raises:
        OSError: it cannot be renamed.
    """
    part.replace(path)
    _version_of(part).unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def require_room(folder: Path, needed: int) -> None:
    """Require free disk space.

    Raises:
        CacheError: there are fewer than `needed` bytes.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CacheError(
            f"{folder} has {free:,} bytes free and {needed:,} are needed. Make room, or choose another folder."
        )


# === One request ===


def _receive(url: str, part: Path, size: int | None, label: str) -> None:
    """Download to `part` with one request; returns when the file is complete.

    Raises:
        TransferError, ContentError, CacheError, OSError: as `transfer`.
    """
    import requests

    headers = {"Accept-Encoding": "identity"}  # lengths and ranges count the bytes of the file itself
    start = size_of(part)
    if start:
        headers["Range"] = f"bytes={start}-"
        with contextlib.suppress(OSError):  # makes the server send the whole file if it has changed
            headers["If-Range"] = _version_of(part).read_text(encoding="latin-1")
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            start, total = _begin(url, response, part, start)
            if total == start and start:
                return  # `part` was already complete
            require_room(part.parent, (total or 0) - start)
            if start == 0:
                _remember_version(part, response.headers)
            whole = _write(response, part, start, total or size, size, label)
    except requests.RequestException as error:  # a subclass of OSError
        raise _transfer_error(url, error) from None
    expected = size if total is None else total
    if not whole or (expected is not None and size_of(part) != expected):
        of_all = f" of {expected:,}" if expected else ""
        raise TransferError(url, f"broke off after {size_of(part):,}{of_all} bytes")


def _begin(url: str, response: requests.Response, part: Path, start: int) -> tuple[int, int | None]:
    """Return the byte at which the response starts, and the size of the whole file if the server states it."""
    content_range = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
        if content_range is not None and int(content_range[2]) == start:
            return start, start
        part.unlink()
        raise TransferError(url, "has a file shorter than the part already downloaded")
    response.raise_for_status()
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise ContentError(f"{url} sent a web page instead of the file. Open it in a browser to see what it says.")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        if content_range is None or content_range[1] != str(start):
            part.unlink()
            raise TransferError(url, "sent a different part than requested")
        return start, int(content_range[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _write(
    response: requests.Response, part: Path, start: int, total: int | None, size: int | None, label: str
) -> bool:
    """Write the response to `part`; returns whether the connection lasted to the end."""
    import requests
    from tqdm.auto import tqdm

    received = start
    name = label or part.stem
    bar = tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=None)
    with bar, part.open("ab" if start else "wb") as file:
        try:
            for chunk in response.iter_content(_CHUNK):
                received += len(chunk)
                if size is not None and received > size:  # a wrong file must not fill the disk
                    raise ContentError(f"{response.url} sent more than the {size:,} bytes of the file.")
                file.write(chunk)
                bar.update(len(chunk))
        except requests.RequestException as error:
            _log.debug("%s: %r", response.url, error)
            return False
    return True


def _version_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _remember_version(part: Path, headers: Mapping[str, str]) -> None:
    """Store the ETag or date of the file. A weak ETag does not identify the exact bytes and is not used."""
    etag = headers.get("ETag", "")
    version = etag if etag.startswith('"') else headers.get("Last-Modified", "")
    path = _version_of(part)
    if version:
        path.write_text(version, encoding="latin-1")
    else:
        path.unlink(missing_ok=True)


def _transfer_error(url: str, error: requests.RequestException) -> TransferError:
    """Convert an error of the HTTP library, whose message nests three exceptions, to a short one."""
    import requests

    _log.debug("%s: %r", url, error)
    if isinstance(error, requests.TooManyRedirects):
        return TransferError(url, "redirects endlessly", final=True)
    if error.response is not None:
        status = error.response.status_code
        phrase = error.response.reason or ""
        final = status < 500 and status not in _RETRIED
        return TransferError(url, f"answered {status} {phrase}".rstrip(), final=final)
    match error:
        case requests.exceptions.SSLError():
            return TransferError(url, "has a certificate that is not trusted", reached=False, final=True)
        case requests.exceptions.ProxyError():
            return TransferError(url, "cannot be reached through the proxy", reached=False)
        case requests.Timeout():
            return TransferError(url, f"did not answer within {_TIMEOUT} s", reached=False)
        case requests.ConnectionError():
            return TransferError(url, "cannot be reached", reached=False)
    return TransferError(url, f"is not a valid address ({type(error).__name__})", final=True)
