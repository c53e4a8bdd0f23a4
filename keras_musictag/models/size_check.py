"""Validation of a network's size and weights before memory is allocated for its variables.

A small spec can describe a network of terabytes. This is detected from the shapes of the layers and the headers of the
weight file, in about 50 ms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SpecError
from . import conversion, weights

if TYPE_CHECKING:
    import keras

    from .spec import ModelSpec

# Limits, in values of four bytes. No layer of the zoo has an output of more than 2**23 values per window.
_MOST_VALUES = 2**28  # output of a layer for one window
_MOST_RANDOM = 2**30  # parameters of a network without a weight file


def check(build: Callable[[], keras.Model], spec: ModelSpec, path: Path | None) -> Path | None:
    """Validate that a network is not too large and that its weights fit, before memory is allocated.

    Args:
        build: function that builds the network.
        spec: spec of the model.
        path: weight file, `None` for random weights.

    Returns:
        The file to load: `path`, or the result of `conversion.to_safetensors`.

    Raises:
        CorruptWeightsError, WeightsMismatchError: as in `conversion.to_safetensors` and, from the headers of the file
            only, `weights.load_weights`.
        SpecError: the output of a layer has more than 2**28 values per window, or more than 2**30 parameters are
            random.
    """
    network = _outline(build)
    if network is None:
        return path
    for layer in network.layers:
        shapes = [output.shape for node in layer._inbound_nodes for output in node.output_tensors]
        size = max((math.prod(length or 1 for length in shape) for shape in shapes), default=0)
        if size > _MOST_VALUES:
            raise SpecError(
                f"The output of the layer {layer.name!r} of {spec.name!r} has {size:,} values per window; at most "
                f"{_MOST_VALUES:,} are allowed. Reduce its widths or input_shape={spec.input_shape}."
            )
    if path is not None:
        path = conversion.to_safetensors(spec, path, network)
        weights.compare(network, path)
    elif network.count_params() > _MOST_RANDOM:
        raise SpecError(
            f"The network of {spec.name!r} has {network.count_params():,} parameters; at most {_MOST_RANDOM:,} are "
            "allowed without a weight file. Reduce its widths or the number of tags."
        )
    return path


def _outline(build: Callable[[], keras.Model]) -> keras.Model | None:
    """Build the network with variables that have no values; `None` if its builder needs values."""
    import keras

    def run() -> keras.Model:
        with keras.StatelessScope(initialize_variables=False):
            return build()

    # Keras keeps a list of uninitialised variables per thread; a new thread keeps ours separate.
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(run).result()
        except ValueError as error:
            if "stateless scope" not in str(error):
                raise
            return None
