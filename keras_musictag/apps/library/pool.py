"""Decode in processes, one file at a time each: a decoder that crashes or hangs loses one process and one file."""

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
from ...tagging.base_tagger import windows_per_batch
from .decoding import HEADER, Ended, Job, Message, message_from
from .library_rows import LibraryError

_STREAM = "keras_musictag.audio.reading:stream"  # function that decodes, as module:function
_TICK = 0.1  # seconds between two checks for late processes
_START_SECONDS = 120.0  # for a process to import this package on a busy machine
_QUEUED = 16  # messages per worker that may wait for the network; with few, workers idle while it is busy
# glibc gives freed memory back to the system at once by default, and gets it again, cleared, for the next block.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
_QUEUED_BYTES = 2**26  # maximum size of these messages per worker, unless one alone is larger


class DecodeWorkers:
    """Processes that decode files, and the threads that drive them.

    A context manager; its exit ends all processes.

    Args:
        spec: front end and window policy.
        count: number of processes.
        timeout: maximum seconds for decoding a file, not counting time spent waiting for the network.
        busy: while it returns true, no file is started.
    """

    def __init__(self, spec: ModelSpec, count: int, timeout: float, busy: Callable[[], bool] = lambda: False) -> None:
        """Start nothing yet."""
        self._busy = busy
        self._workers = [_Worker(spec, timeout) for _ in range(count)]
        self._events: queue.Queue[tuple[Job, Message] | BaseException | None] = queue.Queue(_queue_length(spec) * count)
        self._stopped = threading.Event()
        self._jobs_lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Do nothing; `run` starts the processes."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the processes."""
        self._stopped.set()
        for worker in self._workers:
            worker.kill()
        for thread in self._threads:  # which end with their processes
            thread.join()
        for worker in self._workers:
            worker.stop()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
        """Decode files.

        Args:
            jobs: files; the next one is read when a process is free.

        Yields:
            A job and a message of `decode` about it; messages of one job come in order, those of several jobs are
            mixed. Every job ends with `Ended`, also if its process crashed or was killed. A second `Opened` means that
            the job starts over; discard its earlier messages. Little is decoded in advance.

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
                event = self._events.get(timeout=1)  # without a timeout, Ctrl-C has no effect on Windows
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


def _queue_length(spec: ModelSpec) -> int:
    """Return the number of messages per worker that may wait for the network."""
    return max(1, min(_QUEUED, _QUEUED_BYTES // (4 * windows_per_batch(spec) * spec.window_samples)))


class _Worker:
    """One process, started when needed and restarted after it has died."""

    def __init__(self, spec: ModelSpec, timeout: float) -> None:
        # Without weights: the worker does not need them, and their path may be invalid in a spec on disk.
        settings = {"spec": {**spec.to_dict(), "weights": None}, "stream": _STREAM}
        self._settings = json.dumps(settings).encode() + b"\n"
        self._samples = spec.window_samples
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # for the fields that the watching thread reads
        self._deadline: float | None = None
        self._late = self._ended = False

    def messages(self, job: Job) -> Iterator[Message]:
        """Yield the messages of `decode` about a job, or an `Ended` if the process dies.

        An earlier file may have caused a crash. So the job starts over in a new process, with a second `Opened`.
        """
        used = self._process is not None
        for message in self._try(job):
            if used and isinstance(message, Ended) and message.kind == "crash":
                yield from self._try(job)
                return
            yield message

    def kill(self) -> None:
        """Kill the process, and start no other."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def stop(self) -> int:
        """Kill the process and close its pipes; return its exit code, negative for a signal."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()  # it may have closed its pipes and still run
        code = process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return code

    def kill_if_late(self) -> None:
        """Kill the process if its time is over; called by the watching thread."""
        with self._lock:
            if self._deadline is not None and time.monotonic() > self._deadline and self._process is not None:
                self._late, self._deadline = True, None
                self._process.kill()

    # --- Internals ---

    def _try(self, job: Job) -> Iterator[Message]:
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
            yield self._crash_result(job)

    def _start(self) -> None:
        # The same modules as in this process, but none from the current folder.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **_MALLOC,
        }
        command = [sys.executable, "-P", "-m", "keras_musictag.apps.library.worker"]
        self._late = False
        pipe = subprocess.PIPE
        try:
            with self._lock:
                if self._ended:
                    raise EOFError
                # Unbuffered: the rest of a buffer could not be written after the process has died.
                self._process = subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0
                )
            self._write(self._settings)
            self._frame(_START_SECONDS)
        except (EOFError, OSError) as error:
            reason = str(error) or "it ended or did not answer"
            if self._process is not None and self._process.stderr is not None:
                self._process.kill()
                reason = (self._process.stderr.read().decode("utf-8", "replace").strip().splitlines() or [reason])[-1]
            self.stop()
            raise LibraryError(
                f"No decoding process could be started with {sys.executable!r}: {reason}. Check that this Python can "
                "import keras_musictag."
            ) from error

    def _crash_result(self, job: Job) -> Ended:
        """Return the result of a job whose process has died or took too long."""
        code = self.stop()
        if self._late:
            error = f"{job.path!r} took more than {self._timeout:g} s to decode. Allow more time (timeout)."
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
            letter, length = HEADER.unpack(self._read_exactly(HEADER.size))
            body = self._read_exactly(length)
        finally:
            with self._lock:
                self._deadline = None
        if self._late:  # killed as it answered: this job was late, not the next one
            raise EOFError
        return letter, body

    def _read_exactly(self, length: int) -> bytearray:
        assert self._process is not None and self._process.stdout is not None
        body = bytearray(length)
        view: Any = memoryview(body)
        while view:
            count = self._process.stdout.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            view = view[count:]
        return body
