"""Files that are elsewhere, by fsspec: `s3://bucket/music`, `gs://bucket/music`, `file:///music`.

Whatever has `://` in it is a URL. They are listed, copied to this machine a few ahead of being decoded, and written, as
the file system of their scheme does it. That one finds its credentials itself, in its usual environment variables and
configuration files.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import importlib
import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from ...datasets.folders import SUFFIXES, ending
from ...errors import MissingExtraError
from . import listing
from .decoding import Ended, Job
from .library_rows import LibraryError
from .listing import Listed, Listing, Sources
from .work import Done

if TYPE_CHECKING:
    from concurrent.futures import Future

_AHEAD = 8  # files that are copied at once and wait to be decoded

# What file systems call the time of the last change; an object never changes after it was created.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is for fsspec.

    Example:
        >>> is_url("s3://bucket/music"), is_url("/music")
        (True, False)
    """
    return "://" in os.fspath(path)


def open_url(url: str) -> tuple[Any, str]:
    """File system of a URL (or of a path of this machine), and the path in it.

    Raises:
        MissingExtraError: fsspec is not installed.
        LibraryError: nothing installed knows the URL's scheme.
    """
    try:
        fsspec: Any = importlib.import_module("fsspec")
    except ImportError as error:
        raise MissingExtraError("fsspec", "ray", "Reading and writing elsewhere") from error
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # its package is not installed; there is no such scheme
        raise LibraryError(f"{url!r} cannot be opened: {error}. Check the URL, or install what it needs.") from error
    return filesystem, path


# === Listing ===


def find(sources: Sources, *, progress: bool = False) -> Listing:
    """Find the files of a library, as `listing.find` does, also where sources are URLs of folders and files.

    Raises:
        LibraryError, DataError: as `listing.find`, or a URL has no files or cannot be listed.
        MissingExtraError: a source is a URL and fsspec is not installed.
    """
    from ...datasets import Manifest

    if isinstance(sources, Manifest):
        return listing.find(sources)
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    found = [
        _find(os.fspath(source)) if is_url(source) else listing.find(source, progress=progress) for source in sources
    ]
    files = itertools.chain.from_iterable(one.files for one in found)
    passed_over = sum((collections.Counter(one.passed_over) for one in found), collections.Counter[str]())
    return Listing(listing.once(files), tuple(folder for one in found for folder in one.folders), passed_over)


def _find(url: str) -> Listing:
    filesystem, root = open_url(url)
    try:
        infos: Mapping[str, Mapping[str, Any]] = filesystem.find(root, detail=True)
    except Exception as error:  # each storage has errors of its own
        raise LibraryError(
            f"{url!r} cannot be listed ({_describe(error)}). Check the URL and the credentials."
        ) from error
    if not infos:
        raise LibraryError(f"{url!r} does not exist or has no files. Give folders or sound files.")
    if list(infos) == [root]:
        return Listing((_listed(filesystem, root, infos[root]),), ())
    shown = {path: info for path, info in infos.items() if "/." not in path.removeprefix(root)}
    files = [_listed(filesystem, path, info) for path, info in shown.items() if ending(path) in SUFFIXES]
    passed_over = collections.Counter(ending(path) for path in shown if ending(path) not in SUFFIXES)
    return Listing(tuple(files), (filesystem.unstrip_protocol(root),), passed_over)


def _listed(filesystem: Any, path: str, info: Mapping[str, Any]) -> Listed:
    url = filesystem.unstrip_protocol(path)
    if info["type"] != "file":
        return Listed(url, f"{url!r} is a {info['type']}, not a regular file.", "not a file")
    return Listed(url, state=(info["size"], _modified(info)))


def _modified(info: Mapping[str, Any]) -> float:
    """Seconds since 1970; NaN, which equals nothing, if the storage does not say: then the content decides."""
    value = next((info[name] for name in _TIMES if name in info), math.nan)
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime.datetime) else float(value)


# === Reading ===


class Copies:
    """Copies of files, for as long as they are needed; files of this machine are used where they are.

    Used as a context manager; leaving it removes all copies.

    Args:
        jobs: files, some of them URLs.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        """Nothing is copied yet."""
        self._jobs = iter(jobs)
        self._folder: str | None = None
        self._names = itertools.count()
        self._originals: dict[str, Job] = {}
        self._failed: list[Done] = []

    def __enter__(self) -> Self:
        """Nothing to do before there are jobs."""
        self._threads = concurrent.futures.ThreadPoolExecutor(_AHEAD)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove all copies."""
        self._threads.shutdown(cancel_futures=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def jobs(self) -> Iterator[Job]:
        """The same jobs, with copies in the place of URLs; without those of which none can be had."""
        ahead: collections.deque[tuple[Job, Future[str] | None]] = collections.deque()
        while True:
            for job in itertools.islice(self._jobs, _AHEAD - len(ahead)):
                ahead.append((job, self._begin(job.path) if is_url(job.path) else None))
            if not ahead:
                return
            job, copying = ahead.popleft()
            if copying is None:
                yield job
                continue
            try:
                copy = copying.result()
            except Exception as error:  # each storage has errors of its own
                said = f"{job.path!r} cannot be read ({_describe(error)}). Check that it is there, and the credentials."
                self._failed.append(Done(job, Ended("failed", error=said, kind="unreadable")))
                continue
            self._originals[copy] = job
            yield dataclasses.replace(job, path=copy)

    def returned(self, some: Iterable[Done]) -> list[Done]:
        """What came of copies, with the originals' names; and what could not be copied. The copies are removed."""
        done = []
        for one in some:
            copy, job = one.job.path, self._originals.pop(one.job.path, None)
            if job is not None:
                with contextlib.suppress(OSError):
                    os.unlink(copy)
                ended = dataclasses.replace(one.ended, error=one.ended.error.replace(copy, job.path))
                one = dataclasses.replace(one, job=job, ended=ended)
            done.append(one)
        while self._failed:  # another thread adds to it
            done.append(self._failed.pop())
        return done

    def _begin(self, url: str) -> Future[str]:
        """Copy a file in another thread; gives its name here, which says nothing but the format.

        So decoders and messages are spared whatever a URL may hold.
        """
        self._folder = self._folder or tempfile.mkdtemp(prefix="keras_musictag-")
        suffix = ending(url)
        copy = os.path.join(self._folder, f"{next(self._names)}{suffix if suffix in SUFFIXES else ''}")
        return self._threads.submit(_copy, url, copy)


def _copy(url: str, copy: str) -> str:
    filesystem, path = open_url(url)
    filesystem.get_file(path, copy)
    return copy


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
