"""`Tagger`: sound in, tags with probabilities out.

A tagger *has* two Keras models: `core` maps log-mels `(batch, mels, frames)` to probabilities, `model` maps waveforms
`(batch, window_samples)` to the same, with the preprocessing inside. Both are ordinary `keras.Model`s that share their
weights. The tagger adds what a Keras model doesn't know: decoding, windows, tag names, saving.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import audio, cards, download, registry, weights, windows
from .errors import CacheError, MusicTagError, SpecError
from .runtime import KerasRuntime
from .spec import SPEC_FILE, WEIGHTS_FILE, ModelSpec
from .taggram import Taggram, column_of

if TYPE_CHECKING:
    import keras

    from .layers import Impl

_log = logging.getLogger(__name__)

# Sound that goes through the network at a time. Measured on 2 cores: per window, a batch of 96 s is at most 5 % faster
# than one of 24 s, but takes up to 1.5 GB (musicnn's widest activations) instead of 0.5 GB.
_BATCH_SECONDS = 24.0

_RANDOM = "nothing that was recorded: the network started from random weights"


# === Results ===


@dataclasses.dataclass(frozen=True)
class TagResult:
    """One file of a batch: its tags, or why there are none.

    Attributes:
        source: what was given.
        tags: tag -> probability, most probable first; `None` after an error.
        error: the reason, `None` if all went well.
    """

    source: Any
    tags: dict[str, float] | None = None
    error: MusicTagError | None = None


# === Tagger ===


class Tagger:
    """A model with its spec and weights. Made by `keras_musictag.load`; see there.

    Attributes:
        spec: the `ModelSpec`.
        tags: tuple of tag names, in the order of the outputs.
        core: `keras.Model`, log-mel `(batch, mels, frames)` -> `(batch, tags)`.
        model: `keras.Model`, waveform `(batch, window_samples)` -> `(batch, tags)`.
    """

    def __init__(
        self, spec: ModelSpec, core: keras.Model | None = None, *, pretrained: bool = True, impl: Impl = "fft"
    ) -> None:
        """Build the network, and fetch and assign its weights.

        Args:
            spec: what to build.
            core: a network that already has the right weights, e.g. one just trained; nothing is fetched then.
            pretrained: fetch and assign `spec.weights`; otherwise weights stay random.
            impl: `LogMelSpectrogram` implementation.
        """
        self.spec = spec
        self.impl = impl
        self._pretrained = pretrained or core is not None
        # Weights are fetched before anything is built: what fails should fail early.
        path = download.fetch_weights(spec) if pretrained and core is None else None
        if core is None:
            shape = {"num_tags": len(spec.tags), "input_shape": spec.input_shape}
            try:
                core = registry.build_model(spec.architecture, **shape, name=spec.name.replace(".", "_"), **spec.config)
            except TypeError as error:  # a config that the builder does not take
                raise SpecError(
                    f"{spec.architecture!r} cannot be built with config={dict(spec.config)!r}: {error}."
                ) from error
        expected = (None, len(spec.tags))
        if tuple(core.output_shape) != expected or tuple(core.input_shape[1:]) != spec.input_shape:
            raise SpecError(
                f"The network of {spec.name!r} maps {core.input_shape} to {core.output_shape}; its spec says "
                f"{(None, *spec.input_shape)} to {expected}."
            )
        if path is not None and spec.weights is not None:
            weights.load_weights(core, path, file_format=spec.weights.format, architecture=spec.architecture)
        self.core = core

    @property
    def tags(self) -> tuple[str, ...]:
        """Tag names in the order of the outputs."""
        return self.spec.tags

    @functools.cached_property
    def model(self) -> keras.Model:
        """Waveform `(batch, window_samples)` -> probabilities `(batch, tags)`: preprocessing, then `core`."""
        return self._from_waveform(self.core)

    # --- Tagging ---

    def tag(
        self,
        source: audio.Source,
        sr: float | None = None,
        *,
        top: int | None = None,
        threshold: float = 0.0,
        tags: Sequence[str] | None = None,
        offset: float = 0.0,
        duration: float | None = None,
    ) -> dict[str, float]:
        """Probabilities of the tags, averaged over the windows of the sound.

        Args:
            source: path, binary file object, array `(samples,)` or `(channels, samples)`, or `(array, sr)`.
            sr: sample rate of an array in Hz.
            top: keep this many of the most probable tags.
            threshold: keep tags at least this probable.
            tags: keep these tags only.
            offset: seconds to skip.
            duration: seconds to use; nothing beyond is decoded.

        Returns:
            Tag -> probability, most probable first.

        Raises:
            AudioError: the sound cannot be tagged; one of its subclasses says why.
            UnknownTagError: `tags` has one that the model does not know.

        Example:
            >>> import keras_musictag as kmt, numpy as np
            >>> y = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)
            >>> list(kmt.load("tiny").tag(y, sr=16_000, top=1))
            ['tone']
        """
        wanted = self._columns(tags)
        if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
            raise ValueError(f"top must be a whole number of at least 1; got {top!r}.")
        mean = self._mean(self._run, self._windows(source, sr, offset, duration))
        order = sorted(wanted, key=lambda column: -mean[column])[:top]
        return {self.tags[column]: float(mean[column]) for column in order if mean[column] >= threshold}

    def tag_many(
        self,
        sources: Iterable[audio.Source],
        *,
        top: int | None = None,
        threshold: float = 0.0,
        tags: Sequence[str] | None = None,
        offset: float = 0.0,
        duration: float | None = None,
        progress: bool = False,
    ) -> Iterator[TagResult]:
        """Tag one sound after another; a bad one never ends the batch.

        Args:
            sources: paths, file objects or `(array, sr)` pairs.
            top, threshold, tags, offset, duration: as in `tag`.
            progress: show a progress bar on standard error.

        Yields:
            A `TagResult` per source, in order, with `tags` or with `error`.

        Raises:
            TypeError: `sources` is one sound, not several.
            UnknownTagError: `tags` has one that the model does not know.
        """
        if isinstance(sources, (str, os.PathLike, np.ndarray, bytes)):
            raise TypeError(f"tag_many() takes several sounds; got one {type(sources).__name__}. Use tag(), or a list.")
        self._columns(tags)
        options = {"top": top, "threshold": threshold, "tags": tags, "offset": offset, "duration": duration}
        return self._tag_each(sources, options, progress)

    def _tag_each(
        self, sources: Iterable[audio.Source], options: dict[str, Any], progress: bool
    ) -> Iterator[TagResult]:
        if progress:
            from tqdm.auto import tqdm

            sources = tqdm(sources, unit="file", delay=2)
        for source in sources:
            try:
                yield TagResult(source, tags=self.tag(source, **options))
            except MusicTagError as error:
                _log.info("%s", error)
                yield TagResult(source, error=error)

    def taggram(
        self,
        source: audio.Source,
        sr: float | None = None,
        *,
        hop_seconds: float = 1.0,
        offset: float = 0.0,
        duration: float | None = None,
    ) -> Taggram:
        """Probabilities over time: one row per window, windows `hop_seconds` apart.

        Args:
            source, sr, offset, duration: as in `tag`.
            hop_seconds: from one window to the next; rounded to whole spectrogram frames.

        Returns:
            `Taggram` with `times` `(t,)` in seconds of the source and `probabilities` `(t, tags)`.

        Raises:
            AudioError: the sound cannot be tagged.
            ValueError: `hop_seconds` is not positive.
        """
        frame_seconds = self.spec.mel.hop_length / self.spec.audio.sr
        if not hop_seconds > 0 or hop_seconds > 86_400:
            raise ValueError(f"hop_seconds must be positive and at most a day; got {hop_seconds!r}.")
        hop_frames = max(1, round(hop_seconds / frame_seconds))
        starts, rows = [], []
        for batch in self._windows(source, sr, offset, duration, hop_frames=hop_frames):
            starts.append(batch.starts)
            rows.append(self._run.predict(batch.samples))
        return Taggram(
            tags=self.tags,
            starts=offset + np.concatenate(starts) * frame_seconds,
            probabilities=np.concatenate(rows),
            window_seconds=self.spec.window_seconds,
            hop_seconds=hop_frames * frame_seconds,
            model=self.spec.name,
        )

    def embed(
        self, source: audio.Source, sr: float | None = None, *, offset: float = 0.0, duration: float | None = None
    ) -> np.ndarray:
        """What enters the classifier, averaged over the windows of the sound.

        Args:
            source, sr, offset, duration: as in `tag`.

        Returns:
            float32 array `(features,)`.

        Raises:
            AudioError: the sound cannot be used.

        Example:
            >>> import keras_musictag as kmt, numpy as np
            >>> kmt.load("tiny").embed(np.random.default_rng(0).uniform(-1, 1, 16_000), sr=16_000).shape
            (16,)
        """
        return self._mean(self._run_features, self._windows(source, sr, offset, duration))

    # --- Saving ---

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write `spec.json`, `weights.safetensors` and a model card; `load(folder)` reads them.

        The folder appears complete or not at all. What is saved is the network as it is now: if it came with random
        weights, the card says so and repeats none of the spec's claims about training.

        Args:
            folder: where to.
            overwrite: replace a tagger that is there; other files in its folder stay. Other folders are never replaced.

        Returns:
            Path of the folder.

        Raises:
            CacheError: it cannot be written, or something else is there.
        """
        folder = Path(folder)
        if folder.exists() and not (overwrite and (folder / SPEC_FILE).is_file()):
            advice = (
                "Pass overwrite=True to replace it." if (folder / SPEC_FILE).is_file() else "Choose another folder."
            )
            raise CacheError(f"{folder} already exists. {advice}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
                new = Path(scratch) / "new"
                new.mkdir()
                source = weights.save_weights(self.core, new / WEIGHTS_FILE)
                if self._pretrained:
                    spec = dataclasses.replace(self.spec, weights=source, root=None)
                else:
                    spec = self.spec.retrained(weights=source, trained_on=_RANDOM, paper="")
                weights.write_atomically(new / SPEC_FILE, spec.to_json().encode())
                weights.write_atomically(new / "README.md", cards.model_card(spec, folder.name).encode())
                if folder.exists():
                    old = folder.rename(Path(scratch) / "old")
                    for path in old.iterdir():
                        if not (new / path.name).exists():
                            path.rename(new / path.name)
                new.rename(folder)
        except OSError as error:
            if isinstance(error, CacheError):
                raise
            raise CacheError(f"{folder} cannot be written: {error}.") from error
        return folder

    @property
    def weights_sha256(self) -> str:
        """Of the file its weights came from; empty if they came from nowhere, being random or trained in memory."""
        source = self.spec.weights
        return source.sha256 if self._pretrained and source is not None else ""

    def __repr__(self) -> str:
        """One line with what one wants to know."""
        mels, frames = self.spec.input_shape
        return (
            f"<Tagger {self.spec.name}: {len(self.tags)} tags, {self.core.count_params():,} parameters, "
            f"{mels}x{frames} log-mel at {self.spec.audio.sr} Hz, {self.spec.window_seconds:.1f} s windows, "
            f"{'pretrained' if self._pretrained else 'random weights'}>"
        )

    # --- Internals ---

    def __getstate__(self) -> dict[str, Any]:
        """State for `copy` and `pickle`: without the compiled functions, which belong to this very network."""
        compiled = ("model", "_run", "_run_features")
        return {name: value for name, value in vars(self).items() if name not in compiled}

    @functools.cached_property
    def _run(self) -> KerasRuntime:
        return KerasRuntime(self.model)

    @functools.cached_property
    def _run_features(self) -> KerasRuntime:
        import keras

        # Called `head` by every builder: what enters the classifier is the embedding.
        features = self.core.get_layer("head").input
        return KerasRuntime(self._from_waveform(keras.Model(self.core.inputs, features, name="features")))

    def _from_waveform(self, network: keras.Model) -> keras.Model:
        """Put the preprocessing in front of a network that takes log-mels."""
        import keras

        from .layers import LogMelSpectrogram

        waveform = keras.Input((self.spec.window_samples,), name="waveform")
        front_end = LogMelSpectrogram.from_spec(
            self.spec.audio, self.spec.mel, impl=self.impl, name="log_mel_spectrogram"
        )
        return keras.Model(waveform, network(front_end(waveform)), name=f"{network.name}_from_waveform")

    def _windows(
        self,
        source: audio.Source,
        sr: float | None,
        offset: float,
        duration: float | None,
        hop_frames: int | None = None,
    ) -> Iterator[windows.WindowBatch]:
        blocks = audio.stream(
            source,
            sr,
            target_sr=self.spec.audio.sr,
            resampler=self.spec.audio.resampler,
            offset=offset,
            duration=duration,
        )
        batch_size = max(1, round(_BATCH_SECONDS / self.spec.window_seconds))
        return windows.cut(blocks, self.spec, hop_frames=hop_frames, batch_size=batch_size, name=audio.describe(source))

    @staticmethod
    def _mean(run: KerasRuntime, batches: Iterable[windows.WindowBatch]) -> np.ndarray:
        """Mean output over all windows, in float64 so that hours of them do not drift."""
        total, count = 0.0, 0
        for batch in batches:
            outputs = run.predict(batch.samples)
            total = total + outputs.sum(axis=0, dtype="float64")
            count += len(outputs)
        return np.asarray(total / count, "float32")

    def _columns(self, tags: Sequence[str] | None) -> list[int]:
        if tags is None:
            return list(range(len(self.tags)))
        if isinstance(tags, str):
            tags = [tags]
        return [column_of(tag, self.tags) for tag in tags]
