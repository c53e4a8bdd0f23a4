"""Importers: from the arrays of a published weight file to the variables of our network.

An importer is a function, one per family of published files. It is given every array of the file by the name it has
there, and returns arrays by `variable.path`. Each array of the file has to be accounted for: taken, or left out for a
stated reason. Anything else is an error, so a file that is not quite the published one is never half read.

The result is compared with the variables of the network, name by name and shape by shape, before it is kept.
"""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ...errors import CorruptWeightsError, WeightsMismatchError

if TYPE_CHECKING:
    from ..spec import ModelSpec

# Importer -> module in this folder, imported when it is needed.
_BUILT_IN = {
    "musicnn": "musicnn",
    "vgg": "musicnn",
    "won_fcn": "won",
    "won_crnn": "won",
    "won_musicnn": "won",
    "choi_crnn": "choi",
    "mobilenet_v3": "efficientat",
}

_FLOATS = ("float16", "float32", "float64")


class PublishedArrays(Mapping[str, np.ndarray]):
    """The arrays of a published file by name, and which of them are accounted for.

    Example:
        >>> arrays = PublishedArrays({"fc.weight": np.zeros((50, 8)), "mel.fb": np.zeros((257, 96))}, "model.pth")
        >>> arrays.take("fc.weight").shape
        (50, 8)
        >>> arrays.leave("mel.*", "computed by LogMelSpectrogram")
        >>> arrays.unaccounted
        []
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], file: str) -> None:
        """Wrap `arrays`; `file` names their file in messages."""
        self.file = file
        self._arrays = dict(arrays)
        self._taken: set[str] = set()
        self._left: dict[str, str] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """The array, to look at; it still has to be taken or left."""
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of the file."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """Number of arrays."""
        return len(self._arrays)

    def take(self, name: str) -> np.ndarray:
        """The array of that name, which now counts as used.

        Raises:
            WeightsMismatchError: there is none, or it was taken or left out before.
        """
        if name not in self._arrays:
            raise self.mismatch(f"there is no array {name!r}")
        if name in self._taken or name in self._left:
            raise WeightsMismatchError(f"{self.file}: the array {name!r} is needed twice; the importer is wrong.")
        self._taken.add(name)
        return self._arrays[name]

    def leave(self, pattern: str, reason: str) -> None:
        """Leave out the arrays whose names match a shell-style pattern.

        Args:
            pattern: e.g. `"*.num_batches_tracked"`.
            reason: why the network does not need them.

        Raises:
            WeightsMismatchError: nothing matches, or something that does was taken before.
        """
        if not reason:
            raise ValueError(f"Give a reason for leaving out {pattern!r}; got none.")
        names = fnmatch.filter(self._arrays, pattern)
        if not names or not self._taken.isdisjoint(names):
            found = "was taken before" if names else "is not there"
            raise WeightsMismatchError(f"{self.file}: {pattern!r} is to be left out ({reason}), but {found}.")
        self._left.update(dict.fromkeys(names, reason))

    def mismatch(self, problem: str) -> WeightsMismatchError:
        """An error to raise: `problem` in this file."""
        return WeightsMismatchError(f"{self.file}: {problem}. Is it another model's file?")

    @property
    def unaccounted(self) -> list[str]:
        """Names that were neither taken nor left out."""
        return [name for name in self._arrays if name not in self._taken and name not in self._left]


Importer = Callable[[PublishedArrays, "ModelSpec"], Mapping[str, np.ndarray]]

_importers: dict[str, tuple[Importer, int]] = {}
_F = TypeVar("_F", bound=Importer)


def register_importer(name: str, *, version: int = 1) -> Callable[[_F], _F]:
    """Register a function that turns published arrays into our variables.

    It is found by `spec.weights.importer`, or by `spec.architecture` where the source names none.

    Args:
        name: of the importer.
        version: raise it when the function gives other numbers than before: files that it converted are converted anew.

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
    """Name, function and version of the importer for the published weights of a spec.

    Raises:
        WeightsMismatchError: there is none.
    """
    name = (spec.weights.importer if spec.weights else "") or spec.architecture
    if name not in _importers and name in _BUILT_IN:
        importlib.import_module(f"{__name__}.{_BUILT_IN[name]}")
    if name not in _importers:
        raise WeightsMismatchError(
            f"Published weights of {spec.name!r} need the importer {name!r}, which is not registered. "
            f"Known: {', '.join(sorted({*_importers, *_BUILT_IN}))}."
        )
    return name, *_importers[name]


def import_arrays(arrays: Mapping[str, np.ndarray], spec: ModelSpec, file: str) -> dict[str, np.ndarray]:
    """Our variables from published arrays.

    Args:
        arrays: every array of the published file, by its name there.
        spec: whose weights they are.
        file: what messages call the file.

    Returns:
        float32 arrays by `variable.path`.

    Raises:
        WeightsMismatchError: there is no importer, an array is missing, left over or of another type.
        CorruptWeightsError: a value is NaN or infinite.
    """
    name, function, _ = importer_of(spec)
    published = PublishedArrays(arrays, file)
    variables = dict(function(published, spec))
    if published.unaccounted:
        raise WeightsMismatchError(
            f"{file} has arrays that the importer {name!r} does not know: {_some(published.unaccounted)}. "
            "Is it another model's file?"
        )
    for path, array in variables.items():
        if array.dtype.name not in _FLOATS:
            raise WeightsMismatchError(f"{file}: weights must be float16, float32 or float64; {path} is {array.dtype}.")
    with np.errstate(over="ignore"):  # becomes infinity, which is refused by name
        converted = {path: np.asarray(array, "float32", order="C") for path, array in variables.items()}
    bad = sorted(path for path, array in converted.items() if not np.isfinite(array).all())
    if bad:
        raise CorruptWeightsError(f"{file} holds NaN or infinity in {_some(bad)}. Get an intact file.")
    return converted


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
