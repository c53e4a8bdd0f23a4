"""Remote files, with fsspec: `s3://bucket/music`, `gs://bucket/music`, `file:///music`.

A path with `://` is a URL. The file system of its scheme lists the files, copies them to this machine a few ahead of
being decoded, and writes them. It finds its credentials in its usual environment variables and configuration files.
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

_AHEAD = 8  # files that are being copied or wait to be decoded

# Keys of the modification time in different file systems; objects never change after their creation.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a URL, for fsspec.

    Example:
        >>> is_url("s3://bucket/music"), is_url("/music")
        (True, False)
    """
    return "://" in os.fspath(path)


def open_url(url: str) -> tuple[Any, str]:
    """Return the file system of a URL or of a local path, and the path in it.

    Raises:
        MissingExtraError: fsspec is not installed.
        LibraryError: no installed package supports the scheme of the URL.
    """
    try:
        fsspec: Any = importlib.import_module("fsspec")
    except ImportError as error:
        raise MissingExtraError("fsspec", "ray", "Reading and writing remote files") from error
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # a package is missing; the scheme does not exist
        raise LibraryError(f"{url!r} cannot be opened: {error}. Check the URL, or install what it needs.") from error
    return filesystem, path


# === Listing ===


def find(sources: Sources, *, progress: bool = False) -> Listing:
    """Find the files of a library, like `listing.find`; sources may also be URLs of folders and files.

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
    files = itertools.chain.from_iterable(part.files for part in found)
    folders = itertools.chain.from_iterable(part.folders for part in found)
    passed_over: collections.Counter[str] = collections.Counter()
    for part in found:
        passed_over.update(part.passed_over)
    return Listing(listing.once(files), tuple(folders), passed_over)


def _find(url: str) -> Listing:
    filesystem, root = open_url(url)
    try:
        infos: Mapping[str, Mapping[str, Any]] = filesystem.find(root, detail=True)
    except Exception as error:  # each file system raises its own
        raise LibraryError(
            f"{url!r} cannot be listed ({_describe(error)}). Check the URL and the credentials."
        ) from error
    if not infos:
        raise LibraryError(f"{url!r} does not exist or has no files. Give folders or audio files.")
    if list(infos) == [root]:
        return Listing((_to_listed(filesystem, root, infos[root]),), ())
    visible = {path: info for path, info in infos.items() if "/." not in path.removeprefix(root)}
    files = [_to_listed(filesystem, path, info) for path, info in visible.items() if ending(path) in SUFFIXES]
    passed_over = collections.Counter(ending(path) for path in visible if ending(path) not in SUFFIXES)
    return Listing(tuple(files), (filesystem.unstrip_protocol(root),), passed_over)


def _to_listed(filesystem: Any, path: str, info: Mapping[str, Any]) -> Listed:
    url = filesystem.unstrip_protocol(path)
    if info["type"] != "file":
        return Listed(url, f"{url!r} is a {info['type']}, not a regular file.", "not a file")
    return Listed(url, state=(info["size"], _modified(info)))


def _modified(info: Mapping[str, Any]) -> float:
    """Return the modification time in seconds since 1970; NaN if unknown, so that the content is compared instead."""
    value = next((info[name] for name in _TIMES if name in info), math.nan)
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime.datetime) else float(value)


# === Reading ===


class Copies:
    """Temporary copies of remote files; local files are used in place.

    A context manager; its exit removes all copies.

    Args:
        jobs: files, some of them URLs.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        """Copy nothing yet."""
        self._jobs = iter(jobs)
        self._folder: str | None = None
        self._names = itertools.count()
        self._originals: dict[str, Job] = {}
        self._failed: list[Done] = []

    def __enter__(self) -> Self:
        """Start the threads that copy."""
        self._threads = concurrent.futures.ThreadPoolExecutor(_AHEAD)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove all copies."""
        self._threads.shutdown(cancel_futures=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs, with URLs replaced by copies; skip files that cannot be copied."""
        ahead: collections.deque[tuple[Job, Future[str] | None]] = collections.deque()
        while True:
            for job in itertools.islice(self._jobs, _AHEAD - len(ahead)):
                ahead.append((job, self._start_copy(job.path) if is_url(job.path) else None))
            if not ahead:
                return
            job, copying = ahead.popleft()
            if copying is None:
                yield job
                continue
            try:
                copy = copying.result()
            except Exception as error:  # each file system raises its own
                reason = f"{job.path!r} cannot be read ({_describe(error)}). Check that it exists, and the credentials."
                self._failed.append(Done(job, Ended("failed", error=reason, kind="unreadable")))
                continue
            self._originals[copy] = job
            yield dataclasses.replace(job, path=copy)

    def returned(self, results: Iterable[Done]) -> list[Done]:
        """Return results with the names of the originals, and those of failed copies; remove the copies."""
        done = []
        for result in results:
            copy, job = result.job.path, self._originals.pop(result.job.path, None)
            if job is not None:
                with contextlib.suppress(OSError):
                    os.unlink(copy)
                ended = dataclasses.replace(result.ended, error=result.ended.error.replace(copy, job.path))
                result = dataclasses.replace(result, job=job, ended=ended)
            done.append(result)
        while self._failed:  # another thread adds to it
            done.append(self._failed.pop())
        return done

    def _start_copy(self, url: str) -> Future[str]:
        """Copy a file in another thread; return the path of the copy.

        Only the suffix is that of the URL, which may hold characters that decoders cannot handle.
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
