"""Folder of a run of `fine_tune` or `run_recipe`, locked while a call uses it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CacheError, MusicTagError
from ..models.spec import SPEC_FILE, WEIGHTS_FILE
from ..utils.files import write_atomically
from ..utils.locks import locked

RUN, PROBLEMS = "run", "problems.txt"
_WORDS = {"base": "another base", "data": "other data", "single_label": "another kind of labels"}
_MAX_NAMED = 10  # differences in a message


@contextlib.contextmanager
def run_folder(
    folder: Path | None,
    about: Mapping[str, Any],
    *,
    file: str,
    cache: Path | None = None,
    error: type[MusicTagError] = MusicTagError,
) -> Iterator[Path]:
    """Make the folder of a run and lock it for the duration of a block; the same run continues there.

    Args:
        folder: folder of the result; the run is in `run/` there.
        about: everything that determines the result; must be serialisable as JSON.
        file: name of the file in the folder of the run that holds `about`.
        cache: without `folder`, the run is in `fine-tuning/` here, in a folder named after `about`. Equal runs at the
            same time get one each.
        error: class of the errors about other runs.

    Yields:
        Path of the folder of the run.

    Raises:
        CacheError: the folder cannot be written, or `folder` holds a tagger that was not made by a run in it.
        error: `folder` holds a run with another `about`, or another call uses it.
    """
    path: Path
    with contextlib.ExitStack() as stack:
        if folder is not None:
            path = folder / RUN
            if not (path / file).is_file():
                _require_no_tagger(folder)
            if not _enter(stack, path):
                raise error(f"Another call is training in {folder}. Wait until it has ended, or choose another folder.")
            _require_same_run(folder, path / file, about, error)
        else:
            assert cache is not None
            digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
            for number in itertools.count(1):
                path = cache / "fine-tuning" / (digest if number == 1 else f"{digest}-{number}")
                if _enter(stack, path):
                    break
        write_atomically(path / file, (json.dumps(about, indent=2) + "\n").encode())
        yield path


def write_problems(folder: Path, problems: Sequence[str]) -> None:
    """Write `problems.txt`, one problem per line, unless there are none."""
    if problems:
        write_atomically(folder / PROBLEMS, ("\n".join(problems) + "\n").encode("utf-8", "replace"))


def _require_no_tagger(folder: Path) -> None:
    """Raise if a folder holds a tagger."""
    existing = _tagger_files(folder)
    if existing:
        raise CacheError(
            f"{folder} holds {', '.join(existing)}, which was not made by a run in this folder and would be replaced. "
            "Choose another folder."
        )


def _tagger_files(folder: Path) -> list[str]:
    return [name for name in (SPEC_FILE, WEIGHTS_FILE, "README.md") if (folder / name).exists()]


def _enter(stack: contextlib.ExitStack, path: Path) -> bool:
    """Make a folder and lock it until the stack ends; `False` if another call has it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        return stack.enter_context(locked(path / ".lock"))
    except OSError as error:
        raise CacheError(f"{path} cannot be made: {error}. Choose another folder.") from error


def _require_same_run(folder: Path, path: Path, about: Mapping[str, Any], error: type[MusicTagError]) -> None:
    """Raise if a folder holds another run."""
    if not path.is_file():
        return
    found = _differences(json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(about)))
    if found:
        to_delete = folder if _tagger_files(folder) else path.parent  # a tagger without its run would be refused
        raise error(
            f"{folder} holds a run with {', '.join(found[:_MAX_NAMED])}. Choose another folder, or delete {to_delete} "
            "to start over."
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return `key OLD instead of NEW` for every value that differs."""
    found = []
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if not prefix and key in _WORDS:
            found.append(_WORDS[key])
        elif isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{key}.")
        else:
            name = f"{prefix}{key}".removeprefix("settings.").removeprefix("recipe.")
            found.append(f"{name} {before!r} instead of {after!r}")
    return found
