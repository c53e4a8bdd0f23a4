"""Make batches of cached log-mels from a manifest, for training and evaluation.

Conventions: batches are float32 `(batch, mels, frames)`, cached spectrograms `(frames, mels)` (see `features`). Frame
`t` of a track is centred on second `t * hop_length / sr` of its file.

Spectrograms are those of whole files. At the edges of a row that is a part of a file, frames therefore include the
audio beside it, where `Tagger.tag(offset=, duration=)` pads with silence.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..errors import AudioTooShortError, SpecError
from ..models.spec import ModelSpec
from ..utils.checks import check_count
from ..utils.parallel import map_in_threads
from .augment import Augmentation, Domain, check_mixup, from_power, limit_range, mixup
from .log_mel_cache import FeatureCache as FeatureCache
from .log_mel_cache import front_end_digest
from .manifest import DataError, Manifest

TargetsOf = Callable[[int, int, int], np.ndarray]


# === Rows ===


@dataclasses.dataclass(frozen=True)
class _Region:
    """Spectrogram of a file `(frames, mels)`, and the range of frames (first, stop) centred within a row."""

    path: Path
    track: np.ndarray
    first: int
    stop: int


class _Rows:
    """Windows of the rows of a manifest."""

    def __init__(self, manifest: Manifest, spec: ModelSpec, cache: FeatureCache) -> None:
        if not len(manifest):
            raise DataError("The manifest has no rows, so no batches can be made.")
        if cache.digest != front_end_digest(spec):
            raise SpecError(
                f"The cache is for the front end of {cache.spec.name!r} ({cache.digest}), which differs from that of "
                f"{spec.name!r} ({front_end_digest(spec)}). Make one with FeatureCache(folder, spec)."
            )
        self.manifest, self.spec, self.cache = manifest, spec, cache

    def region(self, index: int) -> _Region:
        """Return the spectrogram and the frames of a row."""
        row, rate = self.manifest[index], self.spec.audio.sr / self.spec.mel.hop_length
        track = self.cache.get(row.path)
        first = math.ceil(row.start * rate - 1e-6)  # a whole number with a rounding error must not be rounded up
        stop = len(track) if row.duration is None else math.ceil((row.start + row.duration) * rate - 1e-6)
        stop = min(stop, len(track))
        if first >= stop:
            raise AudioTooShortError(
                f"Row {index} of the manifest, {row.path}, has no frame from {row.start} s on for {row.duration} s: "
                f"the file has {len(track) / rate:.2f} s. Correct or remove the row."
            )
        return _Region(row.path, track, first, stop)

    def read(self, region: _Region, start: int, x: np.ndarray) -> None:
        """Fill `x`, float32 `(mels, frames)`, with the window that begins at frame `start` of the file."""
        window, mel = self.spec.window, self.spec.mel
        part = region.track[start : min(start + window.frames, region.stop)]
        if len(part) < window.frames and (region.first, region.stop) == (0, len(region.track)):
            part = self.cache.short_window(region.path, window)  # padded or repeated as by `windows.cut`
        elif len(part) < window.frames and window.short == "repeat":
            part = np.resize(part, (window.frames, mel.n_mels))
        x[:, : len(part)] = part.T
        if len(part) < window.frames:
            x[:, len(part) :] = from_power(np.zeros((1, 1)), mel)
        if mel.top_db is not None:
            x[:] = limit_range(x, mel)

    def batch(self, count: int) -> np.ndarray:
        """Allocate windows, float32 `(count, mels, frames)`."""
        return np.empty((count, *self.spec.input_shape), "float32")


# === Training ===


class WindowBatches(keras.utils.PyDataset):
    """Random windows of the rows of a manifest, a batch per step.

    A batch depends only on the seed and the number of its step, so training can be resumed at any step and batches can
    be read in any order. Each row is used once before any is used again.

    With `model.fit`, pass the steps of the whole training as `steps`, and the steps of an epoch to `fit`:
    `fit(batches, epochs=20, steps_per_epoch=500, shuffle=False)`. Otherwise every epoch has the same windows.

    Args:
        manifest: rows and targets.
        spec: front end and window.
        cache: cache of the same front end; if it is not filled, the first epoch computes the log-mels.
        batch_size: windows per step.
        steps: number of steps.
        seed: random seed, 0 or more.
        targets: function that gives the targets of a window instead of the manifest: (row number, first frame in the
            file, number of frames) -> `(tags,)`.
        augment: augmentation of each batch.
        mixup: probability of mixing, before `augment`; see `augment.mixup`.
        mixup_mode: `"power"` or `"log"`.
        shuffle: permute the rows, differently in each pass.
        first_step: number of the step that is `batches[0]`, to resume `model.fit`.
        workers, use_multiprocessing, max_queue_size: as in `keras.utils.PyDataset`.

    Raises:
        DataError: the manifest has no rows, or other tags than the spec.
        SpecError: the cache is for another front end.
        ValueError: a number is out of range.
    """

    def __init__(
        self, manifest: Manifest, spec: ModelSpec, cache: FeatureCache, *, batch_size: int, steps: int, seed: int,
        targets: TargetsOf | None = None, augment: Augmentation | None = None, mixup: float = 0.0,
        mixup_mode: Domain = "power", shuffle: bool = True, first_step: int = 0, workers: int = 1,
        use_multiprocessing: bool = False, max_queue_size: int = 10,
    ) -> None:  # fmt: skip
        """Validate the arguments; audio is read when a batch is."""
        super().__init__(workers=workers, use_multiprocessing=use_multiprocessing, max_queue_size=max_queue_size)
        for name, value, least in (("batch_size", batch_size, 1), ("steps", steps, 1), ("seed", seed, 0)):
            check_count(name, value, least)
        check_count("first_step", first_step, 0)
        check_mixup(mixup, mixup_mode)
        self._rows = _Rows(manifest, spec, cache)
        if targets is None and manifest.tags != spec.tags:
            raise DataError(
                f"The manifest must have the tags of the model in the same order, {spec.tags[:5]!r}... "
                f"({len(spec.tags)}); got {manifest.tags[:5]!r}... ({len(manifest.tags)}). Use "
                "manifest.with_tags(spec.tags)."
            )
        self._targets = manifest.targets() if targets is None else targets
        self.batch_size, self.steps, self.seed, self.first_step = batch_size, steps, seed, first_step
        self.augment, self.mixup, self.mixup_mode, self.shuffle = augment, mixup, mixup_mode, shuffle

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the batch of step `first_step + index`: float32 `(batch, mels, frames)` and `(batch, tags)`."""
        if not 0 <= index < self.steps:
            raise IndexError(f"There are {self.steps} steps; got {index}.")
        step = self.first_step + index
        # Separate generators: mixing and augmentation do not influence the choice of windows, nor each other.
        windowing, mixing, augmenting = (np.random.default_rng([self.seed, step, stream]) for stream in range(3))
        frames, x, targets = self._rows.spec.window.frames, self._rows.batch(self.batch_size), []
        for row, window in zip(self._rows_of(step), x, strict=True):
            region = self._rows.region(row)
            latest = max(region.first, region.stop - frames)
            start = int(windowing.integers(region.first, latest, endpoint=True))
            self._rows.read(region, start, window)
            targets.append(self._targets(row, start, frames) if callable(self._targets) else self._targets[row])
        x, y = mixup(x, np.asarray(targets, "float32"), self.mixup, self._rows.spec.mel, mixing, mode=self.mixup_mode)
        return (x, y) if self.augment is None else self.augment(x, y, augmenting)

    def _rows_of(self, step: int) -> list[int]:
        count = len(self._rows.manifest)
        passes = (divmod(step * self.batch_size + i, count) for i in range(self.batch_size))
        return [int(_permutation(self.seed, turn, count)[at]) if self.shuffle else at for turn, at in passes]


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, turn: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, turn, count, 3]).permutation(count)


# === Evaluation ===


class EvaluationWindows(keras.utils.PyDataset):
    """All windows of all rows, in order, cut as for `Tagger.tag`, which averages over the windows of a row.

    Args:
        manifest: rows.
        spec: front end and window.
        cache: cache of the same front end.
        batch_size: windows per batch.
        hop_frames: frames from one window to the next; `None` for the policy of the spec, as in `windows.cut`.

    Attributes:
        rows: int64 array `(windows,)`: the row of each window.
        starts: int64 array `(windows,)`: the first frame of each window in its file.

    Raises:
        DataError: the manifest has no rows.
        SpecError: the cache is for another front end.
        AudioError: a file cannot be used.
    """

    def __init__(
        self, manifest: Manifest, spec: ModelSpec, cache: FeatureCache, *, batch_size: int = 32,
        hop_frames: int | None = None, workers: int = 1,
    ) -> None:  # fmt: skip
        """Cut every row into windows; computes log-mels that are not cached."""
        super().__init__(workers=workers)
        check_count("batch_size", batch_size, 1)
        check_count("hop_frames", 1 if hop_frames is None else hop_frames, 1)
        self.batch_size = batch_size
        self._rows = _Rows(manifest, spec, cache)
        pairs = [(row, start) for row in range(len(manifest)) for start in self._starts(row, hop_frames)]
        self.rows, self.starts = np.asarray(pairs, "int64").T

    def _starts(self, row: int, hop_frames: int | None) -> list[int]:
        region, window = self._rows.region(row), self._rows.spec.window
        last = region.stop - window.frames
        starts = list(range(region.first, last + 1, hop_frames or window.frames)) or [region.first]
        if hop_frames is None and window.remainder == "align" and starts[-1] < last:
            starts.append(last)
        return starts

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.rows) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 windows `(batch, mels, frames)` and their int64 row numbers `(batch,)`."""
        if not 0 <= index < len(self):
            raise IndexError(f"There are {len(self)} batches; got {index}.")
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        rows = self.rows[part]
        x = self._rows.batch(len(rows))
        for row, start, window in zip(rows.tolist(), self.starts[part].tolist(), x, strict=True):
            self._rows.read(self._rows.region(row), start, window)
        return x, rows

    def mean_per_row(self, outputs: np.ndarray) -> np.ndarray:
        """Average outputs of all windows `(windows, tags)` over the windows of each row: float32 `(rows, tags)`."""
        if len(outputs) != len(self.rows):
            raise ValueError(f"There are {len(self.rows)} windows; got outputs for {len(outputs)}.")
        sums = np.zeros((len(self._rows.manifest), *np.shape(outputs)[1:]), "float64")
        np.add.at(sums, self.rows, outputs)
        counts = np.bincount(self.rows, minlength=len(sums))
        return (sums / counts.reshape(-1, *[1] * (sums.ndim - 1))).astype("float32")


# === Waiting times ===


class TimedBatches:
    """Iterate over a data set with threads that read ahead, and measure the time spent waiting for data.

    Args:
        dataset: object with `len()` and `[]`, e.g. `WindowBatches`.
        start: first index.
        workers: number of threads; with 0, batches are read when requested, which counts as waiting.
        ahead: maximum number of batches read ahead.

    Attributes:
        waiting: seconds spent waiting for data.
        working: seconds spent in the loop body.

    Example:
        >>> timed = TimedBatches([1, 2, 3], workers=0)
        >>> sum(timed), 0 <= timed.starved <= 1
        (6, True)
    """

    def __init__(self, dataset: Any, *, start: int = 0, workers: int = 1, ahead: int = 4) -> None:
        """Validate the arguments; reading starts with the iteration."""
        check_count("workers", workers, 0)
        check_count("ahead", ahead, 1)
        self.dataset, self.start, self.workers, self.ahead = dataset, start, workers, ahead
        self.waiting = self.working = 0.0

    @property
    def starved(self) -> float:
        """Fraction of the time spent waiting for data, 0 to 1."""
        return self.waiting / max(self.waiting + self.working, 1e-12)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches in order."""
        read, indices = self.dataset.__getitem__, range(self.start, len(self.dataset))
        batches = map_in_threads(read, indices, self.workers, self.ahead) if self.workers else map(read, indices)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                got = time.perf_counter()
                self.waiting += got - asked
            yield batch
            self.working += time.perf_counter() - got
