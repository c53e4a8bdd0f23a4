"""Log-mel spectrogram as a Keras layer.

Conventions: waveforms are float32 `(batch, samples)` in [-1, 1]; spectrograms are `(batch, mels, frames)`, the
orientation of librosa and of Keras' own `MelSpectrogram`; frequencies are in Hz, lengths in samples.

The reference is librosa (McFee et al., 2015, https://librosa.org): parameter names, defaults and values are those of
`librosa.feature.melspectrogram` and `librosa.power_to_db`. The mel matrix and the window are computed in `mel`, so that
the features of published weights cannot change with a dependency.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from ..errors import InvalidSamplesError
from .front_end import AudioSpec, MelBanks, MelSpec, PadMode, Scaling
from .mel import decibels_per_decade
from .mel import dft_kernels as dft_kernels
from .mel import mel_filterbank as mel_filterbank
from .mel import mel_frequencies as mel_frequencies
from .mel import window_function as window_function

Impl = Literal["fft", "conv"]


@keras.saving.register_keras_serializable(package="keras_musictag")
class LogMelSpectrogram(keras.layers.Layer):
    """Log-mel spectrogram equal to librosa's, on every Keras backend.

    Clips of a batch are transformed independently. The layer has no variables. The result is float32 under any global
    dtype policy; the FFT is computed in float64, as in librosa.

    Args:
        sr: sample rate in Hz.
        n_fft: FFT length in samples.
        hop_length: samples between frames.
        win_length: window length in samples, `None` for `n_fft`.
        window: `"hann"`, `"hamming"`, `"blackman"` or `"boxcar"`.
        periodic: whether the window is periodic or symmetric.
        center: pad `n_fft // 2` samples on both sides so that frame `t` is centred on sample `t * hop_length`.
        pad_mode: padding of `center`: `"constant"` (zeros) or `"reflect"`.
        preemphasis_coefficient: `x[t]` becomes `x[t] - coefficient * x[t - 1]` and the first sample is dropped, before
            padding; 0 for none.
        power: exponent of the magnitude.
        n_mels: mel bands.
        fmin: lowest frequency in Hz.
        fmax: highest frequency in Hz, `None` for `sr / 2`.
        htk: use HTK's mel formula instead of Slaney's.
        norm: `"slaney"` or `None`.
        mel_banks: `"librosa"` (also torchaudio's) or `"kaldi"`, see `mel_filterbank`.
        scaling: `"db"` for `librosa.power_to_db`, `"amplitude_to_db"` for `librosa.amplitude_to_db`, `"log10"` for
            `log10(1 + gain * mel)`, `"log"` for `(ln(mel + log_offset) - mean) / std`, `None` for mel power.
        ref: reference of the dB scalings, in mel power.
        amin: floor of the dB scalings, in mel power.
        top_db: dynamic range below the maximum of each clip, `None` for no limit.
        gain: factor of the `"log10"` scaling.
        log_offset, mean, std: parameters of the `"log"` scaling.
        impl: `"fft"` is fastest; `"conv"` is a strided convolution with DFT kernels, for runtimes without a usable FFT.

    Input shape: `(batch, samples)`. Output shape: `(batch, n_mels, frames)`, float32.

    Raises:
        ValueError: an option is invalid.
        InvalidSamplesError: the input is not `(batch, samples)` or is shorter than one frame.

    Example:
        >>> import numpy as np
        >>> layer = LogMelSpectrogram(sr=16000, n_fft=512, hop_length=256, n_mels=96, scaling="log10")
        >>> layer(np.zeros((2, 16000), "float32")).shape
        TensorShape([2, 96, 63])
    """

    def __init__(
        self,
        *,
        sr: float = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        win_length: int | None = None,
        window: str = "hann",
        periodic: bool = True,
        center: bool = True,
        pad_mode: PadMode = "constant",
        preemphasis_coefficient: float = 0.0,
        power: float = 2.0,
        n_mels: int = 128,
        fmin: float = 0.0,
        fmax: float | None = None,
        htk: bool = False,
        norm: Literal["slaney"] | None = "slaney",
        mel_banks: MelBanks = "librosa",
        scaling: Scaling | None = "db",
        ref: float = 1.0,
        amin: float = 1e-10,
        top_db: float | None = 80.0,
        gain: float = 10_000.0,
        log_offset: float = 1e-5,
        mean: float = 0.0,
        std: float = 1.0,
        impl: Impl = "fft",
        **kwargs: Any,
    ) -> None:
        """Compute the constants; see the class for the arguments."""
        kwargs.setdefault("dtype", "float32")
        super().__init__(trainable=False, **{k: v for k, v in kwargs.items() if k != "trainable"})
        if impl not in get_args(Impl):
            raise ValueError(f"impl must be 'fft' or 'conv'; got {impl!r}.")
        # MelSpec validates the arguments.
        self.mel = MelSpec(
            n_fft=n_fft, hop_length=hop_length, n_mels=n_mels, win_length=win_length, window=window, periodic=periodic,
            center=center, pad_mode=pad_mode, preemphasis_coefficient=preemphasis_coefficient, fmin=fmin, fmax=fmax,
            htk=htk, norm=norm, mel_banks=mel_banks, power=power, scaling=scaling, ref=ref, amin=amin, top_db=top_db,
            gain=gain, log_offset=log_offset, mean=mean, std=std,
        )  # fmt: skip
        self.sr = sr
        self.impl = impl

        taper = window_function(window, win_length or n_fft, n_fft, periodic)
        filters = mel_filterbank(
            sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=norm, mel_banks=mel_banks
        )
        self._filters = filters.T.astype("float32")
        if impl == "fft":
            self._taper = taper
        else:
            self._kernels = (dft_kernels(n_fft) * taper[:, None]).astype("float32")[:, None, :]

    @classmethod
    def from_spec(cls, audio: AudioSpec, mel: MelSpec, *, impl: Impl = "fft", **kwargs: Any) -> LogMelSpectrogram:
        """Create the layer of a model's spec."""
        return cls(sr=audio.sr, impl=impl, **_numbers(mel), **kwargs)

    def call(self, waveform: Any) -> Any:
        """Transform `(batch, samples)` to `(batch, n_mels, frames)`."""
        self._check_shape(waveform.shape)
        x = ops.cast(waveform, "float32")
        if self.mel.preemphasis_coefficient:
            x = x[:, 1:] - self.mel.preemphasis_coefficient * x[:, :-1]
        if self.mel.center:
            x = ops.pad(x, [[0, 0], [self.mel.padding, self.mel.padding]], mode=self.mel.pad_mode)
        real, imag = self._stft(x)
        power = real * real + imag * imag
        if self.mel.power != 2.0:
            power = ops.power(power, self.mel.power / 2.0)
        return self._scale(ops.transpose(ops.matmul(power, self._filters), (0, 2, 1)))

    def _stft(self, x: Any) -> tuple[Any, Any]:
        """Return real and imaginary parts, each `(batch, frames, bins)`."""
        if self.impl == "conv":
            parts = ops.conv(
                x[:, :, None], self._kernels, strides=self.mel.hop_length, padding="valid", data_format="channels_last"
            )
            bins = 1 + self.mel.n_fft // 2
            return parts[:, :, :bins], parts[:, :, bins:]
        # A float32 FFT is off by 0.1 dB where the leakage of a pure tone is 90 dB below its peak.
        with _float64_scope():
            frames = ops.cast(frame_signal(x, self.mel.n_fft, self.mel.hop_length), "float64")
            real, imag = ops.rfft(frames * ops.convert_to_tensor(self._taper, "float64"))
            return ops.cast(real, "float32"), ops.cast(imag, "float32")

    def _scale(self, mel: Any) -> Any:
        if self.mel.scaling == "log10":
            return ops.log10(1.0 + self.mel.gain * mel)
        if self.mel.scaling is None:
            return mel
        if self.mel.scaling == "log":
            return (ops.log(mel + self.mel.log_offset) - self.mel.mean) / self.mel.std
        factor = decibels_per_decade(self.mel)
        db = factor * ops.log10(ops.maximum(mel, self.mel.amin)) - factor * np.log10(max(self.mel.amin, self.mel.ref))
        if self.mel.top_db is not None:
            maximum = ops.max(db, axis=(1, 2), keepdims=True)
            db = ops.maximum(db, maximum - self.mel.top_db)
        return db

    def _check_shape(self, shape: tuple[int | None, ...]) -> None:
        if len(shape) != 2:
            raise InvalidSamplesError(
                f"{type(self).__name__} takes waveforms of shape (batch, samples); got shape {tuple(shape)}."
            )
        minimum = (1 if self.mel.center else self.mel.n_fft) + self.mel.lost_samples
        if shape[1] is not None and shape[1] < minimum:
            raise InvalidSamplesError(f"{type(self).__name__} needs at least {minimum} samples; got {shape[1]}.")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return `(batch, n_mels, frames)`."""
        self._check_shape(input_shape)
        batch, samples = input_shape
        if samples is None:
            return batch, self.mel.n_mels, None
        return batch, self.mel.n_mels, self.mel.frames(samples)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer, for serialisation."""
        return {**super().get_config(), **_numbers(self.mel), "sr": self.sr, "impl": self.impl}


def _numbers(mel: MelSpec) -> dict[str, Any]:
    return {field.name: getattr(mel, field.name) for field in dataclasses.fields(mel)}


def _float64_scope() -> contextlib.AbstractContextManager[Any]:
    """Enable float64 on JAX; the other backends always support it."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    # Before JAX 0.8, enable_x64 was in jax.experimental.
    module = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    return module.enable_x64(True)


def frame_signal(x: Any, n_fft: int, hop_length: int) -> Any:
    """Cut `(batch, samples)` into overlapping frames `(batch, frames, n_fft)`.

    If `hop_length` divides `n_fft`, the frames are concatenations of adjacent blocks of `hop_length` samples, which is
    several times faster than a gather.
    """
    if n_fft % hop_length:
        return ops.extract_sequences(x, n_fft, hop_length)
    per_frame = n_fft // hop_length
    samples = x.shape[1] if x.shape[1] is not None else ops.shape(x)[1]
    blocks = samples // hop_length
    x = ops.reshape(x[:, : blocks * hop_length], (-1, blocks, hop_length))
    frames = blocks - per_frame + 1
    return ops.concatenate([x[:, i : i + frames] for i in range(per_frame)], axis=-1)
