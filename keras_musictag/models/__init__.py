"""Models: specs, architectures, inference with Keras, and weights.

The constructors, in the style of `keras.applications`, return a `keras.Model` with random weights that maps log-mels
`(batch, mels, frames)` to tag probabilities `(batch, num_tags)`. The layer named `"head"` is the classifier, and its
input is the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_attributes
from .architectures import ARCHITECTURES

__all__ = list(ARCHITECTURES)

# Constructors import Keras, so each is imported on first use.
__getattr__, __dir__ = lazy_attributes(__name__, {name: f".architectures.{name}" for name in ARCHITECTURES})


if TYPE_CHECKING:  # for type checkers and editors; other constructors have the type `Any`
    from .architectures.baseline_cnn import baseline_cnn as baseline_cnn
    from .architectures.choi_crnn import choi_crnn as choi_crnn
    from .architectures.large_cnn import large_cnn as large_cnn
    from .architectures.mobilenet_v3 import mobilenet_v3 as mobilenet_v3
    from .architectures.musicnet_crnn import musicnet_crnn as musicnet_crnn
    from .architectures.musicnet_crnn_fast import musicnet_crnn_fast as musicnet_crnn_fast
    from .architectures.musicnn import musicnn as musicnn
    from .architectures.tiny import tiny as tiny
    from .architectures.vgg import vgg as vgg
    from .architectures.won_crnn import won_crnn as won_crnn
    from .architectures.won_fcn import won_fcn as won_fcn
    from .architectures.won_musicnn import won_musicnn as won_musicnn
