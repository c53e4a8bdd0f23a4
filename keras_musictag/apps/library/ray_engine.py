"""All stages on a Ray cluster: `tag_on_ray`.

The process that calls it lists the files, decides what is to do and writes the rows, as `run` does. Actors, each with
the model and processes that decode, get shards of the listing and stream back what came of each file.

These are actors of Ray's core, and not of Ray Data: that hands over rows only when a whole block is done, runs a block
whose actor died again as a whole and without end, though a file in it may be what kills, and keeps nothing from one run
to the next.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import importlib
import logging
import math
import os
import platform
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MissingExtraError
from ...models.registry import DEFAULT_MODEL, list_models
from ...tagging.choosing import Threshold
from . import storage
from .batching import Batcher, batch_size, network
from .decoding import Ended, Job
from .journal import OutputLock
from .library_rows import LibraryError, Revision, spec_digest
from .listing import Sources
from .local_engine import TIMEOUT, Run, check_numbers, check_revision, tag_chooser
from .parts import Parts
from .pool import DecodeWorkers
from .summary import LibrarySummary
from .work import Done, work

if TYPE_CHECKING:
    from ...models.spec import ModelSpec

_log = logging.getLogger(__name__)

WORKERS = 2  # processes that decode, per actor

_SHARD = (16, 1_000)  # files of a shard, least and most
_SHARDS = 4  # per actor at least, so that all have something to do until near the end
_DEATHS = 3  # of actors, after which the only file that was left to do is held to be the reason
_STARTS = 3  # actors that may die one after the other before they are ready


def tag_on_ray(
    sources: Sources,
    out: str | os.PathLike[str],
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    top: int | None = None,
    threshold: Threshold = 0.0,
    unsure: bool = False,
    kinds: Collection[str] | None = None,
    embeddings: bool = False,
    actors: int | None = None,
    workers: int = WORKERS,
    gpus: float = 0.0,
    timeout: float = TIMEOUT,
    resume: bool = True,
    update: bool = False,
    progress: bool = False,
) -> LibrarySummary:
    """Tag all files of a library on a Ray cluster; otherwise as `tag_library`.

    The cluster is the one this process is connected to, else the one that Ray finds (`RAY_ADDRESS`, or running on this
    machine), else one that is started here for this run. All machines need this package, the model, and the files under
    the same paths, or URLs that they can read. An actor that dies costs the files that it has in work: others do them.

    Args:
        sources: as for `tag_library`, or URLs of folders and files that fsspec reads (`s3://`, `gs://`).
        out: folder or its URL; it gets the rows in Parquet files of the same columns as `tag_library` writes.
        model: what `load` takes.
        top, threshold, unsure, kinds, embeddings: what is kept, as for `tag_library`.
        actors: how many at most; by default, as many as the cluster has room for now.
        workers: processes that decode, per actor; an actor takes so many processors of the cluster.
        gpus: of the cluster per actor, also a part of one.
        timeout, resume, update: as for `tag_library`.
        progress: show progress bars on standard error.

    Returns:
        `LibrarySummary`.

    Raises:
        LibraryError: as `tag_library`; the cluster has no room for an actor, actors cannot be started, or have another
            model under this name.
        WeightsError, SpecError, UnknownModelError: as `load`.
        MissingExtraError: Ray, fsspec or pyarrow is not installed.
        ValueError: a number that makes no sense; `kinds` has an unknown one, or those of the tags are not known.
    """
    from ...loading import load

    begun = time.monotonic()
    check_numbers({"top": top, "actors": actors, "workers": workers}, threshold, timeout)
    if not 0 <= gpus < math.inf:
        raise ValueError(f"gpus must be a number of at least 0; got {gpus!r}.")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "Running on a cluster") from error
    out = os.fspath(out)
    if out.endswith((".jsonl", ".csv")):
        raise LibraryError(f"On a cluster, the output is a folder of Parquet files; got {out!r}. Name a folder.")
    out = out if storage.is_url(out) else os.path.abspath(out)
    found = storage.find(sources, progress=progress)
    tagger = load(model)
    revision = Revision.of(tagger, top, threshold, embeddings, kinds, unsure)
    # Actors run in other folders.
    name = os.fspath(model)
    name = os.path.abspath(name) if os.path.isdir(name) and name not in list_models() else name
    with contextlib.nullcontext() if storage.is_url(out) else OutputLock(Path(out)):
        parts = Parts(out, revision, fresh=not resume)
        if not update:
            check_revision(out, found, parts, revision)
        choose = tag_chooser(tagger.spec, top, threshold, unsure, kinds)
        run = Run(parts, tagger.spec.vocabulary, revision, choose, update)
        states = {listed.path: listed.state for listed in found.files}
        setting = _Setting(name, revision, workers, timeout)

        def on_ray(jobs: list[Job]) -> Iterator[list[Done]]:
            with _connected(ray):
                for some in _Cluster(ray, setting, actors, gpus).run(jobs):
                    yield [_dated(done, states[done.job.path]) for done in some]

        try:
            run.go(found, on_ray, progress)
        except BaseException:
            with contextlib.suppress(LibraryError):  # the first error says more than the second
                parts.finish()
            raise
        parts.finish(drop=run.gone(found))
        return run.summary(out, found, time.monotonic() - begun)


def _dated(done: Done, state: tuple[int, float] | None) -> Done:
    """With the modification time of the original, where a copy was opened."""
    if state is None or done.opened is None:
        return done
    return dataclasses.replace(done, opened=dataclasses.replace(done.opened, mtime=state[1]))


@contextlib.contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Connect to a cluster, and leave it afterwards, unless the process is connected already."""
    if ray.is_initialized():
        yield
        return
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


# === In the actors ===


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What all actors are told."""

    model: str
    revision: Revision
    workers: int
    timeout: float


class LibraryActor:
    """A process that holds the model."""

    _spec: ModelSpec

    def start(self, setting: _Setting) -> None:
        """Load the model.

        Raises:
            LibraryError: it is another one than where the run was started.
        """
        from ...loading import load

        tagger, revision = load(setting.model), setting.revision
        if (tagger.weights_sha256, spec_digest(tagger.spec)) != (revision.weights_sha256, revision.spec_digest):
            raise LibraryError(
                f"{setting.model!r} on {platform.node()} is another model than where the run was started "
                f"(weights {tagger.weights_sha256[:12]}, not {revision.weights_sha256[:12]}). Install the same version "
                "of this package, or the same folder, on all machines."
            )
        self._setting, self._spec, self._size = setting, tagger.spec, batch_size(tagger)
        self._predict = network(tagger, revision.embeddings)

    def tag(self, jobs: list[Job]) -> Iterator[list[Done]]:
        """What came of each file, as soon as it is known."""
        batcher: Batcher[Job] = Batcher(self._predict, self._size)
        workers = DecodeWorkers(self._spec, min(self._setting.workers, len(jobs)), self._setting.timeout)
        with storage.Copies(jobs) as copies:
            for some in work(copies.jobs(), workers, batcher):
                yield copies.returned(some)
            yield copies.returned(())


# === Where the run was started ===


@dataclasses.dataclass
class _Shard:
    """Files that an actor gets together.

    Attributes:
        left: those of which nothing has been heard.
        deaths: actors that have died with these files, perhaps among others, left.
    """

    left: dict[Job, None]
    deaths: int = 0


@dataclasses.dataclass(eq=False)
class _Call:
    """What an actor is doing: its start, or a shard; `reference` is what to wait for."""

    actor: Any
    reference: Any
    shard: _Shard | None = None


class _Cluster:
    """Actors, and what they have to do.

    Args:
        ray: the module, connected.
        setting: for the actors.
        actors, gpus: as in `tag_on_ray`.

    Raises:
        LibraryError: there is no room for a single actor.
    """

    def __init__(self, ray: Any, setting: _Setting, actors: int | None, gpus: float) -> None:
        """Nothing is started yet."""
        self._ray, self._setting = ray, setting
        self._options = {"num_cpus": setting.workers, "num_gpus": gpus}
        has = ray.cluster_resources()
        room = int(has.get("CPU", 0) // setting.workers)
        if gpus:
            room = min(room, int(has.get("GPU", 0) / gpus))
        if not (actors or room):
            raise LibraryError(
                f"The cluster has no room for an actor, which takes {setting.workers} processors (workers) and "
                f"{gpus:g} GPUs (gpus): it has {has.get('CPU', 0):g} and {has.get('GPU', 0):g}. If machines will join, "
                "say how many actors there are to be (actors)."
            )
        self._most = actors or room
        self._calls: list[_Call] = []
        self._idle: list[Any] = []
        self._waiting: collections.deque[_Shard] = collections.deque()
        self._failed_starts = 0

    def run(self, jobs: list[Job]) -> Iterator[list[Done]]:
        """Tag files; whatever happens to actors, every one comes once.

        Raises:
            LibraryError: actors cannot be started.
        """
        size = min(max(_SHARD[0], math.ceil(len(jobs) / self._most / _SHARDS)), _SHARD[1])
        self._waiting.extend(_Shard(dict.fromkeys(jobs[at : at + size])) for at in range(0, len(jobs), size))
        try:
            while self._waiting or any(call.shard for call in self._calls):
                self._occupy()
                (reference,), _ = self._ray.wait([call.reference for call in self._calls], num_returns=1)
                call = next(call for call in self._calls if call.reference is reference)
                if done := self._hear(call):
                    yield done
        finally:
            for actor in [*self._idle, *(call.actor for call in self._calls)]:
                self._ray.kill(actor)

    def _occupy(self) -> None:
        """Give every actor something to do, and start some if there is too much."""
        while self._idle and self._waiting:
            actor, shard = self._idle.pop(), self._waiting.popleft()
            self._calls.append(_Call(actor, actor.tag.options(num_returns="streaming").remote(list(shard.left)), shard))
        starting = sum(call.shard is None for call in self._calls)
        for _ in range(min(len(self._waiting) - starting, self._most - len(self._calls))):
            actor = self._ray.remote(LibraryActor).options(**self._options).remote()
            self._calls.append(_Call(actor, actor.start.remote(self._setting)))

    def _hear(self, call: _Call) -> list[Done]:
        """What an actor says next, or what follows from its death."""
        try:
            if call.shard is None:
                self._ray.get(call.reference)
                self._failed_starts = 0
            else:
                done: list[Done] = self._ray.get(next(call.reference))
                for one in done:
                    del call.shard.left[one.job]
                return done
        except StopIteration:
            pass
        except self._ray.exceptions.RayTaskError as error:  # what it raised itself
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            self._calls.remove(call)
            self._ray.kill(call.actor)  # if it is not dead, but only cannot be reached, it must not come back
            said = " ".join(str(error).split())
            _log.warning("An actor died: %s", said)
            return self._requeue(call.shard, said)
        self._calls.remove(call)
        self._idle.append(call.actor)
        return []

    def _requeue(self, shard: _Shard | None, reason: str) -> list[Done]:
        """Requeue the files of a dead actor, in halves, so that a file that crashes its decoder is isolated."""
        if shard is None:
            self._failed_starts += 1
            if self._failed_starts == _STARTS:
                raise LibraryError(
                    f"{_STARTS} actors died before they had loaded {self._setting.model!r}. Of the last one Ray says: "
                    f"{reason}"
                )
            return []
        left, deaths = list(shard.left), shard.deaths + 1
        if len(left) == 1 and deaths >= _DEATHS:
            said = f"{left[0].path!r} was in work when {deaths} actors died. Convert it, or get another copy."
            return [Done(left[0], Ended("failed", error=said, kind="crash"))]
        middle = (len(left) + 1) // 2
        for half in (left[middle:], left[:middle]):
            if half:
                self._waiting.appendleft(_Shard(dict.fromkeys(half), deaths))
        return []
