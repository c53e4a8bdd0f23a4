"""Other ways to tags, for `peers.py`: librosa with `model.predict`, the published musicnn, networks in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np

import keras_musictag as kmt
from keras_musictag.errors import WeightsError

Calls = dict[str, Callable[[], np.ndarray]]


def original(tagger: kmt.Tagger) -> Callable[[Path], np.ndarray]:
    """The pipeline as such projects write it down: librosa for everything, then `model.predict`."""
    spec = tagger.spec

    def tag(path: Path) -> np.ndarray:
        log_mel = librosa.power_to_db(librosa_mel(path, spec))[:, : spec.window.frames]
        return tagger.core.predict(log_mel[None], verbose=0)

    return tag


def librosa_mel(path: Path, spec: Any) -> np.ndarray:
    """Power in mel bands `(mels, frames)` of a file."""
    samples, _ = librosa.load(path, sr=spec.audio.sr)
    return librosa.feature.melspectrogram(
        y=samples, sr=spec.audio.sr, n_fft=spec.mel.n_fft, hop_length=spec.mel.hop_length, n_mels=spec.mel.n_mels
    )


# === Published models ===


def published(name: str) -> tuple[kmt.Tagger, str]:
    """A tagger, and which weights it has: if the published cannot be had, fresh ones, which take as long."""
    try:
        return kmt.load(name), "published weights"
    except WeightsError:
        return kmt.load(name, weights=None), "fresh weights, as the published ones could not be had"


def original_musicnn(tagger: kmt.Tagger) -> Callable[[Path], np.ndarray]:
    """Its published extractor: librosa, `log10(10000 x + 1)`, 3 s patches side by side as one batch, their mean."""
    spec = tagger.spec

    def tag(path: Path) -> np.ndarray:
        log_mel = np.log10(10_000 * librosa_mel(path, spec) + 1)
        count = log_mel.shape[1] // spec.window.frames  # what is left over is dropped, here as there
        batch = np.stack(np.split(log_mel[:, : count * spec.window.frames], count, axis=1))
        return tagger.core.predict(batch, verbose=0).mean(axis=0)

    return tag


# === PyTorch ===


def torch_calls(core: Any, log_mel: np.ndarray) -> Calls:
    """The network in PyTorch as it is, and compiled."""
    import torch
    from torch_networks import network

    # Otherwise a GRU divides the graph, and so many layers are compiled one by one that PyTorch gives up.
    torch._dynamo.config.allow_rnn = True
    torch._dynamo.reset()
    given = torch.from_numpy(log_mel)

    def run(model: Any) -> Callable[[], np.ndarray]:
        def call() -> np.ndarray:
            with torch.inference_mode():
                return model(given).numpy()

        return call

    return {"PyTorch, eager": run(network(core)), "PyTorch, compiled": run(torch.compile(network(core)))}
