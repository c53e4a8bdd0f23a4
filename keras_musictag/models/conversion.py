"""Published weight files, converted once to safetensors: from then on they are read as strictly as our own.

A converted file lies in the cache, `converted/<key>/<sha256>.safetensors`. The key stands for the published file's
sha256, the importer with its version, and the network. The name is the file's own checksum, so a damaged one is noticed
and made again, and processes that convert at the same time write the same file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..utils.files import cache_folder, cached_path, sha256_of, write_atomically
from .fetching import find_weights
from .h5_files import read_h5
from .importers import import_arrays, importer_of
from .pytorch_files import read_pytorch
from .spec import ModelSpec
from .weights import compare_shapes, shapes_of

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

_LAYOUT = 1  # part of the key: raise it when files are converted in another way
_READERS = {"h5": read_h5, "pytorch": read_pytorch}
_NETWORK = ("architecture", "config", "audio", "mel", "window", "tags")  # what an importer may look at


def find_converted(spec: ModelSpec) -> Path | None:
    """The converted weights of a spec, `None` where there are none yet or they need no conversion.

    Raises:
        WeightsMismatchError: their importer is not registered.
    """
    if spec.weights is None or spec.weights.format not in _READERS:
        return None
    with contextlib.suppress(OSError):  # not there or not readable: converting it again will say why
        for path in sorted(_folder(spec).glob("*.safetensors")):
            if sha256_of(path) == path.stem:
                return path
            _log.warning("%s in the cache is damaged and will be made again.", path)
            path.unlink()
    return None


def is_here(spec: ModelSpec) -> bool:
    """Whether a model's weights load without a download: embedded, converted, in a cache or in a mirror folder."""
    try:
        return (find_converted(spec) or find_weights(spec)) is not None
    except WeightsError:  # a mirror that is no folder, an importer that is missing: loading will say so
        return False


def to_safetensors(spec: ModelSpec, path: Path, network: keras.Model) -> Path:
    """Convert a published weight file, unless it is converted already.

    Args:
        spec: whose weights they are.
        path: verified file, as published; or one that needs no conversion, which is returned.
        network: what they must fit, name by name and shape by shape; its variables need no values.

    Returns:
        Path of a safetensors file keyed by `variable.path`, in the cache; or, where that cannot be written, in a
        temporary folder that goes with this process.

    Raises:
        CorruptWeightsError: the file cannot be read, or holds NaN or infinity.
        WeightsMismatchError: it does not fit. Nothing is kept.
    """
    from safetensors.numpy import save

    if spec.weights is None or spec.weights.format not in _READERS or path.parent.name == _key(spec):
        return path
    arrays = import_arrays(_READERS[spec.weights.format](path), spec, str(path))
    compare_shapes({name: array.shape for name, array in arrays.items()}, shapes_of(network), path)
    content = save({name: arrays[name] for name in sorted(arrays)}, metadata={"format": "keras_musictag"})
    return _keep(content, _key(spec))


def _key(spec: ModelSpec) -> str:
    """Hexadecimal digits that stand for everything that the converted file depends on."""
    assert spec.weights is not None
    name, _, version = importer_of(spec)
    network = {field: value for field, value in dataclasses.asdict(spec).items() if field in _NETWORK}
    facts = {"layout": _LAYOUT, "sha256": spec.weights.sha256, "importer": [name, version], **network}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _folder(spec: ModelSpec) -> Path:
    return cached_path("converted", _key(spec))


def _keep(content: bytes, key: str) -> Path:
    """Write a converted file into the cache, or where only this process sees it."""
    name = f"{hashlib.sha256(content).hexdigest()}.safetensors"
    try:
        return _write(content, cache_folder() / "converted" / key / name)
    except OSError as error:  # CacheError is one, too
        _log.warning("Converted weights are not kept, so the next process converts them again. %s", error)
        return _write(content, Path(_temporary_folder().name, key, name))


def _write(content: bytes, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="keras_musictag-")
