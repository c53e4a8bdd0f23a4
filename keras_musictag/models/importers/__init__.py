"""Importers map the arrays of a published weight file to the variables of a network.

An importer is a function, one per family of published files. It receives the arrays of the file by their published
names and returns arrays by `variable.path`. It must take every array or leave it out with a reason; an array it does
neither with is an error. The result is compared with the network's variables, by name and shape, before it is used.
"""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ...errors import CorruptWeightsError, WeightsMismatchError
from ..weights import first_names

if TYPE_CHECKING:
    from ..spec import ModelSpec

_FLOATS = ("float16", "float32", "float64")


class PublishedArrays(Mapping[str, np.ndarray]):
    """The arrays of a published file by name, with a record of those taken and left out.

    Example:
        >>> arrays = PublishedArrays({"fc.weight": np.zeros((50, 8)), "mel.fb": np.zeros((257, 96))}, "model.pth")
        >>> arrays.take("fc.weight").shape
        (50, 8)
        >>> arrays.leave("mel.*", "computed by LogMelSpectrogram")
        >>> arrays.unaccounted
        []
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], file: str) -> None:
        """Wrap `arrays`; error messages call their file `file`."""
        self.file = file
        self._arrays = dict(arrays)
        self._taken: set[str] = set()
        self._left: dict[str, str] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """Return an array without marking it as taken."""
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order of the file."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self._arrays)

    def take(self, name: str) -> np.ndarray:
        """Return an array and mark it as taken.

        Raises:
            WeightsMismatchError: there is no such array, or it was taken or left out before.
        """
        if name not in self._arrays:
            raise self.mismatch(f"there is no array {name!r}")
        if name in self._taken or name in self._left:
            raise WeightsMismatchError(f"{self.file}: the importer uses the array {name!r} twice. This is a bug.")
        self._taken.add(name)
        return self._arrays[name]

    def leave(self, pattern: str, reason: str) -> None:
        """Mark the arrays whose names match a shell-style pattern as not needed.

        Args:
            pattern: e.g. `"*.num_batches_tracked"`.
            reason: why the network does not need them.

        Raises:
            WeightsMismatchError: no array matches, or a matching array was taken before.
        """
        if not reason:
            raise ValueError(f"reason must say why {pattern!r} is left out; got {reason!r}.")
        names = fnmatch.filter(self._arrays, pattern)
        if not names:
            raise self.mismatch(f"no array matches {pattern!r}, which should be left out ({reason})")
        if not self._taken.isdisjoint(names):
            raise WeightsMismatchError(
                f"{self.file}: the importer takes and leaves out arrays matching {pattern!r}. This is a bug."
            )
        self._left.update(dict.fromkeys(names, reason))

    def mismatch(self, problem: str) -> WeightsMismatchError:
        """Create an error that reports `problem` in this file."""
        return WeightsMismatchError(f"{self.file}: {problem}. Check that this is the file of this model.")

    @property
    def unaccounted(self) -> list[str]:
        """Names of the arrays that were neither taken nor left out."""
        return [name for name in self._arrays if name not in self._taken and name not in self._left]


Importer = Callable[[PublishedArrays, "ModelSpec"], Mapping[str, np.ndarray]]

_importers: dict[str, tuple[Importer, int]] = {}
_F = TypeVar("_F", bound=Importer)


def register_importer(name: str, *, version: int = 1) -> Callable[[_F], _F]:
    """Register a function that maps published arrays to the variables of a network.

    A spec selects it with `weights.importer`, by default the name of its architecture.

    Args:
        name: name of the importer.
        version: increase it when the result of the function changes, so that cached conversions are made again.

    Raises:
        ValueError: the name is taken by another function.

    Example:
        >>> @register_importer("one_layer")
        ... def import_one_layer(arrays, spec):
        ...     return {"head/kernel": arrays.take("fc.weight").T, "head/bias": arrays.take("fc.bias")}
    """

    def register(function: _F) -> _F:
        known = _importers.get(name, (function, version))[0]
        if (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(f"The importer {name!r} is already registered by {known.__module__}.")
        _importers[name] = (function, version)
        return function

    return register


def importer_of(spec: ModelSpec) -> tuple[str, Importer, int]:
    """Return name, function and version of the importer for the published weights of a spec.

    Raises:
        WeightsMismatchError: the importer is not registered.
    """
    name = (spec.weights.importer if spec.weights else "") or spec.architecture
    if name not in _importers:
        for module in pkgutil.iter_modules(__path__):
            importlib.import_module(f"{__name__}.{module.name}")
    if name not in _importers:
        raise WeightsMismatchError(
            f"The published weights of {spec.name!r} need the importer {name!r}, which is not registered. "
            f"Known importers: {', '.join(sorted(_importers))}."
        )
    return name, *_importers[name]


def import_arrays(arrays: Mapping[str, np.ndarray], spec: ModelSpec, file: str) -> dict[str, np.ndarray]:
    """Map published arrays to the variables of a network.

    Args:
        arrays: every array of the published file, by its published name.
        spec: spec of the model.
        file: what messages call the file.

    Returns:
        float32 arrays by `variable.path`.

    Raises:
        WeightsMismatchError: the importer is not registered, or an array is missing, unknown or not of floats.
        CorruptWeightsError: a value is NaN or infinite.
    """
    name, function, _ = importer_of(spec)
    published = PublishedArrays(arrays, file)
    variables = dict(function(published, spec))
    if published.unaccounted:
        raise WeightsMismatchError(
            f"{file} has arrays that the importer {name!r} does not know: {first_names(published.unaccounted)}. "
            "Check that this is the file of this model."
        )
    for path, array in variables.items():
        if array.dtype.name not in _FLOATS:
            raise WeightsMismatchError(f"{file}: weights must be float16, float32 or float64; {path} is {array.dtype}.")
    with np.errstate(over="ignore"):  # too large values become infinity, which is reported below
        converted = {path: np.asarray(array, "float32", order="C") for path, array in variables.items()}
    bad = sorted(path for path, array in converted.items() if not np.isfinite(array).all())
    if bad:
        raise CorruptWeightsError(f"{file} holds NaN or infinity in {first_names(bad)}. Get an intact file.")
    return converted
