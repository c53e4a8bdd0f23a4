"""Cut a track into windows for the network.

The whole track is padded once with `n_fft // 2` zeros at each end, and every window is `(frames - 1) * hop_length +
n_fft` samples of it. A log-mel layer with `center=False` then gives exactly the patches of librosa's spectrogram of the
whole track. Padding each window separately would change the frames at its edges by up to 2.3 log10 units.

For models trained on separately padded windows (`spec.mel.center`), the track is not padded and is cut into windows of
`spec.window.samples` samples, which the log-mel layer pads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from ..audio.mixing import ONE_STEP
from ..errors import AudioTooShortError, SilentAudioError
from ..utils.checks import check_count
from .spec import ModelSpec


@dataclasses.dataclass(frozen=True)
class WindowBatch:
    """A batch of windows of a track.

    Attributes:
        samples: float32 array `(windows, window_samples)`.
        offsets: int64 array `(windows,)`, sample of the track on which the first frame of each window is centred.
        starts: int64 array `(windows,)`, index of the first spectrogram frame of each window.
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
    name: str = "The audio",
) -> Iterator[WindowBatch]:
    """Cut consecutive blocks of a track into batches of windows.

    The windows do not depend on the lengths of the blocks or the batch size. Memory holds about one batch of windows
    and one block.

    Args:
        blocks: float32 arrays `(samples,)` of any lengths at the spec's sample rate, in order.
        spec: spec with the front end and the window policy.
        hop_frames: frames from one window to the next; `None` for adjacent windows, with the spec's policy for the
            remainder. With a hop, the remainder is dropped.
        hop_samples: hop in samples instead of frames; a whole number of frames, unless `spec.mel.center`.
        heard_frames: use only so many frames of the track per window and fill the window with them like a short track;
            `None`, or more frames than a window has, for whole windows.
        batch_size: maximum number of windows per batch.
        name: what messages call the track.

    Yields:
        `WindowBatch`, in order. A track shorter than a window gives one window, repeated or padded as the spec says.

    Raises:
        AudioTooShortError: the track has fewer samples than one STFT window.
        SilentAudioError: at the end, if no sample reached one 16-bit quantisation step.
        ValueError: a number is below 1, both hops are given, or a hop is not a whole number of frames.

    Example:
        >>> import numpy as np, keras_musictag as kmt
        >>> spec = kmt.model_info("musicnn_mtt")
        >>> y = np.random.default_rng(0).uniform(-1, 1, 10 * 16000).astype("float32")
        >>> [batch.samples.shape for batch in cut([y], spec)]
        [(3, 48128)]
    """
    check_count("batch_size", batch_size)
    heard = spec if heard_frames is None else hearing(spec, heard_frames)
    offsets: list[int] = []
    for offset, window in _windows(blocks, heard, _hop(spec, hop_frames, hop_samples), name):
        if not offsets:
            samples = np.empty((batch_size, spec.window_samples), "float32")
        _fill(samples[len(offsets)], window, spec)
        offsets.append(offset)
        if len(offsets) == batch_size:
            yield _batch(samples, offsets, spec)
            offsets = []
    if offsets:
        yield _batch(samples, offsets, spec)


def _batch(samples: np.ndarray, offsets: list[int], spec: ModelSpec) -> WindowBatch:
    starts = np.asarray(offsets, "int64")
    return WindowBatch(samples[: len(offsets)], starts, starts // spec.mel.hop_length)


def _hop(spec: ModelSpec, hop_frames: int | None, hop_samples: int | None) -> int | None:
    """Validate the hop and return it in samples, `None` by default."""
    if hop_frames is not None:
        check_count("hop_frames", hop_frames)
        if hop_samples is not None:
            raise ValueError(f"Give hop_frames or hop_samples, not both; got {hop_frames!r} and {hop_samples!r}.")
        return int(hop_frames) * spec.mel.hop_length
    if hop_samples is None:
        return None
    check_count("hop_samples", hop_samples)
    if hop_samples % _grid(spec):
        raise ValueError(f"hop_samples must be a multiple of hop_length={spec.mel.hop_length}; got {hop_samples!r}.")
    return int(hop_samples)


def _grid(spec: ModelSpec) -> int:
    """Return the number of samples of which all window starts are multiples."""
    return 1 if spec.mel.center else spec.mel.hop_length


def hearing(spec: ModelSpec, frames: int) -> ModelSpec:
    """Return the spec with windows of at most so many frames."""
    check_count("heard_frames", frames)
    if frames >= spec.window.frames:
        return spec
    samples = spec.mel.least_samples(frames) if spec.mel.center else None
    window = dataclasses.replace(spec.window, frames=frames, samples=samples)
    return dataclasses.replace(spec, window=window, claims={})


def _fill(row: np.ndarray, window: np.ndarray, spec: ModelSpec) -> None:
    """Copy a window to a row `(spec.window_samples,)`, and repeat or pad it."""
    row[: len(window)] = window
    missing = len(row) - len(window)
    if missing:
        row[len(window) :] = np.resize(window, missing) if spec.window.short == "repeat" else 0


def _windows(
    blocks: Iterable[np.ndarray], spec: ModelSpec, custom_hop: int | None, name: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first sample and the samples of each window as soon as it is complete."""
    align = custom_hop is None and spec.window.remainder == "align"
    hop = custom_hop or spec.window_step
    track = _Track(spec)
    start, peak = 0, 0.0
    for block in blocks:
        if len(block):
            peak = max(peak, float(block.max()), -float(block.min()))
        track.append(block)
        while start <= track.last_start:
            yield start, track.window(start)
            start += hop
        # An aligned window would begin less than one hop before the next regular one.
        track.forget(start - hop if align else start)
    if track.samples < spec.mel.n_fft:
        raise AudioTooShortError(
            f"{name} is too short: it has {track.samples} samples at {spec.audio.sr} Hz, but one STFT frame needs "
            f"{spec.mel.n_fft} ({1000 * spec.mel.n_fft / spec.audio.sr:.0f} ms). Use longer audio."
        )
    if peak < ONE_STEP:
        raise SilentAudioError(
            f"{name} is silent: its peak of {peak:.1e} is below one 16-bit quantisation step, {ONE_STEP:.1e}. "
            "Check the recording."
        )
    track.finish()
    while start <= track.last_start:
        yield start, track.window(start)
        start += hop
    if align and track.last_start > start - hop:
        yield track.last_start, track.window(track.last_start)


class _Track:
    """Buffer of the padded samples of a track that are still needed.

    Blocks are joined only when a window is complete, because joining at every block would copy the buffer each time.

    Attributes:
        samples: number of samples received, without padding.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.samples = 0
        self._spec = spec
        self._pad = np.zeros(0 if spec.mel.center else spec.mel.n_fft // 2, "float32")
        self._pieces = [self._pad]
        self._held = len(self._pad)  # samples in the pieces
        self._first = 0  # index in the padded track of the first sample held

    @property
    def last_start(self) -> int:
        """Last start of a complete window; negative if there is none."""
        grid = _grid(self._spec)
        return (self._first + self._held - self._spec.window_samples) // grid * grid

    def append(self, block: np.ndarray) -> None:
        """Add the next samples."""
        self._pieces.append(block)
        self._held += len(block)
        self.samples += len(block)

    def window(self, start: int) -> np.ndarray:
        """Return the window that begins at a sample, as a view."""
        return self._joined()[start - self._first :][: self._spec.window_samples]

    def forget(self, start: int) -> None:
        """Drop the samples before `start`."""
        samples = min(start - self._first, self._held)
        if samples > 0:
            self._pieces = [self._joined()[samples:].copy()]
            self._held -= samples
            self._first += samples

    def finish(self) -> None:
        """Extend a short track to one window and pad the end."""
        missing = self._spec.window_samples - 2 * len(self._pad) - self.samples
        if missing > 0:  # no window was complete, so no samples have been dropped
            if self._spec.window.short == "repeat":
                track = self._joined()[len(self._pad) :]
                self.append(np.resize(track, missing))  # repeats the track
            else:
                self.append(np.zeros(missing, "float32"))
        self._pieces.append(self._pad)
        self._held += len(self._pad)

    def _joined(self) -> np.ndarray:
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        return self._pieces[0]
