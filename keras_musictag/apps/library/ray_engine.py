"""Run all stages on a Ray cluster: `tag_on_ray`.

The calling process lists the files, chooses those to tag and writes the rows, as `local_engine.Run` does. Actors, each
with the model and decoding processes, get shards of the listing and stream back the results.

The actors are those of Ray Core, not of Ray Data. Ray Data returns rows only when a whole block is done, retries a
block whose actor died without end, even if a file in it causes the crash, and keeps nothing from one run to the next.
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
from .parquet_parts import Parts
from .pool import DecodeWorkers
from .summary import LibrarySummary
from .work import Done, work

if TYPE_CHECKING:
    from ...models.spec import ModelSpec

_log = logging.getLogger(__name__)

WORKERS = 2  # decoding processes per actor

_SHARD_SIZES = (16, 1_000)  # minimum and maximum number of files in a shard
_SHARDS_PER_ACTOR = 4  # at least, so that all actors are busy until near the end
_MAX_DEATHS = 3  # of actors, after which a file that was the only one left counts as the cause
_MAX_STARTS = 3  # of actors in a row


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
    """Tag all files of a library on a Ray cluster; otherwise like `tag_library`.

    Uses the cluster that this process is connected to, else the one that Ray finds (`RAY_ADDRESS`, or running on this
    machine), else one that is started here for this run. All machines need this package, the model, and the files under
    the same paths, or URLs that they can read. The files of an actor that dies are tagged by others.

    Args:
        sources: as for `tag_library`, or URLs of folders and files that fsspec reads (`s3://`, `gs://`).
        out: folder, or its URL, for the rows: Parquet files with the columns of `tag_library`.
        model: argument for `load`.
        top, threshold, unsure, kinds, embeddings: what to keep, as for `tag_library`.
        actors: maximum number of actors; by default, as many as the cluster has room for now.
        workers: number of decoding processes, and of CPUs of the cluster, per actor.
        gpus: number of GPUs of the cluster per actor; may be a fraction.
        timeout, resume, update: as for `tag_library`.
        progress: show progress bars on standard error.

    Returns:
        `LibrarySummary`.

    Raises:
        LibraryError: as `tag_library`; the cluster has no room for an actor; actors cannot be started, or have
            another model of this name.
        WeightsError, SpecError, UnknownModelError: as `load`.
        MissingExtraError: Ray, fsspec or pyarrow is not installed.
        ValueError: a number is out of range; a kind is unknown, or the model's tags have no kinds.
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
    # An absolute path, since actors run in other folders.
    name = os.fspath(model)
    name = os.path.abspath(name) if os.path.isdir(name) and name not in list_models() else name
    with contextlib.nullcontext() if storage.is_url(out) else OutputLock(Path(out)):
        parts = Parts(out, revision, fresh=not resume)
        if not update:
            check_revision(out, found, parts, revision)
        choose = tag_chooser(tagger.spec, top, threshold, unsure, kinds)
        run = Run(parts, tagger.spec.vocabulary, revision, choose, update)
        states = {listed.path: listed.state for listed in found.files}
        settings = _Settings(name, revision, workers, timeout)

        def on_ray(jobs: list[Job]) -> Iterator[list[Done]]:
            with _connected(ray):
                for results in _Cluster(ray, settings, actors, gpus).run(jobs):
                    yield [_with_original_mtime(done, states[done.job.path]) for done in results]

        try:
            run.go(found, on_ray, progress)
        except BaseException:
            with contextlib.suppress(LibraryError):  # the first error is the more useful one
                parts.finish()
            raise
        parts.finish(drop=run.obsolete(found))
        return run.summary(out, found, time.monotonic() - begun)


def _with_original_mtime(done: Done, state: tuple[int, float] | None) -> Done:
    """Replace the modification time of a copy by that of the original."""
    if state is None or done.opened is None:
        return done
    return dataclasses.replace(done, opened=dataclasses.replace(done.opened, mtime=state[1]))


@contextlib.contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Connect to a cluster and disconnect afterwards, unless the process is already connected."""
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
class _Settings:
    """Settings of all actors."""

    model: str
    revision: Revision
    workers: int
    timeout: float


class LibraryActor:
    """A process of the cluster with the model loaded."""

    _spec: ModelSpec

    def start(self, settings: _Settings) -> None:
        """Load the model.

        Raises:
            LibraryError: it differs from the model where the run was started.
        """
        from ...loading import load

        tagger, revision = load(settings.model), settings.revision
        if (tagger.weights_sha256, spec_digest(tagger.spec)) != (revision.weights_sha256, revision.spec_digest):
            raise LibraryError(
                f"{settings.model!r} on {platform.node()} differs from the model where the run was started "
                f"(weights {tagger.weights_sha256[:12]}, not {revision.weights_sha256[:12]}). Install the same version "
                "of this package, or the same folder, on all machines."
            )
        self._settings, self._spec, self._size = settings, tagger.spec, batch_size(tagger)
        self._predict = network(tagger, revision.embeddings)

    def tag(self, jobs: list[Job]) -> Iterator[list[Done]]:
        """Yield the results of files as soon as they are known."""
        batcher: Batcher[Job] = Batcher(self._predict, self._size)
        workers = DecodeWorkers(self._spec, min(self._settings.workers, len(jobs)), self._settings.timeout)
        with storage.Copies(jobs) as copies:
            for results in work(copies.jobs(), workers, batcher):
                yield copies.returned(results)
            yield copies.returned(())


# === In the calling process ===


@dataclasses.dataclass
class _Shard:
    """Files that an actor tags in one call.

    Attributes:
        left: files without a result yet.
        deaths: number of actors that died while these files, perhaps among others, were left.
    """

    left: dict[Job, None]
    deaths: int = 0


@dataclasses.dataclass(eq=False)
class _Call:
    """A running call of an actor: its start, or a shard; `reference` is Ray's handle to wait for."""

    actor: Any
    reference: Any
    shard: _Shard | None = None


class _Cluster:
    """Starts actors and distributes shards among them.

    Args:
        ray: the module, connected.
        settings: settings of the actors.
        actors, gpus: as in `tag_on_ray`.

    Raises:
        LibraryError: the cluster has no room for an actor.
    """

    def __init__(self, ray: Any, settings: _Settings, actors: int | None, gpus: float) -> None:
        """Start nothing yet."""
        self._ray, self._settings = ray, settings
        self._options = {"num_cpus": settings.workers, "num_gpus": gpus}
        resources = ray.cluster_resources()
        room = int(resources.get("CPU", 0) // settings.workers)
        if gpus:
            room = min(room, int(resources.get("GPU", 0) / gpus))
        if not (actors or room):
            raise LibraryError(
                f"The cluster has no room for an actor, which takes {settings.workers} CPUs (workers) and {gpus:g} "
                f"GPUs (gpus): it has {resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}. If machines "
                "will join, give the number of actors (actors)."
            )
        self._max_actors = actors or room
        self._calls: list[_Call] = []
        self._idle: list[Any] = []
        self._waiting: collections.deque[_Shard] = collections.deque()
        self._failed_starts = 0

    def run(self, jobs: list[Job]) -> Iterator[list[Done]]:
        """Tag files; each has one result, also if actors die.

        Raises:
            LibraryError: actors cannot be started.
        """
        size = min(max(_SHARD_SIZES[0], math.ceil(len(jobs) / self._max_actors / _SHARDS_PER_ACTOR)), _SHARD_SIZES[1])
        self._waiting.extend(_Shard(dict.fromkeys(jobs[at : at + size])) for at in range(0, len(jobs), size))
        try:
            while self._waiting or any(call.shard for call in self._calls):
                self._assign()
                (reference,), _ = self._ray.wait([call.reference for call in self._calls], num_returns=1)
                call = next(call for call in self._calls if call.reference is reference)
                if done := self._next_results(call):
                    yield done
        finally:
            for actor in [*self._idle, *(call.actor for call in self._calls)]:
                self._ray.kill(actor)

    def _assign(self) -> None:
        """Give shards to idle actors, and start actors for the shards that are left."""
        while self._idle and self._waiting:
            actor, shard = self._idle.pop(), self._waiting.popleft()
            self._calls.append(_Call(actor, actor.tag.options(num_returns="streaming").remote(list(shard.left)), shard))
        starting = sum(call.shard is None for call in self._calls)
        for _ in range(min(len(self._waiting) - starting, self._max_actors - len(self._calls))):
            actor = self._ray.remote(LibraryActor).options(**self._options).remote()
            self._calls.append(_Call(actor, actor.start.remote(self._settings)))

    def _next_results(self, call: _Call) -> list[Done]:
        """Return the next results of a call; if its actor has died, requeue the files."""
        try:
            if call.shard is None:
                self._ray.get(call.reference)
                self._failed_starts = 0
            else:
                done: list[Done] = self._ray.get(next(call.reference))
                for result in done:
                    del call.shard.left[result.job]
                return done
        except StopIteration:
            pass
        except self._ray.exceptions.RayTaskError as error:  # raised by our code in the actor
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            self._calls.remove(call)
            self._ray.kill(call.actor)  # it may be unreachable instead of dead, and must not come back
            reason = " ".join(str(error).split())
            _log.warning("An actor died: %s", reason)
            return self._requeue(call.shard, reason)
        self._calls.remove(call)
        self._idle.append(call.actor)
        return []

    def _requeue(self, shard: _Shard | None, reason: str) -> list[Done]:
        """Requeue the files of a dead actor, in halves, so that a file that crashes its decoder is isolated."""
        if shard is None:
            self._failed_starts += 1
            if self._failed_starts == _MAX_STARTS:
                raise LibraryError(
                    f"{_MAX_STARTS} actors died before they loaded {self._settings.model!r}. Error of the last one: "
                    f"{reason}"
                )
            return []
        left, deaths = list(shard.left), shard.deaths + 1
        if len(left) == 1 and deaths >= _MAX_DEATHS:
            reason = f"{left[0].path!r} was being tagged when {deaths} actors died. Convert it, or get another copy."
            return [Done(left[0], Ended("failed", error=reason, kind="crash"))]
        middle = (len(left) + 1) // 2
        for half in (left[middle:], left[:middle]):
            if half:
                self._waiting.appendleft(_Shard(dict.fromkeys(half), deaths))
        return []
