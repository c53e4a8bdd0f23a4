"""Base class of all taggers: decode audio, cut windows, predict, name the tags.

`BaseTagger` does not depend on Keras. A `Tagger` has a Keras model, an `ExportedTagger` a file and a runtime for it.
"""

from __future__ import annotations

import abc
import itertools
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np

from ..audio import live
from ..audio import reading as audio
from ..errors import ForkedProcessError, MusicTagError
from ..models import windows
from ..models.spec import ModelSpec
from ..utils.checks import check_count
from ..utils.cores import available_cores
from ..utils.parallel import map_in_threads
from .choosing import Threshold, check_threshold, chosen_columns
from .runtimes import Runtime
from .tag_result import TagResult
from .taggram_result import Taggram, TaggramRow
from .window_predictor import WindowPredictor

_log = logging.getLogger(__name__)

# Audio per call of the network. Measured on 2 cores: per window, a batch of 96 s is at most 5 % faster than one of
# 24 s, but takes up to 1.5 GB (musicnn's widest activations) instead of 0.5 GB.
BATCH_SECONDS = 24.0
# One thread more than cores: with as many, a core idles when a thread waits for the network. On 2 cores a clip takes
# 17.3 ms with Keras instead of 19.0, and 18.7 with OpenVINO instead of 21.3.
_MAX_DEFAULT_WORKERS = 4


def windows_per_batch(spec: ModelSpec) -> int:
    """Return the number of windows that hold `BATCH_SECONDS` of audio."""
    return max(1, round(BATCH_SECONDS / spec.window_seconds))


def _predictions(runtime: Runtime, batches: Iterable[windows.WindowBatch]) -> Iterator[np.ndarray]:
    """Yield the outputs of each batch. In a long sound, one batch is in the network while the next one is decoded."""
    samples = (batch.samples for batch in batches)
    yield from map(runtime.predict, itertools.islice(samples, 2))  # 48 s: not worth a thread
    yield from map_in_threads(runtime.predict, samples, 1)


class BaseTagger(WindowPredictor):
    """A spec and a network that maps windows of audio to probabilities.

    Attributes:
        spec: the `ModelSpec`.
        tags: tuple of tag names as trained, in the order of the outputs.
        names: tuple of display names, in the same order.
        runtime: what runs the network, one of `runtimes.runtimes()`.
    """

    spec: ModelSpec
    runtime: str

    @property
    def tags(self) -> tuple[str, ...]:
        """Tag names in the order of the outputs, as trained: `genre---jazz`."""
        return self.spec.tags

    @property
    def names(self) -> tuple[str, ...]:
        """Tag names in the order of the outputs, as `tag` and `taggram` give them: `jazz`."""
        return self.spec.vocabulary.names

    @property
    @abc.abstractmethod
    def weights_sha256(self) -> str:
        """sha256 of the weight file; empty if the weights are random or were trained in memory."""

    # --- Tagging ---

    def tag(
        self,
        source: audio.Source,
        sr: float | None = None,
        *,
        top: int | None = None,
        threshold: Threshold = 0.0,
        unsure: bool = False,
        tags: Sequence[str] | None = None,
        kinds: Collection[str] | None = None,
        offset: float = 0.0,
        duration: float | None = None,
        notes: list[str] | None = None,
    ) -> dict[str, float]:
        """Return the probabilities of the tags, averaged over all windows.

        Args:
            source: path, binary file object, array `(samples,)` or `(channels, samples)`, or `(array, sr)`.
            sr: sample rate of an array in Hz.
            top: keep this many of the most probable tags.
            threshold: keep tags at least this probable. `"auto"`: keep tags that reach their thresholds in the spec; if
                none does, keep the most probable one.
            unsure: with `"auto"`, return no tags if none reaches its threshold.
            tags: keep these tags only, by name or as trained.
            kinds: keep tags of these kinds only: genre, instrument, mood, voice, era, tempo, other.
            offset: seconds to skip.
            duration: seconds to use; the rest is not decoded.
            notes: list to which remarks are appended, one sentence each, e.g. that the file is damaged; without a list
                they are logged as warnings.

        Returns:
            Tag -> probability, most probable first.

        Raises:
            AudioError: the audio cannot be tagged; the subclass says why.
            UnknownTagError: the model does not have one of `tags`.
            NoThresholdsError: `threshold` is `"auto"` and the spec has none.
            ValueError: one of `kinds` is unknown, or the model does not state the kinds of its tags.

        Example:
            >>> import keras_musictag as kmt, numpy as np
            >>> y = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)
            >>> list(kmt.load("tiny").tag(y, sr=16_000, top=1))
            ['tone']
        """
        wanted = self.spec.vocabulary.columns(tags, kinds)
        check_threshold(self.spec, threshold)
        mean = self._mean(self._waveform_runtime, self._windows(source, sr, offset, duration, notes=notes))
        columns = chosen_columns(self.spec, mean, wanted, top=top, threshold=threshold, unsure=unsure)
        return {self.names[column]: float(mean[column]) for column in columns}

    def tag_many(
        self,
        sources: Iterable[audio.Source],
        *,
        top: int | None = None,
        threshold: Threshold = 0.0,
        unsure: bool = False,
        tags: Sequence[str] | None = None,
        kinds: Collection[str] | None = None,
        offset: float = 0.0,
        duration: float | None = None,
        workers: int | None = None,
        progress: bool = False,
    ) -> Iterator[TagResult]:
        """Tag many files or arrays; one that cannot be tagged does not end the batch.

        Args:
            sources: paths, file objects or `(array, sr)` pairs.
            top, threshold, unsure, tags, kinds, offset, duration: as in `tag`.
            workers: number of threads: some files are decoded while another is in the network. By default one
                more than cores, at most four; memory grows with the number.
            progress: show a progress bar on standard error.

        Yields:
            A `TagResult` per source, in order, with `tags` or with `error`.

        Raises:
            TypeError: `sources` is a single source.
            UnknownTagError, ValueError: as `tag`.
        """
        if isinstance(sources, (str, os.PathLike, np.ndarray, bytes)):
            raise TypeError(f"tag_many() takes several sounds; got one {type(sources).__name__}. Use tag(), or a list.")
        check_count("workers", workers, none="")
        self.spec.vocabulary.columns(tags, kinds)
        check_threshold(self.spec, threshold)
        chosen = {"top": top, "threshold": threshold, "unsure": unsure, "tags": tags, "kinds": kinds}
        options = {**chosen, "offset": offset, "duration": duration}
        return self._tag_each(sources, options, workers or min(available_cores() + 1, _MAX_DEFAULT_WORKERS), progress)

    def _tag_each(
        self, sources: Iterable[audio.Source], options: dict[str, Any], workers: int, progress: bool
    ) -> Iterator[TagResult]:
        def tag_one(source: audio.Source) -> TagResult:
            notes: list[str] = []
            try:
                return TagResult(source, tags=self.tag(source, **options, notes=notes), notes=tuple(notes))
            except ForkedProcessError:  # not a fault of the file
                raise
            except MusicTagError as error:
                _log.info("%s", error)
                return TagResult(source, error=error)

        self.prepare()
        results = map(tag_one, sources) if workers == 1 else map_in_threads(tag_one, sources, workers)
        if not progress:
            return results
        from tqdm.auto import tqdm

        total = len(sources) if isinstance(sources, Sized) else None
        return iter(tqdm(results, total=total, unit="file", delay=2))

    def taggram(
        self,
        source: audio.Source,
        sr: float | None = None,
        *,
        hop_seconds: float = 1.0,
        window_seconds: float | None = None,
        kinds: Collection[str] | None = None,
        offset: float = 0.0,
        duration: float | None = None,
    ) -> Taggram:
        """Return probabilities over time: one row per window, windows `hop_seconds` apart.

        Rows are whole windows of the network, unless `spec.taggram_seconds` names a shorter span (as for
        `musicnet_crnn`, whose windows of 29 s blur a song's sections). A shorter span is repeated until the network's
        window is full, so the mean over the rows then differs slightly from the result of `tag`.

        Args:
            source, sr, offset, duration: as in `tag`.
            hop_seconds: time from one window to the next; rounded to whole spectrogram frames, or to samples if the
                model centres its windows one by one.
            window_seconds: length of the audio that each row describes, rounded to whole spectrogram frames. By default
                `spec.taggram_seconds`, else the network's window.
            kinds: as in `tag`; by default all.

        Returns:
            `Taggram` with `times` `(t,)` in seconds of the source and `probabilities` `(t, tags)`.

        Raises:
            AudioError: the audio cannot be tagged.
            ValueError: `hop_seconds` or `window_seconds` is not positive, or `kinds` is invalid as in `tag`.
        """
        columns = self.spec.vocabulary.columns(kinds=kinds)
        hop_samples, heard_frames = self._taggram_grid(hop_seconds, window_seconds)
        starts, rows = [], []
        notes: list[str] = []
        for batch in self._windows(source, sr, offset, duration, hop_samples, heard_frames, notes):
            starts.append(batch.offsets)
            rows.append(self._waveform_runtime.predict(batch.samples))
        return Taggram(
            tags=tuple(self.names[column] for column in columns),
            starts=offset + np.concatenate(starts) / self.spec.audio.sr,
            probabilities=np.concatenate(rows)[:, columns],
            window_seconds=windows.hearing(self.spec, heard_frames).window_seconds,
            hop_seconds=hop_samples / self.spec.audio.sr,
            model=self.spec.name,
            notes=tuple(notes),
        )

    def stream(
        self,
        blocks: Iterable[np.ndarray],
        sr: float,
        *,
        hop_seconds: float = 1.0,
        window_seconds: float | None = None,
        kinds: Collection[str] | None = None,
        notes: list[str] | None = None,
    ) -> Iterator[TaggramRow]:
        """Yield the rows of a taggram while audio arrives, in constant memory.

        A row is yielded as soon as its window is complete: `window_seconds / 2` after its `time`, plus at most 0.15 s
        that the resampler holds back, plus the rest of the current block. Rows equal those of `taggram` to 1e-5, except
        where the channels partly cancel each other out: a stream notices that a second late.

        Args:
            blocks: arrays `(samples,)` or `(channels, samples)` in order, of any lengths, e.g. a generator that reads
                from a sound card. The stream ends when `blocks` ends.
            sr: sample rate of the blocks in Hz.
            hop_seconds, window_seconds, kinds: as in `taggram`.
            notes: list to which remarks on the audio are appended at the end, one sentence each.

        Yields:
            `TaggramRow`: `time` in seconds since the first sample, and `probabilities` `(tags,)` of the tags of
            `kinds`, in the order of `names`. After the last block come the rows that `taggram` pads with zeros.

        Raises:
            AudioError: a block is invalid, or, at the end, all blocks were silent.
            ValueError: as `taggram`.

        Example:
            >>> import keras_musictag as kmt, numpy as np
            >>> blocks = (np.sin(np.arange(i, i + 1_600) / 6) / 2 for i in range(0, 48_000, 1_600))  # 0.1 s each
            >>> [round(time, 1) for time, _ in kmt.load("tiny").stream(blocks, 16_000, window_seconds=1.0)]
            [0.5, 1.5, 2.5]
        """
        columns = self.spec.vocabulary.columns(kinds=kinds)
        hop_samples, heard_frames = self._taggram_grid(hop_seconds, window_seconds)
        settings = self.spec.audio
        resampled = live.stream_blocks(blocks, sr, target_sr=settings.sr, resampler=settings.resampler, notes=notes)
        half = windows.hearing(self.spec, heard_frames).window_seconds / 2
        batches = windows.cut(
            resampled, self.spec, hop_samples=hop_samples, heard_frames=heard_frames, batch_size=1, name="The stream"
        )
        return (
            TaggramRow(
                float(batch.offsets[0] / settings.sr + half), self._waveform_runtime.predict(batch.samples)[0, columns]
            )
            for batch in batches
        )

    def embed(
        self, source: audio.Source, sr: float | None = None, *, offset: float = 0.0, duration: float | None = None
    ) -> np.ndarray:
        """Return the embedding: the input of the classifier, averaged over all windows.

        Args:
            source, sr, offset, duration: as in `tag`.

        Returns:
            float32 array `(features,)`.

        Raises:
            AudioError: the audio cannot be used.

        Example:
            >>> import keras_musictag as kmt, numpy as np
            >>> kmt.load("tiny").embed(np.random.default_rng(0).uniform(-1, 1, 16_000), sr=16_000).shape
            (16,)
        """
        return self._mean(self._embedding_runtime, self._windows(source, sr, offset, duration))

    # --- Internals ---

    def _taggram_grid(self, hop_seconds: float, window_seconds: float | None) -> tuple[int, int]:
        """Return the hop in samples and the number of spectrogram frames per row of a taggram."""
        if window_seconds is None:
            window_seconds = self.spec.taggram_seconds or self.spec.window_seconds
        for name, value in (("hop_seconds", hop_seconds), ("window_seconds", window_seconds)):
            if not value > 0 or value > 86_400:
                raise ValueError(f"{name} must be positive and at most a day; got {value!r}.")
        rate, frame = self.spec.audio.sr, self.spec.mel.hop_length
        grid = 1 if self.spec.mel.center else frame
        hop_samples = max(1, round(hop_seconds * rate / grid)) * grid
        if window_seconds >= self.spec.window_seconds:
            return hop_samples, self.spec.window.frames
        return hop_samples, max(1, round(window_seconds * rate / frame))

    def _windows(
        self,
        source: audio.Source,
        sr: float | None,
        offset: float,
        duration: float | None,
        hop_samples: int | None = None,
        heard_frames: int | None = None,
        notes: list[str] | None = None,
    ) -> Iterator[windows.WindowBatch]:
        blocks = audio.stream(
            source,
            sr,
            target_sr=self.spec.audio.sr,
            resampler=self.spec.audio.resampler,
            offset=offset,
            duration=duration,
            notes=notes,
        )
        batch_size = windows_per_batch(self.spec)
        return windows.cut(
            blocks,
            self.spec,
            hop_samples=hop_samples,
            heard_frames=heard_frames,
            batch_size=batch_size,
            name=audio.describe(source),
        )

    @staticmethod
    def _mean(runtime: Runtime, batches: Iterable[windows.WindowBatch]) -> np.ndarray:
        """Return the mean output over all windows, summed in float64 for precision over hours of audio."""
        total, count = 0.0, 0
        for outputs in _predictions(runtime, batches):
            total = total + outputs.sum(axis=0, dtype="float64")
            count += len(outputs)
        return np.asarray(total / count, "float32")
