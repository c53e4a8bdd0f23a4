"""From a network and its spec to the folder that `load` reads: see `Tagger.save`."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from . import cards, weights
from .errors import CacheError
from .spec import SPEC_FILE, WEIGHTS_FILE, ModelSpec

if TYPE_CHECKING:
    import keras

_CARD = "README.md"


def save(core: keras.Model, spec: ModelSpec, folder: Path, *, overwrite: bool) -> Path:
    """Write the network's weights, its spec and a card, all of them or nothing.

    Args:
        core: the network.
        spec: what is true of it; its `weights` become the file that is written.
        folder: where to.
        overwrite: replace a tagger that is there; other files in its folder stay.

    Returns:
        The folder.

    Raises:
        CacheError: it cannot be written, or something else is there.
    """
    is_tagger = (folder / SPEC_FILE).is_file()
    if folder.exists() and not (overwrite and is_tagger):
        advice = "Pass overwrite=True to replace it." if is_tagger else "Choose another folder."
        raise CacheError(f"{folder} already exists. {advice}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            new = _write(core, spec, Path(scratch) / "new", folder.name)
            if folder.exists():
                old = folder.rename(Path(scratch) / "old")
                for path in old.iterdir():
                    if not (new / path.name).exists():
                        path.rename(new / path.name)
            new.rename(folder)
    except OSError as error:
        if isinstance(error, CacheError):
            raise
        raise CacheError(f"{folder} cannot be written: {error}.") from error
    return folder


def save_into(core: keras.Model, spec: ModelSpec, folder: Path) -> None:
    """Like `save`, into a folder that has other files: each of the three is replaced, the spec last.

    Raises:
        CacheError: one of them cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new.") as scratch:
            new = _write(core, spec, Path(scratch) / "new", folder.resolve().name)
            for name in (WEIGHTS_FILE, _CARD, SPEC_FILE):
                os.replace(new / name, folder / name)
    except OSError as error:
        if isinstance(error, CacheError):
            raise
        raise CacheError(f"{folder} cannot be written: {error}.") from error


def _write(core: keras.Model, spec: ModelSpec, folder: Path, name: str) -> Path:
    """The three files in a new folder; `name` is what the card calls the folder."""
    folder.mkdir()
    source = weights.save_weights(core, folder / WEIGHTS_FILE)
    spec = dataclasses.replace(spec, weights=source, root=None)
    weights.write_atomically(folder / SPEC_FILE, spec.to_json().encode())
    weights.write_atomically(folder / _CARD, cards.model_card(spec, name).encode())
    return folder
