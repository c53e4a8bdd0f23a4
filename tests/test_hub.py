"""Taggers on the Hugging Face Hub: the real client against a loopback server that speaks the Hub's protocol."""

import dataclasses
import errno
import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from hub_server import Fault, HubServer, Repo, point_client_at
from weight_files import CONTENT, OTHER, files_in, rot, spec_of

import keras_musictag as kmt
from keras_musictag.errors import CacheError, CorruptWeightsError, DownloadError, OfflineError, SpecError
from keras_musictag.models import fetching as download
from keras_musictag.models import hub_files

REPO = "someone/my-tagger"


def tagger_files(content=CONTENT, **fields):
    """What a tagger's folder holds; the client does not care whether the weights are any."""
    spec = dataclasses.replace(spec_of("weights.safetensors", content), **fields)
    return {"spec.json": spec.to_json().encode(), "weights.safetensors": content, "README.md": b"# A tagger\n"}


def fetch(uri=f"hf://{REPO}"):
    """Address -> bytes of the weights, as `load` gets them."""
    return download.fetch_weights(hub_files.fetch_hub_spec(uri)).read_bytes()


@pytest.fixture
def server():
    with HubServer() as server:
        server.repos[REPO] = Repo()
        yield server


@pytest.fixture
def hub_home(tmp_path):
    return tmp_path / "hf"


@pytest.fixture(autouse=True)
def client(server, hub_home, monkeypatch):
    point_client_at(server, hub_home, monkeypatch)
    yield
    huggingface_hub.close_session()


@pytest.fixture
def commit(server):
    return server.repos[REPO].commit(tagger_files(), "v1.0")


# === The server itself ===


def test_the_server_passes_for_the_hub(server, commit):
    """What is tested here is the stand-in: the client must take it for the real thing."""
    api = huggingface_hub.HfApi()
    assert api.model_info(REPO).sha == commit
    assert api.model_info(REPO, revision="v1.0").sha == commit
    assert sorted(api.list_repo_files(REPO)) == ["README.md", "spec.json", "weights.safetensors"]
    weights = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(REPO, "weights.safetensors"))
    assert (weights.commit_hash, weights.size) == (commit, len(CONTENT))
    assert weights.etag == hashlib.sha256(CONTENT).hexdigest()
    assert weights.location.startswith(server.cdn)
    with pytest.raises(huggingface_hub.errors.RevisionNotFoundError):
        api.model_info(REPO, revision="v9")


# === Loading ===


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tagger as `Tagger.save` writes it."""
    tagger = kmt.Tagger(kmt.model_info("tiny"), pretrained=False)
    return tagger, tagger.save(tmp_path_factory.mktemp("saved") / "tagger")


def test_a_saved_tagger_comes_back_from_the_hub(server, saved, sine):
    tagger, folder = saved
    commit = server.repos[REPO].commit(folder)
    loaded = kmt.load(f"hf://{REPO}@{commit}")
    assert loaded.tags == tagger.tags
    for ours, theirs in zip(tagger.core.weights, loaded.core.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert loaded.tag(sine, sr=16_000) == tagger.tag(sine, sr=16_000)
    assert loaded.spec.weights.uri == f"hf://{REPO}@{commit}"


def test_a_zoo_entry_may_point_at_the_hub(server, commit):
    spec = spec_of(f"hf://{REPO}@v1.0")
    assert download.fetch_weights(spec).read_bytes() == CONTENT


def test_random_weights_need_no_download(server, commit):
    kmt.load(f"hf://{REPO}@{commit}", weights=None)
    assert not any("weights.safetensors" in request for request in server.requests)


def test_by_environment_alone(server, commit, hub_home):
    """As a user has it: nothing patched, HF_ENDPOINT as for a company's own Hub. Then the same again, and offline."""
    code = (
        "import sys; from keras_musictag.models.fetching import *; from keras_musictag.models.hub_files import *;"
        "print(fetch_weights(fetch_hub_spec(sys.argv[1])))"
    )
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(hub_home)}
    for first, extra in ((True, {}), (False, {}), (False, {"KERAS_MUSICTAG_OFFLINE": "1"})):
        server.requests.clear()
        # The client's downloader would ask for the list of agents anew, even though it has all the files.
        (hub_home / ".agent_harnesses.json").unlink(missing_ok=True)
        command = [sys.executable, "-c", code, f"hf://{REPO}@{commit}"]
        result = subprocess.run(command, check=True, capture_output=True, text=True, env={**environment, **extra})
        path = Path(result.stdout.strip())
        assert path.read_bytes() == CONTENT
        assert path.is_relative_to(hub_home)
        assert result.stderr == ""
        assert bool(server.requests) is first


# === Revisions ===


def test_a_pinned_commit_stays_what_it_was(server, commit):
    server.repos[REPO].commit(tagger_files(OTHER))
    assert fetch(f"hf://{REPO}@{commit}") == CONTENT
    assert fetch(f"hf://{REPO}@v1.0") == CONTENT
    assert fetch(f"hf://{REPO}@main") == OTHER
    assert fetch(f"hf://{REPO}") == OTHER


def test_the_weights_come_from_the_commit_of_the_spec(server, commit):
    """Somebody pushes while we load."""
    spec = hub_files.fetch_hub_spec(f"hf://{REPO}")
    server.repos[REPO].commit(tagger_files(OTHER))
    assert download.fetch_weights(spec).read_bytes() == CONTENT


@pytest.mark.parametrize("revision", ["", "@main"])
def test_an_unpinned_address_warns_and_names_the_commit(commit, caplog, revision):
    fetch(f"hf://{REPO}{revision}")
    (warning,) = (record for record in caplog.records if record.name.startswith("keras_musictag"))
    assert warning.levelno == logging.WARNING
    assert f"hf://{REPO}{revision} is not pinned and may change. Load hf://{REPO}@{commit}" in warning.message


@pytest.mark.parametrize("revision", ["v1.0", None])
def test_a_pinned_address_does_not_warn(commit, caplog, revision):
    fetch(f"hf://{REPO}@{revision or commit}")
    assert caplog.text == ""


def test_a_pinned_commit_is_asked_for_once(server, commit):
    fetch(f"hf://{REPO}@{commit}")
    assert {request.split("/")[-1] for request in server.requests} == {"spec.json", "weights.safetensors"}
    server.requests.clear()
    assert fetch(f"hf://{REPO}@{commit}") == CONTENT
    assert server.requests == []


# === What the Hub may answer ===


@pytest.mark.parametrize(
    ("uri", "token", "message"),
    [
        ("hf://someone/nothing", None, "the repository does not exist or is private. .*run `hf auth login`"),
        ("hf://someone/nothing", "mine", "the repository does not exist or is private"),
        (f"hf://{REPO}@v2", None, "my-tagger@v2 could not be downloaded: .* no such branch, tag or commit"),
        ("hf://someone/empty", None, "there is no such file; the repository has no tagger"),
        ("hf://someone/private", None, "does not exist or is private"),
        ("hf://someone/private", "another", "does not exist or is private"),
        ("hf://someone/private", "expired", "access was refused .*Check your token: run `hf auth login`"),
        ("hf://someone/gated", None, "is gated. Accept its conditions on the Hub"),
        ("hf://someone/gated", "another", "is gated. Accept its conditions on the Hub"),
    ],
)  # fmt: skip
def test_the_hub_refuses(server, commit, monkeypatch, uri, token, message):
    server.repos["someone/empty"] = Repo()
    server.repos["someone/empty"].commit({"README.md": b""})
    for name, gated in (("someone/private", False), ("someone/gated", True)):
        server.repos[name] = Repo(token="mine", gated=gated)
        server.repos[name].commit(tagger_files())
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(DownloadError, match=message):
        fetch(uri)


@pytest.mark.parametrize("gated", [False, True])
def test_the_token_of_the_user_opens_a_private_or_gated_repository(server, monkeypatch, gated):
    server.repos["someone/private"] = Repo(token="mine", gated=gated)
    server.repos["someone/private"].commit(tagger_files())
    monkeypatch.setenv("HF_TOKEN", "mine")
    assert fetch("hf://someone/private") == CONTENT


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(status=500), r"the Hub answered 500\.\nCheck the connection"),
        (Fault(status=503), r"the Hub answered 503\.\n"),
        (Fault(status=403), r"the Hub answered 403\.\n|access was refused"),
        (Fault(cut=1000), r"the download failed \(.*Try again"),
        (Fault(cut=1000, declare=False), r"the download failed \(Consistency check failed.*Try again"),
    ],
)
@pytest.mark.parametrize("file", ["spec.json", "weights.safetensors"])
def test_a_bad_answer_is_an_error_and_leaves_nothing(server, commit, hub_home, fault, message, file):
    server.faults[file] = fault
    with pytest.raises(DownloadError, match=message):
        fetch(f"hf://{REPO}@{commit}")
    assert not any(file in name or "incomplete" in name for name in files_in(hub_home))
    server.faults.clear()
    assert fetch(f"hf://{REPO}@{commit}") == CONTENT


def test_a_broken_off_download_goes_on_where_it_broke_off(server, commit):
    server.faults["/cdn/"] = Fault(cut=100_000, times=1)
    assert fetch(f"hf://{REPO}@{commit}") == CONTENT
    assert sum("GET /cdn/" in request for request in server.requests) == 2


@pytest.mark.parametrize("cached", [False, True])
def test_nobody_listens(server, commit, cached):
    if cached:
        fetch()
    server.shutdown()
    server.server_close()
    if cached:
        assert fetch() == CONTENT
        return
    with pytest.raises(DownloadError, match=r"the Hub cannot be reached\.\nCheck the connection; ") as caught:
        fetch()
    assert len(str(caught.value).splitlines()) == 2


# === Wrong bytes ===


def test_other_bytes_than_the_spec_pins_are_refused_and_forgotten(server, commit, hub_home):
    server.faults["/cdn/"] = Fault(body=OTHER)
    with pytest.raises(CorruptWeightsError, match=r"its sha256 is .*It was removed from the cache\. Try again"):
        fetch(f"hf://{REPO}@{commit}")
    assert not any(path.read_bytes() == OTHER for path in hub_home.rglob("*") if path.is_file())
    server.faults.clear()
    assert fetch(f"hf://{REPO}@{commit}") == CONTENT


def test_a_spec_that_pins_other_bytes_than_were_pushed(server):
    files = {**tagger_files(), "weights.safetensors": OTHER}
    commit = server.repos[REPO].commit(files)
    with pytest.raises(CorruptWeightsError, match="is not the file the spec pins"):
        fetch(f"hf://{REPO}@{commit}")


def test_a_rotten_file_in_the_cache_is_fetched_again(server, commit, caplog):
    path = download.fetch_weights(hub_files.fetch_hub_spec(f"hf://{REPO}@{commit}"))
    rot(path.resolve())
    server.requests.clear()
    assert fetch(f"hf://{REPO}@{commit}") == CONTENT
    assert "is not the file the spec pins; fetching it again" in caplog.text
    assert sum("GET /cdn/" in request for request in server.requests) == 1


def test_a_rotten_file_and_nobody_listens(server, commit):
    path = download.fetch_weights(hub_files.fetch_hub_spec(f"hf://{REPO}@{commit}"))
    rot(path.resolve())
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="the Hub cannot be reached"):
        fetch(f"hf://{REPO}@{commit}")


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff\xfe", b'{"spec_version": 99}'])
def test_a_spec_that_is_none(server, content):
    server.repos[REPO].commit({"spec.json": content})
    with pytest.raises(SpecError, match=r"spec\.json"):
        fetch()


def test_a_spec_that_rotted_in_the_cache_is_fetched_by_the_next_attempt(commit):
    fetch(f"hf://{REPO}@{commit}")
    hub_files.hub_file(REPO, commit, "spec.json").write_bytes(b"{")
    with pytest.raises(SpecError, match=r"spec\.json cannot be read as JSON"):
        fetch(f"hf://{REPO}@{commit}")
    assert fetch(f"hf://{REPO}@{commit}") == CONTENT


def test_weights_of_another_name(server):
    files = tagger_files()
    spec = {**json.loads(files["spec.json"])}
    spec["weights"]["uri"] = "model.safetensors"
    server.repos[REPO].commit({**files, "spec.json": json.dumps(spec).encode()})
    with pytest.raises(SpecError, match=r"on the Hub, weights\.uri must be 'weights\.safetensors'; got 'model\.saf"):
        fetch()


@pytest.mark.parametrize("uri", ["hf://org", "hf://a/b/c", "hf://a/b@", "hf://a b/c", "hf://../..", "hf://a/b@../../x"])
def test_an_address_that_is_none(server, uri):
    with pytest.raises(SpecError, match=r"must be hf://org/repo|not valid on the Hub"):
        fetch(uri)
    assert server.requests == []


# === Offline ===


@pytest.mark.parametrize("variable", ["KERAS_MUSICTAG_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("revision", ["", "@v1.0", "@COMMIT"])
def test_offline_nothing_is_asked_and_what_is_cached_loads(server, commit, monkeypatch, variable, revision):
    uri = f"hf://{REPO}{revision}".replace("COMMIT", commit)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(OfflineError, match=r"spec\.json of hf://.* has no copy and offline mode is on\. Unset"):
        fetch(uri)
    assert server.requests == []

    monkeypatch.delenv(variable)
    fetch(uri)
    server.requests.clear()
    monkeypatch.setenv(variable, "1")
    assert fetch(uri) == CONTENT

    path = download.fetch_weights(hub_files.fetch_hub_spec(uri))
    rot(path.resolve())
    with pytest.raises(CorruptWeightsError, match="Turn offline mode off once"):
        fetch(uri)
    assert path.exists(), "what cannot be replaced is not thrown away"
    path.unlink()
    with pytest.raises(OfflineError, match=r"weights\.safetensors of hf://.* has no copy"):
        fetch(uri)
    assert server.requests == []


def test_a_mirror_serves_the_weights_of_a_hub_tagger(server, commit, tmp_path, monkeypatch):
    (tmp_path / "weights.safetensors").write_bytes(CONTENT)
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", str(tmp_path))
    spec = hub_files.fetch_hub_spec(f"hf://{REPO}@{commit}")
    assert download.fetch_weights(spec) == tmp_path / "weights.safetensors"
    # By address, all taggers on the Hub would have the same name: the mirror for them is HF_ENDPOINT.
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", f"{server.url}/mirror")
    assert download.fetch_weights(spec).read_bytes() == CONTENT
    assert not any("/mirror/" in request for request in server.requests)


# === Storage ===


def test_the_cache_lies_below_a_file(commit, hub_home, monkeypatch):
    hub_home.write_text("not a folder")
    with pytest.raises(
        CacheError, match=r"cannot be stored under .*hub: it cannot be written .*another folder with HF_HOME"
    ):
        fetch()


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.EROFS, "the file system is read-only"), (errno.ENOSPC, "the disk is full")]
)
def test_what_is_wrong_with_the_cache_is_said(commit, monkeypatch, hub_home, code, reason):
    original = Path.open

    def fail(self, *args, **kwargs):
        if ".incomplete" in self.name:
            raise OSError(code, os.strerror(code), str(self))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(CacheError, match=f"{reason} .*Nothing was kept"):
        fetch()


def test_a_rotten_file_in_a_cache_that_cannot_be_written(commit, monkeypatch):
    path = download.fetch_weights(hub_files.fetch_hub_spec(f"hf://{REPO}@{commit}"))
    rot(path.resolve())

    def refuse(self, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(CorruptWeightsError, match="is not the file the spec pins"):
        fetch(f"hf://{REPO}@{commit}")
