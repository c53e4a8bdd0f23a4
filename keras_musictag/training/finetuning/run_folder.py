"""The folder in which a fine-tuning keeps what it needs to go on after a kill: of one run, and used by one process."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import CacheError
from ...models.spec import SPEC_FILE
from ...utils.files import write_atomically
from ...utils.locks import locked
from .labelled_data import FineTuneError

RUN, RUN_FILE = "run", "fine-tuning.json"
_LOCK = ".lock"


@contextlib.contextmanager
def run_folder(folder: Path | None, cache: Path, about: dict[str, Any]) -> Iterator[Path]:
    """A folder for a run, which no other process or thread uses in the block.

    Args:
        folder: of the result; the run is in `run/` there.
        cache: without `folder`, the run is in `fine-tuning/` here, by a name that stands for `about`; the same runs at
            the same time get a folder each.
        about: what decides what comes out.

    Yields:
        Path of the folder, with `about` in it.

    Raises:
        CacheError: it cannot be written, or `folder` holds something else.
        FineTuneError: `folder` holds a run with other data or settings, or another process works on it.
    """
    path: Path
    with contextlib.ExitStack() as stack:
        if folder is not None:
            path = folder / RUN
            if not (path / RUN_FILE).is_file() and (folder / SPEC_FILE).exists():
                raise CacheError(f"{folder} holds a tagger that was not made here. Choose another folder.")
            if not _enter(stack, path):
                raise FineTuneError(
                    f"Another call is fine-tuning into {folder}. Wait until it has ended, or choose another folder."
                )
            _compare(folder, path / RUN_FILE, about)
        else:
            digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
            for number in itertools.count(1):
                path = cache / "fine-tuning" / (digest if number == 1 else f"{digest}-{number}")
                if _enter(stack, path):
                    break
        write_atomically(path / RUN_FILE, (json.dumps(about, indent=2) + "\n").encode())
        yield path


def _enter(stack: contextlib.ExitStack, path: Path) -> bool:
    """Make a folder and lock it until the stack ends; `False` if another has it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        return stack.enter_context(locked(path / _LOCK))
    except OSError as error:
        raise CacheError(f"{path} cannot be made: {error}. Choose another folder.") from error


def _compare(folder: Path, path: Path, about: dict[str, Any]) -> None:
    """Raise if a folder holds a run that is not this one."""
    if not path.is_file():
        return
    other = _differences(json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(about)))
    if other:
        whole = folder if (folder / SPEC_FILE).exists() else path.parent  # without its run, a tagger is not replaced
        raise FineTuneError(
            f"{folder} holds a run with {', '.join(other)}. Choose another folder, or delete {whole} to start over."
        )


def _differences(began: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """What a run that was begun is of, where it is not of this."""
    named = {"base": "another base", "data": "other data", "single_label": "another kind of labels"}
    settings = began.get("settings", {})
    return [words for name, words in named.items() if began.get(name) != about[name]] + [
        f"{name} {settings.get(name)!r} instead of {value!r}"
        for name, value in about["settings"].items()
        if settings.get(name) != value
    ]
