"""Upload of taggers to the Hugging Face Hub; see `push`.

All files are uploaded in one commit with `create_commit`. From huggingface_hub 2 on, `upload_folder` may split a folder
into several commits.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import MusicTagError, SpecError
from ..utils.files import is_offline
from . import cards
from .spec import SPEC_FILE, WEIGHTS_FILE, ModelSpec, parse_hub_uri
from .weights import first_names

if TYPE_CHECKING:
    from huggingface_hub import HfApi


_CARD = "README.md"
_NO_CONTENT = {_CARD, ".gitattributes", ".gitignore", "LICENSE", "LICENSE.md"}  # files of an empty repository
_LOGIN = "Run `hf auth login`, set HF_TOKEN or pass token= with a token that has write access"


class UploadError(MusicTagError, OSError):
    """The Hub refused the upload, failed or could not be reached, or the repository must not be overwritten."""


class Uploadable(Protocol):
    """A tagger that can be saved."""

    spec: ModelSpec

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the folder to upload."""


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

    The repository is created if it does not exist. In a repository with a tagger, a commit is added and older commits
    are kept. A repository with other content is rejected, and so is a public one with `private=True`.

    Args:
        tagger: tagger to upload.
        repo_id: `"org/repo"`.
        private: make a new repository private; by default the settings of its owner decide, usually public.
        branch: branch to commit to, created if missing; by default `main`.
        commit_message: message of the commit; by default it names the model.
        token: token of the Hub; by default that of `hf auth login` or HF_TOKEN.
        exist_ok: whether the repository may exist.

    Returns:
        `hf://org/repo@commit`, an address for `load` whose content never changes.

    Raises:
        SpecError: the name is not valid on the Hub.
        UploadError: offline mode is on, there is no token or permission, the repository is unsuitable, or the Hub
            fails.
        CacheError, CorruptWeightsError: the tagger cannot be saved.
    """
    address = _address(repo_id, branch)
    token = _token(address, token)
    with tempfile.TemporaryDirectory(prefix="keras_musictag.") as scratch:
        folder = tagger.save(Path(scratch) / "tagger")
        message = commit_message or f"{tagger.spec.name}, uploaded by keras_musictag"
        try:
            from huggingface_hub import HfApi

            api = HfApi(token=token, library_name="keras_musictag")
            api.create_repo(repo_id, private=private or None, exist_ok=exist_ok)
            _check_repository(api, address, repo_id, private)
            if branch is not None:
                api.create_branch(repo_id, branch=branch, exist_ok=True)
            commit = _commit(api, folder, repo_id, branch, message)
        except MusicTagError:
            raise
        except Exception as error:  # the client also raises exceptions of its HTTP library, which varies
            raise _upload_error(error, address) from error
    return f"hf://{repo_id}@{commit}"


# === Arguments ===


def _address(repo_id: str, branch: str | None) -> str:
    """Validate and join the parts of the Hub address."""
    address = f"hf://{repo_id}" + ("" if branch is None else f"@{branch}")
    try:
        parsed = parse_hub_uri(address)
    except SpecError:
        parsed = None
    if parsed != (repo_id, branch):
        raise SpecError(
            f"repo_id must be org/repo, e.g. 'ann/my-tagger', and branch a name, e.g. 'v2'; got {repo_id!r} and "
            f"{branch!r}."
        )
    return address


def _token(address: str, token: str | None) -> str:
    if is_offline():
        raise UploadError(
            f"{address} cannot be uploaded: offline mode is on. Unset HF_HUB_OFFLINE and KERAS_MUSICTAG_OFFLINE, or "
            "save() the tagger and push the folder later."
        )
    if token is None:
        from huggingface_hub import get_token

        try:
            token = get_token()
        except Exception as error:  # keyless logins raise various exceptions
            raise _upload_error(error, address) from error
    if not token:
        raise UploadError(f"{address} cannot be uploaded: no token was found. {_LOGIN}.")
    return token


# === Upload ===


def _check_repository(api: HfApi, address: str, repo_id: str, private: bool) -> None:
    """Raise if the repository has other content than a tagger, or is public and should be private."""
    info = api.model_info(repo_id)
    names = {file.rfilename for file in info.siblings or ()}
    if names - _NO_CONTENT and SPEC_FILE not in names:
        raise UploadError(
            f"{address} was not uploaded: the repository has other content than a tagger "
            f"({first_names(sorted(names - _NO_CONTENT))}). Choose another name."
        )
    if private and info.private is False:
        raise UploadError(
            f"{address} was not uploaded: private=True was passed, but the repository exists and is public. Make it "
            "private in its settings on the Hub, or choose another name."
        )


def _commit(api: HfApi, folder: Path, repo_id: str, branch: str | None, message: str) -> str:
    """Upload the files of a saved tagger and return the id of the commit."""
    from huggingface_hub import CommitOperationAdd

    card = cards.model_card(ModelSpec.from_folder(folder), f"hf://{repo_id}")
    operations = [
        CommitOperationAdd(SPEC_FILE, folder / SPEC_FILE),
        CommitOperationAdd(WEIGHTS_FILE, folder / WEIGHTS_FILE),
        CommitOperationAdd(_CARD, card.encode()),
    ]
    return str(api.create_commit(repo_id, operations, commit_message=message, revision=branch).oid)


# === Errors ===


def _upload_error(error: Exception, address: str) -> SpecError | UploadError:
    """Translate an exception of the Hub's client."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if isinstance(error, HFValidationError):
        return SpecError(f"{address} is not a valid name of a repository on the Hub ({_first_line(error)}).")
    causes = [error]
    while isinstance(cause := causes[-1].__cause__, Exception):
        causes.append(cause)
    # The client wraps errors of single files.
    http_error = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    reason = _first_line(http_error or causes[-1])
    status = 0 if http_error is None else http_error.response.status_code
    if not status or status >= 500:
        problem = "the Hub failed" if status else "the Hub could not be reached or broke the connection"
        advice = "Try again: all files are uploaded together or not at all"
        if "xet" in reason:  # huggingface_hub uses Xet even if the Hub does not have it
            advice += ". For a Hub without Xet storage, set HF_HUB_DISABLE_XET=1"
    elif status == 401:
        problem, advice = "the Hub refused the token", _LOGIN
    elif status == 403:
        problem = "the token has no write access to the repository"
        advice = "Check the name, and that the token has the role 'write'; `hf auth whoami` shows its owner"
    elif status == 404:
        problem = "no model repository with this name is visible to the token"
        advice = "Check the name; if a data set or a Space has it, choose another"
    elif status == 409:
        problem, advice = "the repository already exists", "Pass exist_ok=True, or choose another name"
    else:
        problem, advice = "the Hub refused the upload", "Nothing was committed"
    return UploadError(f"{address} was not uploaded: {problem} ({reason}). {advice}.")


def _first_line(error: Exception) -> str:
    text = getattr(error, "server_message", None) or str(error).strip() or type(error).__name__
    return str(text).strip().splitlines()[0].rstrip(".")
