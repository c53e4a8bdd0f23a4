"""Export to SavedModel, TensorFlow's own format, for TensorFlow Serving and as an intermediate for LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.layers import LogMelSpectrogram
from ...models.spec import ModelSpec
from ..exported import EMBEDDING, PROBABILITIES

if TYPE_CHECKING:
    import keras

_EXTRA = "assets.extra"  # the format's folder for files that TensorFlow does not read


def write(core: keras.Model, spec: ModelSpec, input_kind: str, folder: Path, metadata: dict[str, str]) -> None:
    """Write a network with one signature, `serving_default`.

    Args:
        core: log-mel `(batch, mels, frames)` to probabilities.
        spec: its spec.
        input_kind: `"waveform"` or `"log_mel"`.
        folder: folder to write.
        metadata: name -> content of files in `assets.extra`.

    Raises:
        OSError: the folder cannot be written.
    """
    front_end = (
        LogMelSpectrogram.from_spec(spec.audio, spec.mel, name="front_end") if input_kind == "waveform" else None
    )
    save(core, spec, front_end, folder)
    extra = folder / _EXTRA
    extra.mkdir()
    for name, content in metadata.items():
        (extra / f"{name}.{'json' if content.startswith('{') else 'txt'}").write_text(content, encoding="utf-8")


def save(core: keras.Model, spec: ModelSpec, front_end: Any, folder: Path) -> None:
    """Write a network; with a front end, which turns waveforms into log-mels, it takes waveforms."""
    import keras
    import tensorflow as tf

    heads = [layer for layer in core.layers if layer.name == "head"]
    outputs = {PROBABILITIES: core.outputs[0]} | ({EMBEDDING: heads[0].input} if heads else {})
    network = keras.Model(core.inputs[0], outputs)
    name, shape = ("log_mel", spec.input_shape) if front_end is None else ("waveform", (spec.window_samples,))

    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.float32, name=name)], autograph=False)
    def serve(inputs: Any) -> Any:
        return network(inputs if front_end is None else front_end(inputs), training=False)

    module = tf.Module()
    module.weights = [variable.value for variable in network.variables]
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures=serve.get_concrete_function())


def open_folder(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load a written network and return the function from inputs to probabilities."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]

    def predict(batch: np.ndarray) -> np.ndarray:
        # Refer to the loaded object: the signature loses its variables when that is freed.
        assert loaded is not None
        return np.asarray(signature(**{name: tf.constant(np.ascontiguousarray(batch, "float32"))})[PROBABILITIES])

    return predict


def version() -> str:
    """Return name and version of the runtime of `open_folder`."""
    import tensorflow as tf

    return f"tensorflow {tf.__version__}"
