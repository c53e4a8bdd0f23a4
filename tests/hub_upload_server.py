"""The half of the loopback Hub that writes: what `HfApi.create_repo`, `create_branch` and `create_commit` ask.

Bytes of large files (here: `*.safetensors`) go to the store of another origin first (Git LFS: batch, PUT, verify) and
are in no repository until a commit names their sha256. A commit is one request; all its files must be there.
"""

import base64
import hashlib
import json
import re
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import yaml
from hub_server import Handler, HubServer, Repo, git_id, point_client_at
from huggingface_hub import constants

# Of the Hub's list of licence identifiers, those that cards of this package may bear.
LICENSES = {"isc", "mit", "apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-nc-sa-4.0", "other"}


class UploadHub(HubServer):
    """A Hub that can be written.

    Attributes:
        writers: token -> names of the accounts and organisations that it may write to.
        taken: names that data sets and Spaces have; on this Hub no model can have the same.
        store: sha256 -> bytes of large files, committed or not.
        messages: of the commits, in order.
    """

    def __init__(self) -> None:
        self.writers: dict[str, set[str]] = {"writes": {"ann"}}
        self.taken: set[str] = set()
        self.store: dict[str, bytes] = {}
        self.messages: list[str] = []
        super().__init__(_UploadHandler)


def hub_for_the_client(folder: Path, monkeypatch) -> Iterator[UploadHub]:
    """Run a Hub that the client of this process uses, with a token that may write to `ann`."""
    with UploadHub() as hub:
        point_client_at(hub, folder / "hf", monkeypatch)
        # The client would send large files to a storage of another protocol, by a library that is not Python.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "writes")
        yield hub
        huggingface_hub.close_session()


class _UploadHandler(Handler):
    server: UploadHub

    def do_POST(self) -> None:
        self._take()

    def do_PUT(self) -> None:
        self._take()

    def _take(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.fault = self.server.take_fault(path)
        if self.fault.status is not None:
            return self._refuse(self.fault.status)
        if self.fault.cut is not None:
            return self.connection.close()
        routes: dict[str, Callable[..., None]] = {
            r"POST /api/repos/create": self._create,
            r"POST /api/validate-yaml": self._validate,
            r"POST /api/models/([^/]+/[^/]+)/branch/(.+)": self._branch,
            r"POST /api/models/([^/]+/[^/]+)/preupload/(.+)": self._preupload,
            r"POST /api/models/([^/]+/[^/]+)/commit/(.+)": self._commit,
            r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/batch": self._batch,
            r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/verify": self._verify,
            r"PUT /cdn/store/([0-9a-f]{64})": self._store,
        }
        for pattern, answer in routes.items():
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                return answer(body, *match.groups())
        return self._refuse(404)

    def _json(self, answer: object, status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    # --- Who may ---

    def _may_write(self, namespace: str, what: str) -> bool:
        """Whether the token may write there; answers itself if not, as the Hub does."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.server.writers:
            self._refuse(401, message="Invalid username or password.")
        elif namespace not in self.server.writers[token]:
            self._refuse(403, message=f"You don't have the rights to {what} under the namespace {namespace!r}")
        else:
            return True
        return False

    def _writable(self, repo: str, branch: str = "main") -> Repo | None:
        if not self._may_write(repo.split("/")[0], "write"):
            return None
        known = self.server.repos.get(repo)
        if known is None:
            return self._refuse(404, "RepoNotFound", "Repository not found")
        if branch not in known.refs:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        return known

    # --- Repositories and branches ---

    def _create(self, body: bytes) -> None:
        wanted = json.loads(body)
        namespace, name = wanted["organization"], wanted["name"]
        repo = f"{namespace}/{name}"
        if not self._may_write(namespace, "create a model"):
            return
        answer = {"url": f"{self.server.url}/{repo}", "name": repo}
        if repo in self.server.repos or repo in self.server.taken:
            return self._json({"error": "You already created this repo", **answer}, 409)
        token = self.headers["Authorization"].removeprefix("Bearer ")
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        self.server.repos[repo] = Repo(token=token if private else None)
        self.server.repos[repo].commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self._json(answer)

    def _branch(self, body: bytes, repo: str, branch: str) -> None:
        known = self._writable(repo)
        if known is None:
            return
        if branch in known.refs:
            return self._refuse(409, message="Reference already exists")
        known.refs[branch] = known.refs[json.loads(body).get("startingPoint", "main")]
        self._json({})

    # --- Files ---

    def _validate(self, body: bytes) -> None:
        """What the Hub checks of a card: see its docs/hub/model-cards and hub-docs/modelcard.md."""
        front = json.loads(body)["content"].split("---\n")[1]
        errors = [{"message": problem} for problem in _problems(yaml.safe_load(front))]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _preupload(self, body: bytes, repo: str, branch: str) -> None:
        known = self._writable(repo, branch)
        if known is None:
            return
        there = known.commits[known.refs[branch]]
        answer = []
        for file in json.loads(body)["files"]:
            path, content = file["path"], there.get(file["path"])
            large = path.endswith(".safetensors")
            identify = _sha256 if large else git_id
            oid = None if content is None else identify(content)
            answer.append(
                {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        self._json({"files": answer})

    def _batch(self, body: bytes, repo: str) -> None:
        if self._writable(repo) is None:
            return
        objects = []
        for wanted in json.loads(body)["objects"]:
            oid = wanted["oid"]
            actions = {
                "upload": {"href": f"{self.server.cdn}/store/{oid}"},
                "verify": {"href": f"{self.server.url}/{repo}.git/info/lfs/objects/verify"},
            }
            objects.append({**wanted, **({} if oid in self.server.store else {"actions": actions})})
        self._json({"transfer": "basic", "objects": objects})

    def _store(self, body: bytes, oid: str) -> None:
        assert "Authorization" not in self.headers, "the token left the Hub"
        if _sha256(body) != oid:
            return self._refuse(400, message="The bytes are not those that were announced")
        self.server.store[oid] = body
        self._json({})

    def _verify(self, body: bytes, repo: str) -> None:
        if self._writable(repo) is None:
            return
        wanted = json.loads(body)
        if len(self.server.store.get(wanted["oid"], b"")) != wanted["size"]:
            return self._refuse(404)
        self._json({})

    def _commit(self, body: bytes, repo: str, branch: str) -> None:
        known = self._writable(repo, branch)
        if known is None:
            return
        files, header = dict(known.commits[known.refs[branch]]), {}
        for line in body.splitlines():
            key, value = (json.loads(line)[name] for name in ("key", "value"))
            if key == "header":
                header = value
            elif key == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif key == "lfsFile" and value["oid"] in self.server.store:
                files[value["path"]] = self.server.store[value["oid"]]
            else:
                return self._refuse(400, message=f"{key} {value['path']}: there is no such object")
        commit = known.commit(files, branch, main=False)
        self.server.messages.append(header["summary"])
        self._json({"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/{repo}/commit/{commit}"})


def _problems(front: dict) -> list[str]:
    """What the Hub would object to in a card's front matter."""
    problems = []
    if not isinstance(front, dict):
        return ["the front matter must be a mapping"]
    license = front.get("license")
    if license is not None and license not in LICENSES:
        problems.append(f'"license" must be one of {sorted(LICENSES)}; got {license!r}')
    if license == "other" and not re.fullmatch(r"[a-z0-9-.+]+", front.get("license_name", "")):
        problems.append('"license_name" must be lower case without spaces')
    if front.get("pipeline_tag") != "audio-classification":
        problems.append(f'"pipeline_tag" is unknown: {front.get("pipeline_tag")!r}')
    if not all(isinstance(tag, str) for tag in front.get("tags", [])):
        problems.append('"tags" must be strings')
    for model in front.get("model-index", []):
        for result in model["results"]:
            if not {"type"} <= set(result["task"]) or not {"type", "name"} <= set(result["dataset"]):
                problems.append('"model-index" results need a task and a dataset with type and name')
            if not all({"type", "value"} <= set(metric) for metric in result["metrics"]):
                problems.append('"model-index" metrics need type and value')
    return problems


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
