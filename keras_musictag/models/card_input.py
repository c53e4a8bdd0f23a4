"""The preprocessing section of a model card."""

from __future__ import annotations

from .spec import ModelSpec

_FORMULA = {False: "Slaney's", True: "HTK's"}


def preprocessing(spec: ModelSpec) -> list[tuple[str, str]]:
    """Return the preprocessing steps as rows of `(step, description)`."""
    mel, sr, window = spec.mel, spec.audio.sr, spec.window
    frames = f"n_fft {mel.n_fft}, hop {mel.hop_length} ({1000 * mel.hop_length / sr:.1f} ms)"
    norm = "divided by their bandwidths" if mel.norm else "not normalised"
    banks = "Kaldi's banks" if mel.mel_banks == "kaldi" else f"{_FORMULA[mel.htk]} formula, {norm}"
    shape = f"{'' if mel.periodic else 'symmetric '}{mel.window} window of {mel.win_length or mel.n_fft}"
    length = f"{window.samples:,} samples, {window.frames} frames" if window.samples else f"{window.frames} frames"
    rows = [
        ("audio", f"mixed to mono and resampled to {sr:,} Hz (`{spec.audio.resampler}`)"),
        ("spectrogram", f"{frames}, {shape}, power {mel.power:g}"),
        ("mels", f"{mel.n_mels}, {mel.fmin:,.0f} to {highest_frequency(spec):,.0f} Hz, {banks}"),
        ("scale", _scale(spec)),
        ("window", f"{length}, {spec.window_seconds:.2f} s; probabilities are averaged over windows"),
        ("remainder", {"drop": "dropped", "align": "one more window, aligned with the end"}[window.remainder]),
        ("short audio", {"repeat": "repeated to fill a window", "pad": "padded with zeros"}[window.short]),
    ]
    if mel.center:
        padding = {"constant": "zeros", "reflect": "its reflection"}[mel.pad_mode]
        rows.insert(1, ("padding", f"each window by {mel.padding} samples on both sides, with {padding}"))
    if mel.preemphasis_coefficient:
        rows.insert(1, ("pre-emphasis", f"x[t] - {mel.preemphasis_coefficient:g} x[t - 1]"))
    return rows


def highest_frequency(spec: ModelSpec) -> float:
    """Return the highest frequency of the spectrogram in Hz."""
    return spec.audio.sr / 2 if spec.mel.fmax is None else spec.mel.fmax


def _scale(spec: ModelSpec) -> str:
    mel = spec.mel
    top_db = "None" if mel.top_db is None else f"{mel.top_db:g}"
    options = f"(ref={mel.ref:g}, amin={mel.amin:g}, top_db={top_db})"
    return {
        "db": f"dB, as `librosa.power_to_db{options}`",
        "amplitude_to_db": f"dB of the squared power, as `librosa.amplitude_to_db{options}`",
        "log10": f"log10(1 + {mel.gain:g} x mel)",
        "log": f"(ln(mel + {mel.log_offset:g}) - {mel.mean:g}) / {mel.std:g}".replace("- -", "+ "),
        None: "none",
    }[mel.scaling]
