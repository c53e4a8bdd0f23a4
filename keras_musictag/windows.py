"""Cutting a track into the windows a network sees.

The whole track is padded once with `n_fft // 2` zeros at each end, and every window is `(frames - 1) * hop_length +
n_fft` samples of that. A log-mel layer with `center=False` then gives exactly the patches of librosa's spectrogram of
the whole track; centring each window on its own would move the frames at its edges by up to 2.3 log10 units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from .errors import AudioTooShortError, SilentAudioError
from .spec import ModelSpec

# The smallest step of 16-bit sound. A track that never reaches it is digital silence.
_ONE_STEP = 2.0**-15


@dataclasses.dataclass(frozen=True)
class WindowBatch:
    """Some windows of a track.

    Attributes:
        samples: float32 array `(windows, window_samples)`.
        starts: int array `(windows,)`: the spectrogram frame each window begins at.
    """

    samples: np.ndarray
    starts: np.ndarray


def cut(
    blocks: Iterable[np.ndarray],
    spec: ModelSpec,
    *,
    hop_frames: int | None = None,
    batch_size: int = 32,
    name: str = "The sound",
) -> Iterator[WindowBatch]:
    """Cut consecutive blocks of a track into batches of windows.

    Args:
        blocks: float32 arrays `(samples,)` at the spec's rate, in order; of any lengths.
        spec: front end and window policy.
        hop_frames: frames from one window to the next; `None` for whole windows, side by side, with the spec's policy
            for what is left over. With a hop of one's own the windows stay on that grid and nothing is added.
        batch_size: windows per batch at most.
        name: what to call the track in messages.

    Yields:
        `WindowBatch`, in order. A track shorter than a window gives one window, repeated or padded as the spec says.

    Raises:
        AudioTooShortError: fewer samples than one STFT window.
        SilentAudioError: at the end, when no sample reached one 16-bit step.

    Example:
        >>> import numpy as np, keras_musictag as kmt
        >>> spec = kmt.model_info("musicnn_mtt")
        >>> y = np.random.default_rng(0).uniform(-1, 1, 10 * 16000).astype("float32")
        >>> [batch.samples.shape for batch in cut([y], spec)]
        [(3, 48128)]
    """
    cutter = _Cutter(spec, hop_frames or spec.window.frames, align=hop_frames is None and spec.window.remainder == "align")
    peak = 0.0
    for block in blocks:
        if len(block):
            peak = max(peak, float(block.max()), -float(block.min()))
            cutter.push(block)
            yield from cutter.batches(batch_size, least=batch_size)
    if cutter.samples < spec.mel.n_fft:
        raise AudioTooShortError(
            f"{name} is too short: {cutter.samples} samples at {spec.audio.sr} Hz, where one analysis frame needs "
            f"{spec.mel.n_fft} ({1000 * spec.mel.n_fft / spec.audio.sr:.0f} ms)."
        )
    if peak < _ONE_STEP:
        raise SilentAudioError(f"{name} is silent: its peak {peak:.1e} is below one 16-bit step. There is nothing to tag.")
    cutter.finish()
    yield from cutter.batches(batch_size, least=1)


class _Cutter:
    """A buffer of padded samples that begins at the next window not yet given out."""

    def __init__(self, spec: ModelSpec, hop_frames: int, *, align: bool) -> None:
        self.spec = spec
        self.hop_frames = hop_frames
        self.align = align
        self.samples = 0  # of the track, without padding
        self.pad = spec.mel.n_fft // 2
        self.buffer = np.zeros(self.pad, "float32")
        self.first = 0  # frame at which the buffer begins
        self.next = 0  # frame at which the next window begins
        self.aligned: int | None = None  # frame of the last, aligned window

    def push(self, block: np.ndarray) -> None:
        self.samples += len(block)
        self.buffer = np.concatenate([self.buffer, block])

    def finish(self) -> None:
        """Bring a short track up to one window, pad the end, and see whether a remainder is left."""
        window, hop = self.spec.window, self.spec.mel.hop_length
        needed = (window.frames - 1) * hop
        if self.samples < needed:
            track = self.buffer[self.pad :]
            if window.short == "repeat":
                track = np.tile(track, -(-needed // len(track)))[:needed]
            else:
                track = np.pad(track, (0, needed - len(track)))
            self.buffer, self.samples = np.concatenate([self.buffer[: self.pad], track]), needed
        self.buffer = np.concatenate([self.buffer, np.zeros(self.pad, "float32")])
        frames = 1 + self.samples // hop
        covered = (frames - window.frames) // self.hop_frames * self.hop_frames + window.frames
        if self.align and covered < frames:
            self.aligned = frames - window.frames

    def batches(self, batch_size: int, *, least: int) -> Iterator[WindowBatch]:
        """Give out full batches, and at the end (`least=1`) what remains."""
        hop, length = self.spec.mel.hop_length, self.spec.window_samples
        while True:
            room = (len(self.buffer) - length) // hop + self.first  # last frame a window can begin at
            ready = max(0, (room - self.next) // self.hop_frames + 1) if room >= self.next else 0
            starts = [self.next + i * self.hop_frames for i in range(min(ready, batch_size))]
            if len(starts) < batch_size and self.aligned is not None:
                starts.append(self.aligned)
                self.aligned = None
            if len(starts) < least:
                break
            windows = np.stack([self.buffer[(s - self.first) * hop :][:length] for s in starts])
            yield WindowBatch(windows, np.asarray(starts))
            self.next += min(ready, batch_size) * self.hop_frames
        # The aligned window, if there will be one, begins within one hop before the next regular one.
        self._forget(self.next - self.hop_frames)

    def _forget(self, frame: int) -> None:
        """Drop samples before `frame`, in whole hops."""
        hop = self.spec.mel.hop_length
        frames = min(frame - self.first, len(self.buffer) // hop)
        if frames > 0:
            self.first += frames
            self.buffer = self.buffer[frames * hop :]
