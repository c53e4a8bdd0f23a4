"""Weight files to model variables and back: strict, by name and shape.

A file must hold exactly the variables of the model, each under its `variable.path` and in its shape. Anything missing,
left over or of another shape is an error that lists it; nothing is matched by order, nothing is skipped.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import CacheError, CorruptWeightsError, WeightsMismatchError
from .spec import WeightsSource

if TYPE_CHECKING:
    import keras

_FLOATS = ("F16", "F32", "F64")


# === Public ===


def load_weights(model: keras.Model, path: Path, *, file_format: str = "safetensors", architecture: str = "") -> None:
    """Assign a weight file to a model.

    Args:
        model: built model.
        path: file.
        file_format: `"safetensors"` or the published `"musicnn_h5"`.
        architecture: which published layer names to expect, `"musicnn"` or `"vgg"`; for `"musicnn_h5"` only.

    Raises:
        CorruptWeightsError: the file cannot be read as that format.
        WeightsMismatchError: names, shapes or types differ from the model's.
    """
    shapes = {variable.path: tuple(variable.shape) for variable in model.weights}
    if file_format == "musicnn_h5":
        values = _read_musicnn_h5(path, shapes, architecture)
    else:
        values = _read_safetensors(path, shapes)
    for variable in model.weights:
        variable.assign(values[variable.path])


def save_weights(model: keras.Model, path: Path) -> WeightsSource:
    """Write a model's variables as float32 safetensors, to a temporary name first.

    Returns:
        `WeightsSource` for the written file.

    Raises:
        CacheError: the file cannot be written.
    """
    from keras import ops
    from safetensors.numpy import save

    from .download import sha256_of

    arrays = {v.path: np.ascontiguousarray(ops.convert_to_numpy(v), "float32") for v in model.weights}
    write_atomically(path, save(arrays, metadata={"format": "keras_musictag"}))
    return WeightsSource(uri=path.name, sha256=sha256_of(path), size=path.stat().st_size)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either there in full or not at all.

    Raises:
        CacheError: the folder cannot be written or the disk is full.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise CacheError(f"{path} cannot be written: {error}. Nothing was changed.") from error


# === safetensors ===


def _read_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            # Only the header has been read so far: nothing is allocated for a file that does not fit.
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            _compare({name: tuple(s.get_shape()) for name, s in slices.items()}, shapes, path)
            odd = sorted(name for name, s in slices.items() if s.get_dtype() not in _FLOATS)
            if odd:
                raise WeightsMismatchError(f"{path}: {', '.join(odd)} must be float16 or float32; got {slices[odd[0]].get_dtype()}.")
            return {name: file.get_tensor(name).astype("float32", copy=False) for name in shapes}
    except SafetensorError as error:
        raise CorruptWeightsError(f"{path} is not a safetensors file: {error}") from error


def _compare(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    wrong = [
        f"{name}: {found[name]} in the file, {expected[name]} in the model"
        for name in sorted(set(found) & set(expected))
        if found[name] != expected[name]
    ]
    problems = []
    if missing:
        problems.append(f"missing from the file: {_some(missing)}")
    if extra:
        problems.append(f"unknown to the model: {_some(extra)}")
    if wrong:
        problems.append(f"of another shape: {_some(wrong)}")
    if problems:
        raise WeightsMismatchError(f"{path} does not fit the model; {'; '.join(problems)}. Is it another model's file?")


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# === Published musicnn and VGG files ===

# Keras 2 layer name -> layer here. The files are whole models saved by musicnn_keras; only arrays are read from them.
_MUSICNN_LAYERS = {
    "batch_normalization": "bn_input",
    "conv2d": "timbral74",
    "conv2d_1": "timbral77",
    "conv2d_2": "temporal128",
    "conv2d_3": "temporal64",
    "conv2d_4": "temporal32",
    "batch_normalization_1": "bn_timbral74",
    "batch_normalization_2": "bn_timbral77",
    "batch_normalization_3": "bn_temporal128",
    "batch_normalization_4": "bn_temporal64",
    "batch_normalization_5": "bn_temporal32",
    "midend_conv1": "midend1",
    "bn_midend_conv1": "bn_midend1",
    "midend_conv2": "midend2",
    "bn_midend_conv2": "bn_midend2",
    "midend_conv3": "midend3",
    "bn_midend_conv3": "bn_midend3",
    "bn_flatpool": "bn_pooled",
    "dense": "dense",
    "bn_dense": "bn_dense",
    "dense_1": "head",
}
_VGG_LAYERS = {
    "bn_input": "bn_input",
    **{f"{i}CNN": f"conv{i}" for i in range(1, 6)},
    **{f"bn_conv{i}": f"bn{i}" for i in range(1, 6)},
    "output": "head",
}
_PUBLISHED = {"musicnn": _MUSICNN_LAYERS, "vgg": _VGG_LAYERS}

_VARIABLE = re.compile(r"(?P<layer>[^/]+)/(?P<kind>kernel|bias|gamma|beta|moving_mean|moving_variance)(_\d+)?:0")


def _read_musicnn_h5(path: Path, shapes: Mapping[str, tuple[int, ...]], architecture: str) -> dict[str, np.ndarray]:
    import h5py

    if architecture not in _PUBLISHED:
        raise WeightsMismatchError(f"No published file is known for the architecture {architecture!r}.")
    layers = _PUBLISHED[architecture]
    values: dict[str, np.ndarray] = {}
    try:
        with h5py.File(path, "r") as file:
            group = file["model_weights"]
            for layer in map(_text, group.attrs["layer_names"]):
                for full_name in map(_text, group[layer].attrs["weight_names"]):
                    match = _VARIABLE.fullmatch(full_name)
                    if match is None or layer not in layers:
                        raise WeightsMismatchError(f"{path}: the published {architecture} files have no {layer}/{full_name}.")
                    name = f"{layers[layer]}/{match['kind']}"
                    array = np.asarray(group[layer][full_name], "float32")
                    # The mid-end was published as 2-D convolutions over one "pixel" column: (7, C, 1, 64) -> (7, C, 64).
                    if len(shapes.get(name, ())) == 3 and array.ndim == 4 and array.shape[2] == 1:
                        array = array[:, :, 0, :]
                    values[name] = array
    except (OSError, KeyError) as error:
        raise CorruptWeightsError(f"{path} is not a Keras 2 HDF5 model file: {error}") from error
    _compare({name: array.shape for name, array in values.items()}, shapes, path)
    return values


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
