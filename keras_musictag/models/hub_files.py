"""Download of files from model repositories on the Hugging Face Hub.

Files are kept in the Hub's own cache (HF_HOME). Uploads are in `hub.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
from pathlib import Path

from ..errors import DownloadError, OfflineError, SpecError, WeightsError
from ..utils.files import STORAGE_ERRORS, cache_error, cache_folder, is_offline, is_writable
from .spec import SPEC_FILE, WEIGHTS_FILE, ModelSpec, parse_hub_uri

_log = logging.getLogger(__name__)

_COMMIT = re.compile("[0-9a-f]{40}")  # a full commit id; any other revision may change


def fetch_hub_spec(uri: str) -> ModelSpec:
    """Read the spec of `hf://org/repo@revision`, whose `weights` point to the same commit.

    Args:
        uri: address; without a revision, the newest commit is used and a warning names it.

    Raises:
        SpecError: the address or the repository's `spec.json` is malformed.
        DownloadError, OfflineError: the repository does not exist or cannot be reached.
        CacheError: the Hub's cache cannot be written.
    """
    repo, revision = parse_hub_uri(uri)
    folder = hub_file(repo, revision, SPEC_FILE).parent
    pinned = f"hf://{repo}@{folder.name}"  # the client names the folder after the commit
    if revision in (None, "main"):
        _log.warning("%s is not pinned and may change. Load %s to get the same tagger again.", uri, pinned)
    try:
        spec = ModelSpec.from_folder(folder)
    except SpecError:
        if not is_offline():
            forget(folder / SPEC_FILE)  # the cached copy may be damaged; the next attempt downloads it again
        raise
    if spec.weights is None or spec.weights.kind != "file":
        return spec
    if spec.weights.uri != WEIGHTS_FILE:
        raise SpecError(f"{pinned}: on the Hub, weights.uri must be {WEIGHTS_FILE!r}; got {spec.weights.uri!r}.")
    return dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, uri=pinned))


def hub_file(repo: str, revision: str | None, filename: str) -> Path:
    """Return the path of a file of a repository, downloading it if it is not in the Hub's cache.

    Raises:
        DownloadError, OfflineError: the file cannot be downloaded.
        SpecError: a name is not valid on the Hub.
        CacheError: the Hub's cache cannot be written.
    """
    from huggingface_hub import constants, hf_hub_download

    file = f"{filename} of hf://{repo}" + (f"@{revision}" if revision else "")
    offline = is_offline()
    try:
        # The downloader sends a request even for a cached file, which is not needed for a commit.
        if offline or _COMMIT.fullmatch(revision or ""):
            cached = cached_hub_file(repo, revision, filename)
            if cached is not None:
                return cached
        if not offline:
            return Path(
                hf_hub_download(repo, filename, revision=revision, cache_dir=_cache(), library_name="keras_musictag")
            )
    except Exception as error:  # the client also raises exceptions of its HTTP library, which varies
        _log.debug("%s: %r", file, error)
        raise _hub_error(error, file) from None
    raise OfflineError(
        f"{file} is needed, but the Hub's cache {constants.HF_HUB_CACHE} has no copy and offline mode is on. "
        "Unset HF_HUB_OFFLINE and KERAS_MUSICTAG_OFFLINE once to fetch it."
    )


def cached_hub_file(repo: str, revision: str | None, filename: str) -> Path | None:
    """Return the path of a file of a repository in the Hub's cache, `None` if it is not there; sends no request."""
    from huggingface_hub import try_to_load_from_cache

    for folder in {None, _cache()}:  # the Hub's own cache may be read-only
        cached = try_to_load_from_cache(repo, filename, cache_dir=folder, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _cache() -> str | None:
    """Return a replacement for the Hub's default cache if that cannot be written, else `None`."""
    from huggingface_hub import constants

    configured = any(os.environ.get(name) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"))
    if configured or is_writable(Path(constants.HF_HUB_CACHE)):
        return None
    return str(cache_folder() / "hub")


def forget(snapshot: Path) -> None:
    """Remove a file from the Hub's cache: its content and the link in the snapshot."""
    with contextlib.suppress(OSError):  # a read-only cache
        snapshot.resolve().unlink()
        snapshot.unlink(missing_ok=True)


def _hub_error(error: Exception, file: str) -> SpecError | WeightsError:
    """Translate an exception of the Hub's client."""
    from huggingface_hub import constants, errors

    match error:
        case errors.HFValidationError():
            return SpecError(f"{file}: the address is not valid on the Hub ({_first_line(error)}).")
        case OSError(errno=code) if code in STORAGE_ERRORS:
            return cache_error(Path(constants.HF_HUB_CACHE), error, "HF_HOME")
        case errors.LocalEntryNotFoundError():  # raised for every failed request
            status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
            answer = "cannot be reached" if status is None else f"answered {status}"
            problem = (
                f"the Hub {answer}.\nCheck the connection; on a machine without internet, copy the folder HF_HOME from "
                "a machine that has loaded the model"
            )
        case errors.GatedRepoError():
            problem = "the repository is gated. Accept its conditions on the Hub, then run `hf auth login`"
        case errors.RepositoryNotFoundError():  # raised also for private repositories
            problem = "the repository does not exist or is private. Check the name; if private, run `hf auth login`"
        case errors.RevisionNotFoundError():
            problem = "the repository has no such branch, tag or commit"
        case errors.EntryNotFoundError():
            problem = "there is no such file; the repository has no tagger saved by this package"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            problem = f"access was refused ({_first_line(error)}). Check your token: run `hf auth login`"
        case _:
            problem = f"the download failed ({_first_line(error)}). Try again"
    return DownloadError(f"{file} could not be downloaded: {problem}.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
