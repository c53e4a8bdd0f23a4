"""Conversion of published weight files to safetensors, once per file.

A converted file is kept in the cache as `converted/<key>/<sha256>.safetensors`. The key is a digest of the published
file's sha256, the importer with its version, and the network. The name is the converted file's own sha256, so a damaged
file is detected and made again, and processes that convert at the same time write the same file.
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
from .weights import compare_shapes, flush_tiny, shapes_of

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

_LAYOUT = 2  # part of the key; increase it when the conversion changes
_READERS = {"h5": read_h5, "pytorch": read_pytorch}
_NETWORK = ("architecture", "config", "audio", "mel", "window", "tags")  # fields that an importer may use


def find_converted(spec: ModelSpec) -> Path | None:
    """Return the converted weights of a spec, or `None` if there are none yet or no conversion is needed.

    Raises:
        WeightsMismatchError: the importer is not registered.
    """
    if spec.weights is None or spec.weights.format not in _READERS:
        return None
    with contextlib.suppress(OSError):  # missing or unreadable; a new conversion reports the reason
        for path in sorted(_folder(spec).glob("*.safetensors")):
            if sha256_of(path) == path.stem:
                return path
            _log.warning("%s in the cache is damaged; converting the weights again.", path)
            path.unlink()
    return None


def is_here(spec: ModelSpec) -> bool:
    """Return whether a model's weights are on this machine: embedded, converted, in a cache or in a mirror folder."""
    try:
        return (find_converted(spec) or find_weights(spec)) is not None
    except WeightsError:  # e.g. the mirror is not a folder; loading the model reports it
        return False


def to_safetensors(spec: ModelSpec, path: Path, network: keras.Model) -> Path:
    """Convert a published weight file to safetensors, unless that is done or not needed.

    Args:
        spec: spec of the model.
        path: verified file; returned as it is if it needs no conversion.
        network: network whose variables the weights must fit by name and shape; they need no values.

    Returns:
        Path of a safetensors file keyed by `variable.path`, in the cache or, if that cannot be written, in a temporary
        folder that is removed when the process ends.

    Raises:
        CorruptWeightsError: the file cannot be read, or holds NaN or infinity.
        WeightsMismatchError: the weights do not fit the network.
    """
    from safetensors.numpy import save

    if spec.weights is None or spec.weights.format not in _READERS or path.parent.name == _key(spec):
        return path
    arrays = import_arrays(_READERS[spec.weights.format](path), spec, str(path))
    compare_shapes({name: array.shape for name, array in arrays.items()}, shapes_of(network), path)
    content = save({name: flush_tiny(arrays[name]) for name in sorted(arrays)}, metadata={"format": "keras_musictag"})
    return _keep(content, _key(spec))


def _key(spec: ModelSpec) -> str:
    """Return a digest of everything that the converted file depends on."""
    assert spec.weights is not None
    name, _, version = importer_of(spec)
    network = {field: value for field, value in dataclasses.asdict(spec).items() if field in _NETWORK}
    facts = {"layout": _LAYOUT, "sha256": spec.weights.sha256, "importer": [name, version], **network}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _folder(spec: ModelSpec) -> Path:
    return cached_path("converted", _key(spec))


def _keep(content: bytes, key: str) -> Path:
    """Write a converted file into the cache, or into a temporary folder if the cache cannot be written."""
    name = f"{hashlib.sha256(content).hexdigest()}.safetensors"
    try:
        return _write(content, cache_folder() / "converted" / key / name)
    except OSError as error:  # includes CacheError
        _log.warning("Converted weights cannot be cached, so every process converts them again. %s", error)
        return _write(content, Path(_temporary_folder().name, key, name))


def _write(content: bytes, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="keras_musictag-")
