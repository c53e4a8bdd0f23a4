"""Export to LiteRT (TensorFlow Lite): one file for phones and small machines, made by TensorFlow's own converter.

The preprocessing inside the file uses the format's own FFT, in float32. int8 covers the network behind it: weights per
channel, activations calibrated. GRUs are unrolled, so that the converter can quantize them and runtimes are faster.
Metadata is appended to the file as a zip archive, as LiteRT's own tools do: `unzip -l model.tflite`.
"""

from __future__ import annotations

import math
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from ...models.layers import LogMelSpectrogram, frame_signal
from ...models.mel import decibels_per_decade
from ...models.spec import ModelSpec
from ..exported import ExportError
from . import saved_model

if TYPE_CHECKING:
    from collections.abc import Callable

_FRONT_END = "front_end"
_NOISE_LEVEL = 1e-5  # of full scale
_MAX_STEPS = 64  # longest GRU to unroll; longer ones become loops


class _LiteRtLogMel(LogMelSpectrogram):
    """Log-mels by the format's FFT, in float32; by convolution for lengths that are not a power of two.

    At float16 the converter rounds constants here too. So the window is the sum of two float16 arrays, without which
    its side lobes would mask everything 70 dB below the maximum, and the floor is in dB, since 1e-10 would become 0.
    """

    def _stft(self, x: Any) -> tuple[Any, Any]:
        if self.impl == "conv":
            return super()._stft(x)
        frames = frame_signal(x, self.mel.n_fft, self.mel.hop_length)
        coarse = self._taper.astype("float16").astype("float32")
        fine = (self._taper - coarse).astype("float32")
        return ops.rfft(frames * coarse + frames * fine)

    def _scale(self, mel: Any) -> Any:
        if self.mel.scaling not in ("db", "amplitude_to_db"):
            return super()._scale(mel)
        factor = decibels_per_decade(self.mel)
        floor, ref = (factor * math.log10(value) for value in (self.mel.amin, max(self.mel.amin, self.mel.ref)))
        db = ops.maximum(factor * ops.log10(mel), floor) - ref
        if self.mel.top_db is None:
            return db
        return ops.maximum(db, ops.max(db, axis=(1, 2), keepdims=True) - self.mel.top_db)


def write(
    core: keras.Model,
    spec: ModelSpec,
    precision: str,
    input_kind: str,
    log_mels: np.ndarray | None,
    waveforms: np.ndarray,
    path: Path,
    metadata: dict[str, str],
) -> None:
    """Convert and write a network.

    Args:
        core: log-mel `(batch, mels, frames)` to probabilities.
        spec: its spec.
        precision: `"float32"`, `"float16"` or `"int8"`.
        input_kind: `"waveform"` or `"log_mel"`.
        log_mels, waveforms: the same windows, for the calibration of int8.
        path: file to write.
        metadata: names and contents of the appended files.

    Raises:
        ExportError: TensorFlow cannot convert the network.
        OSError: the file cannot be written.
    """
    front_end = None
    if input_kind == "waveform":
        impl: Any = "conv" if spec.mel.n_fft & (spec.mel.n_fft - 1) else "fft"
        front_end = _LiteRtLogMel.from_spec(spec.audio, spec.mel, impl=impl, name=_FRONT_END)
    inputs = waveforms if input_kind == "waveform" else log_mels
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "saved_model"
        saved_model.save(_unrolled(core), spec, front_end, folder)
        try:
            content = _convert(folder, precision, inputs)
        except Exception as error:  # the converter raises exceptions of many classes
            raise ExportError(
                f"TensorFlow cannot convert {spec.name!r} to LiteRT: {str(error).strip().splitlines()[0]} Export it as "
                "onnx or saved_model."
            ) from error
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in metadata.items():
            archive.writestr(f"{name}.{'json' if text.startswith('{') else 'txt'}", text)


def _unrolled(core: keras.Model) -> keras.Model:
    """Copy a network with its short GRUs unrolled."""

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.GRU):
            steps = layer.input.shape[1]
            if steps is not None and steps <= _MAX_STEPS:
                config["unroll"] = True
        return type(layer).from_config(config)

    copy = keras.models.clone_model(core, clone_function=clone)
    copy.set_weights(core.get_weights())
    return copy


def _convert(folder: Path, precision: str, inputs: np.ndarray | None) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    if precision == "float32":
        return bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())
    assert inputs is not None

    # Digital silence crashes TensorFlow 2.21's quantizer (a segmentation fault), so add noise at -100 dB.
    noise = _NOISE_LEVEL * np.random.default_rng(0).standard_normal(inputs.shape[1:]).astype("float32")

    def calibration() -> Iterator[list[np.ndarray]]:
        for window in inputs:
            yield [(window + noise)[None]]

    converter.representative_dataset = calibration
    return _int8(converter, calibration, _front_end_tensors(folder))


def _front_end_tensors(folder: Path) -> list[str]:
    """Return the names of the tensors of the preprocessing in the converted graph."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    content = tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert()
    names = [detail["name"] for detail in Interpreter(model_content=content).get_tensor_details()]
    return [name for name in names if name.startswith(_FRONT_END)]


def _int8(converter: Any, calibration: Callable[[], Iterator[list[np.ndarray]]], exclude: list[str]) -> bytes:
    """Quantize all tensors but those in `exclude`: before the logarithm, 8 bits only hold a spectrogram's maxima."""
    import tensorflow as tf

    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=exclude)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow uses an interpreter of its own that it calls deprecated
        # The debugger is the converter's public way to exclude nodes.
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=calibration, debug_options=options
        )
        return bytes(debugger.get_nondebug_quantized_model())
