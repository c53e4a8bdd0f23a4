"""`Tagger`: sound in, tags with probabilities out.

A tagger *has* two Keras models: `core` maps log-mels `(batch, mels, frames)` to probabilities, `model` maps waveforms
`(batch, window_samples)` to the same, with the preprocessing inside. Both are ordinary `keras.Model`s that share their
weights. The tagger adds what a Keras model doesn't know: decoding, windows, tag names, saving.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import SpecError
from .models import fetching as download
from .models import folder as saving
from .models import outline, registry, weights
from .models.spec import ModelSpec
from .tagging.base import BaseTagger
from .tagging.runtimes import KerasRuntime
from .tagging.tag_result import TagResult as TagResult

if TYPE_CHECKING:
    import keras

    from .apps.recipes.recipe_data import Source
    from .datasets import Manifest
    from .models.layers import Impl
    from .tagging.exported import Format, Precision, Sound
    from .tagging.exporting import Export
    from .training.finetuning import FineTuneReport

_RANDOM = "nothing that was recorded: the network started from random weights"


class Tagger(BaseTagger):
    """A model with its spec and weights. Made by `keras_musictag.load`; see there.

    Attributes:
        spec: the `ModelSpec`.
        tags: tuple of tag names, in the order of the outputs.
        core: `keras.Model`, log-mel `(batch, mels, frames)` -> `(batch, tags)`.
        model: `keras.Model`, waveform `(batch, window_samples)` -> `(batch, tags)`.
        report: what fine-tuning measured, if `fine_tune` has just made it.
    """

    runtime = "keras"
    report: FineTuneReport | None = None

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
            shape: dict[str, Any] = {"num_tags": len(spec.tags), "input_shape": spec.input_shape}
            name = spec.name.replace(".", "_")
            build = functools.partial(registry.build_model, spec.architecture, **shape, name=name, **spec.config)
            try:
                outline.check(build, spec, path)
                core = build()
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

    @functools.cached_property
    def model(self) -> keras.Model:
        """Waveform `(batch, window_samples)` -> probabilities `(batch, tags)`: preprocessing, then `core`."""
        return self._from_waveform(self.core)

    # --- Learning ---

    def fine_tune(
        self,
        data: Source,
        tags: Sequence[str] | None = None,
        *,
        validation: float | Manifest | str | os.PathLike[str] | None = 0.2,
        **options: Any,
    ) -> Tagger:
        """A new tagger for tags of your own, made from this one in minutes; this one stays as it is.

        Args:
            data: labelled clips: a `Manifest`, a table (`file,tags`), a folder per tag, or `"gtzan:FOLDER"`.
            tags: those to learn; by default, all there are.
            validation: share that is held out, clips to validate on, or `None`.
            options: `folder`, `cache`, `settings`, `single_label`, `strict`, `progress`, see `finetuning.fine_tune`.

        Returns:
            `Tagger`; its `report` says how good it is, its spec how it was made.

        Raises:
            FineTuneError, DataError, CacheError: as `finetuning.fine_tune`.
        """
        from .training.finetuning import fine_tune

        return fine_tune(self, data, tags, validation=validation, **options).tagger

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
        return saving.save(self.core, self._described, Path(folder), overwrite=overwrite)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: Format = "onnx",
        precision: Precision = "float32",
        input: Sound = "waveform",
        **options: Any,
    ) -> Export:
        """Write it as a file for ONNX Runtime, OpenVINO, LiteRT or TensorFlow Serving, run and compared first.

        Args:
            path: folder to write, which `load` reads without Keras.
            format: `"onnx"`, `"litert"`, `"openvino"` or `"saved_model"`.
            precision: `"float32"`, `"float16"` or `"int8"`.
            input: `"waveform"`, with the preprocessing inside the file, or `"log_mel"`.
            options: `calibration`, `data`, `dataset`, `overwrite`, `progress`, see `exporting.export`.

        Returns:
            `Export`, with the folder and what the file changes.

        Raises:
            ExportError, MissingExtraError, CacheError: as `exporting.export`.
        """
        from .tagging.exporting import export

        return export(self, path, format=format, precision=precision, input=input, **options)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        branch: str | None = None,
        commit_message: str | None = None,
        token: str | None = None,
        exist_ok: bool = True,
    ) -> str:
        """Upload it to the Hugging Face Hub, in one commit; arguments and errors are those of `upload.push`.

        Returns:
            `hf://org/repo@commit`, which `load` reads.
        """
        from .models import hub as upload

        return upload.push(
            self, repo_id, private=private, branch=branch, commit_message=commit_message, token=token, exist_ok=exist_ok
        )

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
        compiled = ("model", "_run", "_run_log_mel", "_run_features")
        return {name: value for name, value in vars(self).items() if name not in compiled}

    @property
    def _described(self) -> ModelSpec:
        """The spec, without what is not true of random weights."""
        return self.spec if self._pretrained else self.spec.retrained(trained_on=_RANDOM, paper="")

    @functools.cached_property
    def _run(self) -> KerasRuntime:
        return KerasRuntime(self.model)

    @functools.cached_property
    def _run_log_mel(self) -> KerasRuntime:
        return KerasRuntime(self.core)

    @property
    def _embedding(self) -> Any:
        """The symbolic tensor `(batch, features)` that enters the classifier.

        Raises:
            SpecError: the network has no layer named `head`, or what enters it is no vector.
        """
        try:
            vector = self.core.get_layer("head").input
        except ValueError as error:
            raise SpecError(
                f"{self.spec.name!r} has no embeddings: its network has no layer named 'head'. Name its last one so."
            ) from error
        if len(vector.shape) != 2:
            raise SpecError(
                f"{self.spec.name!r} has no embeddings: what enters its head has the shape {tuple(vector.shape)}, not "
                "(batch, features). Let the head be a dense layer on a vector."
            )
        return vector

    @functools.cached_property
    def _run_features(self) -> KerasRuntime:
        import keras

        # Called `head` by every builder: what enters the classifier is the embedding.
        features = self.core.get_layer("head").input
        return KerasRuntime(self._from_waveform(keras.Model(self.core.inputs, features, name="features")))

    def _from_waveform(self, network: keras.Model) -> keras.Model:
        """Put the preprocessing in front of a network that takes log-mels."""
        import keras

        from .models.layers import LogMelSpectrogram

        waveform = keras.Input((self.spec.window_samples,), name="waveform")
        front_end = LogMelSpectrogram.from_spec(
            self.spec.audio, self.spec.mel, impl=self.impl, name="log_mel_spectrogram"
        )
        return keras.Model(waveform, network(front_end(waveform)), name=f"{network.name}_from_waveform")
