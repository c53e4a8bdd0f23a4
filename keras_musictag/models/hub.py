"""A tagger onto the Hugging Face Hub, from where `load` reads it: see `push`.

All files arrive in one commit or not at all. The client's `upload_folder` does not promise that: from huggingface_hub 2
on it may spread a folder over several commits. `create_commit` does.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import MusicTagError, SpecError
from ..utils.files import is_offline
from . import cards
from .spec import SPEC_FILE, WEIGHTS_FILE, ModelSpec, parse_hub_uri

if TYPE_CHECKING:
    from huggingface_hub import HfApi


_CARD = "README.md"
_NO_CONTENT = {_CARD, ".gitattributes", ".gitignore", "LICENSE", "LICENSE.md"}  # what an empty repository may have
_LOGIN = "Run `hf auth login`, set HF_TOKEN, or pass token=, with a token that may write"


class UploadError(MusicTagError, OSError):
    """The Hub refused, broke off or could not be reached, or the repository must not be written."""


class Uploadable(Protocol):
    """A tagger that can be saved."""

    spec: ModelSpec

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the folder that is uploaded."""


def push(
    tagger: Uploadable,
    repo_id: str,
    *,
    private: bool = False,
    branch: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    exist_ok: bool = True,
) -> str:
    """Upload `spec.json`, `weights.safetensors` and a model card, as `Tagger.save` writes them, in one commit.

    The repository is made if there is none. One that has a tagger gets a new commit, and its older commits stay; one
    that has anything else is refused, and so is a public one where a private one is asked for.

    Args:
        tagger: what to upload, as it is now.
        repo_id: `"org/repo"`.
        private: a new repository is for its owner only; else it is what its owner's settings say, usually public.
        branch: to commit to; made if there is none. By default `main`.
        commit_message: one line; by default names the model.
        token: of the Hub; by default that of `hf auth login` or HF_TOKEN.
        exist_ok: the repository may exist.

    Returns:
        `hf://org/repo@commit`, which `load` reads and which never changes.

    Raises:
        SpecError: no such name can be on the Hub.
        UploadError: offline mode, no token, no permission, another kind of repository, or the Hub fails.
        CacheError, CorruptWeightsError: the tagger cannot be saved.
    """
    wanted = _address(repo_id, branch)
    token = _token(wanted, token)
    with tempfile.TemporaryDirectory(prefix="keras_musictag.") as scratch:
        folder = tagger.save(Path(scratch) / "tagger")
        message = commit_message or f"{tagger.spec.name}, uploaded by keras_musictag"
        try:
            from huggingface_hub import HfApi

            api = HfApi(token=token, library_name="keras_musictag")
            api.create_repo(repo_id, private=private or None, exist_ok=exist_ok)
            _require_fit(api, wanted, repo_id, private)
            if branch is not None:
                api.create_branch(repo_id, branch=branch, exist_ok=True)
            commit = _commit(api, folder, repo_id, branch, message)
        except MusicTagError:
            raise
        except Exception as error:  # the client lets pass what its HTTP library raises, and that library changes
            raise _upload_error(error, wanted) from error
    return f"hf://{repo_id}@{commit}"


# === Before anything is sent ===


def _address(repo_id: str, branch: str | None) -> str:
    """The Hub address of what is to be written, if it can be one."""
    address = f"hf://{repo_id}" + ("" if branch is None else f"@{branch}")
    try:
        parsed = parse_hub_uri(address)
    except SpecError:
        parsed = None
    if parsed != (repo_id, branch):
        raise SpecError(
            f"repo_id must be org/repo, e.g. 'ann/my-tagger', and branch a name like 'v2'; got {repo_id!r} and "
            f"{branch!r}."
        )
    return address


def _token(wanted: str, token: str | None) -> str:
    if is_offline():
        raise UploadError(
            f"{wanted} cannot be uploaded: offline mode is on. Unset HF_HUB_OFFLINE and KERAS_MUSICTAG_OFFLINE, or "
            "save() it and push the folder later."
        )
    if token is None:
        from huggingface_hub import get_token

        try:
            token = get_token()
        except Exception as error:  # of keyless logins, each of its own kind
            raise _upload_error(error, wanted) from error
    if not token:
        raise UploadError(f"{wanted} cannot be uploaded: no token was found. {_LOGIN}.")
    return token


# === Sending ===


def _require_fit(api: HfApi, wanted: str, repo_id: str, private: bool) -> None:
    """Raise if the repository holds something else than a tagger, or if all the world could read what is private."""
    info = api.model_info(repo_id)
    names = {file.rfilename for file in info.siblings or ()}
    if names - _NO_CONTENT and SPEC_FILE not in names:
        raise UploadError(
            f"{wanted} was not uploaded: the repository holds something else than a tagger "
            f"({_some(names - _NO_CONTENT)}). Choose another name."
        )
    if private and info.private is False:
        raise UploadError(
            f"{wanted} was not uploaded: private=True was asked for, but the repository exists and is public. Make it "
            "private in its settings on the Hub, or choose another name."
        )


def _commit(api: HfApi, folder: Path, repo_id: str, branch: str | None, message: str) -> str:
    """Upload the files of a saved tagger; returns the commit they are in."""
    from huggingface_hub import CommitOperationAdd

    card = cards.model_card(ModelSpec.from_folder(folder), f"hf://{repo_id}")
    operations = [
        CommitOperationAdd(SPEC_FILE, folder / SPEC_FILE),
        CommitOperationAdd(WEIGHTS_FILE, folder / WEIGHTS_FILE),
        CommitOperationAdd(_CARD, card.encode()),
    ]
    return str(api.create_commit(repo_id, operations, commit_message=message, revision=branch).oid)


def _some(names: Iterable[str]) -> str:
    first, *more = sorted(names)
    return ", ".join([first, *more[:2], *(["..."] if more[2:] else [])])


# === Failures ===


def _upload_error(error: Exception, wanted: str) -> SpecError | UploadError:
    """What a failure of the Hub's client means to its user."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if isinstance(error, HFValidationError):
        return SpecError(f"{wanted}: this cannot be the name of a repository on the Hub ({_first_line(error)}).")
    causes = [error]
    while isinstance(cause := causes[-1].__cause__, Exception):
        causes.append(cause)
    # The client wraps what happens to one file of several.
    refused = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    said = _first_line(refused or causes[-1])
    status = 0 if refused is None else refused.response.status_code
    if not status or status >= 500:  # the answer to a commit that was made may be lost
        problem = "the Hub failed" if status else "the Hub could not be reached or broke off"
        advice = "Try again: all files arrive together or not at all"
        if "xet" in said:  # huggingface_hub asks for it whether or not the Hub has it
            advice += ". For a Hub without Xet storage, set HF_HUB_DISABLE_XET=1"
    elif status == 401:
        problem, advice = "the Hub refused the token", _LOGIN
    elif status == 403:
        problem = "the token may not write there"
        advice = "Check the name, and that the token has the role 'write'; `hf auth whoami` tells whose it is"
    elif status == 404:
        problem = "the token sees no model repository of that name"
        advice = "Check it; if a data set or a Space has the name, choose another"
    elif status == 409:
        problem, advice = "the repository exists already", "Pass exist_ok=True, or choose another name"
    else:
        problem, advice = "the Hub did not take it", "Nothing was committed"
    return UploadError(f"{wanted} was not uploaded: {problem} ({said}). {advice}.")


def _first_line(error: Exception) -> str:
    text = getattr(error, "server_message", None) or str(error).strip() or type(error).__name__
    return str(text).strip().splitlines()[0].rstrip(".")
