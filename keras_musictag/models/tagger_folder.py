"""Saving of a network and its spec as a folder that `load` reads; see `Tagger.save`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CacheError, MusicTagError
from ..utils.files import write_atomically
from . import cards, weights
from .export_files import EXPORT_FILES
from .spec import SPEC_FILE, WEIGHTS_FILE, ModelSpec

if TYPE_CHECKING:
    import keras

_CARD = "README.md"


def save(core: keras.Model, spec: ModelSpec, folder: Path, *, overwrite: bool) -> Path:
    """Write a network's weights, its spec and a model card, atomically.

    Args:
        core: the network.
        spec: spec of the model; its `weights` are replaced by the written file.
        folder: target folder.
        overwrite: replace a saved tagger in the folder; its other files are kept.

    Returns:
        The folder.

    Raises:
        CacheError: the folder cannot be written, or exists and may not be overwritten.
    """
    is_tagger = (folder / SPEC_FILE).is_file()
    if folder.exists() and not (overwrite and is_tagger):
        advice = "Pass overwrite=True to replace it." if is_tagger else "Choose another folder."
        raise CacheError(f"{folder} already exists. {advice}")
    with new_folder(folder, EXPORT_FILES) as new:  # `load` would prefer an old export
        _write(core, spec, new, folder.name)
    return folder


@contextlib.contextmanager
def new_folder(folder: Path, replaced: Container[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` when the block ends, or is removed if it raises.

    Args:
        folder: target folder. Existing files are kept unless the new folder has a file of the same name.
        replaced: names of existing files that are removed.

    Raises:
        CacheError: the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            yield new
            if folder.exists():
                old = folder.rename(Path(scratch) / "old")
                for path in old.iterdir():
                    if path.name not in replaced and not (new / path.name).exists():
                        path.rename(new / path.name)
            new.rename(folder)
    except OSError as error:
        if isinstance(error, MusicTagError):
            raise
        raise CacheError(f"{folder} cannot be written: {error}.") from error


def save_into(core: keras.Model, spec: ModelSpec, folder: Path) -> None:
    """Write the same files as `save` into an existing folder, replacing one after the other, the spec last.

    Raises:
        CacheError: a file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new.") as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            _write(core, spec, new, folder.resolve().name)
            for name in (WEIGHTS_FILE, _CARD, SPEC_FILE):
                os.replace(new / name, folder / name)
    except OSError as error:
        if isinstance(error, CacheError):
            raise
        raise CacheError(f"{folder} cannot be written: {error}.") from error


def _write(core: keras.Model, spec: ModelSpec, folder: Path, name: str) -> None:
    """Write weights, spec and card into an empty folder; the card calls the folder `name`."""
    source = weights.save_weights(core, folder / WEIGHTS_FILE)
    spec = dataclasses.replace(spec, weights=source, root=None)
    write_atomically(folder / SPEC_FILE, spec.to_json().encode())
    write_atomically(folder / _CARD, cards.model_card(spec, name).encode())
