"""A network in outline: its layers and the shapes of its variables, before memory is taken for any of them.

Whoever makes a model folder chooses how wide its network is. A spec of a kilobyte may ask for one of terabytes; that
is found here, from the outline and the headers of the weight file, in some 50 ms.
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

# Values, of four bytes each. No layer of the zoo gives more than 2**23 for a window.
_MOST_VALUES = 2**28  # that a layer gives for one window
_MOST_RANDOM = 2**30  # parameters of a network that no file has weights for


def check(build: Callable[[], keras.Model], spec: ModelSpec, path: Path | None) -> Path | None:
    """Refuse a network that its weights do not fit, or that is too large to be meant, before it takes any memory.

    Args:
        build: builds the network.
        spec: what it is built from.
        path: file with its weights, `None` where they will be random.

    Returns:
        The file to load: `path`, or what `conversion.to_safetensors` made of it.

    Raises:
        CorruptWeightsError, WeightsMismatchError: as `conversion.to_safetensors` and, from the file's headers alone,
            `weights.load_weights`.
        SpecError: a layer gives more than 2**28 values for a window, or 2**30 parameters would be random.
    """
    network = _outline(build)
    if network is None:
        return path
    for layer in network.layers:
        shapes = [output.shape for node in layer._inbound_nodes for output in node.output_tensors]
        size = max((math.prod(length or 1 for length in shape) for shape in shapes), default=0)
        if size > _MOST_VALUES:
            raise SpecError(
                f"The layer {layer.name!r} of {spec.name!r} gives {size:,} values for one window; at most "
                f"{_MOST_VALUES:,} are allowed. Make its widths or input_shape={spec.input_shape} smaller."
            )
    if path is not None:
        path = conversion.to_safetensors(spec, path, network)
        weights.compare(network, path)
    elif network.count_params() > _MOST_RANDOM:
        raise SpecError(
            f"The network of {spec.name!r} has {network.count_params():,} parameters; at most {_MOST_RANDOM:,} can be "
            "random. Make its widths or the number of tags smaller."
        )
    return path


def _outline(build: Callable[[], keras.Model]) -> keras.Model | None:
    """The network with variables that have no values; `None` if its builder needs values."""
    import keras

    def run() -> keras.Model:
        with keras.StatelessScope(initialize_variables=False):
            return build()

    # Keras keeps a list of variables to initialise later, one per thread: this one's is never used.
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(run).result()
        except ValueError as error:
            if "stateless scope" not in str(error):
                raise
            return None
