"""Loading and saving of weights, strictly by name and shape.

A file must hold exactly the variables of the model, each with its `variable.path` as the name and with its shape;
otherwise the error lists the differences. Headers are compared before any array is read, so a file that declares huge
arrays takes no memory, and variables are assigned only after all values have been validated.
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

_FLOATS = ("F16", "F32", "F64")  # names in safetensors

# Weight decay leaves weights of 1e-20 to 1e-40 in some published networks. Their products are subnormal numbers, which
# processors compute 10 to 100 times slower than others. TensorFlow sets them to 0, PyTorch and ONNX Runtime do not.
_SMALLEST_WEIGHT = 1e-20


# === Public ===


def load_weights(model: keras.Model, path: Path) -> None:
    """Assign the weights of a safetensors file to a model; if that fails, the model is unchanged.

    Args:
        model: built model.
        path: file keyed by `variable.path`.

    Raises:
        CorruptWeightsError: the file cannot be read, or holds NaN or infinity.
        WeightsMismatchError: names, shapes or types differ from the model's.
    """
    variables = _variables(model)
    values = _read(path, shapes_of(model))
    _require_finite(values, f"{path} holds NaN or infinity in", "Get an intact file.")
    for name, variable in variables.items():
        variable.assign(values[name])


def compare(model: keras.Model, path: Path) -> None:
    """Compare the headers of a weight file with the variables of a model, which need no values.

    Arguments and errors are the same as for `load_weights`. No array is read, so NaN and infinity are not found.
    """
    _read(path, shapes_of(model), headers_only=True)


def save_weights(model: keras.Model, path: Path) -> WeightsSource:
    """Write a model's variables as a float32 safetensors file, atomically.

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

    # np.ascontiguousarray would turn a scalar into an array of one dimension.
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
        repeated = sorted({path for path in paths if paths.count(path) > 1})
        raise WeightsMismatchError(
            f"The model {model.name!r} has several variables named {first_names(repeated)}. Give its layers unique "
            "names."
        )
    return variables


def shapes_of(model: keras.Model) -> Shapes:
    """Return the shapes of a model's variables by `variable.path`.

    Raises:
        WeightsMismatchError: two variables have the same path.
    """
    return {name: tuple(variable.shape) for name, variable in _variables(model).items()}


def compare_shapes(found: Shapes, expected: Shapes, path: Path) -> None:
    """Compare the shapes of the arrays in a file with those of a model's variables.

    Raises:
        WeightsMismatchError: an array is missing, unknown or has another shape.
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
        problems.append(f"missing from the file: {first_names(missing)}")
    if extra:
        problems.append(f"unknown to the model: {first_names(extra)}")
    if wrong:
        problems.append(f"of another shape: {first_names(wrong)}")
    if problems:
        raise WeightsMismatchError(
            f"{path} does not fit the model; {'; '.join(problems)}. Check that this is the file of this model. If you "
            "defined the model yourself, name its layers: automatic names change from one build to the next."
        )


def _require_floats(types: Mapping[str, str], path: Path) -> None:
    for name, kind in sorted(types.items()):
        if kind not in _FLOATS:
            raise WeightsMismatchError(f"{path}: weights must be float16, float32 or float64; {name} is {kind}.")


def _require_finite(values: Mapping[str, np.ndarray], problem: str, advice: str) -> None:
    bad = sorted(name for name, value in values.items() if not np.isfinite(value).all())
    if bad:
        raise CorruptWeightsError(f"{problem} {first_names(bad)}. {advice}")


def first_names(names: list[str], count: int = 5) -> str:
    """Join the first names of a list and state how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


# === safetensors ===


def _read(path: Path, shapes: Shapes, headers_only: bool = False) -> dict[str, np.ndarray]:
    """Compare the headers with `shapes` and return the arrays by name, or none with `headers_only`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (a safe_open is no dict)
            compare_shapes({name: tuple(s.get_shape()) for name, s in slices.items()}, shapes, path)
            _require_floats({name: s.get_dtype() for name, s in slices.items()}, path)
            if headers_only:
                return {}
            return {name: _float32(file.get_tensor(name)) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise CorruptWeightsError(f"{path} cannot be read as a safetensors file: {error}. Get it again.") from error


def flush_tiny(array: np.ndarray) -> np.ndarray:
    """Return the array with 0 for floating-point numbers too small to change a sum in float32."""
    if array.dtype.kind != "f":
        return array
    return np.where(np.abs(array) < _SMALLEST_WEIGHT, array.dtype.type(0), array)


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # too large values become infinity, which load_weights reports
        return array.astype("float32", copy=False)
