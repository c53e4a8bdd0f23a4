"""Architectures: functions that return an ordinary `keras.Model` with fresh weights.

Every one maps log-mels `(batch, mels, frames)` to tag probabilities `(batch, num_tags)`. The layer named `"head"` is
the classifier; what enters it is the embedding.
"""

from .fcn import baseline_cnn, large_cnn
from .musicnet_crnn import musicnet_crnn
from .musicnn import musicnn
from .tiny import tiny
from .vgg import vgg

__all__ = ["baseline_cnn", "large_cnn", "musicnet_crnn", "musicnn", "tiny", "vgg"]
