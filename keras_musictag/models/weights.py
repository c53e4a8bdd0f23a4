"""Weight files to model variables and back: strict, by name and shape.

A file must hold exactly the variables of the model, each under its `variable.path` and in its shape. Anything missing,
left over or of another shape is an error that lists it; nothing is matched by order, nothing is skipped. Headers are
compared before any array is read, so a file that declares absurd sizes costs nothing, and no variable is assigned
before all values are known to be good.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CorruptWeightsError, WeightsMismatchError
from ..utils.files import sha256_of, write_atomically
from .spec import WeightsSource

if TYPE_CHECKING:
    import keras

Shapes = Mapping[str, tuple[int, ...]]

_FLOATS = ("F16", "F32", "F64")  # as safetensors calls them


# === Public ===


def load_weights(model: keras.Model, path: Path) -> None:
    """Assign a safetensors file to a model: all of it, or nothing.

    Args:
        model: built model.
        path: file keyed by `variable.path`.

    Raises:
        CorruptWeightsError: the file cannot be read, or holds NaN or infinity.
        WeightsMismatchError: names, shapes or types differ from the model's.
    """
    variables = _variables(model)
    values = _read(path, shapes_of(model))
    _require_finite(values, f"{path} holds NaN or infinity in", "It cannot be used; get an intact file.")
    for name, variable in variables.items():
        variable.assign(values[name])


def compare(model: keras.Model, path: Path) -> None:
    """Compare the headers of a weight file with a model, whose variables need no values.

    Arguments and errors are those of `load_weights`; no array is read, so values are not judged.
    """
    _read(path, shapes_of(model), headers_only=True)


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


def shapes_of(model: keras.Model) -> Shapes:
    """Shapes of a model's variables by `variable.path`.

    Raises:
        WeightsMismatchError: two variables have one path.
    """
    return {name: tuple(variable.shape) for name, variable in _variables(model).items()}


def compare_shapes(found: Shapes, expected: Shapes, path: Path) -> None:
    """Compare what a file holds with what a model needs.

    Raises:
        WeightsMismatchError: something is missing, left over or of another shape.
    """
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


def _read(path: Path, shapes: Shapes, headers_only: bool = False) -> dict[str, np.ndarray]:
    """Values by name, none with `headers_only`, after the headers were compared with `shapes`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            compare_shapes({name: tuple(s.get_shape()) for name, s in slices.items()}, shapes, path)
            _require_floats({name: s.get_dtype() for name, s in slices.items()}, path)
            return {} if headers_only else {name: _float32(file.get_tensor(name)) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise CorruptWeightsError(f"{path} cannot be read as a safetensors file: {error}. Get it again.") from error


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # becomes infinity, which is refused by name
        return array.astype("float32", copy=False)
