"""Taps: statistics of the intermediate layers of a network as additional features for its head.

The features before the head of a tagger are specific to its tags: those of `musicnet_crnn` are 32 numbers. Earlier
stages hold more information on other tags. On 300 recordings of ten instruments (grouped 5-fold cross-validation,
`benchmarks/small_data.py`), the accuracy of a linear classifier is 63 % with the 32 features and 85 % with taps.

A tap is the mean and standard deviation over time of the output of a stage, averaged in up to four mel bands. The taps
and the features of the network are concatenated and standardised, and enter a new head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from ..errors import SpecError

BANDS = 4  # at most
EPSILON = 1e-5  # added to the variance in standardisation
STANDARDISE = "taps_standardised"  # name of the layer that standardises the features by their moving statistics

LEAST_VARIANCE = 1e-4  # added to the variance over time, so that the gradient of the square root is finite


@keras.saving.register_keras_serializable("keras_musictag")
class TapStatistics(layers.Layer):
    """Mean and standard deviation over time of feature maps in mel bands.

    Maps `(batch, mels, frames, channels)`, or `(batch, frames, mels, channels)` with `time_axis=1`, to
    `(batch, 2 * bands * channels)`, and sequences `(batch, frames, channels)` to `(batch, 2 * channels)`.

    Args:
        time_axis: time axis of feature maps, 2 or 1.

    Example:
        >>> TapStatistics()(ops.ones((1, 24, 85, 76))).shape == (1, 2 * 4 * 76)
        True
    """

    def __init__(self, *, time_axis: int = 2, **kwargs: Any) -> None:
        """Create the layer, which has no variables."""
        super().__init__(**kwargs)
        self.time_axis = time_axis

    def call(self, inputs: Any) -> Any:
        """Compute the statistics of a batch."""
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
        """Return `(batch, features)`."""
        batch, *_, channels = input_shape
        assert channels is not None
        if len(input_shape) == 3:
            return batch, 2 * channels
        mels = input_shape[3 - self.time_axis]
        assert mels is not None
        return batch, 2 * bands_of(mels) * channels

    def compute_output_spec(self, inputs: Any) -> Any:
        """Return a symbolic tensor of the output, which is float32."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer, for serialisation."""
        return {**super().get_config(), "time_axis": self.time_axis}


def bands_of(mels: int) -> int:
    """Return the largest number of bands of equal width, up to `BANDS`."""
    return max(bands for bands in range(1, BANDS + 1) if mels % bands == 0)


def is_tap(layer: Any) -> bool:
    """Return whether a layer belongs to the taps."""
    return isinstance(layer, TapStatistics) or layer.name in ("taps", STANDARDISE)


def tap_names(model: keras.Model) -> tuple[str, ...]:
    """Return the names of the layers to tap.

    If the network has global pooling over time (musicnn), this is the layer before it. Otherwise these are the layers
    named `stage1`, `stage2`, ..., or if there are none, the max-pooling layers, without the first, which is too close
    to the spectrogram, and the recurrent layers that return sequences.

    Example:
        >>> import keras_musictag as kmt
        >>> tap_names(kmt.build_model("musicnet_crnn")), tap_names(kmt.build_model("musicnn"))
        (('pool2', 'pool3', 'pool4', 'gru1'), ('all_levels',))
    """
    for layer in model.layers:
        if isinstance(layer, (layers.GlobalMaxPooling1D, layers.GlobalAveragePooling1D)):
            return (layer.input._keras_history.operation.name,)
    stages = [layer for layer in model.layers if re.fullmatch(r"stage\d+", layer.name)]
    if not stages:
        stages = [layer for layer in model.layers if isinstance(layer, layers.MaxPooling2D)]
    maps = [layer.name for layer in stages if layer.output.shape[1:3] != (1, 1)]  # 1 x 1 maps are inputs of the head
    sequences = [layer.name for layer in model.layers if isinstance(layer, layers.RNN) and len(layer.output.shape) == 3]
    return (*maps[1:], *sequences)


def with_taps(model: keras.Model, taps: Sequence[str]) -> keras.Model:
    """Add taps and a new head to a network; the other layers are shared.

    Args:
        model: functional model whose last layer is named `"head"`.
        taps: names of layers, e.g. `tap_names(model)`.

    Returns:
        `keras.Model` with the same name, input and outputs and the additional layers `tap_<name>`, `taps`
        (concatenation), `taps_standardised` (batch norm without scale and shift) and a new `head`.

    Raises:
        SpecError: a layer does not exist or its output has no time axis.
    """
    known = {layer.name: layer for layer in model.layers}
    for name in taps:
        if name not in known or len(known[name].output.shape) not in (3, 4):
            raise SpecError(
                f"taps must be layers of {model.name} with feature maps or sequences, such as "
                f"{', '.join(tap_names(model)) or 'none'}; got {name!r}."
            )
    head = known["head"]
    time_axis = 1 if "time_major" in known and len(known["time_major"].output.shape) == 3 else 2
    statistics = [TapStatistics(time_axis=time_axis, name=f"tap_{name}")(known[name].output) for name in taps]
    x = layers.Concatenate(name="taps")([head.input, *statistics])
    x = layers.BatchNormalization(center=False, scale=False, epsilon=EPSILON, dtype="float32", name=STANDARDISE)(x)
    return keras.Model(model.inputs[0], type(head).from_config(head.get_config())(x), name=model.name)
