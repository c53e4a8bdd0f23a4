"""Weight files to model variables and back: strict, by name and shape.

A file must hold exactly the variables of the model, each under its `variable.path` and in its shape. Anything missing,
left over or of another shape is an error that lists it; nothing is matched by order, nothing is skipped. Headers are
compared before any array is read, so a file that declares absurd sizes costs nothing, and no variable is assigned
before all values are known to be good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CorruptWeightsError, WeightsError, WeightsMismatchError
from ..utils.files import sha256_of, write_atomically
from .spec import WeightsSource

if TYPE_CHECKING:
    import h5py
    import keras

_Shapes = Mapping[str, tuple[int, ...]]

_FLOATS = ("F16", "F32", "F64", "float16", "float32", "float64")  # as safetensors and NumPy call them


# === Public ===


def load_weights(model: keras.Model, path: Path, *, file_format: str = "safetensors", architecture: str = "") -> None:
    """Assign a weight file to a model: all of it, or nothing.

    Args:
        model: built model.
        path: file.
        file_format: `"safetensors"` or the published `"musicnn_h5"`.
        architecture: which published layer names to expect, `"musicnn"` or `"vgg"`; for `"musicnn_h5"` only.

    Raises:
        CorruptWeightsError: the file cannot be read as that format, or holds NaN or infinity.
        WeightsMismatchError: names, shapes or types differ from the model's.
    """
    variables = _variables(model)
    values = _read(path, _shapes(variables), file_format, architecture)
    _require_finite(values, f"{path} holds NaN or infinity in", "It cannot be used; get an intact file.")
    for name, variable in variables.items():
        variable.assign(values[name])


def compare(model: keras.Model, path: Path, *, file_format: str = "safetensors", architecture: str = "") -> None:
    """Compare the headers of a weight file with a model, whose variables need no values.

    Arguments and errors are those of `load_weights`; no array is read, so values are not judged.
    """
    _read(path, _shapes(_variables(model)), file_format, architecture, headers_only=True)


def save_weights(model: keras.Model, path: Path) -> WeightsSource:
    """Write a model's variables as float32 safetensors, complete or not at all.

    Args:
        model: built model.
        path: file to write or replace.

    Returns:
        `WeightsSource` for the written file.

    Raises:
        CorruptWeightsError: a variable holds NaN or infinity.
        CacheError: the file cannot be written.
    """
    from keras import ops
    from safetensors.numpy import save

    # order="C" and not ascontiguousarray, which turns a scalar into one dimension.
    arrays = {
        name: np.asarray(ops.convert_to_numpy(variable), "float32", order="C")
        for name, variable in _variables(model).items()
    }
    _require_finite(
        arrays, "NaN or infinity in", "The training diverged: lower the learning rate. Nothing was written."
    )
    write_atomically(path, save(arrays, metadata={"format": "keras_musictag"}))
    return WeightsSource(uri=path.name, sha256=sha256_of(path), size=path.stat().st_size)


# === Checks ===


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    variables = {variable.path: variable for variable in model.weights}
    if len(variables) < len(model.weights):
        paths = [variable.path for variable in model.weights]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        raise WeightsMismatchError(
            f"The model {model.name!r} has several variables named {_some(twice)}. Give its layers names of their own."
        )
    return variables


def _shapes(variables: Mapping[str, keras.Variable]) -> _Shapes:
    return {name: tuple(variable.shape) for name, variable in variables.items()}


def _compare(found: _Shapes, expected: _Shapes, path: Path) -> None:
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
        raise WeightsMismatchError(
            f"{path} does not fit the model; {'; '.join(problems)}. Is it another model's file? (A model of your own "
            "must name its layers: automatic names change from one build to the next.)"
        )


def _read(
    path: Path, shapes: _Shapes, file_format: str, architecture: str, headers_only: bool = False
) -> dict[str, np.ndarray]:
    """Values by name, none with `headers_only`, after the headers were compared with `shapes`."""
    if file_format == "musicnn_h5":
        return _read_musicnn_h5(path, shapes, architecture, headers_only)
    return _read_safetensors(path, shapes, headers_only)


def _require_floats(types: Mapping[str, str], path: Path) -> None:
    odd = sorted(name for name, kind in types.items() if kind not in _FLOATS)
    if odd:
        raise WeightsMismatchError(f"{path}: weights must be float16, float32 or float64; {odd[0]} is {types[odd[0]]}.")


def _require_finite(values: Mapping[str, np.ndarray], problem: str, advice: str) -> None:
    bad = sorted(name for name, value in values.items() if not np.isfinite(value).all())
    if bad:
        raise CorruptWeightsError(f"{problem} {_some(bad)}. {advice}")


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# === safetensors ===


def _read_safetensors(path: Path, shapes: _Shapes, headers_only: bool) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            _compare({name: tuple(s.get_shape()) for name, s in slices.items()}, shapes, path)
            _require_floats({name: s.get_dtype() for name, s in slices.items()}, path)
            return {} if headers_only else {name: _float32(file.get_tensor(name)) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise CorruptWeightsError(f"{path} cannot be read as a safetensors file: {error}. Get it again.") from error


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # becomes infinity, which is refused by name
        return array.astype("float32", copy=False)


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

# TensorFlow numbered variables of a name that it had seen before: "kernel_1" is still the kernel.
_VARIABLE = re.compile(r"(?P<layer>[^/]+)/(?P<kind>kernel|bias|gamma|beta|moving_mean|moving_variance)(_\d+)?:0")


def _read_musicnn_h5(path: Path, shapes: _Shapes, architecture: str, headers_only: bool) -> dict[str, np.ndarray]:
    import h5py

    if architecture not in _PUBLISHED:
        raise WeightsMismatchError(
            f"There are no published files for the architecture {architecture!r}, only for {', '.join(_PUBLISHED)}."
        )
    try:
        with h5py.File(path, "r") as file:
            datasets = _published_datasets(file["model_weights"], architecture, path)
            found = {name: _as_here(dataset.shape, shapes.get(name, ())) for name, dataset in datasets.items()}
            _compare(found, shapes, path)
            _require_floats({name: dataset.dtype.name for name, dataset in datasets.items()}, path)
            read = {} if headers_only else datasets
            return {name: _float32(dataset[()]).reshape(shapes[name]) for name, dataset in read.items()}
    except WeightsError:
        raise
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # h5py raises them all
        raise CorruptWeightsError(
            f"{path} cannot be read as a Keras 2 HDF5 model file: {error}. Get it again."
        ) from error


def _published_datasets(group: h5py.Group, architecture: str, path: Path) -> dict[str, h5py.Dataset]:
    """Variable name here -> dataset; only headers are read."""
    layers = _PUBLISHED[architecture]
    datasets: dict[str, h5py.Dataset] = {}
    for layer in map(_text, group.attrs["layer_names"]):
        for full_name in map(_text, group[layer].attrs["weight_names"]):
            match = _VARIABLE.fullmatch(full_name)
            if match is None or match["layer"] != layer or layer not in layers:
                raise WeightsMismatchError(f"{path}: the published {architecture} files have no {layer}: {full_name}.")
            name = f"{layers[layer]}/{match['kind']}"
            if name in datasets:
                raise WeightsMismatchError(f"{path} has {layer}/{match['kind']} twice; which one is meant is unknown.")
            datasets[name] = group[layer][full_name]
    return datasets


def _as_here(published: tuple[int, ...], here: tuple[int, ...]) -> tuple[int, ...]:
    """The mid-end was published as 2-D convolutions over one column: `(7, C, 1, 64)` is `(7, C, 64)` here."""
    if len(published) == 4 and len(here) == 3 and published[2] == 1:
        return (*published[:2], published[3])
    return tuple(published)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
