"""Run a function on many items in threads; decoders, digests and networks release the GIL."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Iterator[Result]:
    """Like `map`, in threads: yields results in order.

    Args:
        function: called in threads.
        items: arguments; read when there is room for another one.
        workers: number of threads.
        ahead: maximum number of items that run or wait while a result is used; by default, as many as threads.
    """
    ahead = workers if ahead is None else ahead
    pending: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # also if the caller stops early
            for future in pending:
                future.cancel()


def parallel(function: Callable[[Key], Result], keys: Iterable[Key], workers: int, what: str) -> dict[Key, Result]:
    """Compute `function` once per distinct key and return the results by key.

    Args:
        function: called in threads.
        keys: arguments.
        workers: number of threads.
        what: name of the items in the progress bar, which is shown on a terminal after 2 s.
    """
    from tqdm.auto import tqdm

    keys = list(dict.fromkeys(keys))
    with ThreadPoolExecutor(workers) as pool:
        results = tqdm(pool.map(function, keys), total=len(keys), desc=f"checking {what}", delay=2, disable=None)
        return dict(zip(keys, results, strict=True))
