"""A wider view for the head: statistics of what every stage of a network hears, beside the network's own features.

The features that enter a tagger's head are made for the tags it was trained on: `musicnet_crnn` squeezes a window into
32 numbers. What other tags need is still there in the stages before. On the 300 recordings of ten instruments (grouped
5-fold, `benchmarks/small_data.py`), 63 % are right with a linear classifier of the 32 numbers, 85 % with the taps.

A tap is the output of a stage, averaged in up to four mel bands, of which mean and standard deviation over time are
taken. The taps and the network's own features, side by side and standardised, enter a head of the same kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from ..errors import SpecError

BANDS = 4  # at most
EPSILON = 1e-5  # added to the variance of a feature that is standardised
STANDARDISE = "taps_standardised"  # the layer; its moving statistics are those of the features

LEAST_VARIANCE = 1e-4  # over time; keeps the gradient of the root finite


@keras.saving.register_keras_serializable("keras_musictag")
class TapStatistics(layers.Layer):
    """Mean and standard deviation over time of feature maps, mel band by mel band.

    Maps `(batch, mels, frames, channels)`, or `(batch, frames, mels, channels)` with `time_axis=1`, to
    `(batch, 2 * bands * channels)`, and sequences `(batch, frames, channels)` to `(batch, 2 * channels)`.

    Args:
        time_axis: which axis of feature maps is time; 2 or 1.

    Example:
        >>> TapStatistics()(ops.ones((1, 24, 85, 76))).shape == (1, 2 * 4 * 76)
        True
    """

    def __init__(self, *, time_axis: int = 2, **kwargs: Any) -> None:
        """Nothing is learned."""
        super().__init__(**kwargs)
        self.time_axis = time_axis

    def call(self, inputs: Any) -> Any:
        """Statistics of a batch."""
        x = ops.cast(inputs, "float32")
        if len(x.shape) == 4:
            x = ops.transpose(x, (0, 2, 1, 3)) if self.time_axis == 2 else x
            _, frames, mels, channels = x.shape
            bands = bands_of(mels)
            x = ops.mean(ops.reshape(x, (-1, frames, bands, mels // bands, channels)), axis=3)
            x = ops.reshape(x, (-1, frames, bands * channels))
        mean = ops.mean(x, axis=1, keepdims=True)
        variance = ops.mean(ops.square(x - mean), axis=1)
        return ops.concatenate([ops.squeeze(mean, axis=1), ops.sqrt(variance + LEAST_VARIANCE)], axis=-1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        """`(batch, features)`."""
        batch, *_, channels = input_shape
        assert channels is not None
        mels = input_shape[3 - self.time_axis] if len(input_shape) == 4 else 1
        assert mels is not None
        return batch, 2 * channels * (bands_of(mels) if len(input_shape) == 4 else 1)

    def compute_output_spec(self, inputs: Any) -> Any:
        """As above, of a symbolic tensor; always float32."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {**super().get_config(), "time_axis": self.time_axis}


def bands_of(mels: int) -> int:
    """The most bands of equal width, up to `BANDS`."""
    return max(bands for bands in range(1, BANDS + 1) if mels % bands == 0)


def is_tap(layer: Any) -> bool:
    """Whether a layer belongs to the taps."""
    return isinstance(layer, TapStatistics) or layer.name in ("taps", STANDARDISE)


def tap_names(model: keras.Model) -> tuple[str, ...]:
    """The stages of a network that are worth tapping.

    Where features are pooled over all of time (musicnn), it is what is pooled. Where a network says where its stages
    end (layers named `stage1`, `stage2`, ...), it is those, else every max-pooling; but not the first, whose maps are
    hardly more than the spectrogram. Recurrent layers that give a sequence are worth it too.

    Example:
        >>> import keras_musictag as kmt
        >>> tap_names(kmt.build_model("musicnet_crnn")), tap_names(kmt.build_model("musicnn"))
        (('pool2', 'pool3', 'pool4', 'gru1'), ('all_levels',))
    """
    for layer in model.layers:
        if isinstance(layer, (layers.GlobalMaxPooling1D, layers.GlobalAveragePooling1D)):
            return (layer.input._keras_history.operation.name,)
    stages = [layer for layer in model.layers if re.fullmatch(r"stage\d+", layer.name)]
    stages = stages or [layer for layer in model.layers if isinstance(layer, layers.MaxPooling2D)]
    pools = [layer.name for layer in stages if layer.output.shape[1:3] != (1, 1)]  # the head has those anyway
    sequences = [layer.name for layer in model.layers if isinstance(layer, layers.RNN) and len(layer.output.shape) == 3]
    return (*pools[1:], *sequences)


def with_taps(model: keras.Model, taps: Sequence[str]) -> keras.Model:
    """Give a network a fresh head that sees what its stages hear; the layers before the head are shared.

    Args:
        model: functional model whose last layer is named `"head"`.
        taps: names of layers, e.g. `tap_names(model)`.

    Returns:
        `keras.Model` of the same name, input and outputs. Layers are added: `tap_<name>`, `taps` (side by side),
        `taps_standardised` (batch norm without scale and shift) and the new `head`.

    Raises:
        SpecError: no such layer, or nothing that has a time axis.
    """
    known = {layer.name: layer for layer in model.layers}
    for name in taps:
        if name not in known or len(known[name].output.shape) not in (3, 4):
            raise SpecError(
                f"{model.name} has no layer {name!r} with feature maps or a sequence to tap. Such layers are: "
                f"{', '.join(tap_names(model)) or 'none'}."
            )
    head = known["head"]
    time_axis = 1 if "time_major" in known and len(known["time_major"].output.shape) == 3 else 2
    views = [TapStatistics(time_axis=time_axis, name=f"tap_{name}")(known[name].output) for name in taps]
    # What a head gets is what it got before, and the taps.
    x = layers.Concatenate(name="taps")([head.input, *views])
    x = layers.BatchNormalization(center=False, scale=False, epsilon=EPSILON, dtype="float32", name=STANDARDISE)(x)
    return keras.Model(model.inputs[0], type(head).from_config(head.get_config())(x), name=model.name)
