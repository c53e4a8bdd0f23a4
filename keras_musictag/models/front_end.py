"""Specs of a model's front end: resampling, log-mel spectrogram and windows.

Names follow librosa, torchaudio and Kaldi. Units: rates and frequencies in Hz, lengths of STFT windows in samples,
lengths of model windows in frames of `hop_length` samples.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from ..utils.fields import require, require_choice, require_count, require_most

Scaling = Literal["db", "amplitude_to_db", "log10", "log"]
PadMode = Literal["constant", "reflect"]
MelBanks = Literal["librosa", "kaldi"]
Remainder = Literal["drop", "align"]
Short = Literal["repeat", "pad"]
WINDOWS = ("hann", "hamming", "blackman", "boxcar")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioSpec:
    """Sample rate and resampler.

    Attributes:
        sr: sample rate in Hz that the model was trained at.
        resampler: soxr quality, as in librosa. It changes the highest mel bands by up to 1.9 log10 units.
    """

    sr: int
    resampler: str = "soxr_hq"

    def __post_init__(self) -> None:
        """Validate the sample rate and the resampler."""
        require_count("audio.sr", self.sr, 1000, 1_000_000)
        require_choice("audio.resampler", self.resampler, ("soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelSpec:
    """Parameters of a log-mel spectrogram, with librosa's names and defaults except for `center` and `top_db`.

    Attributes:
        n_fft: FFT length in samples.
        hop_length: samples from one frame to the next.
        n_mels: mel bands.
        win_length: window length in samples, `None` for `n_fft`; shorter windows are zero-padded on both sides.
        window: window function (`scipy.signal.get_window` name).
        periodic: whether the window is periodic (as in librosa and, by default, torch) or symmetric.
        center: pad each model window by `n_fft // 2` samples on both sides, so that its frame `t` is centred on its
            sample `t * hop_length`. By default the whole track is padded once, before windows are cut.
        pad_mode: padding of `center`: `"constant"` (zeros) or `"reflect"`.
        preemphasis_coefficient: Kaldi's pre-emphasis: `x[t]` becomes `x[t] - coefficient * x[t - 1]`, and the first
            sample of a window is dropped. 0 for none.
        fmin: lowest frequency in Hz.
        fmax: highest frequency in Hz, `None` for half the sample rate.
        htk: use HTK's mel formula instead of Slaney's.
        norm: `"slaney"` divides each filter by its bandwidth in Hz; `None` leaves peaks at 1.
        mel_banks: `"librosa"` for triangles over frequencies in Hz (also torchaudio's), `"kaldi"` for triangles over
            mels, without the bin at half the sample rate, which need `htk=True` and `norm=None`.
        power: exponent of the magnitude, 2.0 for power.
        scaling: `"db"` is `librosa.power_to_db`, `"amplitude_to_db"` is `librosa.amplitude_to_db` (the mel power is
            squared before the logarithm), `"log10"` is `log10(1 + gain * mel)`, `"log"` is
            `(ln(mel + log_offset) - mean) / std`, `None` is mel power.
        ref: reference of the dB scalings, in mel power.
        amin: floor of the dB scalings, in mel power.
        top_db: dynamic range of the dB scalings per clip; `None` for no limit.
        gain: factor of the `"log10"` scaling.
        log_offset, mean, std: parameters of the `"log"` scaling.
    """

    n_fft: int = 2048
    hop_length: int = 512
    n_mels: int = 128
    win_length: int | None = None
    window: str = "hann"
    periodic: bool = True
    center: bool = False
    pad_mode: PadMode = "constant"
    preemphasis_coefficient: float = 0.0
    fmin: float = 0.0
    fmax: float | None = None
    htk: bool = False
    norm: Literal["slaney"] | None = "slaney"
    mel_banks: MelBanks = "librosa"
    power: float = 2.0
    scaling: Scaling | None = "db"
    ref: float = 1.0
    amin: float = 1e-10
    top_db: float | None = None
    gain: float = 10_000.0
    log_offset: float = 1e-5
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Validate the parameters."""
        require_count("mel.n_fft", self.n_fft, 2, 2**16)
        require_count("mel.hop_length", self.hop_length, 1, 2**16)
        require_count("mel.n_mels", self.n_mels, 1, 2**12)
        require_most("mel.n_mels times mel.n_fft", self.n_mels * self.n_fft, 2**26)
        if self.win_length is not None:
            require_count("mel.win_length", self.win_length)
            require(
                self.win_length <= self.n_fft,
                f"mel.win_length must be at most n_fft={self.n_fft}; got {self.win_length}.",
            )
        require_choice("mel.window", self.window, WINDOWS)
        for field in ("htk", "periodic", "center"):
            require_choice(f"mel.{field}", getattr(self, field), (True, False))
        require_choice("mel.pad_mode", self.pad_mode, get_args(PadMode))
        require_choice("mel.mel_banks", self.mel_banks, get_args(MelBanks))
        require(
            self.mel_banks == "librosa" or (self.htk and self.norm is None),
            f"mel.mel_banks 'kaldi' needs htk=True and norm=None; got htk={self.htk!r} and norm={self.norm!r}.",
        )
        require(
            0 <= self.preemphasis_coefficient <= 1,
            f"mel.preemphasis_coefficient must be from 0 to 1; got {self.preemphasis_coefficient!r}.",
        )
        require(
            self.log_offset > 0 and self.std > 0 and abs(self.mean) < float("inf"),
            "mel.log_offset and mel.std must be positive and mel.mean finite; got "
            f"{self.log_offset!r}, {self.std!r} and {self.mean!r}.",
        )
        require(self.gain > 0, f"mel.gain must be positive; got {self.gain!r}.")
        require_choice("mel.norm", self.norm, ("slaney", None))
        require_choice("mel.scaling", self.scaling, (*get_args(Scaling), None))
        require(self.power > 0, f"mel.power must be positive; got {self.power!r}.")
        require(
            self.amin > 0 and self.ref > 0, f"mel.amin and mel.ref must be positive; got {self.amin!r}, {self.ref!r}."
        )
        require(self.top_db is None or self.top_db >= 0, f"mel.top_db must not be negative; got {self.top_db!r}.")
        require(self.fmin >= 0, f"mel.fmin must not be negative; got {self.fmin!r}.")
        require(
            self.fmax is None or self.fmax > self.fmin,
            f"mel.fmax must be above fmin={self.fmin!r}; got {self.fmax!r}.",
        )

    @property
    def lost_samples(self) -> int:
        """Number of samples that pre-emphasis drops at the beginning."""
        return 1 if self.preemphasis_coefficient else 0

    @property
    def padding(self) -> int:
        """Number of samples that `center` adds at each end."""
        return self.n_fft // 2 if self.center else 0

    def frames(self, samples: int) -> int:
        """Return the number of frames of a window; below 1 if it is shorter than one frame."""
        return 1 + (samples - self.lost_samples + 2 * self.padding - self.n_fft) // self.hop_length

    def least_samples(self, frames: int) -> int:
        """Return the length in samples of the shortest window with so many frames."""
        return (frames - 1) * self.hop_length + self.n_fft - 2 * self.padding + self.lost_samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """Length of the windows of a track and the treatment of the remainder and of short tracks.

    Attributes:
        frames: spectrogram frames per window.
        samples: samples per window if `mel.center`; otherwise `frames` determines them.
        remainder: `"drop"` the remainder of a track after whole windows (as in the published musicnn), or `"align"` one
            more window with the end of the track.
        short: `"repeat"` a track shorter than a window until it fills one, or `"pad"` it with zeros.
    """

    frames: int
    remainder: Remainder = "align"
    short: Short = "repeat"
    samples: int | None = None

    def __post_init__(self) -> None:
        """Validate the lengths and the policies."""
        require_count("window.frames", self.frames, 1, 2**20)
        if self.samples is not None:
            require_count("window.samples", self.samples, 1, 2**26)
        require_choice("window.remainder", self.remainder, get_args(Remainder))
        require_choice("window.short", self.short, get_args(Short))


def check_together(audio: AudioSpec, mel: MelSpec, window: WindowSpec) -> None:
    """Validate that the parts of a front end fit each other.

    Raises:
        SpecError: `mel.fmax` is above half the sample rate, or `window.samples` does not match `window.frames`.
    """
    require(
        mel.fmax is None or mel.fmax <= audio.sr / 2,
        f"mel.fmax must be at most half the sample rate {audio.sr}; got {mel.fmax!r}.",
    )
    if not mel.center:
        require(
            window.samples is None,
            f"window.samples must be None unless mel.center is true; got {window.samples!r}.",
        )
        return
    require(window.samples is not None, "mel.center=True needs window.samples, the samples per window; got None.")
    assert window.samples is not None
    require(
        mel.frames(window.samples) == window.frames,
        f"window.samples={window.samples} gives {mel.frames(window.samples)} frames, but window.frames is "
        f"{window.frames}.",
    )
    require(
        mel.pad_mode == "constant" or window.samples - mel.lost_samples > mel.padding,
        f"window.samples={window.samples} is too short to be padded by {mel.padding} with pad_mode='reflect'.",
    )


# Fields added after the first release of digests. At their defaults they are left out, so that old digests stay valid.
_LATER = {
    "mel": ("periodic", "center", "pad_mode", "preemphasis_coefficient", "mel_banks", "log_offset", "mean", "std"),
    "window": ("samples",),
}


def identifying_fields(audio: AudioSpec, mel: MelSpec, window: WindowSpec) -> dict[str, dict[str, Any]]:
    """Return the fields that identify a front end, for digests.

    Example:
        >>> identifying_fields(AudioSpec(sr=16000), MelSpec(), WindowSpec(frames=96))["window"]
        {'frames': 96, 'remainder': 'align', 'short': 'repeat'}
    """
    parts: dict[str, dict[str, Any]] = {}
    for name, part in (("audio", audio), ("mel", mel), ("window", window)):
        defaults = {field.name: field.default for field in dataclasses.fields(part)}
        values = dataclasses.asdict(part)
        unchanged = {field for field in _LATER.get(name, ()) if values[field] == defaults[field]}
        parts[name] = {field: value for field, value in values.items() if field not in unchanged}
    return parts
