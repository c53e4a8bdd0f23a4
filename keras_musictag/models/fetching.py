"""From a `WeightsSource` to a verified file on this disk.

A file beside its spec is used where it is. One with addresses is looked for in the cache, in the mirror, and then at
its addresses, in the order of the spec. Wherever it comes from, the sha256 that the spec pins is checked before the
file is opened, at most once per process and state of the file; a damaged copy in a cache is noticed and fetched again.

A download has a name of its own until it is verified, and then takes the final one. So processes that share a cache
need no locks, a killed one leaves no half file under a name that is ever read, and what it does leave is swept up
later. A connection that drops is taken up again where it ended.

Environment:
    KERAS_MUSICTAG_CACHE: folder for files downloaded by URL; default is the user's cache folder. Files from the Hugging
        Face Hub stay in the Hub's own cache (HF_HOME).
    KERAS_MUSICTAG_MIRROR: a folder, searched with its subfolders by file name or size, and sha256; or the base URL of a
        plain file server, asked by file name before any other address. For machines without internet;
        `keras-musictag download --to FOLDER` makes such a folder.
    KERAS_MUSICTAG_OFFLINE, HF_HUB_OFFLINE: set to 1 to never touch the network.
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

_ABANDONED = 3600  # seconds; a live download writes a chunk far more often, so an older part belongs to no process
_ATTEMPTS = 3  # in a row without a new byte, before the next address is asked


# === Public ===


def fetch_weights(spec: ModelSpec) -> Path:
    """The verified weight file of a spec.

    Returns:
        Path of a file with the pinned sha256. It may lie in a cache: read it, don't change it.

    Raises:
        WeightsUnavailableError: the spec names no weights.
        CorruptWeightsError: the bytes are not the pinned ones.
        DownloadError, OfflineError: they cannot be had.
        CacheError: they cannot be stored.
    """
    source = spec.weights
    if source is None:
        raise WeightsUnavailableError(
            f"There are no weights for {spec.name!r} yet. {spec.weights_help or 'Train some.'}"
        )
    if source.kind == "file":
        return _beside_spec(source, spec.root)
    return find_weights(spec) or _from_mirror_server(source) or _from_addresses(spec, source)


def find_weights(spec: ModelSpec) -> Path | None:
    """The verified weight file of a spec if it is on this disk: beside the spec, in a cache, in a mirror folder.

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
    """Copy a weight file out of a mirror folder, so that it is there without the mirror.

    Args:
        spec: whose weights they are.
        path: what `fetch_weights` returned.

    Returns:
        Path in a cache, or beside the spec.

    Raises:
        CacheError: it cannot be stored.
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
    """Copy a weight file into a folder that KERAS_MUSICTAG_MIRROR can name.

    Args:
        spec: whose weights they are.
        path: what `fetch_weights` returned.
        folder: the mirror; made if it is not there.

    Returns:
        Path in the folder: under the file's name, so that a file server can offer it too; below the model's name where
        another file has that name.

    Raises:
        CacheError: it cannot be written.
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
        raise WeightsError(f"The weight file {path} is missing. Restore the folder it belongs to.")
    return _check(path, source, "Restore the file, or save the tagger again.")


# === Places that need no network ===


def _cache_path(source: WeightsSource) -> Path:
    return cached_path("weights", source.sha256, source.filename)


def _from_cache(source: WeightsSource) -> Path | None:
    path = _cache_path(source)
    with contextlib.suppress(OSError):  # not there or not readable: fetching it will say why
        for part in path.parent.glob(f".*{PART}*"):
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()
    with contextlib.suppress(OSError):
        if sha256_of(path) == source.sha256:
            return path
        _log.warning("%s in the cache is damaged and will be fetched again.", path)
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
    """The mirror, if it is a folder."""
    mirror = _mirror()
    if not mirror or mirror.startswith(("http://", "https://")):
        return None
    folder = os.path.expanduser(mirror)
    if not os.path.isdir(folder):
        raise WeightsError(
            f"KERAS_MUSICTAG_MIRROR must be a folder or an http(s) address; got {mirror!r}, which is neither. "
            "Correct or unset it."
        )
    return Path(folder)


def _from_mirror_folder(source: WeightsSource) -> Path | None:
    folder = _mirror_folder()
    if folder is None:
        return None
    named = []
    for path in _candidates(folder, source):
        with contextlib.suppress(OSError):  # unreadable
            if sha256_of(path) == source.sha256:
                return path
            named += [path] if path.name == source.filename else []
    if named:
        _log.warning("%s in the mirror has another sha256 than the spec pins; it is not used.", named[0])
    return None


def _candidates(folder: Path, source: WeightsSource) -> Iterator[Path]:
    """Files of the right name, then those of the right size: who downloads by hand gets the name of the address."""
    files = sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    yield from (path for path in files if path.name == source.filename)
    for path in files:
        with contextlib.suppress(OSError):
            if path.name != source.filename and path.is_file() and path.stat().st_size == source.size:
                yield path


# === Places that need one ===


def _from_mirror_server(source: WeightsSource) -> Path | None:
    mirror = _mirror()
    # Weights on the Hub are all of one name; HF_ENDPOINT is the mirror for them.
    if not mirror.startswith(("http://", "https://")) or source.kind == "hub" or is_offline():
        return None
    try:
        return _download(f"{mirror.rstrip('/')}/{source.filename}", source)
    except (transfers.TransferError, CorruptWeightsError) as error:
        _log.warning("The mirror did not deliver %s, trying %s. %s", source.filename, source.uri, error)
        return None


def _from_addresses(spec: ModelSpec, source: WeightsSource) -> Path:
    """Fetch from the first address that delivers."""
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
            problems.append(f"{address} is another file than the spec pins")
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
        f"On a machine with internet run `keras-musictag download {spec.name} --to FOLDER`, bring FOLDER here and set "
        "KERAS_MUSICTAG_MIRROR to it."
    )


def _download(url: str, source: WeightsSource) -> Path:
    """Fetch by URL into the cache.

    Raises:
        transfers.TransferError: it cannot be had there.
        CorruptWeightsError: something else was sent. Nothing is kept.
        CacheError: it cannot be stored.
    """
    path = _cache_path(source)
    part = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        transfers.transfer(url, part, size=source.size, label=source.filename, attempts=_ATTEMPTS, patient=False)
        actual, received = sha256_of(part), transfers.size_of(part)
        if actual != source.sha256:
            raise CorruptWeightsError(
                f"What {url} sent has the sha256 {actual}, expected {source.sha256} ({received} bytes, "
                f"expected {source.size or 'any number'}). Nothing was kept. Try again; if it persists, a proxy sends "
                "something else or the file has changed: report it."
            )
        transfers.finish(part, path)
    except transfers.ContentError as error:
        raise CorruptWeightsError(f"{error} Nothing was kept.") from None
    except CacheError:
        raise
    except OSError as error:
        # Windows refuses to replace a file that another process has open: then that process was faster.
        found = _from_cache(source)
        if found is None:
            raise cache_error(path.parent, error, "KERAS_MUSICTAG_CACHE") from error
        return found
    finally:
        transfers.discard(part)
    return path


def _from_hub(address: str, source: WeightsSource) -> Path:
    """The weight file of a Hub repository; a copy that rotted in the Hub's cache is fetched again, once."""
    repo, revision = parse_hub_uri(address)
    path = hub_file(repo, revision, source.filename)
    if is_offline():
        return _check(path, source, "Switch offline mode off once to fetch it again.")
    if sha256_of(path) != source.sha256:
        _log.warning("%s in the Hub's cache is not the file the spec pins; fetching it again.", path)
        forget(path)
        path = hub_file(repo, revision, source.filename)
    try:
        return _check(
            path, source, "It was removed from the cache. Try again; if it persists, tell the repository's owner."
        )
    except CorruptWeightsError:
        forget(path)
        raise
