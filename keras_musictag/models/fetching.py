"""From a `WeightsSource` to a verified file on this disk.

A file beside its spec is used where it is. One with an address of its own is looked for in the cache, in the mirror,
at its address, in this order. Whatever the door, the sha256 that the spec pins is checked before the file is used, at
most once per process and state of the file; a damaged copy in a cache is noticed and fetched again.

A download goes to a temporary name and is renamed when it is verified. So processes that share a cache need no locks,
a killed one leaves no half file under a name that is ever read, and what it does leave is swept up later.

Environment:
    KERAS_MUSICTAG_CACHE: folder for files downloaded by URL; default is the user's cache folder. Files from the Hugging
        Face Hub stay in the Hub's own cache (HF_HOME).
    KERAS_MUSICTAG_MIRROR: a folder, searched with its subfolders by file name and sha256; or the base URL of a plain
        file server, asked by file name in place of an https address. For machines without internet.
    KERAS_MUSICTAG_OFFLINE, HF_HUB_OFFLINE: set to 1 to never touch the network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import logging
import os
import re
import time
from pathlib import Path
from typing import BinaryIO

from ..errors import (
    CacheError,
    CorruptWeightsError,
    DownloadError,
    OfflineError,
    SpecError,
    WeightsError,
    WeightsUnavailableError,
)
from ..utils.files import PART, cache_folder, is_offline, replacing, sha256_of
from .spec import SPEC_FILE, WEIGHTS_FILE, ModelSpec, WeightsSource, parse_hub_uri

_log = logging.getLogger(__name__)

_TIMEOUT = 30  # seconds without a byte before a connection counts as dead
_CHUNK = 1 << 16  # bytes
_ABANDONED = 3600  # seconds; a live download writes a chunk far more often, so an older part belongs to no process
_COMMIT = re.compile("[0-9a-f]{40}")  # a full one; anything else may move


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
    if source.kind == "https":
        return _from_cache(source) or _from_mirror(source) or _download(source.uri, source)
    return _from_mirror(source) or _from_hub(source)


def fetch_hub_spec(uri: str) -> ModelSpec:
    """Read the spec of `hf://org/repo@revision`; its weights are fetched when they are needed, from the same commit.

    Args:
        uri: address; without a revision the newest commit is taken, and a warning names it.

    Raises:
        SpecError: the address or the repository's `spec.json` is malformed.
        DownloadError, OfflineError: the repository cannot be reached, or there is no such thing.
        CacheError: the Hub's cache cannot be written.
    """
    repo, revision = parse_hub_uri(uri)
    folder = _hub_file(repo, revision, SPEC_FILE).parent
    pinned = f"hf://{repo}@{folder.name}"  # the Hub's client names the folder after the commit
    if revision in (None, "main"):
        _log.warning("%s is not pinned and may change. This is %s: load that to get the same again.", uri, pinned)
    try:
        spec = ModelSpec.from_folder(folder)
    except SpecError:
        if not is_offline():
            _forget(folder / SPEC_FILE)  # it may have rotted here; the next attempt will tell
        raise
    if spec.weights is None or spec.weights.kind != "file":
        return spec
    if spec.weights.uri != WEIGHTS_FILE:
        raise SpecError(f"{pinned}: on the Hub, weights.uri must be {WEIGHTS_FILE!r}; got {spec.weights.uri!r}.")
    return dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, uri=pinned))


def _check(path: Path, source: WeightsSource, advice: str) -> Path:
    actual = sha256_of(path)
    if actual != source.sha256:
        raise CorruptWeightsError(
            f"{path} is not the file the spec pins: its sha256 is {actual}, expected {source.sha256} "
            f"({path.stat().st_size} bytes, expected {source.size or 'any number'}). {advice}"
        )
    return path


# === Doors that need no network ===


def _beside_spec(source: WeightsSource, root: Path | None) -> Path:
    path = (root or Path()) / source.uri  # an absolute path, allowed in specs made in code, replaces the root
    if not path.is_file():
        raise WeightsError(f"The weight file {path} is missing. Restore the folder it belongs to.")
    return _check(path, source, "Restore the file, or save the tagger again.")


def _cache_path(source: WeightsSource) -> Path:
    return cache_folder() / "weights" / source.sha256 / source.filename


def _from_cache(source: WeightsSource) -> Path | None:
    path = _cache_path(source)
    with contextlib.suppress(OSError):  # not there or not readable: fetching it will say why
        for part in path.parent.glob(f".*{PART}"):
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()
    with contextlib.suppress(OSError):
        if sha256_of(path) == source.sha256:
            return path
        _log.warning("%s in the cache is damaged and will be fetched again.", path)
    return None


def _from_mirror(source: WeightsSource) -> Path | None:
    mirror = os.environ.get("KERAS_MUSICTAG_MIRROR")
    if not mirror:
        return None
    if not mirror.startswith(("http://", "https://")):
        return _in_folder(source, mirror)
    # Weights on the Hub are all of one name; HF_ENDPOINT is the mirror for them.
    if source.kind == "hub" or is_offline():
        return None
    try:
        return _download(f"{mirror.rstrip('/')}/{source.filename}", source)
    except (DownloadError, CorruptWeightsError) as error:
        _log.warning("The mirror did not deliver %s, trying %s. %s", source.filename, source.uri, error)
        return None


def _in_folder(source: WeightsSource, mirror: str) -> Path | None:
    folder = os.path.expanduser(mirror)
    if not os.path.isdir(folder):
        raise WeightsError(
            f"KERAS_MUSICTAG_MIRROR must be a folder or an http(s) address; got {mirror!r}, which is neither. "
            "Correct or unset it."
        )
    named = [Path(parent, source.filename) for parent, _, files in os.walk(folder) if source.filename in files]
    for path in sorted(named):
        with contextlib.suppress(OSError):  # unreadable
            if sha256_of(path) == source.sha256:
                return path
    if named:
        _log.warning("%s in the mirror has another sha256 than the spec pins; it is not used.", min(named))
    return None


# === By URL ===


def _download(url: str, source: WeightsSource) -> Path:
    """Fetch by URL into the cache."""
    if is_offline():
        raise OfflineError(
            f"{source.filename} is needed, {cache_folder()} has no intact copy, and offline mode is on. Unset "
            "KERAS_MUSICTAG_OFFLINE and HF_HUB_OFFLINE once to fetch it, or point KERAS_MUSICTAG_MIRROR at a folder "
            "that has it."
        )
    import requests

    path = _cache_path(source)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            _receive(url, source, file)
    except requests.RequestException as error:  # an OSError too, so it must come first
        raise DownloadError(
            f"{url} could not be downloaded: {error}. Check the connection and try again; on a machine without "
            f"internet, or if the file is gone, get {source.filename} elsewhere and point KERAS_MUSICTAG_MIRROR at its "
            "folder."
        ) from error
    except OSError as error:
        # Windows refuses to replace a file that another process has open: then that process was faster.
        found = _from_cache(source)
        if found is None:
            raise _cache_error(path.parent, error, "KERAS_MUSICTAG_CACHE") from error
        return found
    return path


def _receive(url: str, source: WeightsSource, file: BinaryIO) -> None:
    """Stream a URL into a file, with a progress bar if there is a terminal.

    Raises:
        CorruptWeightsError: the bytes are not the pinned ones.
        requests.RequestException: they could not be had.
    """
    import requests
    from tqdm.auto import tqdm

    digest, received = hashlib.sha256(), 0
    with (
        requests.get(url, stream=True, timeout=_TIMEOUT) as response,
        tqdm(total=source.size, desc=source.filename, unit="B", unit_scale=True, disable=None) as bar,
    ):
        response.raise_for_status()
        for chunk in response.iter_content(_CHUNK):
            received += len(chunk)
            if source.size is not None and received > source.size:
                break  # whatever this is, it shall not fill the disk
            digest.update(chunk)
            file.write(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != source.sha256:
        raise CorruptWeightsError(
            f"What {url} sent has the sha256 {digest.hexdigest()}, expected {source.sha256} ({received} bytes, "
            f"expected {source.size or 'any number'}). Nothing was kept. Try again; if it persists, a proxy sends "
            "something else or the file has changed: report it."
        )


# === From the Hub ===


def _from_hub(source: WeightsSource) -> Path:
    """The weight file of a Hub repository; a copy that rotted in the Hub's cache is fetched again, once."""
    repo, revision = parse_hub_uri(source.uri)
    path = _hub_file(repo, revision, WEIGHTS_FILE)
    if is_offline():
        return _check(path, source, "Switch offline mode off once to fetch it again.")
    if sha256_of(path) != source.sha256:
        _log.warning("%s in the Hub's cache is not the file the spec pins; fetching it again.", path)
        _forget(path)
        path = _hub_file(repo, revision, WEIGHTS_FILE)
    try:
        return _check(
            path, source, "It was removed from the cache. Try again; if it persists, tell the repository's owner."
        )
    except CorruptWeightsError:
        _forget(path)
        raise


def _forget(snapshot: Path) -> None:
    """Remove a file from the Hub's cache: the content, and the link to it in the snapshot."""
    with contextlib.suppress(OSError):  # a read-only cache
        snapshot.resolve().unlink()
        snapshot.unlink(missing_ok=True)


def _hub_file(repo: str, revision: str | None, filename: str) -> Path:
    """A file of a repository, from the Hub's cache or the Hub, by its own client."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    wanted = f"{filename} of hf://{repo}" + (f"@{revision}" if revision else "")
    offline = is_offline()
    try:
        # The downloader may call home even for a file it has; a commit never changes, so there is nothing to ask.
        if offline or _COMMIT.fullmatch(revision or ""):
            cached = try_to_load_from_cache(repo, filename, revision=revision)
            if isinstance(cached, str):
                return Path(cached)
        if not offline:
            return Path(hf_hub_download(repo, filename, revision=revision, library_name="keras_musictag"))
    except Exception as error:  # the client lets pass what its HTTP library raises, and that library changes
        raise _hub_error(error, wanted) from error
    raise OfflineError(
        f"{wanted} is needed, the Hub's cache {constants.HF_HUB_CACHE} has no copy, and offline mode is on. "
        "Unset HF_HUB_OFFLINE and KERAS_MUSICTAG_OFFLINE once to fetch it."
    )


def _hub_error(error: Exception, wanted: str) -> SpecError | WeightsError:
    """What a failure of the Hub's client means to its user."""
    from huggingface_hub import constants, errors

    match error:
        case errors.HFValidationError():
            return SpecError(f"{wanted}: this is no address on the Hub ({_first_line(error)}).")
        case OSError(errno=code) if code in _STORAGE:
            return _cache_error(Path(constants.HF_HUB_CACHE), error, "HF_HOME")
        case errors.LocalEntryNotFoundError():
            problem = f"the Hub cannot be reached ({_first_line(error.__cause__ or error)}). Check the connection"
        case errors.GatedRepoError():
            problem = "the repository is gated. Accept its conditions on the Hub, then run `hf auth login`"
        case errors.RepositoryNotFoundError():  # said also to whoever may not see the repository
            problem = "the repository does not exist or is private. Check the name; if private, run `hf auth login`"
        case errors.RevisionNotFoundError():
            problem = "the repository has no such branch, tag or commit"
        case errors.EntryNotFoundError():
            problem = "there is no such file; the repository holds no tagger made by this package"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            problem = f"access was refused ({_first_line(error)}). Check your token: run `hf auth login`"
        case _:
            problem = f"the download failed ({_first_line(error)}). Try again"
    return DownloadError(f"{wanted} could not be downloaded: {problem}.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# === Storage ===

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
}
_STORAGE = {*_REASONS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EFBIG, errno.EIO}


def _cache_error(folder: Path, error: OSError, variable: str) -> CacheError:
    reason = _REASONS.get(error.errno or 0, "it cannot be written")
    return CacheError(
        f"Weights cannot be stored under {folder}: {reason} ({error}). Nothing was kept. "
        f"Make room there, or choose another folder with {variable}."
    )
