"""`NetworkTagger`: a tagger with a Keras model. `keras_musictag.Tagger` adds fine-tuning, export and upload.

A tagger *has* two Keras models: `core` maps log-mels `(batch, mels, frames)` to probabilities, `model` maps waveforms
`(batch, window_samples)` to the same, with the preprocessing inside. Both are ordinary `keras.Model`s that share their
weights. The tagger adds what a Keras model doesn't know: decoding, windows, tag names, saving.
"""

from __future__ import annotations

import functools
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..errors import SpecError
from ..models import conversion, registry, size_check, weights
from ..models import tagger_folder as saving
from ..models.fetching import fetch_weights
from ..models.keras_runtime import KerasRuntime
from ..models.keras_state import check_process, default_settings
from ..models.spec import ModelSpec
from .base_tagger import BaseTagger

if TYPE_CHECKING:
    import keras

    from ..models.layers import Impl

_RANDOM = "nothing that was recorded: the network started from random weights"  # field `trained_on` of a saved spec


class NetworkTagger(BaseTagger):
    """A Keras model with its spec and weights.

    Attributes:
        spec: the `ModelSpec`.
        tags: tuple of tag names, in the order of the outputs.
        core: `keras.Model`, log-mel `(batch, mels, frames)` -> `(batch, tags)`.
        model: `keras.Model`, waveform `(batch, window_samples)` -> `(batch, tags)`.
    """

    runtime = "keras"
    report: Any = None  # the `FineTuneReport` of a tagger that `fine_tune` has just made

    def __init__(
        self, spec: ModelSpec, core: keras.Model | None = None, *, pretrained: bool = True, impl: Impl = "fft"
    ) -> None:
        """Build the network, and fetch and assign its weights.

        Args:
            spec: spec of the model.
            core: a network that already has its weights, e.g. one just trained; nothing is fetched then.
            pretrained: fetch and assign `spec.weights`; otherwise the weights stay random.
            impl: `LogMelSpectrogram` implementation.

        Raises:
            ForkedProcessError: Keras was started before this process was forked.
        """
        check_process()
        self.spec = spec
        self.impl = impl
        self._pretrained = pretrained or core is not None
        # Fetch the weights before building anything, so that failures come early.
        path = (conversion.find_converted(spec) or fetch_weights(spec)) if pretrained and core is None else None
        if core is None:
            shape: dict[str, Any] = {"num_tags": len(spec.tags), "input_shape": spec.input_shape}
            name = spec.name.replace(".", "_")
            build = functools.partial(registry.build_model, spec.architecture, **shape, name=name, **spec.config)
            try:
                with default_settings():
                    path = size_check.check(build, spec, path)
                    core = build()
            except TypeError as error:  # the builder has no such argument
                raise SpecError(
                    f"{spec.architecture!r} cannot be built with config={dict(spec.config)!r}: {error}."
                ) from error
        expected = (None, len(spec.tags))
        if tuple(core.output_shape) != expected or tuple(core.input_shape[1:]) != spec.input_shape:
            raise SpecError(
                f"The network of {spec.name!r} maps {core.input_shape} to {core.output_shape}; its spec says "
                f"{(None, *spec.input_shape)} to {expected}."
            )
        if path is not None:
            weights.load_weights(core, conversion.to_safetensors(spec, path, core))
        self.core = core

    def like(self, spec: ModelSpec, core: keras.Model | None = None, *, pretrained: bool = True) -> Self:
        """Make a tagger of the same class and front-end implementation with another spec and network.

        Args:
            spec: the new spec.
            core: its network; by default one is built and given the weights of `spec`.
            pretrained: without `core`: fetch and assign the weights; otherwise they stay random.
        """
        return type(self)(spec, core, pretrained=pretrained, impl=self.impl)

    @functools.cached_property
    def core(self) -> keras.Model:
        """Log-mel `(batch, mels, frames)` -> probabilities `(batch, tags)`; unpickled on first use."""
        check_process()
        with default_settings():
            return pickle.loads(vars(self).pop("_pickled_core"))

    @functools.cached_property
    def model(self) -> keras.Model:
        """Waveform `(batch, window_samples)` -> probabilities `(batch, tags)`: preprocessing, then `core`."""
        return self._from_waveform(self.core)

    # --- Saving ---

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write `spec.json`, `weights.safetensors` and a model card; `load(folder)` reads them.

        The folder appears complete or not at all. The network is saved as it is now; if it started from random weights,
        the card says so and omits the spec's claims about training.

        Args:
            folder: folder to write.
            overwrite: replace an existing tagger; other files in the folder stay. Folders without a tagger are never
                replaced.

        Returns:
            Path of the folder.

        Raises:
            CacheError: the folder cannot be written, or exists and must not be replaced.
        """
        return saving.save(self.core, self._saved_spec, Path(folder), overwrite=overwrite)

    @property
    def weights_sha256(self) -> str:
        """sha256 of the weight file; empty if the weights are random or were trained in memory."""
        source = self.spec.weights
        return source.sha256 if self._pretrained and source is not None else ""

    def __repr__(self) -> str:
        """One-line summary."""
        mels, frames = self.spec.input_shape
        return (
            f"<{type(self).__name__} {self.spec.name}: {len(self.tags)} tags, {self.core.count_params():,} parameters, "
            f"{mels}x{frames} log-mel at {self.spec.audio.sr} Hz, {self.spec.window_seconds:.1f} s windows, "
            f"{'pretrained' if self._pretrained else 'random weights'}>"
        )

    # --- Internals ---

    def __getstate__(self) -> dict[str, Any]:
        """State for `copy` and `pickle`, without the compiled functions, which a copy makes for its own network."""
        compiled = ("model", "_waveform_runtime", "_log_mel_runtime", "_embedding_runtime")
        state = {name: value for name, value in vars(self).items() if name not in compiled}
        if "core" in state:
            state["core"] = _Network(state["core"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state; a pickled network is only unpickled when it is needed.

        Unpickling it here would hang in a forked worker, and a worker that fails to unpickle its task never answers.
        """
        core = state.get("core")
        if isinstance(core, bytes):
            state = {name: value for name, value in state.items() if name != "core"} | {"_pickled_core": core}
        elif isinstance(core, _Network):
            state = state | {"core": core.network}
        vars(self).update(state)

    @property
    def _saved_spec(self) -> ModelSpec:
        """The spec; for random weights, without claims about training."""
        return self.spec if self._pretrained else self.spec.retrained(trained_on=_RANDOM, paper="")

    @functools.cached_property
    def _waveform_runtime(self) -> KerasRuntime:
        return KerasRuntime(self.model)

    @functools.cached_property
    def _log_mel_runtime(self) -> KerasRuntime:
        return KerasRuntime(self.core)

    @property
    def embedding_tensor(self) -> Any:
        """The symbolic tensor `(batch, features)` that enters the classifier.

        Raises:
            SpecError: the network has no layer named `head`, or the input of `head` is not a vector.
        """
        try:
            vector = self.core.get_layer("head").input
        except ValueError as error:
            raise SpecError(
                f"{self.spec.name!r} has no embeddings: its network has no layer named 'head'. Name its last layer so."
            ) from error
        if len(vector.shape) != 2:
            raise SpecError(
                f"{self.spec.name!r} has no embeddings: the input of its head has the shape {tuple(vector.shape)}, not "
                "(batch, features). Make the head a dense layer on a vector."
            )
        return vector

    @functools.cached_property
    def _embedding_runtime(self) -> KerasRuntime:
        import keras

        with default_settings():
            network = keras.Model(self.core.inputs, self.core.get_layer("head").input, name="features")
        return KerasRuntime(self._from_waveform(network))

    def _from_waveform(self, network: keras.Model) -> keras.Model:
        """Put the preprocessing in front of a network that takes log-mels."""
        check_process()
        import keras

        from ..models.layers import LogMelSpectrogram

        with default_settings():
            waveform = keras.Input((self.spec.window_samples,), name="waveform")
            front_end = LogMelSpectrogram.from_spec(
                self.spec.audio, self.spec.mel, impl=self.impl, name="log_mel_spectrogram"
            )
            return keras.Model(waveform, network(front_end(waveform)), name=f"{network.name}_from_waveform")


class _Network:
    """A Keras model in the state of a tagger: copied by reference, pickled as bytes."""

    def __init__(self, network: keras.Model) -> None:
        self.network = network

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        return bytes, (pickle.dumps(self.network),)
