"""Models: what a model is (`spec`), how it is built and run, and where its weights come from.

Constructors, in the style of `keras.applications`: each returns an ordinary `keras.Model` with fresh weights that maps
log-mels `(batch, mels, frames)` to tag probabilities `(batch, num_tags)`. The layer named `"head"` is the classifier;
its input is the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_attributes

# Constructor -> file in `architectures`. They import Keras, so they are imported when they are first used.
_CONSTRUCTORS = {
    "baseline_cnn": "fcn",
    "choi_crnn": "choi_crnn",
    "large_cnn": "fcn",
    "mobilenet_v3": "mobilenet_v3",
    "musicnet_crnn": "musicnet_crnn",
    "musicnn": "musicnn",
    "tiny": "tiny",
    "vgg": "vgg",
    "won_crnn": "won_crnn",
    "won_fcn": "fcn",
    "won_musicnn": "won_musicnn",
}

__all__ = [
    "baseline_cnn", "choi_crnn", "large_cnn", "mobilenet_v3", "musicnet_crnn", "musicnn", "tiny", "vgg", "won_crnn",
    "won_fcn", "won_musicnn",
]  # fmt: skip


__getattr__, __dir__ = lazy_attributes(
    __name__, {name: f".architectures.{file}" for name, file in _CONSTRUCTORS.items()}
)


if TYPE_CHECKING:  # the same names, for type checkers
    from .architectures.choi_crnn import choi_crnn as choi_crnn
    from .architectures.fcn import baseline_cnn as baseline_cnn
    from .architectures.fcn import large_cnn as large_cnn
    from .architectures.fcn import won_fcn as won_fcn
    from .architectures.mobilenet_v3 import mobilenet_v3 as mobilenet_v3
    from .architectures.musicnet_crnn import musicnet_crnn as musicnet_crnn
    from .architectures.musicnn import musicnn as musicnn
    from .architectures.tiny import tiny as tiny
    from .architectures.vgg import vgg as vgg
    from .architectures.won_crnn import won_crnn as won_crnn
    from .architectures.won_musicnn import won_musicnn as won_musicnn
