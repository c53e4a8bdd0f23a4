"""Cutting a track into the windows a network sees.

The whole track is padded once with `n_fft // 2` zeros at each end, and every window is `(frames - 1) * hop_length +
n_fft` samples of that. A log-mel layer with `center=False` then gives exactly the patches of librosa's spectrogram of
the whole track; centring each window on its own would move the frames at its edges by up to 2.3 log10 units.

Models that were trained on windows that are centred one by one (`spec.mel.center`) get windows of `spec.window.samples`
samples, side by side and without padding: the log-mel layer pads each of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..errors import AudioTooShortError, SilentAudioError
from .spec import ModelSpec

# The smallest step of 16-bit sound. A track that never reaches it is digital silence.
_ONE_STEP = 2.0**-15


@dataclasses.dataclass(frozen=True)
class WindowBatch:
    """Some windows of a track.

    Attributes:
        samples: float32 array `(windows, window_samples)`.
        offsets: int64 array `(windows,)`: the sample of the track that the window's first frame is centred on.
        starts: int64 array `(windows,)`: the spectrogram frame each window begins at, in full.
    """

    samples: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray


def cut(
    blocks: Iterable[np.ndarray],
    spec: ModelSpec,
    *,
    hop_frames: int | None = None,
    hop_samples: int | None = None,
    heard_frames: int | None = None,
    batch_size: int = 32,
    name: str = "The sound",
) -> Iterator[WindowBatch]:
    """Cut consecutive blocks of a track into batches of windows.

    The windows do not depend on where the blocks are split, nor on the batch size; little more than a batch of windows
    and a block are in memory at a time.

    Args:
        blocks: float32 arrays `(samples,)` at the spec's rate, in order; of any lengths.
        spec: front end and window policy.
        hop_frames: frames from one window to the next; `None` for whole windows, side by side, with the spec's policy
            for what is left over. With a custom hop the windows stay on that grid and nothing is added.
        hop_samples: the same in samples; whole frames, unless windows are centred one by one.
        heard_frames: let a window hear only so many frames of the track, which then fill it as a track that is too
            short would; `None`, or more than a window has, for whole windows.
        batch_size: windows per batch at most.
        name: what to call the track in messages.

    Yields:
        `WindowBatch`, in order. A track shorter than a window gives one window, repeated or padded as the spec says.

    Raises:
        AudioTooShortError: fewer samples than one STFT window.
        SilentAudioError: at the end, when no sample reached one 16-bit step.
        ValueError: a number below 1, two hops, or a hop that is no whole number of frames.

    Example:
        >>> import numpy as np, keras_musictag as kmt
        >>> spec = kmt.model_info("musicnn_mtt")
        >>> y = np.random.default_rng(0).uniform(-1, 1, 10 * 16000).astype("float32")
        >>> [batch.samples.shape for batch in cut([y], spec)]
        [(3, 48128)]
    """
    _check_count("batch_size", batch_size)
    windows: list[np.ndarray] = []
    offsets: list[int] = []
    heard = spec if heard_frames is None else hearing(spec, heard_frames)
    for offset, window in _windows(blocks, heard, _hop(spec, hop_frames, hop_samples), name):
        windows.append(_fill(window, spec))  # a copy: a view would keep its whole block in memory
        offsets.append(offset)
        if len(windows) == batch_size:
            yield _batch(windows, offsets, spec)
            windows, offsets = [], []
    if windows:
        yield _batch(windows, offsets, spec)


def _batch(windows: list[np.ndarray], offsets: list[int], spec: ModelSpec) -> WindowBatch:
    samples = np.asarray(offsets, "int64")
    return WindowBatch(np.stack(windows), samples, samples // spec.mel.hop_length)


def _hop(spec: ModelSpec, hop_frames: int | None, hop_samples: int | None) -> int | None:
    """Samples from one window to the next, if they are asked for."""
    if hop_frames is not None:
        _check_count("hop_frames", hop_frames)
        if hop_samples is not None:
            raise ValueError(f"Give hop_frames or hop_samples, not both; got {hop_frames!r} and {hop_samples!r}.")
        return int(hop_frames) * spec.mel.hop_length
    if hop_samples is None:
        return None
    _check_count("hop_samples", hop_samples)
    if hop_samples % _grid(spec):
        raise ValueError(f"hop_samples must be a multiple of {spec.mel.hop_length}, a frame; got {hop_samples!r}.")
    return int(hop_samples)


def _grid(spec: ModelSpec) -> int:
    """Windows begin at multiples of so many samples."""
    return 1 if spec.mel.center else spec.mel.hop_length


def _check_count(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{what} must be a whole number of at least 1; got {value!r}.")


def hearing(spec: ModelSpec, frames: int) -> ModelSpec:
    """The same spec, its windows cut down to so many frames; those of the network, if they are not longer."""
    _check_count("heard_frames", frames)
    if frames >= spec.window.frames:
        return spec
    samples = spec.mel.least_samples(frames) if spec.mel.center else None
    window = dataclasses.replace(spec.window, frames=frames, samples=samples)
    return dataclasses.replace(spec, window=window, claims={})


def _fill(window: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Copy of a window, repeated or padded to the length of the spec's."""
    if spec.window.short == "repeat":
        return np.resize(window, spec.window_samples)
    return np.pad(window, (0, spec.window_samples - len(window)))


def _windows(
    blocks: Iterable[np.ndarray], spec: ModelSpec, asked: int | None, name: str
) -> Iterator[tuple[int, np.ndarray]]:
    """The sample each window begins at and its samples, as soon as they are all there."""
    align = asked is None and spec.window.remainder == "align"
    hop = asked or spec.window_step
    track = _Track(spec)
    start, peak = 0, 0.0
    for block in blocks:
        if len(block):
            peak = max(peak, float(block.max()), -float(block.min()))
        track.append(block)
        while start <= track.last_start:
            yield start, track.window(start)
            start += hop
        # The aligned window begins after the last regular one, so less than a hop before the next one would.
        track.forget(start - hop if align else start)
    if track.samples < spec.mel.n_fft:
        raise AudioTooShortError(
            f"{name} is too short: {track.samples} samples at {spec.audio.sr} Hz, where one analysis frame needs "
            f"{spec.mel.n_fft} ({1000 * spec.mel.n_fft / spec.audio.sr:.0f} ms). Give a longer sound."
        )
    if peak < _ONE_STEP:
        raise SilentAudioError(
            f"{name} is silent: its peak of {peak:.1e} is below one 16-bit step, {_ONE_STEP:.1e}. "
            "There is nothing to tag."
        )
    track.finish()
    while start <= track.last_start:
        yield start, track.window(start)
        start += hop
    if align and track.last_start > start - hop:
        yield track.last_start, track.window(track.last_start)


class _Track:
    """The padded samples of a track from some frame on, as far as they have come.

    Blocks are joined only when a window is due: joining at every block would copy a window for each one.

    Attributes:
        samples: how many came, without padding.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.samples = 0
        self._spec = spec
        self._pad = np.zeros(0 if spec.mel.center else spec.mel.n_fft // 2, "float32")
        self._pieces = [self._pad]
        self._held = len(self._pad)  # samples in the pieces
        self._first = 0  # sample of the padded track at which they begin

    @property
    def last_start(self) -> int:
        """The last sample at which a window that is all there can begin; negative if there is none."""
        grid = _grid(self._spec)
        return (self._first + self._held - self._spec.window_samples) // grid * grid

    def append(self, block: np.ndarray) -> None:
        """Add the next samples."""
        self._pieces.append(block)
        self._held += len(block)
        self.samples += len(block)

    def window(self, start: int) -> np.ndarray:
        """The window that begins at a sample, a view."""
        return self._joined()[start - self._first :][: self._spec.window_samples]

    def forget(self, start: int) -> None:
        """Drop what no window from sample `start` on needs."""
        samples = min(start - self._first, self._held)
        if samples > 0:
            self._pieces = [self._joined()[samples:].copy()]
            self._held -= samples
            self._first += samples

    def finish(self) -> None:
        """Bring a short track up to one window, and pad the end."""
        missing = self._spec.window_samples - 2 * len(self._pad) - self.samples
        if missing > 0:  # then nothing was forgotten
            track = self._joined()[len(self._pad) :]
            # `resize` repeats from the beginning, as often as it takes.
            self.append(
                np.resize(track, missing) if self._spec.window.short == "repeat" else np.zeros(missing, "float32")
            )
        self._pieces.append(self._pad)
        self._held += len(self._pad)

    def _joined(self) -> np.ndarray:
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        return self._pieces[0]
