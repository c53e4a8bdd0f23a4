"""Files of model repositories on the Hugging Face Hub, from its cache or by its own client.

They stay in the Hub's own cache (HF_HOME). Uploads are in `hub.py`.
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

_COMMIT = re.compile("[0-9a-f]{40}")  # a full one; anything else may move


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
    folder = hub_file(repo, revision, SPEC_FILE).parent
    pinned = f"hf://{repo}@{folder.name}"  # the Hub's client names the folder after the commit
    if revision in (None, "main"):
        _log.warning("%s is not pinned and may change. This is %s: load that to get the same again.", uri, pinned)
    try:
        spec = ModelSpec.from_folder(folder)
    except SpecError:
        if not is_offline():
            forget(folder / SPEC_FILE)  # it may have rotted here; the next attempt will tell
        raise
    if spec.weights is None or spec.weights.kind != "file":
        return spec
    if spec.weights.uri != WEIGHTS_FILE:
        raise SpecError(f"{pinned}: on the Hub, weights.uri must be {WEIGHTS_FILE!r}; got {spec.weights.uri!r}.")
    return dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, uri=pinned))


def hub_file(repo: str, revision: str | None, filename: str) -> Path:
    """A file of a repository, from the Hub's cache or the Hub.

    Raises:
        DownloadError, OfflineError: it cannot be had.
        SpecError: the Hub knows no such names.
        CacheError: the Hub's cache cannot be written.
    """
    from huggingface_hub import constants, hf_hub_download

    wanted = f"{filename} of hf://{repo}" + (f"@{revision}" if revision else "")
    offline = is_offline()
    try:
        # The downloader may call home even for a file it has; a commit never changes, so there is nothing to ask.
        if offline or _COMMIT.fullmatch(revision or ""):
            cached = cached_hub_file(repo, revision, filename)
            if cached is not None:
                return cached
        if not offline:
            return Path(
                hf_hub_download(repo, filename, revision=revision, cache_dir=_cache(), library_name="keras_musictag")
            )
    except Exception as error:  # the client lets pass what its HTTP library raises, and that library changes
        _log.debug("%s: %r", wanted, error)
        raise _hub_error(error, wanted) from None
    raise OfflineError(
        f"{wanted} is needed, the Hub's cache {constants.HF_HUB_CACHE} has no copy, and offline mode is on. "
        "Unset HF_HUB_OFFLINE and KERAS_MUSICTAG_OFFLINE once to fetch it."
    )


def cached_hub_file(repo: str, revision: str | None, filename: str) -> Path | None:
    """A file of a repository if it is in the Hub's cache; nobody is asked."""
    from huggingface_hub import try_to_load_from_cache

    for folder in {None, _cache()}:  # also what is in a cache that can only be read
        cached = try_to_load_from_cache(repo, filename, cache_dir=folder, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _cache() -> str | None:
    """A folder instead of the Hub's own cache, where that is in a home that cannot be written."""
    from huggingface_hub import constants

    named = any(os.environ.get(name) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"))
    if named or is_writable(Path(constants.HF_HUB_CACHE)):
        return None
    return str(cache_folder() / "hub")


def forget(snapshot: Path) -> None:
    """Remove a file from the Hub's cache: the content, and the link to it in the snapshot."""
    with contextlib.suppress(OSError):  # a read-only cache
        snapshot.resolve().unlink()
        snapshot.unlink(missing_ok=True)


def _hub_error(error: Exception, wanted: str) -> SpecError | WeightsError:
    """What a failure of the Hub's client means to its user."""
    from huggingface_hub import constants, errors

    match error:
        case errors.HFValidationError():
            return SpecError(f"{wanted}: this is no address on the Hub ({_first_line(error)}).")
        case OSError(errno=code) if code in STORAGE_ERRORS:
            return cache_error(Path(constants.HF_HUB_CACHE), error, "HF_HOME")
        case errors.LocalEntryNotFoundError():  # what the client makes of every request that failed
            status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
            answer = "cannot be reached" if status is None else f"answered {status}"
            problem = (
                f"the Hub {answer}.\nCheck the connection; for a machine without internet, copy the folder HF_HOME "
                "from one that has loaded the model"
            )
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
