"""Importer of Choi's published CRNN, a Keras 1 weight file.

Choi, Fazekas, Sandler & Cho, "Convolutional recurrent neural networks for music classification", ICASSP 2017
(https://arxiv.org/abs/1609.04243); weights at https://github.com/keunwoochoi/music-auto_tagging-keras (MIT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import PublishedArrays, register_importer

if TYPE_CHECKING:
    from ..spec import ModelSpec

# Keras 1's hard sigmoid is clip(x / 5 + 1/2), Keras 3's is clip(x / 6 + 1/2); weights times 6/5 make them equal.
_GATE_SCALE = 1.2


@register_importer("choi_crnn")
def import_choi_crnn(arrays: PublishedArrays, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Import the CRNN. Its kernels are `(out, in, height, width)`, as in Theano; `running_std` holds variances."""
    found = _norm(arrays, "bn_0_freq", "bn_time")
    for index in range(1, 5):
        name = f"conv{index}"
        found[f"{name}/kernel"] = arrays.take(f"{name}/{name}_W_1:0").transpose(2, 3, 1, 0)
        found[f"{name}/bias"] = arrays.take(f"{name}/{name}_b_1:0")
        found |= _norm(arrays, f"bn{index}", f"bn{index}")
    for name in ("gru1", "gru2"):
        for published, ours in (("W", "kernel"), ("U", "recurrent_kernel"), ("b", "bias")):
            gates = {gate: arrays.take(f"{name}/{name}_{published}_{gate}:0") for gate in "zrh"}
            scaled = [_GATE_SCALE * gates["z"], _GATE_SCALE * gates["r"], gates["h"]]
            found[f"{name}/gru_cell/{ours}"] = np.concatenate(scaled, axis=-1)
    found["head/kernel"] = arrays.take("output/output_W_1:0")
    found["head/bias"] = arrays.take("output/output_b_1:0")
    return found


def _norm(arrays: PublishedArrays, published: str, layer: str) -> dict[str, np.ndarray]:
    kinds = {"gamma": "gamma", "beta": "beta", "moving_mean": "running_mean", "moving_variance": "running_std"}
    return {f"{layer}/{ours}": arrays.take(f"{published}/{published}_{kind}_1:0") for ours, kind in kinds.items()}
