"""Second and third stage together: decode files and run the network; on this machine or in an actor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from .batching import Batcher
from .decoding import Ended, Job, Opened
from .pool import DecodeWorkers


@dataclasses.dataclass(frozen=True)
class Done:
    """Result for a file.

    Attributes:
        job: the file.
        ended: outcome of decoding.
        opened: identity of the content; `None` if it could not be read.
        outputs: mean output of the network over windows, float32 `(outputs,)`; `None` if it was not decoded.
    """

    job: Job
    ended: Ended
    opened: Opened | None = None
    outputs: np.ndarray | None = None


def work(jobs: Iterable[Job], workers: DecodeWorkers, batcher: Batcher[Job]) -> Iterator[list[Done]]:
    """Decode files and run the network on them.

    Args:
        jobs: files; the next one is read when a process is free.
        workers: decoding processes, not started yet.
        batcher: runs the network.

    Yields:
        Results as soon as they are known; one for every file in the end.

    Raises:
        LibraryError: the processes cannot be started.
    """
    opened: dict[Job, Opened] = {}
    ended: dict[Job, Ended] = {}

    def predicted(flush: bool = False) -> list[Done]:
        means = batcher.finished(flush=flush)
        return [Done(job, ended.pop(job), opened.pop(job), mean) for job, mean in means]

    with workers as pool:
        for job, message in pool.run(jobs):
            done = []
            if isinstance(message, Opened):
                batcher.drop(job)  # a second one means that the job starts over
                opened[job] = message
            elif isinstance(message, np.ndarray):
                batcher.add(job, message)
            elif message.outcome == "decoded":
                ended[job] = message
                batcher.end(job)
            else:
                batcher.drop(job)
                done.append(Done(job, message, opened.pop(job, None)))
            if done := done + predicted():
                yield done
    if done := predicted(flush=True):
        yield done
