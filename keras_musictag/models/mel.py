"""Log-mel spectrogram in NumPy, and its constants.

Conventions are those of `layers`: waveforms float32 `(batch, samples)`, spectrograms `(batch, mels, frames)`,
frequencies in Hz, lengths in samples. The mel matrix and the window are computed here, in float64, so that the features
of published weights cannot change with a dependency. The reference is librosa (McFee et al., 2015,
https://librosa.org).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from .front_end import MelBanks, MelSpec
from .spec import ModelSpec

# === Constants ===

# Cosine-sum windows: w[n] = a0 - a1 cos(2 pi n / N) + a2 cos(4 pi n / N) - ...
_WINDOWS = {
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "blackman": (0.42, 0.5, 0.08),
    "boxcar": (1.0,),
}


def window_function(window: str, win_length: int, n_fft: int, periodic: bool = True) -> np.ndarray:
    """Compute a window of `win_length` samples, zero-padded on both sides to `n_fft`.

    Args:
        window: name of the window.
        win_length: length in samples.
        n_fft: length in samples after padding.
        periodic: whether the window is periodic or symmetric.

    Returns:
        float64 array `(n_fft,)`.

    Raises:
        ValueError: the window is unknown.

    Example:
        >>> window_function("hann", 4, 4)
        array([0. , 0.5, 1. , 0.5])
    """
    if window not in _WINDOWS:
        raise ValueError(f"window must be one of {', '.join(_WINDOWS)}; got {window!r}.")
    phase = 2 * np.pi * np.arange(win_length) / max(1, win_length - (not periodic))
    values = sum((-1) ** k * a * np.cos(k * phase) for k, a in enumerate(_WINDOWS[window]))
    left = (n_fft - win_length) // 2
    return np.pad(values, (left, n_fft - win_length - left))


def mel_frequencies(n_mels: int, fmin: float, fmax: float, htk: bool = False) -> np.ndarray:
    """Compute `n_mels` frequencies in Hz, evenly spaced on the mel scale from `fmin` to `fmax` inclusive.

    Slaney's scale (Auditory Toolbox, 1998) is linear up to 1000 Hz at 3 mels per 200 Hz and logarithmic above, where
    27 mels multiply the frequency by 6.4. HTK's is 2595 log10(1 + f / 700).

    Example:
        >>> mel_frequencies(3, 0.0, 800.0)
        array([  0., 400., 800.])
    """
    linear_hz, knee_hz, knee_mel, octave_mels = 200.0 / 3, 1000.0, 15.0, np.log(6.4) / 27.0

    def to_mel(hz: float) -> float:
        if htk:
            return float(2595.0 * np.log10(1.0 + hz / 700.0))
        return hz / linear_hz if hz < knee_hz else float(knee_mel + np.log(hz / knee_hz) / octave_mels)

    mels = np.linspace(to_mel(fmin), to_mel(fmax), n_mels)
    if htk:
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    return np.where(mels < knee_mel, mels * linear_hz, knee_hz * np.exp(octave_mels * (mels - knee_mel)))


def mel_filterbank(
    *,
    sr: float,
    n_fft: int,
    n_mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
    htk: bool = False,
    norm: Literal["slaney"] | None = "slaney",
    mel_banks: MelBanks = "librosa",
) -> np.ndarray:
    """Compute triangular mel filters, as `librosa.filters.mel`, or with `htk` and no `norm` as torchaudio by default.

    Args:
        sr: sample rate in Hz.
        n_fft: FFT length in samples.
        n_mels: number of filters.
        fmin, fmax: lower edge of the first and upper edge of the last filter, in Hz; `None` for `sr / 2`.
        htk: use HTK's mel formula instead of Slaney's.
        norm: `"slaney"` or `None`.
        mel_banks: `"kaldi"` for triangles over mels instead of Hz, with HTK's formula, without norm and without the bin
            at `sr / 2`.

    Returns:
        float64 array `(n_mels, 1 + n_fft // 2)`. The row of a band narrower than one FFT bin may be zero.
    """
    if mel_banks == "kaldi":
        return _kaldi_filterbank(sr, n_fft, n_mels, fmin, sr / 2 if fmax is None else fmax)
    edges = mel_frequencies(n_mels + 2, fmin, sr / 2 if fmax is None else fmax, htk)
    bins = np.linspace(0.0, sr / 2, 1 + n_fft // 2) if n_fft % 2 == 0 else np.arange(1 + n_fft // 2) * sr / n_fft
    widths = np.diff(edges)
    ramps = edges[:, None] - bins[None, :]
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if norm == "slaney":  # unit area in Hz
        filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return filters


def _kaldi_filterbank(sr: float, n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    bins = 1 + n_fft // 2
    mels = 2595.0 * np.log10(1.0 + np.arange(bins) * (sr / n_fft) / 700.0)
    lowest, highest = 2595.0 * np.log10(1.0 + np.array([fmin, fmax]) / 700.0)
    width = (highest - lowest) / (n_mels + 1)  # from the foot of a triangle to its peak
    peaks = lowest + width * np.arange(1, n_mels + 1)
    filters = np.maximum(0.0, 1.0 - np.abs(mels[None] - peaks[:, None]) / width)
    filters[:, n_fft // 2 :] = 0.0
    return filters


def dft_kernels(n_fft: int) -> np.ndarray:
    """Compute the cosines and sines of a real DFT.

    Returns:
        float64 array `(n_fft, 2 * bins)`: all real parts, then all imaginary parts.
    """
    bins = 1 + n_fft // 2
    # With the phase index modulo n_fft, the arguments of cos and sin are small and exact to the last bit.
    phase = 2 * np.pi * (np.outer(np.arange(n_fft), np.arange(bins)) % n_fft) / n_fft
    return np.concatenate([np.cos(phase), -np.sin(phase)], axis=1)


# === Transform ===

_CHUNK = 128  # frames transformed at a time, so that they fit the processor's cache


class LogMel:
    """NumPy version of `LogMelSpectrogram`, which needs no Keras and gives the same values.

    The FFT is computed in float64. The mel filters are applied by sums over their bins: a matrix product would start
    BLAS threads, which keep spinning and slow down the network.

    Args:
        spec: spec of the model.

    Example:
        >>> import keras_musictag as kmt
        >>> spec = kmt.model_info("tiny")
        >>> LogMel(spec)(np.zeros((2, spec.window_samples), "float32")).shape
        (2, 32, 63)
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Compute the constants."""
        mel = self.mel = spec.mel
        self._taper = window_function(mel.window, mel.win_length or mel.n_fft, mel.n_fft, mel.periodic)
        filters = filters_of(spec).T.astype("float32")
        band, self._bins = np.nonzero(filters)
        self._weights = filters[band, self._bins][:, None]
        self._bands, self._starts = np.unique(band, return_index=True)  # narrow filters may have no bin

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Transform float32 `(batch, samples)` to float32 `(batch, mels, frames)`."""
        mel = self.mel
        if mel.preemphasis_coefficient:
            samples = samples[:, 1:] - np.float32(mel.preemphasis_coefficient) * samples[:, :-1]
        if mel.center:
            samples = np.pad(samples, [(0, 0), (mel.padding, mel.padding)], mode=mel.pad_mode)
        frames = np.lib.stride_tricks.sliding_window_view(samples, mel.n_fft, axis=1)[:, :: mel.hop_length]
        values = np.zeros((len(frames), mel.n_mels, frames.shape[1]), "float32")
        for clip, result in zip(frames, values, strict=True):
            for start in range(0, len(clip), _CHUNK):
                spectrum = np.fft.rfft(clip[start : start + _CHUNK] * self._taper)
                real, imag = spectrum.real.astype("float32"), spectrum.imag.astype("float32")
                power = real * real + imag * imag
                if mel.power != 2.0:
                    power **= np.float32(mel.power / 2.0)
                weighted = np.ascontiguousarray(power.T)[self._bins]
                weighted *= self._weights
                result[self._bands, start : start + _CHUNK] = np.add.reduceat(weighted, self._starts, axis=0)
        return self._scale(values)

    def _scale(self, values: np.ndarray) -> np.ndarray:
        mel = self.mel
        if mel.scaling is None:
            return values
        if mel.scaling == "log10":
            return np.log10(np.float32(1.0) + np.float32(mel.gain) * values)
        if mel.scaling == "log":
            return (np.log(values + np.float32(mel.log_offset)) - np.float32(mel.mean)) / np.float32(mel.std)
        factor = decibels_per_decade(mel)
        db = np.float32(factor) * np.log10(np.maximum(values, np.float32(mel.amin)))
        db -= np.float32(factor * np.log10(max(mel.amin, mel.ref)))
        if mel.top_db is not None:
            np.maximum(db, db.max(axis=(1, 2), keepdims=True) - np.float32(mel.top_db), out=db)
        return db


def filters_of(spec: ModelSpec) -> np.ndarray:
    """Return the transposed mel matrix of a spec: float64 array `(1 + n_fft // 2, n_mels)`."""
    mel = spec.mel
    return mel_filterbank(
        sr=spec.audio.sr, n_fft=mel.n_fft, n_mels=mel.n_mels, fmin=mel.fmin, fmax=mel.fmax, htk=mel.htk, norm=mel.norm,
        mel_banks=mel.mel_banks,
    ).T  # fmt: skip


def decibels_per_decade(mel: MelSpec) -> float:
    """Return the increase in dB for ten times the mel power: 20 for `"amplitude_to_db"`, 10 otherwise."""
    return 20.0 if mel.scaling == "amplitude_to_db" else 10.0
