"""Third stage: run the network on full batches of windows from many files, and average the outputs per file."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from ...models.keras_runtime import KerasRuntime
from ...tagging.base_tagger import BaseTagger, windows_per_batch

if TYPE_CHECKING:
    from ...tagger import Tagger

Key = TypeVar("Key", bound=Hashable)
Predict = Callable[[np.ndarray], np.ndarray]

_MIN_WINDOWS = 4


def batch_size(tagger: BaseTagger) -> int:
    """Return the number of windows per batch."""
    return max(_MIN_WINDOWS, windows_per_batch(tagger.spec))


def network(tagger: BaseTagger, embeddings: bool) -> Predict:
    """Return the network of a tagger as a compiled function of waveforms.

    Args:
        tagger: the tagger.
        embeddings: whether to also return the features.

    Returns:
        Function from float32 `(windows, window_samples)` to float32 `(windows, tags)`, or `(windows, tags + features)`.

    Raises:
        SpecError: `embeddings` is set, and the network has no layer `head` with a vector as input.
        ExportError: `embeddings` is set, and the exported file has no features.
    """
    if not embeddings:
        return tagger.predict_waveforms
    from ...tagger import Tagger

    if isinstance(tagger, Tagger):
        return _with_features(tagger)
    parts = tagger.predict_waveforms, tagger.predict_embeddings
    return lambda windows: np.concatenate([predict(windows) for predict in parts], axis=1)


def _with_features(tagger: Tagger) -> Predict:
    """Return a function that computes tags and features in one pass."""
    import keras

    both = keras.layers.Concatenate(name="tags_and_features")([tagger.core.output, tagger.embedding_tensor])
    waveform = keras.Input(tagger.model.input_shape[1:], name="waveform")
    front_end = tagger.model.get_layer("log_mel_spectrogram")
    return KerasRuntime(keras.Model(waveform, keras.Model(tagger.core.inputs, both)(front_end(waveform)))).predict


class Batcher(Generic[Key]):
    """Collect windows of many files into full batches, and average the outputs of each file.

    Args:
        predict: float32 `(windows, window_samples)` -> float32 `(windows, outputs)`.
        size: windows per call. The last batch is padded with zeros, so that all calls have the same shape and results
            do not depend on where a batch ends.

    Example:
        >>> batcher = Batcher(lambda windows: windows, size=2)
        >>> batcher.add("a", np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "float32"))
        >>> batcher.end("a")
        >>> list(batcher.finished()), [(key, mean.tolist()) for key, mean in batcher.finished(flush=True)]
        ([], [('a', [3.0, 4.0])])
    """

    def __init__(self, predict: Predict, size: int) -> None:
        """Start empty."""
        self._predict, self._size = predict, size
        self._waiting: list[tuple[Key, np.ndarray]] = []
        self._sums: dict[Key, np.ndarray | float] = {}
        self._counts: dict[Key, int] = {}
        self._missing: dict[Key, int] = {}  # windows added and not predicted yet
        self._ended: dict[Key, None] = {}

    def add(self, key: Key, windows: np.ndarray) -> None:
        """Add windows `(windows, window_samples)` of a file."""
        self._missing[key] = self._missing.get(key, 0) + len(windows)
        for window in windows:
            self._waiting.append((key, window))
            if len(self._waiting) == self._size:
                self._run()

    def end(self, key: Key) -> None:
        """Note that a file has no more windows."""
        self._ended[key] = None

    def drop(self, key: Key) -> None:
        """Forget a file."""
        self._waiting = [(other, window) for other, window in self._waiting if other != key]
        for known in (self._sums, self._counts, self._missing, self._ended):
            known.pop(key, None)

    def finished(self, *, flush: bool = False) -> Iterator[tuple[Key, np.ndarray]]:
        """Yield each file whose windows are all predicted, once, with its mean output, float32 `(outputs,)`.

        Args:
            flush: predict the windows that wait, even if they do not fill a batch.
        """
        if flush and self._waiting:
            self._run()
        for key in [key for key in self._ended if not self._missing[key]]:
            mean = np.asarray(self._sums[key] / self._counts[key], "float32")
            self.drop(key)
            yield key, mean

    def _run(self) -> None:
        keys = [key for key, _ in self._waiting]
        batch = np.zeros((self._size, *self._waiting[0][1].shape), "float32")
        for row, (_, window) in zip(batch, self._waiting, strict=False):
            row[:] = window
        self._waiting = []
        for key, output in zip(keys, self._predict(batch), strict=False):
            # In float64: sums over hours of audio stay exact.
            self._sums[key] = self._sums.get(key, 0.0) + output.astype("float64")
            self._counts[key] = self._counts.get(key, 0) + 1
            self._missing[key] -= 1
