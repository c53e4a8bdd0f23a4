"""Second and third stage together: files in, what came of each out; on this machine or in one process of many."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from .batching import Batcher
from .decoding import Ended, Job, Opened
from .pool import DecodeWorkers


@dataclasses.dataclass(frozen=True)
class Done:
    """What came of a file.

    Attributes:
        job: the file.
        ended: how decoding ended.
        opened: what the content is; `None` if it could not be read.
        outputs: of the network, float32 `(outputs,)`, the mean over windows; `None` if it was not decoded.
    """

    job: Job
    ended: Ended
    opened: Opened | None = None
    outputs: np.ndarray | None = None


def work(jobs: Iterable[Job], workers: DecodeWorkers, batcher: Batcher[Job]) -> Iterator[list[Done]]:
    """Decode files and put them through a network.

    Args:
        jobs: files; the next one is taken when a process is free.
        workers: processes that decode, not started yet.
        batcher: holds the network.

    Yields:
        What came of some files as soon as it is known; in the end, every one has come once.

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
                batcher.drop(job)  # a second one means that the job begins anew
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
