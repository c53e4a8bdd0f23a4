"""Looking at many files at once: decoders and digests release Python's lock."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


def parallel(function: Callable[[Key], Result], keys: Iterable[Key], workers: int, what: str) -> dict[Key, Result]:
    """The results by key, each computed once; with a progress bar if it takes a while and there is a terminal."""
    from tqdm.auto import tqdm

    keys = list(dict.fromkeys(keys))
    with ThreadPoolExecutor(workers) as pool:
        results = tqdm(pool.map(function, keys), total=len(keys), desc=f"checking {what}", delay=2, disable=None)
        return dict(zip(keys, results, strict=True))
