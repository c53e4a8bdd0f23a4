"""From a network and its spec to the folder that `load` reads: see `Tagger.save`."""

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
from .spec import SPEC_FILE, WEIGHTS_FILE, ModelSpec

if TYPE_CHECKING:
    import keras

_CARD = "README.md"

EXPORT_FILE = "export.json"
# Format of an export -> its files, in the order that runtimes take them.
MODEL_FILES: dict[str, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "litert": ("model.tflite",),
    "openvino": ("model.xml", "model.bin"),
    "saved_model": ("saved_model",),  # a folder
}
EXPORT_FILES = frozenset({EXPORT_FILE, *(name for files in MODEL_FILES.values() for name in files)})


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
    with new_folder(folder, EXPORT_FILES) as new:  # an export that stayed would be what is loaded
        _write(core, spec, new, folder.name)
    return folder


@contextlib.contextmanager
def new_folder(folder: Path, replaced: Container[str] = ()) -> Iterator[Path]:
    """A folder to fill, which takes its place when the block ends without an exception, and vanishes otherwise.

    Args:
        folder: the place. Files that are there stay, unless they have a new version.
        replaced: names of files that do not stay.

    Raises:
        CacheError: it cannot be written.
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
    """Like `save`, into a folder that has other files: each of the three is replaced, the spec last.

    Raises:
        CacheError: one of them cannot be written.
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
    """The three files in an empty folder; `name` is what the card calls the folder."""
    source = weights.save_weights(core, folder / WEIGHTS_FILE)
    spec = dataclasses.replace(spec, weights=source, root=None)
    write_atomically(folder / SPEC_FILE, spec.to_json().encode())
    write_atomically(folder / _CARD, cards.model_card(spec, name).encode())
