"""From a `WeightsSource` to a verified file on this disk.

The order is: a file beside the spec; the local mirror (`KERAS_MUSICTAG_MIRROR`); the cache; the network. Whatever the
door, the sha256 that the spec pins is checked before the file is used, at most once per process and state of the file.

Environment:
    KERAS_MUSICTAG_CACHE: folder for files downloaded by URL; default is the user's cache folder. Files from the Hugging
        Face Hub stay in the Hub's own cache.
    KERAS_MUSICTAG_MIRROR: a folder, or the base URL of a plain file server, where weight files are looked up by name
        and sha256 first. For machines without internet.
    KERAS_MUSICTAG_OFFLINE, HF_HUB_OFFLINE: set to 1 to never touch the network.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import CacheError, CorruptWeightsError, DownloadError, OfflineError, WeightsError
from .spec import SPEC_FILE, ModelSpec, WeightsSource, parse_hub_uri

_log = logging.getLogger(__name__)

_TIMEOUT = 30  # seconds without a byte before a connection counts as dead
_TRUE = {"1", "true", "yes", "on"}


# === Public ===


def fetch_weights(spec: ModelSpec) -> Path:
    """The verified weight file of a spec.

    Raises:
        CorruptWeightsError: the bytes are not the pinned ones.
        DownloadError, OfflineError: they cannot be had.
        CacheError: they cannot be stored.
    """
    source = spec.weights
    if source is None:
        raise WeightsError(f"{spec.name!r} names no weights.")
    if source.kind == "file":
        return _beside_spec(source, spec.root)
    mirrored = _from_mirror(source)
    if mirrored is not None:
        return mirrored
    if source.kind == "https":
        return _download(source.uri, source)
    repo, revision = parse_hub_uri(source.uri)
    return _from_hub(repo, revision, source)


def fetch_hub_spec(uri: str) -> ModelSpec:
    """Read the spec of `hf://org/repo@revision`; its weights are fetched when they are needed.

    Raises:
        SpecError: the address or the repository's `spec.json` is malformed.
        DownloadError, OfflineError: the repository cannot be reached.
    """
    repo, revision = parse_hub_uri(uri)
    folder = _hub_file(repo, revision, SPEC_FILE).parent
    if revision is None:
        _log.warning("%s is not pinned to a revision; this is %s@%s.", uri, uri, folder.name)
    spec = ModelSpec.from_folder(folder)
    if spec.weights is not None and spec.weights.kind == "file":
        # The snapshot folder is named after its commit: the weights come from the same one.
        _from_hub(repo, folder.name, spec.weights, spec.weights.uri)
    return spec


def cache_folder() -> Path:
    """Where downloads by URL are kept."""
    configured = os.environ.get("KERAS_MUSICTAG_CACHE")
    if configured:
        return Path(configured).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("keras_musictag", appauthor=False))


def is_offline() -> bool:
    """Whether the user has forbidden network access."""
    return any(
        os.environ.get(name, "").lower() in _TRUE for name in ("KERAS_MUSICTAG_OFFLINE", "HF_HUB_OFFLINE")
    )


# === Checksums ===


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file; cached until its size or time changes."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, source: WeightsSource, advice: str) -> Path:
    actual = sha256_of(path)
    if actual != source.sha256:
        raise CorruptWeightsError(
            f"{path} is not the file the spec pins: its sha256 is {actual}, expected {source.sha256} "
            f"({path.stat().st_size} bytes). {advice}"
        )
    return path


# === Doors ===


def _beside_spec(source: WeightsSource, root: Path | None) -> Path:
    path = Path(source.uri) if Path(source.uri).is_absolute() else (root or Path()) / source.uri
    if not path.is_file():
        raise WeightsError(f"The weight file {path} is missing; restore the folder it belongs to.")
    return _check(path, source, "Restore the file, or save the tagger again.")


def _from_mirror(source: WeightsSource) -> Path | None:
    mirror = os.environ.get("KERAS_MUSICTAG_MIRROR")
    if not mirror:
        return None
    if mirror.startswith(("http://", "https://")):
        try:
            return _download(f"{mirror.rstrip('/')}/{source.filename}", source)
        except DownloadError as error:
            _log.warning("The mirror has no %s (%s); trying the original address.", source.filename, error)
            return None
    folder = Path(mirror).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"KERAS_MUSICTAG_MIRROR={mirror!r} is neither a folder nor an http(s) address.")
    named = sorted(path for path in folder.rglob(source.filename) if path.is_file())
    for path in named:
        if sha256_of(path) == source.sha256:
            return path
    if named:
        _log.warning("%s in the mirror has another sha256 than the spec pins; it is not used.", named[0])
    return None


def _download(url: str, source: WeightsSource) -> Path:
    """Fetch by URL into the cache: to a temporary name, checked, then renamed, so that processes can't disturb each other."""
    folder = cache_folder() / "weights" / source.sha256
    path = folder / source.filename
    if path.is_file() and sha256_of(path) == source.sha256:
        return path
    if is_offline():
        raise OfflineError(_offline_message(source, f"{path} is not there"))
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=_TIMEOUT)
    with _cache_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pooch.retrieve(url, f"sha256:{source.sha256}", source.filename, folder, downloader=downloader)
        except requests.HTTPError as error:
            raise DownloadError(f"{url}: the server answered {error.response.status_code} {error.response.reason}.") from error
        except requests.RequestException as error:
            raise DownloadError(_no_network_message(url, source, error)) from error
        except ValueError as error:  # pooch's word for a wrong checksum; it has removed the file
            raise CorruptWeightsError(
                f"What {url} sent has not the sha256 {source.sha256} that the spec pins ({error}). Nothing was kept; "
                "try again, and if it persists, report it: the file at that address has changed."
            ) from error
    return path


def _from_hub(repo: str, revision: str | None, source: WeightsSource, filename: str | None = None) -> Path:
    """A weight file of a Hub repository; a copy that rotted in the Hub's cache is fetched again, once."""
    filename = filename or source.filename
    path = _hub_file(repo, revision, filename)
    if sha256_of(path) != source.sha256 and not is_offline():
        path = _hub_file(repo, revision, filename, force_download=True)
        _sha256.cache_clear()
    try:
        return _check(path, source, f"It was removed from the Hub's cache; {repo}@{revision} has changed or is damaged.")
    except CorruptWeightsError:
        with contextlib.suppress(OSError):
            path.resolve().unlink()
            path.unlink()
        raise


def _hub_file(repo: str, revision: str | None, filename: str, *, force_download: bool = False) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download

    address = f"hf://{repo}" + (f"@{revision}" if revision else "")
    try:
        with _cache_errors(Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))):
            local_only = is_offline()
            return Path(
                hf_hub_download(repo, filename, revision=revision, force_download=force_download, local_files_only=local_only)
            )
    except hub.GatedRepoError as error:
        raise DownloadError(f"{address} is gated: accept its conditions on the Hub, then run `hf auth login`.") from error
    except hub.RepositoryNotFoundError as error:  # the Hub also says so to whoever may not see the repository (401)
        raise DownloadError(f"{address} does not exist, or is private: then run `hf auth login` first.") from error
    except hub.RevisionNotFoundError as error:
        raise DownloadError(f"{address}: the repository has no such revision.") from error
    except hub.LocalEntryNotFoundError as error:
        if is_offline():
            raise OfflineError(f"{address}: {filename} is not in the Hub's cache, and offline mode is on. Unset "
                               "HF_HUB_OFFLINE and KERAS_MUSICTAG_OFFLINE once to fetch it.") from error  # fmt: skip
        raise DownloadError(f"{address}: the Hub cannot be reached and {filename} is not in its cache ({error}).") from error
    except hub.EntryNotFoundError as error:
        raise DownloadError(f"{address} has no file {filename}; it is not a tagger made by this package.") from error
    except (hub.HfHubHTTPError, OSError) as error:
        if isinstance(error, CacheError):
            raise
        raise DownloadError(f"{address}: {filename} could not be downloaded ({error}).") from error


# === Messages ===


@contextlib.contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    """Turn failures to write into `CacheError`; let network failures (also OSErrors) pass."""
    full = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}
    denied = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
    try:
        yield
    except OSError as error:
        reason = full.get(error.errno or 0) or ("it cannot be written" if error.errno in denied else None)
        if reason is None or isinstance(error, WeightsError):
            raise
        raise CacheError(
            f"Weights cannot be stored under {folder}: {reason} ({error}). Nothing was kept. "
            "Choose another folder with KERAS_MUSICTAG_CACHE (or HF_HOME for the Hub)."
        ) from error


def _offline_message(source: WeightsSource, missing: str) -> str:
    return (
        f"{source.filename} is needed, {missing}, and offline mode is on. Unset KERAS_MUSICTAG_OFFLINE and "
        "HF_HUB_OFFLINE once to fetch it, or point KERAS_MUSICTAG_MIRROR at a folder that has it."
    )


def _no_network_message(url: str, source: WeightsSource, error: Exception) -> str:
    return (
        f"{url} could not be downloaded: {error}. Check the connection and try again; on a machine without internet, fetch "
        f"{source.filename} elsewhere and point KERAS_MUSICTAG_MIRROR at its folder."
    )
