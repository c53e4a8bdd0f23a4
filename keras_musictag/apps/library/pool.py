"""Decoding in processes, one file each at a time: a decoder that crashes or hangs costs its process and one file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import numpy as np

from ...models.spec import ModelSpec
from ...tagging.base import windows_per_batch
from .decoding import HEADER, Ended, Job, Message, message_from
from .library_rows import LibraryError

_STREAM = "keras_musictag.audio.reading:stream"  # what decodes, as module:function
_TICK = 0.1  # seconds between two looks at the clock
_START_SECONDS = 120.0  # for a process to import this package, on a machine that does much else
_AHEAD = 16  # messages per worker that wait for the network: with few, processes stand still while it is busy
_AHEAD_BYTES = 2**26  # of windows per worker at most, unless a single one is larger


class DecodeWorkers:
    """Processes that decode files, and threads that look after them.

    Used as a context manager; leaving it ends all processes.

    Args:
        spec: front end and window policy.
        count: number of processes.
        timeout: seconds that decoding a file may take. Time spent waiting for the network does not count.
        busy: while it says so, no file is begun.
    """

    def __init__(self, spec: ModelSpec, count: int, timeout: float, busy: Callable[[], bool] = lambda: False) -> None:
        """Nothing is started yet."""
        self._busy = busy
        self._workers = [_Worker(spec, timeout) for _ in range(count)]
        self._events: queue.Queue[tuple[Job, Message] | BaseException | None] = queue.Queue(_ahead(spec) * count)
        self._stopped = threading.Event()
        self._jobs_lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Nothing to do before there are jobs."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes, whatever they are doing."""
        self._stopped.set()
        for worker in self._workers:
            worker.kill()
        for thread in self._threads:  # what they wait for has ended
            thread.join()
        for worker in self._workers:
            worker.stop()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
        """Decode files.

        Args:
            jobs: files; the next one is taken when a process is free.

        Yields:
            A job and a message of `decode` about it, in order for one job and mixed for several. `Ended` comes for
            every job, also for one whose process crashed or had to be killed. After a second `Opened`, what came before
            does not count. Little is decoded before it is asked for.

        Raises:
            LibraryError: the processes cannot be started.
        """
        shared = iter(jobs)
        self._threads = [threading.Thread(target=self._serve, args=(worker, shared)) for worker in self._workers]
        self._threads.append(threading.Thread(target=self._watch))
        for thread in self._threads:
            thread.daemon = True
            thread.start()
        working = len(self._workers)
        while working:
            try:
                event = self._events.get(timeout=1)  # without a timeout, Windows would not notice Ctrl-C
            except queue.Empty:
                continue
            if event is None:
                working -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                yield event

    # --- Threads ---

    def _serve(self, worker: _Worker, jobs: Iterator[Job]) -> None:
        try:
            while not self._stopped.is_set():
                while self._busy() and not self._stopped.wait(1):
                    pass
                with self._jobs_lock:
                    job = next(jobs, None)
                if job is None:
                    break
                for message in worker.messages(job):
                    if not self._put((job, message)):
                        return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, event: tuple[Job, Message] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._events.put(event, timeout=1)
                return True
        return False

    def _watch(self) -> None:
        while not self._stopped.wait(_TICK):
            for worker in self._workers:
                worker.kill_if_late()


def _ahead(spec: ModelSpec) -> int:
    """Messages per worker that may wait for the network."""
    return max(1, min(_AHEAD, _AHEAD_BYTES // (4 * windows_per_batch(spec) * spec.window_samples)))


class _Worker:
    """One process, started when it is first needed and again after it has died."""

    def __init__(self, spec: ModelSpec, timeout: float) -> None:
        # The worker needs no weights, and a path of theirs need not be one that a spec on disk may have.
        settings = {"spec": {**spec.to_dict(), "weights": None}, "stream": _STREAM}
        self._settings = json.dumps(settings).encode() + b"\n"
        self._samples = spec.window_samples
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # around what the watching thread looks at
        self._deadline: float | None = None
        self._late = self._ended = False

    def messages(self, job: Job) -> Iterator[Message]:
        """What `decode` says of a job, or an `Ended` of this process' making.

        A process that dies may have been spoilt by an earlier file. Then the job begins anew in another one, which says
        `Opened` again.
        """
        used = self._process is not None
        for message in self._attempt(job):
            if used and isinstance(message, Ended) and message.kind == "crash":
                yield from self._attempt(job)
                return
            yield message

    def kill(self) -> None:
        """End the process, and start no other."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def stop(self) -> int:
        """Kill the process and close its pipes; returns its exit code, negative for a signal."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()  # it may have closed its pipes and live on
        code = process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return code

    def kill_if_late(self) -> None:
        """Called by the watching thread now and then."""
        with self._lock:
            if self._deadline is not None and time.monotonic() > self._deadline and self._process is not None:
                self._late, self._deadline = True, None
                self._process.kill()

    # --- Internals ---

    def _attempt(self, job: Job) -> Iterator[Message]:
        if self._process is None:
            self._start()
        left = self._timeout
        try:
            self._write(json.dumps(dataclasses.asdict(job)).encode() + b"\n")
            while True:
                begun = time.monotonic()
                message = self._read(left)
                left -= time.monotonic() - begun
                yield message
                if isinstance(message, Ended):
                    return
        except (EOFError, OSError):
            yield self._obituary(job)

    def _start(self) -> None:
        # The same modules as here, and none from the current folder, which may hold anything.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-P", "-m", "keras_musictag.apps.library.worker"]
        self._late = False
        pipe = subprocess.PIPE
        try:
            with self._lock:
                if self._ended:
                    raise EOFError
                # Unbuffered: what is left in a buffer could not be written when the process has died.
                self._process = subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0
                )
            self._write(self._settings)
            self._frame(_START_SECONDS)
        except (EOFError, OSError) as error:
            said = str(error) or "it ended or did not answer"
            if self._process is not None and self._process.stderr is not None:
                self._process.kill()
                said = (self._process.stderr.read().decode("utf-8", "replace").strip().splitlines() or [said])[-1]
            self.stop()
            raise LibraryError(
                f"No process for decoding could be started with {sys.executable!r}: {said}. Check that this Python can "
                "import keras_musictag."
            ) from error

    def _obituary(self, job: Job) -> Ended:
        """What to say of a job whose process has died, or that took too long."""
        code = self.stop()
        if self._late:
            error = f"{job.path!r} was given up: decoding took more than {self._timeout:g} s. Allow more (timeout)."
            return Ended("failed", error=error, kind="timeout")
        how = f"exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-code).name
        error = f"{job.path!r} made its decoder crash ({how}). Convert it, or get another copy."
        return Ended("failed", error=error, kind="crash")

    def _write(self, data: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) :]

    def _read(self, seconds: float) -> Message:
        letter, body = self._frame(seconds)
        if letter == b"W":
            return np.frombuffer(body, "<f4").reshape(-1, self._samples)
        return message_from(json.loads(body))

    def _frame(self, seconds: float) -> tuple[bytes, bytearray]:
        with self._lock:
            self._deadline = time.monotonic() + max(0.0, seconds)
        try:
            letter, length = HEADER.unpack(self._exactly(HEADER.size))
            body = self._exactly(length)
        finally:
            with self._lock:
                self._deadline = None
        if self._late:  # killed as it answered: this job was late, and not the next one
            raise EOFError
        return letter, body

    def _exactly(self, length: int) -> bytearray:
        assert self._process is not None and self._process.stdout is not None
        body = bytearray(length)
        view: Any = memoryview(body)
        while view:
            count = self._process.stdout.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            view = view[count:]
        return body
