"""Decoding process: `python -m keras_musictag.apps.library.worker`, started by `pool`.

It reads JSON lines from standard input: settings, then jobs. It writes frames to standard output: a letter, a length in
8 bytes, and the body; `J` is a message in JSON, `W` are consecutive float32 windows. The process ends when standard
input ends, even in the middle of a file, so that it never outlives its parent.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import sys
import threading
from typing import BinaryIO

import numpy as np

from ...models.spec import ModelSpec
from .decoding import HEADER, Job, Stream, decode, message_fields

_ADDRESS_SPACE = 2**32  # bytes; a file that makes its decoder ask for more gets an error row


def main() -> None:
    """Decode until standard input ends."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # output of C libraries must not mix with the frames
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _limit_memory()
    settings = json.loads(sys.stdin.buffer.readline())
    spec = ModelSpec.from_dict(settings["spec"])
    module, _, name = settings["stream"].partition(":")
    stream: Stream = getattr(importlib.import_module(module), name)
    _send(replies, b"J", b"{}")
    os.dup2(nowhere, 2)  # nobody reads it from now on
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(jobs,), daemon=True).start()
    try:
        while True:
            for message in decode(jobs.get(), spec, stream):
                if isinstance(message, np.ndarray):
                    _send(replies, b"W", np.ascontiguousarray(message, "<f4").data.cast("B"))
                else:
                    _send(replies, b"J", json.dumps(message_fields(message)).encode())
    except BrokenPipeError:
        os._exit(0)


def _receive(jobs: queue.SimpleQueue[Job]) -> None:
    for line in sys.stdin.buffer:
        jobs.put(Job(**json.loads(line)))
    os._exit(0)  # whatever the decoder is doing


def _send(replies: BinaryIO, letter: bytes, body: bytes | memoryview) -> None:
    _write(replies, HEADER.pack(letter, len(body)))
    _write(replies, body)


def _write(replies: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[replies.write(view) :]


def _limit_memory() -> None:
    """Limit memory, and prevent core files of gigabytes, if the system supports it."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    for limit, value in ((resource.RLIMIT_AS, _ADDRESS_SPACE), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(limit)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
