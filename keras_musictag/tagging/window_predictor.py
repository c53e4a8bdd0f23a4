"""What a tagger computes from arrays of windows, before anything is averaged or named."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from .runtimes import Runtime


class WindowPredictor(abc.ABC):
    """A network with its front end, called on arrays of windows."""

    @property
    @abc.abstractmethod
    def _waveform_runtime(self) -> Runtime:
        """Waveforms `(batch, window_samples)` to probabilities `(batch, tags)`."""

    @property
    @abc.abstractmethod
    def _log_mel_runtime(self) -> Runtime:
        """Log-mels `(batch, mels, frames)` to probabilities `(batch, tags)`."""

    @property
    @abc.abstractmethod
    def _embedding_runtime(self) -> Runtime:
        """Waveforms `(batch, window_samples)` to embeddings `(batch, features)`, the input of the classifier."""

    def prepare(self) -> None:
        """Compile the network now, once. Call this before several threads start to use the tagger."""
        _ = self._waveform_runtime

    def predict_waveforms(self, windows: np.ndarray) -> np.ndarray:
        """Return the probabilities for windows of samples at the sample rate of the spec.

        Args:
            windows: float32 `(windows, window_samples)`.

        Returns:
            float32 `(windows, tags)`.
        """
        return self._waveform_runtime.predict(windows)

    def predict_log_mels(self, log_mels: np.ndarray) -> np.ndarray:
        """Return the probabilities for log-mel spectrograms as `LogMel(spec)` computes them.

        Args:
            log_mels: float32 `(windows, mels, frames)`.

        Returns:
            float32 `(windows, tags)`.

        Raises:
            ExportError: the tagger is an export that takes waveforms.
        """
        return self._log_mel_runtime.predict(log_mels)

    def predict_embeddings(self, windows: np.ndarray) -> np.ndarray:
        """Return the embeddings of windows of samples, the inputs of the classifier.

        Args:
            windows: float32 `(windows, window_samples)`.

        Returns:
            float32 `(windows, features)`.

        Raises:
            SpecError: the network has no layer named `head`.
            ExportError: the tagger is an export without embeddings.
        """
        return self._embedding_runtime.predict(windows)
