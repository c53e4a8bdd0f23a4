"""Exported taggers: a model file for some runtime, used without Keras.

An export is a folder: `spec.json`, `export.json` and the model file, in which both are repeated as metadata so that it
can be passed on by itself. It is written by `Tagger.export` and read by `load`.
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
from .base import BaseTagger
from .runtimes import FileRuntime, is_installed, open_files, readers, runtimes

_log = logging.getLogger(__name__)

Format = Literal["onnx", "litert", "openvino", "saved_model"]
Precision = Literal["float32", "float16", "int8"]
Sound = Literal["waveform", "log_mel"]

EXPORT_VERSION = 1
PROBABILITIES, EMBEDDING = "probabilities", "embedding"  # names of the outputs


class ExportError(MusicTagError, ValueError):
    """A tagger that cannot be exported that way, or an export that cannot be used."""


class NoKerasModelError(ExportError, AttributeError):
    """Something that only a tagger with its Keras model can do was asked of an export."""


# === What an export says of itself ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """The content of `export.json`.

    Attributes:
        format, precision, input: as given to `Tagger.export`.
        files: name -> sha256 of `spec.json` and the model file or files.
        size: bytes of the model file or files.
        weights_sha256: of the weights it was made from; empty if they were random or trained in memory.
        made_with: package and version.
        checked_with: runtime and version that ran it for the check.
        windows: number of windows that were compared with Keras at float32.
        max_change, mean_change: difference of probabilities there, absolute.
        auc: macro ROC-AUC on labelled data with Keras at float32 and with the export, and on what; empty if not asked.
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
        """Reject what no export can be."""
        require_choice("format", self.format, get_args(Format))
        require_choice("precision", self.precision, get_args(Precision))
        require_choice("input", self.input, get_args(Sound))
        require(isinstance(self.files, Mapping), f"files must be an object; got {self.files!r}.")
        if self.format != "saved_model":
            expected = {SPEC_FILE, *MODEL_FILES[self.format]}
            require(set(self.files) == expected, f"files must be {sorted(expected)}; got {sorted(self.files)}.")

    def to_json(self) -> str:
        """The text of `export.json`."""
        fields = {"export_version": EXPORT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read `export.json`.

        Raises:
            SpecError: there is none, or it does not describe an export.
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
    """Whether a folder holds an exported tagger."""
    return Path(folder, EXPORT_FILE).is_file()


# === Tagger ===

_KERAS_ONLY = ("core", "model", "save", "export", "fine_tune", "push_to_hub")


class ExportedTagger(BaseTagger):
    """A tagger that runs an exported file, without Keras. Made by `keras_musictag.load`; see there.

    It tags as a `Tagger` does; what needs the network itself (training, saving, exporting) it cannot do.

    Attributes:
        spec: the `ModelSpec`.
        tags: tuple of tag names, in the order of the outputs.
        info: the `ExportInfo`.
        runtime: what runs it: `"onnxruntime"`, `"openvino"` or `"litert"`.
    """

    def __init__(
        self, spec: ModelSpec, info: ExportInfo, files: Sequence[bytes], runtime: str, threads: int | None = None
    ) -> None:
        """Start the runtime.

        Args:
            spec: of the model.
            info: what the files are.
            files: their contents, in the order of `MODEL_FILES`.
            runtime: one that reads them.
            threads: to compute with, `None` for all cores.

        Raises:
            MissingExtraError: the runtime is not installed.
            ExportError: it cannot read the files.
        """
        self.spec, self.info, self.runtime = spec, info, runtime
        self._front_end = LogMel(spec) if info.input == "log_mel" else None
        try:
            # 16-bit arithmetic is for networks; a spectrogram would drown in it.
            exact = info.precision != "float16" or info.input == "waveform"
            self._network = open_files(runtime, files, threads=threads, exact=exact)
        except MissingExtraError:
            raise
        except Exception as error:  # each runtime has its own
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
            folder: what `Tagger.export` wrote.
            runtime: one that reads its format; `"auto"` or `None` for the fastest that is installed.
            threads: to compute with, `None` for all cores.
            spec: of the model, if it is known better than by the folder.

        Raises:
            SpecError: `spec.json` or `export.json` is not there or invalid.
            CorruptWeightsError: a file is not the one that was exported.
            ExportError: no runtime reads the format, the runtime does not, or not this file.
            MissingExtraError: the runtime is not installed.
        """
        folder = Path(folder)
        info = ExportInfo.from_folder(folder)
        runtime = _choose(info.format, runtime)
        contents = {name: _read(folder / name, sha256) for name, sha256 in info.files.items()}
        files = [contents[name] for name in MODEL_FILES[info.format]]
        return cls(spec or ModelSpec.from_folder(folder), info, files, runtime, threads)

    @property
    def weights_sha256(self) -> str:
        """Of the weights it was made from, or of the model file if that holds them in lower precision."""
        if self.info.precision == "float32":
            return self.info.weights_sha256
        return self.info.files[MODEL_FILES[self.info.format][-1]]

    def __repr__(self) -> str:
        """One line with what one wants to know."""
        return (
            f"<ExportedTagger {self.spec.name}: {len(self.tags)} tags, {self.info.format} {self.info.precision} on "
            f"{self._network.version}, {self.info.input} in, {self.spec.window_seconds:.1f} s windows>"
        )

    def __getattr__(self, name: str) -> NoReturn:
        """Say what an export cannot do."""
        if name in _KERAS_ONLY:
            raise NoKerasModelError(
                f"An exported tagger has no {name!r}: it is a file, without the Keras model. Load the model it was "
                f"exported from, e.g. load({self.spec.name!r})."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @functools.cached_property
    def _run(self) -> _Output:
        return _Output(self._network, self._front_end, PROBABILITIES, self.spec)

    @functools.cached_property
    def _run_log_mel(self) -> _Output:
        if self.info.input != "log_mel":
            raise ExportError(
                f"This export of {self.spec.name!r} takes waveforms, not cached log-mels. Leave the cache out, or "
                "export it with input='log_mel'."
            )
        return _Output(self._network, None, PROBABILITIES, self.spec)

    @functools.cached_property
    def _run_features(self) -> _Output:
        if EMBEDDING not in self._network.outputs:
            raise ExportError(
                f"This export of {self.spec.name!r} gives no embedding: its network has no layer named 'head'."
            )
        return _Output(self._network, self._front_end, EMBEDDING, self.spec)


@dataclasses.dataclass(frozen=True)
class _Output:
    """One output of an exported network, from waveforms."""

    network: FileRuntime
    front_end: LogMel | None
    name: str
    spec: ModelSpec

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Outputs for waveforms `(batch, window_samples)`: float32 in, float32 out."""
        given = batch if self.front_end is None else self.front_end(batch)
        try:
            output = self.network.run(np.ascontiguousarray(given, "float32"))[self.name]
        except Exception as error:  # each runtime has its own
            raise ExportError(
                f"{self.network.version} cannot run this export of {self.spec.name!r}: {error}"
            ) from error
        if len(output) != len(batch) or (self.name == PROBABILITIES and output.shape[1:] != (len(self.spec.tags),)):
            raise ExportError(
                f"This export gives {output.shape} for {len(batch)} windows; {self.spec.name!r} has "
                f"{len(self.spec.tags)} tags. Export it again."
            )
        return output


def _choose(file_format: str, runtime: str | None) -> str:
    able = readers(file_format)
    if not able:
        raise ExportError(
            f"A {file_format} export is for tf.saved_model.load and TensorFlow Serving. To load it here, export as "
            "onnx, openvino or litert."
        )
    if runtime not in (None, "auto"):
        if runtime not in able:
            known = "" if runtime in runtimes() else f" (there is no runtime {runtime!r})"
            raise ExportError(f"{runtime} does not read {file_format} exports{known}; {' and '.join(able)} can.")
        assert runtime is not None
        return runtime
    installed = [name for name in able if is_installed(name)]
    chosen = (installed or able)[0]
    if installed:
        _log.info("%s runs this %s export.", chosen, file_format)
    return chosen


def _read(path: Path, sha256: str) -> bytes:
    """Content of a file that must be the one that was exported."""
    try:
        if not path.is_file():  # a pipe would be waited for, a device be read for ever
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
