"""Run a function on many files in threads; decoders and digests release the GIL."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


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
