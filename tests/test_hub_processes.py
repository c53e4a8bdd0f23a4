"""Processes that fetch one tagger from the Hub at the same time: real ones, with the Hub's own client, on loopback."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from audio_files import posix
from hub_server import Fault, HubServer, Repo
from weight_files import CONTENT, spec_of, wait_until

REPO = "someone/my-tagger"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FETCH = (
    "import sys; from keras_musictag.models.fetching import *; from keras_musictag.models.hub_files import *;"
    "print(fetch_weights(fetch_hub_spec(sys.argv[1])))"
)


@pytest.fixture
def server():
    with HubServer() as server:
        yield server


@pytest.fixture
def home(tmp_path):
    return tmp_path / "hf"


@pytest.fixture
def start(server, home):
    """Starts a process that fetches the tagger; as a user has it, nothing in it is patched."""
    spec = spec_of("weights.safetensors").to_json().encode()
    server.repos[REPO] = Repo()
    commit = server.repos[REPO].commit({"spec.json": spec, "weights.safetensors": CONTENT})
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(home)}
    processes = []

    def start():
        command = [sys.executable, "-c", FETCH, f"hf://{REPO}@{commit}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, env=environment, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def asked(server):
    """How many processes have asked for the weights: each does so once, then waits for its turn."""
    return sum(request.startswith("HEAD ") and "weights.safetensors" in request for request in server.requests)


def blobs(home):
    """Names of the files that have the weights, or a part of them."""
    found = [path for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(path.name for path in found if path.name.startswith(DIGEST) and path.suffix != ".lock")


def test_processes_fetch_one_tagger_at_the_same_time(server, home, start):
    server.faults["/cdn/"] = Fault(stall=150_000)
    processes = [start(), start()]
    wait_until(lambda: asked(server) == 2 and server.stalled)  # one is in the middle, the other has begun
    server.release()
    results = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert [(errors, code) for _, errors, code in results] == [("", 0)] * 2
    (path,) = {Path(out.strip()) for out, _, _ in results}
    assert path.read_bytes() == CONTENT
    assert blobs(home) == [DIGEST]  # nothing unfinished


@posix
def test_a_killed_download_does_not_hold_up_another(server, home, start):
    server.faults["/cdn/"] = Fault(stall=150_000, times=1)
    killed = start()
    wait_until(lambda: server.stalled)
    other = start()
    wait_until(lambda: asked(server) == 2)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    out, errors = other.communicate(timeout=60)
    assert (errors, other.returncode) == ("", 0)
    assert Path(out.strip()).read_bytes() == CONTENT
    whole, *parts = blobs(home)
    assert whole == DIGEST
    # What the killed one had stays under a name of its own, which the Hub's client never reads again.
    assert len(parts) <= 1 and all(part.endswith(".incomplete") for part in parts)
    server.requests.clear()
    out, errors = start().communicate(timeout=60)
    assert Path(out.strip()).read_bytes() == CONTENT
    assert server.requests == []
