"""Candidates for `musicnet_crnn_fast`, timed beside musicnet_crnn: python benchmarks/fast_variants.py [NAME ...].

From a log-mel to tags, one window of 29 s, untrained weights (which take as long), Keras and float32 exports, in turns
in one process. Printed are parameters, multiply-adds, the size of the ONNX file, and for every runtime the median and
its ratio to musicnet_crnn's. Wants a machine that does nothing else.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before anything imports a backend
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.apps.benchmarking.complexity import multiply_adds
from keras_musictag.models.architectures._blocks import as_image, as_sequence, conv_block, tag_head
from keras_musictag.tagging.runtimes import is_installed

BASE = "musicnet_crnn"
RUNTIMES = {"onnxruntime": "onnx", "openvino": "onnx", "litert": "litert"}
PAUSE, WARM_UP = 0.02, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A network like musicnet_crnn.

    Attributes:
        mels, hop: of the log-mel, at 12 kHz; the window is 2 hops, 512 samples at least.
        stem: kernel and strides (mels, frames) of a strided first convolution; `None` for a 3 x 3 one that is pooled.
        filters, pools: of the convolutions; the first pool is that of the first convolution, if that is not strided.
        separable: depthwise and pointwise convolutions after the first.
        units: of the GRUs.
    """

    mels: int = 96
    hop: int = 256
    stem: tuple[tuple[int, int], tuple[int, int]] | None = None
    filters: tuple[int, ...] = (44, 76, 108, 128)
    pools: tuple[tuple[int, int], ...] = ((2, 4), (2, 4), (2, 4), (3, 4))
    separable: bool = False
    units: tuple[int, ...] = (86, 32)

    @property
    def frames(self) -> int:
        """Frames of 29.12 s."""
        return round(1366 * 256 / self.hop)

    def build(self, num_tags: int, input_shape: tuple[int, int], name: str) -> keras.Model:
        """The network."""
        log_mel = keras.Input(input_shape, name="log_mel")
        x, pools = as_image(log_mel), list(self.pools)
        for index, filters in enumerate(self.filters, start=1):
            if index == 1 and self.stem:
                x = _strided(x, filters, *self.stem)
            elif index > 1 and self.separable:
                x = _separable(x, index, filters, pools.pop(0))
            else:
                x = conv_block(x, index, filters, pools.pop(0))
        x = as_sequence(x)
        for index, units in enumerate(self.units, start=1):
            x = layers.GRU(units, return_sequences=index < len(self.units), name=f"gru{index}")(x)
        return keras.Model(log_mel, tag_head(x, num_tags, "sigmoid"), name=name)

    def tagger(self, name: str) -> kmt.Tagger:
        """An untrained tagger."""
        base = kmt.model_info(BASE)
        mel = dataclasses.replace(base.mel, n_fft=max(512, 2 * self.hop), hop_length=self.hop, n_mels=self.mels)
        spec = kmt.ModelSpec(
            name=name, architecture=name, audio=base.audio, mel=mel, tags=base.tags,
            window=dataclasses.replace(base.window, frames=self.frames),
        )  # fmt: skip

        def builder(num_tags: int = 50, *, input_shape: tuple[int, int], name: str) -> keras.Model:
            return self.build(num_tags, input_shape, name)

        builder.__name__ = name  # a builder is called like its architecture
        kmt.register_model(spec=spec)(builder)
        return kmt.load(name, weights=None)


def _strided(x: Any, filters: int, kernel: tuple[int, int], strides: tuple[int, int]) -> Any:
    pad = tuple(length // 2 for length in kernel)
    x = layers.ZeroPadding2D(pad, data_format="channels_last", name="pad1")(x)
    x = layers.Conv2D(filters, kernel, strides=strides, data_format="channels_last", name="conv1")(x)
    x = layers.BatchNormalization(name="bn1")(x)
    return layers.ReLU(name="relu1")(x)


def _separable(x: Any, index: int, filters: int, pool: tuple[int, int]) -> Any:
    x = layers.DepthwiseConv2D(3, padding="same", data_format="channels_last", name=f"depthwise{index}")(x)
    x = layers.Conv2D(filters, 1, data_format="channels_last", name=f"conv{index}")(x)
    x = layers.BatchNormalization(name=f"bn{index}")(x)
    x = layers.ReLU(name=f"relu{index}")(x)
    return layers.MaxPooling2D(pool, data_format="channels_last", name=f"pool{index}")(x)


_NARROW, _WIDE, _UNITS = (32, 48, 72, 96), (32, 64, 96, 128), (64, 32)
VARIANTS = {
    "half_rate": Variant(
        mels=64, hop=512, filters=_NARROW, pools=((2, 2), (2, 4), (2, 4), (4, 4)), units=_UNITS
    ),
    "separable": Variant(separable=True, units=_UNITS, filters=_WIDE),
    "strided": Variant(stem=((3, 7), (2, 4)), filters=_NARROW, pools=((2, 4), (2, 4), (3, 4)), units=_UNITS),
    "strided_64": Variant(
        mels=64, hop=512, stem=((5, 5), (2, 2)), filters=_NARROW, pools=((2, 4), (2, 4), (4, 4)), units=_UNITS
    ),
    "strided_64_by_4": Variant(
        mels=64, hop=512, stem=((5, 7), (2, 4)), filters=_NARROW, pools=((2, 4), (2, 4), (4, 2)), units=_UNITS
    ),
    "strided_64_wide": Variant(
        mels=64, hop=512, stem=((5, 7), (2, 4)), filters=(32, 48, 80, 96), pools=((2, 4), (2, 4), (4, 2)), units=_UNITS
    ),
    "strided_48_by_4": Variant(
        mels=48, hop=512, stem=((3, 7), (2, 4)), filters=_NARROW, pools=((2, 4), (2, 4), (3, 2)), units=_UNITS
    ),
    "strided_separable": Variant(
        mels=64, hop=512, stem=((5, 5), (2, 2)), filters=_WIDE, pools=((2, 4), (2, 4), (4, 4)), separable=True,
        units=_UNITS,
    ),
}  # fmt: skip


def medians(taggers: dict[str, Any], log_mels: dict[str, np.ndarray], rounds: int) -> dict[str, float]:
    """Milliseconds of each tagger, in turns."""
    times: dict[str, list[float]] = {name: [] for name in taggers}
    for turn in range(WARM_UP + rounds):
        for name, tagger in taggers.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            tagger.predict_log_mels(log_mels[name])
            if turn >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description="Time candidates for a faster CRNN beside musicnet_crnn.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(VARIANTS)}; by default all")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    taggers = {BASE: kmt.load(BASE, weights=None)}
    taggers |= {name: VARIANTS[name].tagger(name) for name in given.names or VARIANTS}
    rng = np.random.default_rng(0)
    log_mels = {
        name: rng.normal(-20, 15, (1, *tagger.core.input_shape[1:])).astype("float32")
        for name, tagger in taggers.items()
    }
    found = {"keras": medians(taggers, log_mels, given.rounds)}
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for runtime, file_format in RUNTIMES.items():
            if not is_installed(runtime):
                continue
            exports = {}
            for name, tagger in tqdm(taggers.items(), desc=f"exports for {runtime}", delay=2):
                path = Path(folder) / f"{name}-{file_format}"
                if not path.is_dir():
                    tagger.export(path, format=file_format, input="log_mel")
                exports[name] = kmt.load(path, runtime=runtime)
                sizes.setdefault(name, sum(file.stat().st_size for file in path.iterdir()) / 1e6)
            found[runtime] = medians(exports, log_mels, given.rounds)
    print("| | parameters | million multiply-adds | MB | " + " | ".join(f"{name}, ms | ratio" for name in found) + " |")
    print("| --- " + "| ---: " * (3 + 2 * len(found)) + "|")
    for name, tagger in taggers.items():
        cells = [
            f"{tagger.core.count_params():,}",
            f"{multiply_adds(tagger.core) / 1e6:,.0f}",
            f"{sizes.get(name, 0):.2f}",
        ]
        for times in found.values():
            cells += [f"{times[name]:.1f}", f"{times[name] / times[BASE]:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
