"""Importers of the PyTorch checkpoints of Won et al.: FCN, CRNN and musicnn on MagnaTagATune, MSD and MTG-Jamendo.

Won, Ferraro, Bogdanov & Serra, "Evaluation of CNN-based automatic music tagging models", SMC 2020
(https://arxiv.org/abs/2006.00751); code and weights at https://github.com/minzwon/sota-music-tagging-models (MIT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import PublishedArrays, register_importer
from .layouts import batch_norm, conv1d, conv2d, dense, gru

if TYPE_CHECKING:
    from ..spec import ModelSpec

# Keras layers of PyTorch's `layers.<index>`, in order.
_TIMBRAL = ("timbral77", "timbral74")
_TEMPORAL = ("temporal129", "temporal65", "temporal33")


@register_importer("won_fcn")
def import_won_fcn(arrays: PublishedArrays, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Import FCN-5."""
    return {**_input(arrays), **_blocks(arrays, 5), **dense(arrays, "dense", "head")}


@register_importer("won_crnn")
def import_won_crnn(arrays: PublishedArrays, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Import the CRNN: four convolutions and a GRU of two layers."""
    found = {**_input(arrays), **_blocks(arrays, 4)}
    for index in (0, 1):
        found |= gru(arrays, "layer5", f"gru{index + 1}", index=index)
    return {**found, **dense(arrays, "dense", "head")}


@register_importer("won_musicnn")
def import_won_musicnn(arrays: PublishedArrays, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Import musicnn. Timbral kernels are (mels, frames) in the file and (frames, mels) here."""
    found = _input(arrays)
    for index, name in enumerate((*_TIMBRAL, *_TEMPORAL)):
        layout = conv2d if name in _TIMBRAL else conv1d
        found |= layout(arrays, f"layers.{index}.conv", name) | batch_norm(arrays, f"layers.{index}.bn", f"bn_{name}")
    for name in _TIMBRAL:
        found[f"{name}/kernel"] = found[f"{name}/kernel"].swapaxes(0, 1)
    for index in (1, 2, 3):
        found |= conv1d(arrays, f"layer{index}.conv", f"midend{index}")
        found |= batch_norm(arrays, f"layer{index}.bn", f"bn_midend{index}")
    found |= dense(arrays, "dense1", "dense") | batch_norm(arrays, "bn", "bn_dense")
    return {**found, **dense(arrays, "dense2", "head")}


def _input(arrays: PublishedArrays) -> dict[str, np.ndarray]:
    """Import the batch norm of the input and leave out the constants of the spectrogram."""
    arrays.leave("spec.*", "LogMelSpectrogram computes the window and the mel filters")
    return batch_norm(arrays, "spec_bn", "bn_input")


def _blocks(arrays: PublishedArrays, count: int) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for index in range(1, count + 1):
        found |= conv2d(arrays, f"layer{index}.conv", f"conv{index}")
        found |= batch_norm(arrays, f"layer{index}.bn", f"bn{index}")
    return found
