"""Importers of the published musicnn and VGG files, Keras 2 models of musicnn_keras.

Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", ISMIR-LBD 2019
(https://arxiv.org/abs/1909.06654).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from . import PublishedArrays, register_importer

if TYPE_CHECKING:
    from ..spec import ModelSpec

# Keras 2 layer name -> layer here.
_MUSICNN = {
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
_VGG = {
    "bn_input": "bn_input",
    **{f"{i}CNN": f"conv{i}" for i in range(1, 6)},
    **{f"bn_conv{i}": f"bn{i}" for i in range(1, 6)},
    "output": "head",
}
LAYERS = {"musicnn": _MUSICNN, "vgg": _VGG}

# TensorFlow numbers repeated variable names: "kernel_1" is a kernel.
_VARIABLE = re.compile(
    r"(?P<layer>[^/]+)/(?P=layer)/(?P<kind>kernel|bias|gamma|beta|moving_mean|moving_variance)(_\d+)?:0"
)


@register_importer("musicnn")
def import_musicnn(arrays: PublishedArrays, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Import musicnn. The mid-end was published as 2-D convolutions: `(7, C, 1, 64)` becomes `(7, C, 64)`."""
    found = _by_layer(arrays, _MUSICNN)
    for name, array in found.items():
        if re.fullmatch(r"midend\d/kernel", name) and array.ndim == 4 and array.shape[2] == 1:
            found[name] = array[:, :, 0]
    return found


@register_importer("vgg")
def import_vgg(arrays: PublishedArrays, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Import the VGG baseline."""
    return _by_layer(arrays, _VGG)


def _by_layer(arrays: PublishedArrays, layers: dict[str, str]) -> dict[str, np.ndarray]:
    """Take the arrays of the known layers and rename the layers; other arrays are not taken."""
    found: dict[str, np.ndarray] = {}
    for published in arrays:
        match = _VARIABLE.fullmatch(published)
        if match is None or match["layer"] not in layers:
            continue
        name = f"{layers[match['layer']]}/{match['kind']}"
        if name in found:
            raise arrays.mismatch(f"{match['layer']}/{match['kind']} occurs twice")
        found[name] = arrays.take(published)
    return found
