"""Reading of HDF5 weight files and models of Keras 1 and 2 as NumPy arrays.

Only the weights of a model are read; its architecture is never built from the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CorruptWeightsError

if TYPE_CHECKING:
    import h5py


def read_h5(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of every layer.

    Args:
        path: file written by Keras' `save_weights` or `save`.

    Returns:
        Arrays by `"<layer>/<weight>"`, with the names in the attributes `layer_names` and `weight_names`.

    Raises:
        CorruptWeightsError: the file cannot be read, or declares arrays larger than the file.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            datasets = _datasets(file.get("model_weights", file))
            size = sum(dataset.nbytes for dataset in datasets.values())
            if size > path.stat().st_size:  # a small file can declare terabytes of data
                raise ValueError(f"its arrays have {size:,} bytes, the whole file only {path.stat().st_size:,}")
            return {name: dataset[()] for name, dataset in datasets.items()}
    except (
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:  # h5py raises any of them
        raise CorruptWeightsError(f"{path} cannot be read as Keras HDF5 weights: {error}. Get it again.") from error


def _datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """Return the data sets by name; only their headers are read."""
    datasets: dict[str, h5py.Dataset] = {}
    for layer in map(_text, group.attrs["layer_names"]):
        for weight in map(_text, group[layer].attrs["weight_names"]):
            name = f"{layer}/{weight}"
            if name in datasets:
                raise ValueError(f"{name} occurs twice")
            if group[layer][weight].dtype.kind not in "biufc":
                raise ValueError(f"{name} is not numeric")
            datasets[name] = group[layer][weight]
    return datasets


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
