"""Other ways to tags, for `peers.py`: librosa with `model.predict`, the published musicnn, the network in PyTorch."""

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


# === musicnn ===


def musicnn() -> tuple[kmt.Tagger, str]:
    """Its network, and which weights it has: if the published cannot be had, fresh ones, which take as long."""
    try:
        return kmt.load("musicnn_mtt"), "published weights"
    except WeightsError:
        return kmt.load("musicnn_mtt", weights=None), "fresh weights, as the published ones could not be had"


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


def torch_network(core: Any) -> Any:
    """The same network with the same weights in PyTorch."""
    import torch
    from torch import nn

    def tensor(values: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential()
            for index in range(1, 5):
                conv, norm = core.get_layer(f"conv{index}"), core.get_layer(f"bn{index}")
                kernel, bias = conv.get_weights()
                own = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
                own.weight.data, own.bias.data = tensor(kernel.transpose(3, 2, 0, 1)), tensor(bias)
                own_norm = nn.BatchNorm2d(kernel.shape[3], eps=norm.epsilon)
                values = [tensor(value) for value in norm.get_weights()]
                own_norm.weight.data, own_norm.bias.data, own_norm.running_mean, own_norm.running_var = values
                pool = core.get_layer(f"pool{index}").pool_size
                self.blocks.extend([own, own_norm, nn.ReLU(), nn.MaxPool2d(pool)])
            self.gru1, self.gru2 = (self.gru(core.get_layer(f"gru{index}")) for index in (1, 2))
            kernel, bias = core.get_layer("head").get_weights()
            self.head = nn.Linear(*kernel.shape)
            self.head.weight.data, self.head.bias.data = tensor(kernel.T), tensor(bias)

        @staticmethod
        def gru(layer: Any) -> Any:
            kernel, recurrent, bias = layer.get_weights()

            def ordered(values: np.ndarray) -> Any:  # Keras: update, reset, new; PyTorch: reset, update, new
                update, reset, new = np.split(values, 3, axis=-1)
                return tensor(np.concatenate([reset, update, new], axis=-1).T)

            own = nn.GRU(kernel.shape[0], layer.units, batch_first=True)
            own.weight_ih_l0.data, own.weight_hh_l0.data = ordered(kernel), ordered(recurrent)
            own.bias_ih_l0.data, own.bias_hh_l0.data = ordered(bias[0]), ordered(bias[1])
            return own

        def forward(self, log_mel: Any) -> Any:
            x = self.blocks(log_mel[:, None])
            x = x.permute(0, 3, 2, 1).flatten(2)  # time, then mels, then channels
            x, _ = self.gru1(x)
            x, _ = self.gru2(x)
            return torch.sigmoid(self.head(x[:, -1]))

    return Network().eval()


def torch_calls(core: Any, log_mel: np.ndarray) -> Calls:
    """PyTorch as it is, and compiled."""
    import torch

    network = torch_network(core)
    compiled = torch.compile(torch_network(core))
    given = torch.from_numpy(log_mel)

    def run(model: Any) -> Callable[[], np.ndarray]:
        def call() -> np.ndarray:
            with torch.inference_mode():
                return model(given).numpy()

        return call

    return {"PyTorch, eager": run(network), "PyTorch, compiled": run(compiled)}
