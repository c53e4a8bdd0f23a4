"""Exported taggers: a model file for a runtime other than Keras.

An export is a folder: `spec.json`, `export.json` and the model file, whose metadata repeats both so that it can be
passed on by itself. `Tagger.export` writes it, `load` reads it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, get_args

import numpy as np

from ..errors import CorruptWeightsError, MissingExtraError, MusicTagError, SpecError
from ..models.export_files import EXPORT_FILE, MODEL_FILES
from ..models.mel import LogMel
from ..models.spec import SPEC_FILE, ModelSpec
from ..utils.fields import build, read_json, require, require_choice
from .base_tagger import BaseTagger
from .runtimes import FileRuntime, is_installed, open_files, readers, runtimes

_log = logging.getLogger(__name__)

Format = Literal["onnx", "litert", "openvino", "saved_model"]
Precision = Literal["float32", "float16", "int8"]
InputKind = Literal["waveform", "log_mel"]

EXPORT_VERSION = 1
PROBABILITIES, EMBEDDING = "probabilities", "embedding"  # names of the outputs


class ExportError(MusicTagError, ValueError):
    """A tagger cannot be exported with the given options, or an export cannot be used."""


class NoKerasModelError(ExportError, AttributeError):
    """An exported tagger was asked for something that needs the Keras model."""


# === Metadata ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """The content of `export.json`.

    Attributes:
        format, precision, input: as given to `Tagger.export`.
        files: name -> sha256 of `spec.json` and the model file or files.
        size: bytes of the model file or files.
        weights_sha256: sha256 of the exported weights; empty if they were random or trained in memory.
        made_with: package and version.
        checked_with: runtimes and versions that the export was checked on.
        windows: number of windows that were compared with Keras at float32.
        max_change, mean_change: largest and mean absolute difference of the probabilities there.
        auc: macro ROC-AUC with Keras at float32 and with the export, and the data set; empty if not measured.
    """

    format: str
    precision: str
    input: str
    files: Mapping[str, str]
    size: int
    weights_sha256: str = ""
    made_with: str = ""
    checked_with: str = ""
    windows: int = 0
    max_change: float = 0.0
    mean_change: float = 0.0
    auc: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate the fields."""
        require_choice("format", self.format, get_args(Format))
        require_choice("precision", self.precision, get_args(Precision))
        require_choice("input", self.input, get_args(InputKind))
        require(isinstance(self.files, Mapping), f"files must be an object; got {self.files!r}.")
        if self.format != "saved_model":
            expected = {SPEC_FILE, *MODEL_FILES[self.format]}
            require(set(self.files) == expected, f"files must be {sorted(expected)}; got {sorted(self.files)}.")

    def to_json(self) -> str:
        """Return the text of `export.json`."""
        fields = {"export_version": EXPORT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read `export.json`.

        Raises:
            SpecError: the file does not exist or does not describe an export.
        """
        path = folder / EXPORT_FILE
        try:
            data = read_json(path)
        except FileNotFoundError as error:
            raise SpecError(f"{folder} has no {EXPORT_FILE}: it is not an exported tagger.") from error
        try:
            require(isinstance(data, dict), f"It must be a JSON object; got {type(data).__name__}.")
            version = data.pop("export_version", EXPORT_VERSION)
            require(
                version == EXPORT_VERSION,
                f"This export is of version {version!r}; this package reads version {EXPORT_VERSION}. Export it again, "
                "or update keras_musictag.",
            )
            return build(cls, data, "")
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from error


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds an exported tagger."""
    return Path(folder, EXPORT_FILE).is_file()


# === Tagger ===

_KERAS_ONLY = ("core", "model", "save", "export", "fine_tune", "push_to_hub")


class ExportedTagger(BaseTagger):
    """A tagger that runs an exported file, without Keras. Made by `keras_musictag.load`; see there.

    It tags like a `Tagger`, but cannot be trained, saved or exported.

    Attributes:
        spec: the `ModelSpec`.
        tags: tuple of tag names, in the order of the outputs.
        info: the `ExportInfo`.
        runtime: `"onnxruntime"`, `"openvino"` or `"litert"`.
    """

    def __init__(
        self, spec: ModelSpec, info: ExportInfo, files: Sequence[bytes], runtime: str, threads: int | None = None
    ) -> None:
        """Start the runtime.

        Args:
            spec: spec of the model.
            info: content of `export.json`.
            files: contents of the model files, in the order of `MODEL_FILES`.
            runtime: a runtime that reads the format.
            threads: number of CPU threads, `None` for all cores.

        Raises:
            MissingExtraError: the runtime is not installed.
            ExportError: the runtime cannot read the files.
        """
        self.spec, self.info, self.runtime = spec, info, runtime
        self._front_end = LogMel(spec) if info.input == "log_mel" else None
        try:
            # 16-bit arithmetic is precise enough for the network, but not for a spectrogram.
            exact = info.precision != "float16" or info.input == "waveform"
            self._network = open_files(runtime, files, threads=threads, exact=exact)
        except MissingExtraError:
            raise
        except Exception as error:  # each runtime has its own exceptions
            raise ExportError(
                f"{runtime} cannot read this {info.format} export of {spec.name!r}: {error}. Export it again, or try "
                "another version of the runtime."
            ) from error
        if PROBABILITIES not in self._network.outputs:
            raise ExportError(
                f"This {info.format} export of {spec.name!r} has no output {PROBABILITIES!r}, only "
                f"{', '.join(self._network.outputs)}: it was not made by Tagger.export. Export it again."
            )

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike[str],
        runtime: str | None = None,
        threads: int | None = None,
        *,
        spec: ModelSpec | None = None,
    ) -> Self:
        """Read an export.

        Args:
            folder: folder written by `Tagger.export`.
            runtime: a runtime that reads the format; `"auto"` or `None` for the fastest installed one.
            threads: number of CPU threads, `None` for all cores.
            spec: spec to use instead of the one in the folder.

        Raises:
            SpecError: `spec.json` or `export.json` is missing or invalid.
            CorruptWeightsError: a file is missing or differs from the one that was exported.
            ExportError: the runtime, or any runtime, cannot read the format, or cannot read this file.
            MissingExtraError: the runtime is not installed.
        """
        folder = Path(folder)
        info = ExportInfo.from_folder(folder)
        runtime = _choose_runtime(info.format, runtime)
        contents = {name: _read_verified(folder / name, sha256) for name, sha256 in info.files.items()}
        files = [contents[name] for name in MODEL_FILES[info.format]]
        return cls(spec or ModelSpec.from_folder(folder), info, files, runtime, threads)

    @property
    def weights_sha256(self) -> str:
        """sha256 of the exported weights, or of the model file if its precision is lower."""
        if self.info.precision == "float32":
            return self.info.weights_sha256
        return self.info.files[MODEL_FILES[self.info.format][-1]]

    def __repr__(self) -> str:
        """One-line summary."""
        return (
            f"<ExportedTagger {self.spec.name}: {len(self.tags)} tags, {self.info.format} {self.info.precision} on "
            f"{self._network.version}, {self.info.input} in, {self.spec.window_seconds:.1f} s windows>"
        )

    def __getattr__(self, name: str) -> NoReturn:
        """Raise a specific error for attributes that need the Keras model."""
        if name in _KERAS_ONLY:
            raise NoKerasModelError(
                f"An exported tagger has no {name!r}: it is a file, without the Keras model. Load the model it was "
                f"exported from, e.g. load({self.spec.name!r})."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def runtime_version(self) -> str:
        """Name and version of the runtime, such as `"onnxruntime 1.24.1"`."""
        return self._network.version

    @functools.cached_property
    def _waveform_runtime(self) -> _Output:
        return _Output(self._network, self._front_end, PROBABILITIES, self.spec)

    @functools.cached_property
    def _log_mel_runtime(self) -> _Output:
        if self.info.input != "log_mel":
            raise ExportError(
                f"This export of {self.spec.name!r} takes waveforms, not cached log-mels. Leave the cache out, or "
                "export it with input='log_mel'."
            )
        return _Output(self._network, None, PROBABILITIES, self.spec)

    @functools.cached_property
    def _embedding_runtime(self) -> _Output:
        if EMBEDDING not in self._network.outputs:
            raise ExportError(
                f"This export of {self.spec.name!r} gives no embedding: its network has no layer named 'head'."
            )
        return _Output(self._network, self._front_end, EMBEDDING, self.spec)


@dataclasses.dataclass(frozen=True)
class _Output:
    """One output of an exported network, as a `Runtime`."""

    network: FileRuntime
    front_end: LogMel | None
    name: str
    spec: ModelSpec

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return the outputs for waveforms `(batch, window_samples)`; float32 in, float32 out."""
        inputs = batch if self.front_end is None else self.front_end(batch)
        try:
            output = self.network.run(np.ascontiguousarray(inputs, "float32"))[self.name]
        except Exception as error:  # each runtime has its own exceptions
            raise ExportError(
                f"{self.network.version} cannot run this export of {self.spec.name!r}: {error}"
            ) from error
        if len(output) != len(batch) or (self.name == PROBABILITIES and output.shape[1:] != (len(self.spec.tags),)):
            raise ExportError(
                f"This export gives {output.shape} for {len(batch)} windows; {self.spec.name!r} has "
                f"{len(self.spec.tags)} tags. Export it again."
            )
        return output


def _choose_runtime(file_format: str, runtime: str | None) -> str:
    """Return `runtime` if it reads the format; by default, the fastest installed one that does."""
    able = readers(file_format)
    if not able:
        raise ExportError(
            f"A {file_format} export is for tf.saved_model.load and TensorFlow Serving. To load it here, export as "
            "onnx, openvino or litert."
        )
    if runtime not in (None, "auto"):
        if runtime not in able:
            known = "" if runtime in runtimes() else f" (there is no runtime {runtime!r})"
            raise ExportError(f"{runtime} does not read {file_format} exports{known}. Use {' or '.join(able)}.")
        assert runtime is not None
        return runtime
    installed = [name for name in able if is_installed(name)]
    chosen = (installed or able)[0]
    if installed:
        _log.info("%s runs this %s export.", chosen, file_format)
    return chosen


def _read_verified(path: Path, sha256: str) -> bytes:
    """Read a file and verify its sha256."""
    try:
        if not path.is_file():  # reading a pipe or a device might never end
            raise FileNotFoundError("there is no such file")
        content = path.read_bytes()
    except OSError as error:
        raise CorruptWeightsError(
            f"{path} cannot be read ({error.strerror or error}). Export the tagger again."
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise CorruptWeightsError(
            f"{path} is not the file that was exported: its sha256 is {actual}, expected {sha256}. Restore it, or "
            "export the tagger again."
        )
    return content
