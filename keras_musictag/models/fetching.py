"""Fetching and verification of weight files.

A file beside its spec is used in place. Other files are searched in the cache and in the mirror, and then downloaded
from the addresses of the spec, in order. The sha256 that the spec pins is always verified before the file is opened, at
most once per process and state of the file. A damaged copy in a cache is fetched again.

A download has a temporary name until it is verified, so processes that share a cache need no locks, and an incomplete
file is never read. Files left by killed processes are removed later. Interrupted downloads are resumed.

Environment:
    KERAS_MUSICTAG_CACHE: folder for files downloaded by URL; by default the user's cache folder. Files from the Hugging
        Face Hub are kept in the Hub's cache (HF_HOME).
    KERAS_MUSICTAG_MIRROR: for machines without internet: a folder, searched with its subfolders by file name or size,
        and sha256; or the base URL of a file server, tried by file name before the addresses of the spec.
        `keras-musictag download --to FOLDER` creates such a folder.
    KERAS_MUSICTAG_OFFLINE, HF_HUB_OFFLINE: set to 1 to disable all network access.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import (
    CacheError,
    CorruptWeightsError,
    DownloadError,
    OfflineError,
    WeightsError,
    WeightsUnavailableError,
)
from ..utils import transfers
from ..utils.files import PART, cache_error, cached_path, is_offline, replacing, sha256_of, temporary_name
from .hub_files import cached_hub_file, forget, hub_file
from .spec import ModelSpec, WeightsSource, parse_hub_uri

_log = logging.getLogger(__name__)

_ABANDONED = 3600  # seconds since the last write after which an incomplete file belongs to no running process
_ATTEMPTS = 3  # in a row without a new byte, before the next address is tried


# === Public ===


def fetch_weights(spec: ModelSpec) -> Path:
    """Return the verified weight file of a spec, downloading it if needed.

    Returns:
        Path of a file with the pinned sha256. It may be in a cache; do not change it.

    Raises:
        WeightsUnavailableError: the spec has no weights.
        CorruptWeightsError: the file does not have the pinned sha256.
        DownloadError, OfflineError: the file cannot be downloaded.
        CacheError: the file cannot be stored.
    """
    source = spec.weights
    if source is None:
        raise WeightsUnavailableError(
            f"There are no weights for {spec.name!r} yet. {spec.weights_help or 'Train the model first.'}"
        )
    if source.kind == "file":
        return _beside_spec(source, spec.root)
    return find_weights(spec) or _from_mirror_server(source) or _from_addresses(spec, source)


def find_weights(spec: ModelSpec) -> Path | None:
    """Return the verified weight file of a spec from the spec's folder, a cache or a mirror folder, `None` if missing.

    Raises:
        WeightsError: KERAS_MUSICTAG_MIRROR is neither a folder nor an address.
    """
    source = spec.weights
    if source is None:
        return None
    if source.kind == "file":
        try:
            return _beside_spec(source, spec.root)
        except (WeightsError, OSError):
            return None
    return _from_cache(source) or _from_mirror_folder(source) or _from_hub_cache(source)


def keep_in_cache(spec: ModelSpec, path: Path) -> Path:
    """Copy a weight file from a mirror folder into the cache.

    Args:
        spec: spec of the model.
        path: result of `fetch_weights`.

    Returns:
        Path in the cache, or `path` if it is not in a mirror folder.

    Raises:
        CacheError: the file cannot be stored.
    """
    mirror = _mirror_folder()
    if spec.weights is None or mirror is None or mirror not in path.parents:
        return path
    target = _cache_path(spec.weights)
    try:
        _copy(path, target)
    except OSError as error:
        raise cache_error(target.parent, error, "KERAS_MUSICTAG_CACHE") from error
    return target


def add_to_mirror(spec: ModelSpec, path: Path, folder: Path) -> Path:
    """Copy a weight file into a mirror folder for KERAS_MUSICTAG_MIRROR.

    Args:
        spec: spec of the model.
        path: result of `fetch_weights`.
        folder: the mirror; created if missing.

    Returns:
        Path of the copy in the folder, or in a subfolder named like the model if another file has that name.

    Raises:
        CacheError: the folder cannot be written.
    """
    assert spec.weights is not None
    target = folder / spec.weights.filename
    try:
        if target.exists() and sha256_of(target) != spec.weights.sha256:
            target = folder / spec.name / spec.weights.filename
        if not target.exists() or sha256_of(target) != spec.weights.sha256:
            _copy(path, target)
    except OSError as error:
        raise CacheError(f"{target} cannot be written: {error}. Choose another folder.") from error
    return target


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as read, replacing(target) as write:
        shutil.copyfileobj(read, write)


# === Checks ===


def _check(path: Path, source: WeightsSource, advice: str) -> Path:
    actual = sha256_of(path)
    if actual != source.sha256:
        raise CorruptWeightsError(
            f"{path} is not the file the spec pins: its sha256 is {actual}, expected {source.sha256} "
            f"({path.stat().st_size} bytes, expected {source.size or 'any number'}). {advice}"
        )
    return path


def _beside_spec(source: WeightsSource, root: Path | None) -> Path:
    path = (root or Path()) / source.uri  # an absolute path, allowed in specs made in code, replaces the root
    if not path.is_file():
        raise WeightsError(f"The weight file {path} is missing. Restore its folder.")
    return _check(path, source, "Restore the file, or save the tagger again.")


# === Local sources ===


def _cache_path(source: WeightsSource) -> Path:
    return cached_path("weights", source.sha256, source.filename)


def _from_cache(source: WeightsSource) -> Path | None:
    path = _cache_path(source)
    with contextlib.suppress(OSError):  # missing or unreadable; a download reports the reason
        for part in path.parent.glob(f".*{PART}*"):
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()
    with contextlib.suppress(OSError):
        if sha256_of(path) == source.sha256:
            return path
        _log.warning("%s in the cache is damaged; fetching it again.", path)
    return None


def _from_hub_cache(source: WeightsSource) -> Path | None:
    for address in (source.uri, *source.mirrors):
        if address.startswith("hf://"):
            path = cached_hub_file(*parse_hub_uri(address), source.filename)
            with contextlib.suppress(OSError):
                if path is not None and sha256_of(path) == source.sha256:
                    return path
    return None


def _mirror() -> str:
    return os.environ.get("KERAS_MUSICTAG_MIRROR", "")


def _mirror_folder() -> Path | None:
    """Return the mirror if it is a folder."""
    mirror = _mirror()
    if not mirror or mirror.startswith(("http://", "https://")):
        return None
    folder = os.path.expanduser(mirror)
    if not os.path.isdir(folder):
        raise WeightsError(
            f"KERAS_MUSICTAG_MIRROR must be an existing folder or an http(s) address; got {mirror!r}. "
            "Correct or unset it."
        )
    return Path(folder)


def _from_mirror_folder(source: WeightsSource) -> Path | None:
    folder = _mirror_folder()
    if folder is None:
        return None
    wrong = None
    for path in _candidates(folder, source):
        with contextlib.suppress(OSError):  # unreadable
            if sha256_of(path) == source.sha256:
                return path
            if wrong is None and path.name == source.filename:
                wrong = path
    if wrong is not None:
        _log.warning("%s in the mirror does not have the sha256 that the spec pins; it is not used.", wrong)
    return None


def _candidates(folder: Path, source: WeightsSource) -> Iterator[Path]:
    """Yield the files with the expected name, then those with the expected size, which may be manual downloads."""
    files = sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    yield from (path for path in files if path.name == source.filename)
    for path in files:
        with contextlib.suppress(OSError):
            if path.name != source.filename and path.is_file() and path.stat().st_size == source.size:
                yield path


# === Remote sources ===


def _from_mirror_server(source: WeightsSource) -> Path | None:
    mirror = _mirror()
    # Weights on the Hub all have the same file name; their mirror is HF_ENDPOINT.
    if not mirror.startswith(("http://", "https://")) or source.kind == "hub" or is_offline():
        return None
    try:
        return _download(f"{mirror.rstrip('/')}/{source.filename}", source)
    except (transfers.TransferError, CorruptWeightsError) as error:
        _log.warning("%s could not be fetched from the mirror; trying %s. %s", source.filename, source.uri, error)
        return None


def _from_addresses(spec: ModelSpec, source: WeightsSource) -> Path:
    """Fetch from the first address that works."""
    if source.kind == "hub" and not source.mirrors:
        return _from_hub(source.uri, source)
    if is_offline():
        raise OfflineError(
            f"{source.filename}, the weights of {spec.name!r}, is not on this machine, and offline mode is on "
            f"(KERAS_MUSICTAG_OFFLINE or HF_HUB_OFFLINE).\n{_advice(spec)}"
        )
    problems: list[str] = []
    for address in (source.uri, *source.mirrors):
        try:
            return _from_hub(address, source) if address.startswith("hf://") else _download(address, source)
        except transfers.TransferError as error:
            problems.append(str(error))
        except CorruptWeightsError as error:
            if not source.mirrors:
                raise
            problems.append(f"{address} is not the file the spec pins")
            _log.warning("%s", error)
        except CacheError:
            raise
        except DownloadError as error:
            problems.append(str(error).splitlines()[0].rstrip("."))
    raise DownloadError(
        f"{source.filename}, the weights of {spec.name!r}, could not be downloaded: {'; '.join(problems)}.\n"
        f"{_advice(spec)}"
    )


def _advice(spec: ModelSpec) -> str:
    return (
        f"On a machine with internet, run `keras-musictag download {spec.name} --to FOLDER`; copy FOLDER to this "
        "machine and set KERAS_MUSICTAG_MIRROR to it."
    )


def _download(url: str, source: WeightsSource) -> Path:
    """Download a file by URL into the cache.

    Raises:
        transfers.TransferError: the download failed.
        CorruptWeightsError: the file does not have the pinned sha256. It is not kept.
        CacheError: the file cannot be stored.
    """
    path = _cache_path(source)
    part = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        transfers.transfer(url, part, size=source.size, label=source.filename, attempts=_ATTEMPTS, patient=False)
        actual, received = sha256_of(part), transfers.size_of(part)
        if actual != source.sha256:
            raise CorruptWeightsError(
                f"The file from {url} has the sha256 {actual}, expected {source.sha256} ({received} bytes, "
                f"expected {source.size or 'any number'}). Nothing was kept. Try again; if the error persists, a proxy "
                "changes the file or it has been replaced: report it."
            )
        transfers.finish(part, path)
    except transfers.ContentError as error:
        raise CorruptWeightsError(f"{error} Nothing was kept.") from None
    except CacheError:
        raise
    except OSError as error:
        # Windows cannot replace a file that another process has open; that process has then stored it.
        found = _from_cache(source)
        if found is None:
            raise cache_error(path.parent, error, "KERAS_MUSICTAG_CACHE") from error
        return found
    finally:
        transfers.discard(part)
    return path


def _from_hub(address: str, source: WeightsSource) -> Path:
    """Fetch the weight file of a Hub repository; a damaged copy in the Hub's cache is fetched again, once."""
    repo, revision = parse_hub_uri(address)
    path = hub_file(repo, revision, source.filename)
    if is_offline():
        return _check(path, source, "Turn offline mode off once to fetch it again.")
    if sha256_of(path) != source.sha256:
        _log.warning("%s in the Hub's cache is not the file the spec pins; fetching it again.", path)
        forget(path)
        path = hub_file(repo, revision, source.filename)
    try:
        return _check(
            path,
            source,
            "It was removed from the cache. Try again; if the error persists, tell the repository's owner.",
        )
    except CorruptWeightsError:
        forget(path)
        raise
