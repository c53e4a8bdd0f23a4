"""Downloads by URL that go on where they broke off: the one core for weights and data sets.

A file under way is called `<name>.part`; beside it `<name>.part.version` keeps what identifies the version of the
file on the server, so that a part is continued only if the file has not changed since. Checksums, final names and the
error to raise are the caller's.
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
_CHUNK = 1 << 15  # bytes; as much is lost at most where a connection drops
_PAUSE = 1.0  # seconds before the second attempt; doubled with each
_RETRIED = {408, 425, 429}  # of the statuses below 500; from there on all


class TransferError(Exception):
    """The server cannot be reached, refuses, or breaks off again and again; says so in a few words, with its name.

    Attributes:
        reached: whether the server answered at all.
        final: whether trying again is useless.
    """

    def __init__(self, url: str, problem: str, *, reached: bool = True, final: bool = False) -> None:
        """Combine the server's name with `problem`."""
        super().__init__(f"{urllib.parse.urlsplit(url).netloc} {problem}")
        self.reached, self.final = reached, final


class ContentError(Exception):
    """The server sends something else than the file."""


def transfer(
    url: str, part: Path, *, size: int | None = None, label: str = "", attempts: int = 5, patient: bool = True
) -> None:
    """Bring `part` to completion, from where it ends; with a progress bar if there is a terminal.

    Args:
        url: http or https address; redirects are followed.
        part: file to write or continue. It stays if the transfer fails.
        size: bytes of the file, if known; no more are written.
        label: what the progress bar calls it.
        attempts: in a row without a new byte.
        patient: also try again if the server cannot be reached at all.

    Raises:
        TransferError: the file could not be had, or not all of it.
        ContentError: the server sends a web page, or more than `size` bytes. `part` is removed.
        CacheError: the disk has less room than the file needs.
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
            _log.warning("%s: %s; going on.", url, error)
            time.sleep(_PAUSE * 2 ** (failures - 1))
        except ContentError:
            discard(part)
            raise


def remote_size(url: str) -> int | None:
    """Bytes of the file at an address, `None` where the server does not say.

    Raises:
        TransferError: it cannot be reached or refuses.
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
    """Remove a file under way, if there is one."""
    with contextlib.suppress(OSError):
        _version_of(part).unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def finish(part: Path, path: Path) -> None:
    """Give a complete file its name.

    Raises:
        OSError: it cannot be renamed.
    """
    part.replace(path)
    _version_of(part).unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def require_room(folder: Path, needed: int) -> None:
    """Require free disk space.

    Raises:
        CacheError: there is less than `needed` bytes.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CacheError(f"{folder} has {free:,} bytes free and {needed:,} are needed. Make room, or choose another.")


# === One request ===


def _receive(url: str, part: Path, size: int | None, label: str) -> None:
    """Bring `part` nearer to completion with one request; returns when it is complete."""
    import requests

    headers = {"Accept-Encoding": "identity"}  # lengths and ranges count the bytes of the file itself
    start = size_of(part)
    if start:
        headers["Range"] = f"bytes={start}-"
        with contextlib.suppress(OSError):  # then the whole file comes if it has changed
            headers["If-Range"] = _version_of(part).read_text(encoding="latin-1")
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            start, total = _begin(url, response, part, start)
            if total == start and start:
                return  # it was complete already
            require_room(part.parent, (total or 0) - start)
            if start == 0:
                _remember_version(part, response.headers)
            whole = _write(response, part, start, total or size, size, label)
    except requests.RequestException as error:  # an OSError, too
        raise _transfer_error(url, error) from None
    expected = size if total is None else total
    if not whole or (expected is not None and size_of(part) != expected):
        of_all = f" of {expected:,}" if expected else ""
        raise TransferError(url, f"broke off after {size_of(part):,}{of_all} bytes")


def _begin(url: str, response: requests.Response, part: Path, start: int) -> tuple[int, int | None]:
    """From which byte the answer goes on, and how many the whole file has, if the server says so."""
    content_range = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
        if content_range is not None and int(content_range[2]) == start:
            return start, start
        part.unlink()
        raise TransferError(url, "has a shorter file than the part that was there")
    response.raise_for_status()
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise ContentError(f"{url} sent a web page instead of the file. Open it in a browser to see what it says.")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        if content_range is None or content_range[1] != str(start):
            part.unlink()
            raise TransferError(url, "sent another part than asked for")
        return start, int(content_range[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _write(
    response: requests.Response, part: Path, start: int, total: int | None, size: int | None, label: str
) -> bool:
    """Write what comes; returns whether the connection held to the end."""
    import requests
    from tqdm.auto import tqdm

    received = start
    name = label or part.stem
    bar = tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=None)
    with bar, part.open("ab" if start else "wb") as file:
        try:
            for chunk in response.iter_content(_CHUNK):
                received += len(chunk)
                if size is not None and received > size:  # whatever this is, it shall not fill the disk
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
    """Keep what identifies this version of the file; a weak ETag does not vouch for bytes, a date does."""
    etag = headers.get("ETag", "")
    version = etag if etag.startswith('"') else headers.get("Last-Modified", "")
    path = _version_of(part)
    if version:
        path.write_text(version, encoding="latin-1")
    else:
        path.unlink(missing_ok=True)


def _transfer_error(url: str, error: requests.RequestException) -> TransferError:
    """An error of the HTTP library in a few words; its own nest three exceptions in one line."""
    import requests

    _log.debug("%s: %r", url, error)
    if isinstance(error, requests.TooManyRedirects):
        return TransferError(url, "redirects without end", final=True)
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
    return TransferError(url, f"is no usable address ({type(error).__name__})", final=True)
