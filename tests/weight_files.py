"""What the tests of weight sources share: a file, specs that name it, and a look at what is left on the disk."""

import dataclasses
import hashlib
import os
import random
import time

import requests
from hub_server import HubServer

import keras_musictag as kmt

CONTENT = random.Random(0).randbytes(300_000)  # several chunks
OTHER = random.Random(1).randbytes(300_000)
NAME = "model.h5"
URL = f"https://weights.example/files/{NAME}"


def spec_of(uri=URL, content=CONTENT, **fields):
    """A spec whose weights are at `uri` and are pinned to `content`."""
    source = kmt.WeightsSource(uri=uri, sha256=hashlib.sha256(content).hexdigest(), **{"size": len(content), **fields})
    return dataclasses.replace(kmt.model_info("tiny"), weights=source)


def files_in(folder):
    """Everything but folders below a folder, as relative paths."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def wait_until(condition, seconds=60):
    """Until it is true what other processes or threads have to bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def rot(path):
    """Flip a bit, and hide it: same size, same time."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def answer_https(server: HubServer, monkeypatch) -> None:
    """Make the loopback server https://weights.example, for this process."""
    send = requests.adapters.HTTPAdapter.send

    def send_to_loopback(self, request, **kwargs):
        request.url = request.url.replace("https://weights.example", server.url)
        return send(self, request, **kwargs)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send_to_loopback)
