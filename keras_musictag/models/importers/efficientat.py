"""Importer of EfficientAT's PyTorch checkpoints of MobileNetV3.

Schmid, Koutini & Widmer, "Efficient large-scale audio tagging via transformer-to-CNN knowledge distillation",
ICASSP 2023 (https://arxiv.org/abs/2211.04772); code and weights at https://github.com/fschmid56/EfficientAT (MIT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import PublishedArrays, register_importer
from .layouts import batch_norm, conv2d, dense, depthwise_conv2d

if TYPE_CHECKING:
    from ..spec import ModelSpec

_BLOCKS = 15


@register_importer("mobilenet_v3")
def import_mobilenet_v3(arrays: PublishedArrays, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Import MobileNetV3: `features.0` is the stem, 1 to 15 are the blocks and 16 is the last convolution."""
    found = _convolution(arrays, "features.0", "stem")
    for index in range(1, _BLOCKS + 1):
        found |= _block(arrays, f"features.{index}.block", f"block{index}")
    found |= _convolution(arrays, f"features.{_BLOCKS + 1}", "last")
    return {**found, **dense(arrays, "classifier.2", "dense"), **dense(arrays, "classifier.5", "head")}


def _block(arrays: PublishedArrays, prefix: str, block: str) -> dict[str, np.ndarray]:
    """Import one block, whose parts are numbered; it may lack the expansion and the squeeze-and-excitation."""
    found: dict[str, np.ndarray] = {}
    part = 0
    if arrays[f"{prefix}.0.0.weight"].shape[2:] == (
        1,
        1,
    ):  # the expansion
        found |= _convolution(arrays, f"{prefix}.0", f"{block}_expand")
        part = 1
    found |= depthwise_conv2d(arrays, f"{prefix}.{part}.0", f"{block}_depthwise_conv", bias=False)
    found |= batch_norm(arrays, f"{prefix}.{part}.1", f"{block}_depthwise_bn")
    part += 1
    squeeze = f"{prefix}.{part}.conc_se_layers.0"
    if f"{squeeze}.fc1.weight" in arrays:
        found |= dense(arrays, f"{squeeze}.fc1", f"{block}_squeeze_reduce")
        found |= dense(arrays, f"{squeeze}.fc2", f"{block}_squeeze_expand")
        part += 1
    return {**found, **_convolution(arrays, f"{prefix}.{part}", f"{block}_project")}


def _convolution(arrays: PublishedArrays, prefix: str, layer: str) -> dict[str, np.ndarray]:
    return {
        **conv2d(arrays, f"{prefix}.0", f"{layer}_conv", bias=False),
        **batch_norm(arrays, f"{prefix}.1", f"{layer}_bn"),
    }
