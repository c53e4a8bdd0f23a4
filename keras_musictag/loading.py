"""Loading taggers from a name, a folder or a Hub address, on any runtime."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, overload

from . import __version__
from .errors import (
    CacheError,
    CorruptWeightsError,
    MissingExtraError,
    SpecError,
    UnknownModelError,
    WeightsUnavailableError,
)
from .models import hub_files, registry
from .models.keras_runtime import limit_threads
from .models.spec import SPEC_FILE, ModelSpec
from .tagger import Tagger
from .tagging import fastest_runtime
from .tagging.base_tagger import BaseTagger
from .tagging.exported import ExportedTagger, ExportError, Format, is_export
from .tagging.runtimes import FILE_RUNTIMES, is_installed, require_installed, runtimes
from .utils.checks import check_count
from .utils.files import cache_folder, cached_path

if TYPE_CHECKING:
    from .models.layers import Impl

_log = logging.getLogger(__name__)

_Name = str | os.PathLike[str]


@overload
def load(
    name: _Name,
    *,
    weights: str | None = ...,
    impl: Impl = ...,
    runtime: Literal["keras"] | None = ...,
    threads: int | None = ...,
) -> Tagger: ...


@overload
def load(
    name: _Name, *, weights: str | None = ..., impl: Impl = ..., runtime: str, threads: int | None = ...
) -> BaseTagger: ...


def load(
    name: _Name,
    *,
    weights: str | None = "pretrained",
    impl: Impl = "fft",
    runtime: str | None = None,
    threads: int | None = None,
) -> BaseTagger:
    """Load a tagger.

    A name, a saved tagger or a Hub address gives a `Tagger`, which has the Keras model. An exported tagger, or another
    runtime than Keras, gives an `ExportedTagger`: it gives the same tags, starts several times faster, and imports
    neither Keras nor TensorFlow.

    Args:
        name: a registered model (`list_models()`), a folder written by `Tagger.save` or `Tagger.export`, or
            `hf://org/repo@revision`.
        weights: `"pretrained"`, or `None` for random weights; missing weights are an error, never random.
        impl: `"fft"` or `"conv"`, implementation of `LogMelSpectrogram`; on Keras only.
        runtime: `"keras"`, `"onnxruntime"`, `"openvino"` or `"litert"`; `"auto"` for the fastest installed one. The
            first time, `"auto"` times them on one window; the times are logged and kept in the cache folder, per model,
            processor and versions. A model that is not an export is exported once, at float32, and kept there too. By
            default: Keras, or for an export the first of OpenVINO, ONNX Runtime and LiteRT that is installed and reads
            it.
        threads: number of CPU threads; all cores by default. With Keras it applies to the whole process, and must be
            set before TensorFlow has run anything.

    Returns:
        `Tagger` or `ExportedTagger`, ready to use.

    Raises:
        UnknownModelError: no such name or folder.
        WeightsUnavailableError: the model has no weights yet.
        WeightsError: the weights cannot be fetched or do not match the model (see its subclasses).
        SpecError: the folder or repository holds no valid spec.
        ExportError: the runtime cannot run the export or the model.
        MissingExtraError: the runtime is not installed.

    Example:
        >>> load("tiny")
        <Tagger tiny: 5 tags, 3,829 parameters, 32x63 log-mel at 16000 Hz, 1.0 s windows, pretrained>
    """
    _check_arguments(weights, runtime, threads)
    if not os.fspath(name).startswith("hf://") and is_export(name) and os.fspath(name) not in registry.list_models():
        if weights is None:
            raise ValueError(f"{os.fspath(name)} is an exported tagger, which includes its weights; got weights=None.")
        return ExportedTagger.from_folder(name, runtime, threads)
    spec = find_spec(name)
    if weights is not None and spec.weights is None:
        raise WeightsUnavailableError(
            f"There are no weights for {spec.name!r} yet. {spec.weights_help or 'Train it first.'} "
            f"Models that have weights: {', '.join(registry.list_models(pretrained=True))}. "
            f"For a network with random weights: load({spec.name!r}, weights=None)."
        )
    if runtime == "auto":
        return _load_fastest(spec, impl, threads)
    if runtime not in (None, "keras"):
        assert runtime is not None
        return _load_exported(spec, runtime, threads)
    if threads is not None:
        limit_threads(threads)
    return Tagger(spec, pretrained=weights is not None, impl=impl)


def untrained(model: str | os.PathLike[str], tags: Sequence[str], *, seed: int = 0) -> Tagger:
    """Make an untrained tagger: the network of a model with random weights and your own tags.

    Args:
        model: a name, a folder or a Hub address, as for `load`; its weights are not needed.
        tags: names in the order of the outputs.
        seed: random seed of the weights.

    Returns:
        `Tagger`; the claims of its spec are those of the new network.

    Raises:
        UnknownModelError: no such model.
        SpecError: no tags, or one twice.

    Example:
        >>> untrained("tiny", ["dub", "garage"])
        <Tagger tiny: 2 tags, 3,778 parameters, 32x63 log-mel at 16000 Hz, 1.0 s windows, random weights>
    """
    import keras

    spec = find_spec(model).retrained(tags=tuple(tags))
    keras.utils.set_random_seed(seed)
    tagger = Tagger(spec, pretrained=False)
    counts = {
        "parameters": tagger.core.count_params(),
        "trainable_parameters": sum(math.prod(variable.shape) for variable in tagger.core.trainable_variables),
        "input_shape": list(spec.input_shape),
        "num_tags": len(spec.tags),
    }
    tagger.spec = dataclasses.replace(spec, claims={**spec.claims, **counts})
    return tagger


def _check_arguments(weights: str | None, runtime: str | None, threads: int | None) -> None:
    if weights not in ("pretrained", None):
        raise ValueError(f"weights must be 'pretrained' or None; got {weights!r}.")
    if runtime not in (None, "auto", *runtimes()):
        raise ValueError(f"runtime must be 'auto' or one of {', '.join(map(repr, runtimes()))}; got {runtime!r}.")
    if weights is None and runtime not in (None, "keras"):
        raise ValueError(f"weights=None (random weights, for training) requires Keras; got runtime={runtime!r}.")
    check_count("threads", threads, none=" for all cores")


def find_spec(name: _Name) -> ModelSpec:
    """Return the spec of a registered name, a folder or a Hub address, as `load` finds it.

    Raises:
        UnknownModelError: no such name or folder.
        SpecError: the folder or repository holds no valid spec.
        DownloadError, OfflineError: the Hub cannot be reached.
    """
    text = os.fspath(name)
    if text.startswith("hf://"):
        return hub_files.fetch_hub_spec(text)
    # A registered name wins over a folder in the working directory; write ./name for the folder.
    is_folder = isinstance(name, os.PathLike) or os.sep in text or (Path(text) / SPEC_FILE).is_file()
    if is_folder and text not in registry.list_models():
        if not Path(text).is_dir():
            raise UnknownModelError(f"There is no folder {text!r} to load a tagger from.")
        return ModelSpec.from_folder(text)
    return registry.model_info(text)


# === Models of the zoo on other runtimes ===


def _load_fastest(spec: ModelSpec, impl: Impl, threads: int | None) -> BaseTagger:
    """Load on the fastest runtime, measured the first time."""
    conditions = fastest_runtime.conditions(_export_key(spec, impl), threads)
    known = fastest_runtime.recall(conditions)
    if known is not None:
        runtime = min(known, key=lambda name: known[name])
        tagger = _try_runtime(spec, runtime, impl, threads)
        if tagger is not None:
            _log.info("%s runs %s.", runtime, spec.name)
            return tagger
    candidates = {name: _try_runtime(spec, name, impl, threads) for name in runtimes() if is_installed(name)}
    taggers = {name: tagger for name, tagger in candidates.items() if tagger is not None}
    times = fastest_runtime.measure(taggers)
    fastest_runtime.remember(conditions, times)
    runtime = min(times, key=lambda name: times[name])
    measured = ", ".join(f"{name} {ms:.1f} ms" for name, ms in sorted(times.items(), key=lambda item: item[1]))
    _log.info("%s runs %s; a window took %s.", runtime, spec.name, measured)
    return taggers[runtime]


def _try_runtime(spec: ModelSpec, runtime: str, impl: Impl, threads: int | None) -> BaseTagger | None:
    """Load on a runtime; log and return `None` if it cannot run the model."""
    if runtime == "keras":
        if threads is not None:
            limit_threads(threads)
        return Tagger(spec, impl=impl)
    try:
        return _load_exported(spec, runtime, threads)
    except (ExportError, MissingExtraError) as error:
        _log.info("%s cannot run %s: %s", runtime, spec.name, error)
        return None


def _load_exported(spec: ModelSpec, runtime: str, threads: int | None) -> ExportedTagger:
    """Load an export from the cache; export the model first if it is missing or damaged."""
    require_installed(runtime)
    file_format = cast(Format, FILE_RUNTIMES[runtime].zoo_format)
    key = _export_key(spec, file_format)
    folder = cached_path("exports", key)
    if is_export(folder):
        try:
            return ExportedTagger.from_folder(folder, runtime, threads, spec=spec)
        except (CorruptWeightsError, SpecError) as error:
            _log.warning("%s in the cache is damaged and will be exported again: %s", folder, error)
    from .tagging.exporting import export

    folder = cache_folder() / "exports" / key
    _log.info("Exporting %s as %s, once.", spec.name, file_format)
    try:
        export(Tagger(spec), folder, format=file_format, input="log_mel", overwrite=True)
    except CacheError:
        if not is_export(folder):  # unless another process has exported it meanwhile
            raise
    return ExportedTagger.from_folder(folder, runtime, threads, spec=spec)


def _export_key(spec: ModelSpec, variant: str) -> str:
    """Return a digest of everything that an exported file depends on."""
    fields = ("architecture", "config", "audio", "mel", "window", "tags", "weights")
    values = {name: value for name, value in dataclasses.asdict(spec).items() if name in fields}
    text = json.dumps({**values, "format": variant, "version": __version__}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
