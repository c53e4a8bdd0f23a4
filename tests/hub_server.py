"""A loopback stand-in for the Hugging Face Hub and for a plain file server, with faults on demand.

It answers what the real `huggingface_hub` client asks when it reads models: `/api/models/...`, and HEAD and GET of
`/{repo}/resolve/{revision}/{file}` with commit, ETag and error headers as the Hub sends them. Large files (here:
`*.safetensors`) are redirected to another origin, as the Hub does with its CDN. `/files/{name}` are plain files.
`hub_upload_server.py` has the half that writes.
"""

import dataclasses
import hashlib
import http.server
import json
import re
import threading
import time
import types
import urllib.parse
from http import HTTPStatus
from pathlib import Path

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+?)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?")


@dataclasses.dataclass
class Fault:
    """What goes wrong with a request.

    Attributes:
        status: answer this status and nothing else.
        body: send other bytes than the right ones.
        cut: close the connection after this many bytes of the file.
        stall: after this many bytes of the file, wait until the server is released.
        pause: seconds to wait between two halves of the file.
        declare: send the length of the content with it (as a chunked answer does not).
        times: how many requests it hits, `None` for all.
    """

    status: int | None = None
    body: bytes | None = None
    cut: int | None = None
    stall: int | None = None
    pause: float = 0.0
    declare: bool = True
    times: int | None = None


@dataclasses.dataclass
class Repo:
    """A model repository: commits by id, branches and tags by name; with a token, nobody else may see it."""

    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    refs: dict[str, str] = dataclasses.field(default_factory=dict)
    token: str | None = None
    gated: bool = False

    def commit(self, files: dict[str, bytes] | Path, *names: str, main: bool = True) -> str:
        """Add a commit that `main` (unless told otherwise), and the names given, point at; returns its id."""
        if isinstance(files, Path):
            files = {path.name: path.read_bytes() for path in files.iterdir()}
        content = repr((len(self.commits), sorted(files.items())))
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.refs.update(dict.fromkeys((*(["main"] if main else []), *names), commit))
        return commit


def point_client_at(server: "HubServer", home: Path, monkeypatch) -> None:
    """Have the Hub's client, which read its environment when it was imported, ask this server and nobody else."""
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "AGENT_HARNESSES_PATH": str(home / ".agent_harnesses.json"),
        "HF_HUB_DISABLE_TELEMETRY": True,
    }.items():
        monkeypatch.setattr(constants, name, value, raising=False)  # some are new
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    # It waits up to 23 seconds between its attempts.
    hurried = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", hurried)
    monkeypatch.setattr("huggingface_hub.file_download.time", hurried)


class HubServer(http.server.ThreadingHTTPServer):
    """The server; a context manager that runs it in threads.

    Attributes:
        repos: name -> `Repo`.
        files: name -> bytes of a plain file.
        faults: part of a path -> `Fault`; the first one that matches applies.
        requests: `"METHOD path"` of every request, in order.
        stalled: how many requests have stalled.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: "type[Handler] | None" = None) -> None:
        self.repos: dict[str, Repo] = {}
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.requests: list[str] = []
        self.stalled = 0
        self._released = threading.Event()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), handler or Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def cdn(self) -> str:
        """The same server under another name: another origin to a client."""
        return f"http://localhost:{self.server_port}/cdn"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """Clients that go away in the middle are part of the tests."""

    def release(self) -> None:
        """Let stalled requests go on."""
        self._released.set()

    def wait_for_release(self) -> None:
        with self._lock:
            self.stalled += 1
        self._released.wait(60)

    def take_fault(self, path: str) -> Fault:
        """The fault that hits this request, counted down."""
        with self._lock:
            for part, fault in self.faults.items():
                if part in path and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault()


class Handler(http.server.BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        path = urllib.parse.urlsplit(self.path).path
        self.fault = self.server.take_fault(path)
        if self.fault.status is not None:
            self._refuse(self.fault.status)
        elif path.startswith("/files/"):
            self._plain(self.server.files.get(path.removeprefix("/files/")))
        elif path.startswith("/cdn/"):
            self._cdn(*path.removeprefix("/cdn/").split("/"))
        elif match := _API.fullmatch(path):
            self._api(**match.groupdict())
        elif match := _RESOLVE.fullmatch(path):
            self._resolve(**match.groupdict())
        else:
            self._refuse(404)

    # --- The Hub ---

    def _find(self, repo: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a revision; answers itself if there is none, as the Hub does."""
        known = self.server.repos.get(repo)
        sent = self.headers.get("Authorization")
        if sent == "Bearer expired":
            return self._refuse(401, message="Invalid credentials in Authorization header")
        allowed = known is not None and (known.token is None or sent == f"Bearer {known.token}")
        if known is not None and known.gated and not allowed:
            return self._refuse(401 if sent is None else 403, "GatedRepo", f"Access to model {repo} is restricted.")
        if not allowed:
            # To strangers the Hub does not say whether a repository is private or missing.
            return self._refuse(401 if sent is None else 404, "RepoNotFound", "Repository not found")
        revision = urllib.parse.unquote(revision or "main")
        commit = known.refs.get(revision, revision)
        if commit not in known.commits:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, known.commits[commit]

    def _api(self, repo: str, what: str | None, revision: str | None) -> None:
        found = self._find(repo, revision)
        if found is None:
            return
        commit, files = found
        if what == "tree":
            answer = [{"type": "file", "path": n, "size": len(c), "oid": git_id(c)} for n, c in files.items()]
        else:
            answer = {
                "id": repo,
                "modelId": repo,
                "sha": commit,
                "private": self.server.repos[repo].token is not None,
                "siblings": [{"rfilename": name} for name in files],
            }
        self._send(json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo: str, revision: str, file: str) -> None:
        found = self._find(repo, revision)
        if found is None:
            return
        commit, files = found
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if file not in files:
            self._refuse(404, "EntryNotFound", "Entry not found", headers)
        elif file.endswith(".safetensors"):
            digest = hashlib.sha256(files[file]).hexdigest()
            self.send_response(302)
            for name, value in {
                **headers,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(files[file])),
                "Location": f"{self.server.cdn}/{digest}/{file}",
                "Content-Length": "0",
            }.items():
                self.send_header(name, value)
            self.end_headers()
        else:
            self._send(files[file], {**headers, "ETag": f'"{git_id(files[file])}"'})

    def _cdn(self, digest: str, file: str) -> None:
        assert "Authorization" not in self.headers, "the token left the Hub"
        contents = (files.get(file) for repo in self.server.repos.values() for files in repo.commits.values())
        self._plain(next((c for c in contents if c is not None and hashlib.sha256(c).hexdigest() == digest), None))

    # --- Any file ---

    def _plain(self, content: bytes | None) -> None:
        if content is None:
            self._refuse(404)
        else:
            self._send(content, {"Accept-Ranges": "bytes"})

    def _refuse(self, status: int, code: str = "", message: str = "", headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"error": message or HTTPStatus(status).phrase}).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "X-Error-Code": code, "X-Error-Message": message}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        """Send a file, or the end of it that was asked for, with the fault of this request."""
        fault = self.fault
        content = content if fault.body is None else fault.body
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked and start >= len(content):
            return self._refuse(416)
        self.send_response(206 if asked else 200)
        if asked:
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if fault.declare or self.command == "HEAD":
            headers = {**headers, "Content-Length": str(len(content) - start)}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        end = len(content) if fault.cut is None else fault.cut
        stop = (start + end) // 2 if fault.stall is None else fault.stall
        self.wfile.write(content[start:stop])
        self.wfile.flush()
        if fault.stall is not None:
            self.server.wait_for_release()
        time.sleep(fault.pause)
        self.wfile.write(content[stop:end])
        return None


def git_id(content: bytes) -> str:
    """Git's name for a file: the ETag of files that the Hub keeps in git itself."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
