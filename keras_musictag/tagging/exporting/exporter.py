"""`export`: write a tagger, run it, compare it with Keras, and only then keep it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from ... import __version__
from ...audio import reading as audio
from ...audio.demo import demo_clip
from ...errors import CacheError, MissingExtraError
from ...models import windows
from ...models.export_files import EXPORT_FILE, EXPORT_FILES
from ...models.keras_state import default_settings
from ...models.mel import LogMel
from ...models.spec import SPEC_FILE, ModelSpec
from ...models.tagger_folder import new_folder
from ...utils.fields import require_choice
from ...utils.files import sha256_of, write_atomically
from ..exported import ExportError, ExportInfo, Format, InputKind, Precision
from ..runtimes import is_installed, readers, require_installed
from .checking import compare
from .export_readme import readme

if TYPE_CHECKING:
    from ...datasets import Manifest
    from ..network_tagger import NetworkTagger

# Measures the change of the AUC: (tagger, folder of the export, data, name of the data, progress) -> dict.
AucChange = Callable[["NetworkTagger", Path, "Manifest", str, bool], dict[str, Any]]

_MAX_EXAMPLES = 32  # windows to compare, and to calibrate int8 on, unless there are more files


@dataclasses.dataclass(frozen=True)
class Export:
    """Result of `export`.

    Attributes:
        folder: folder of the export, for `load`.
        info: content of `export.json`, with the results of the check.
    """

    folder: Path
    info: ExportInfo

    def __str__(self) -> str:
        """Format, size and results of the check, in a few lines."""
        info = self.info
        lines = [
            f"{self.folder}: {info.format} {info.precision}, {info.input} in, {info.size / 1e6:.2f} MB",
            f"probabilities against Keras at float32, {info.windows} windows on {info.checked_with}: "
            f"largest change {info.max_change:.1e}, mean {info.mean_change:.1e}",
        ]
        if info.auc:
            auc = info.auc
            lines.append(
                f"macro ROC-AUC on {auc['dataset']}, split {auc['split']}, n = {auc['n']}: {auc['float32']:.4f} with "
                f"Keras at float32, {auc['export']:.4f} with the export ({auc['export'] - auc['float32']:+.4f})"
            )
        return "\n".join(lines)


@default_settings()
def export(
    tagger: NetworkTagger,
    path: str | os.PathLike[str],
    *,
    format: Format = "onnx",
    precision: Precision = "float32",
    input: InputKind = "waveform",
    calibration: Sequence[audio.Source] = (),
    data: Manifest | None = None,
    dataset: str = "labelled data",
    auc_change: AucChange | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Export:
    """Export a tagger to a file for another runtime, after running it there and comparing it with Keras.

    The folder appears complete or not at all. It holds `spec.json`, `export.json`, a README and the model:
    `model.onnx`, `model.tflite`, `model.xml` with `model.bin`, or the folder `saved_model`. The batch dimension is
    open. Outputs are `probabilities` and, if the network has a layer `"head"`, its input as `embedding`.

    Args:
        tagger: tagger to export.
        path: folder to write.
        format: `"onnx"`, `"litert"`, `"openvino"` or `"saved_model"`.
        precision: `"float32"`; `"float16"`, half the size (on OpenVINO, 16-bit arithmetic too where the processor has
            it); `"int8"`, a quarter of the size, and faster.
        input: `"waveform"` `(batch, spec.window_samples)`, with the preprocessing inside the file, or `"log_mel"`
            `(batch, mels, frames)`, which is faster with `load`, where NumPy does the preprocessing.
        calibration: audio like that to be tagged, for the comparison and to calibrate int8. The bundled clip is always
            added, but is not enough for a good calibration.
        data: labelled clips on which the change of the AUC is measured: the split test, or all clips without splits.
            Some clips of the other splits are used for calibration too.
        dataset: name of the data.
        auc_change: function that measures it, usually `evaluation.export_comparison.auc_change`; needed with `data`.
        overwrite: replace an existing export; other files in the folder stay. Folders without an export are never
            replaced.
        progress: show progress bars.

    Returns:
        `Export`, with the folder and the results of the check.

    Raises:
        ExportError: the options contradict each other, the network cannot be written or run, or its probabilities
            differ from those of Keras.
        MissingExtraError: a package for the format, or a runtime to check it, is not installed.
        CacheError: the folder cannot be written, or exists and must not be replaced.
        AudioError: audio for calibration cannot be used.
        EvaluationError: no AUC can be measured on `data`.

    Example:
        >>> import tempfile, pytest, keras_musictag as kmt
        >>> _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
        >>> result = kmt.load("tiny").export(tempfile.mkdtemp() + "/tiny", format="onnx")
        >>> result.info.max_change < 1e-4, kmt.load(result.folder).tags == kmt.load("tiny").tags
        (True, True)
    """
    folder = Path(path)
    _check_options(folder, format, precision, input, overwrite, data is not None)
    examples = [_Excerpt(source) for source in (demo_clip(), *calibration)]
    waveforms = _example_windows(tagger, [*examples, *_calibration_excerpts(data)], progress)
    spec = dataclasses.replace(tagger._saved_spec, weights=None, weights_help="This is an export.", root=None)
    with new_folder(folder, EXPORT_FILES) as new:
        files = _write(tagger, spec, new, format, precision, input, waveforms)
        write_atomically(new / SPEC_FILE, spec.to_json().encode())
        info = ExportInfo(
            format=format,
            precision=precision,
            input=input,
            files={name: sha256_of(new / name) for name in (SPEC_FILE, *files)},
            size=sum((new / name).stat().st_size for name in files),
            weights_sha256=tagger.weights_sha256,
            made_with=f"keras_musictag {__version__}",
        )
        write_atomically(new / EXPORT_FILE, info.to_json().encode())
        info = compare(info, tagger, new, waveforms)
        if data is not None and auc_change is not None:
            info = dataclasses.replace(info, auc=auc_change(tagger, new, data, dataset, progress))
        write_atomically(new / EXPORT_FILE, info.to_json().encode())
        write_atomically(new / "README.md", readme(spec, info).encode())
    return Export(folder, info)


# === Options and example windows ===


def _check_options(
    folder: Path, file_format: str, precision: str, input_kind: str, overwrite: bool, with_data: bool
) -> None:
    """Validate the options before any work is done."""
    for name, value, choices in (
        ("format", file_format, get_args(Format)),
        ("precision", precision, get_args(Precision)),
        ("input", input_kind, get_args(InputKind)),
    ):
        try:
            require_choice(name, value, choices)
        except ValueError as error:
            raise ExportError(str(error)) from error
    if with_data and file_format == "saved_model":
        raise ExportError("A saved_model is not loaded by this package, so its AUC cannot be measured. Omit the data.")
    if folder.exists() and not (overwrite and (folder / EXPORT_FILE).is_file()):
        advice = "Pass overwrite=True to replace it." if (folder / EXPORT_FILE).is_file() else "Choose another folder."
        raise CacheError(f"{folder} already exists. {advice}")
    if file_format == "saved_model":
        if precision != "float32":
            raise ExportError(
                f"A saved_model is float32; got precision={precision!r}. Export as onnx, openvino or litert."
            )
    elif not any(is_installed(runtime) for runtime in readers(file_format)):
        native = "onnxruntime" if file_format == "onnx" else file_format
        require_installed(native, f"Exporting as {file_format}, which runs the file before it keeps it,")
    if file_format in ("onnx", "openvino") and importlib.util.find_spec("onnx") is None:
        raise MissingExtraError("onnx", file_format, f"Exporting as {file_format}")
    if file_format in ("litert", "saved_model"):
        import keras

        if keras.backend.backend() != "tensorflow":
            raise ExportError(
                f"{file_format} files are written by TensorFlow; Keras runs on {keras.backend.backend()} here. Set "
                "KERAS_BACKEND=tensorflow, or export as onnx or openvino."
            )


class _Excerpt(NamedTuple):
    source: audio.Source
    offset: float = 0.0
    duration: float | None = None


def _calibration_excerpts(data: Manifest | None) -> list[_Excerpt]:
    """Return evenly spaced rows of the splits that the AUC is not measured on."""
    rows = [row for row in data or () if row.split and row.split != "test"]
    step = max(1, len(rows) // _MAX_EXAMPLES)
    return [_Excerpt(row.path, row.start, row.duration) for row in rows[::step][:_MAX_EXAMPLES]]


def _example_windows(tagger: NetworkTagger, examples: Sequence[_Excerpt], progress: bool) -> np.ndarray:
    """Return windows of all examples, float32 `(windows, window_samples)`, then the same at a quarter of the level."""
    from tqdm.auto import tqdm

    spec, chosen = tagger.spec, []
    windows_each = max(1, _MAX_EXAMPLES // len(examples))
    for source, offset, duration in tqdm(examples, unit="file", desc="decoding", delay=2, disable=not progress):
        blocks = audio.stream(
            source, target_sr=spec.audio.sr, resampler=spec.audio.resampler, offset=offset, duration=duration
        )
        every = np.concatenate([b.samples for b in windows.cut(blocks, spec, name=audio.describe(source))])
        chosen.append(every[np.unique(np.linspace(0, len(every) - 1, windows_each).round().astype(int))])
    waveforms = np.concatenate(chosen)
    return np.concatenate([waveforms, np.float32(0.25) * waveforms])


# === Writing ===

# Fields for people, left out of the model file to keep it small; they are in `spec.json` beside it.
_DESCRIPTIVE_FIELDS = ("metrics", "example", "limits", "intended_use", "training_data", "latency", "citation", "claims")


def _technical_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return the fields of a spec that are repeated in the model file."""
    return {key: value for key, value in spec.to_dict().items() if key not in _DESCRIPTIVE_FIELDS}


def _write(
    tagger: NetworkTagger,
    spec: ModelSpec,
    folder: Path,
    file_format: str,
    precision: str,
    input_kind: str,
    waveforms: np.ndarray,
) -> list[str]:
    """Write the model and return the names of its files."""
    log_mels = LogMel(spec)(waveforms) if precision == "int8" else None
    metadata = {
        "spec": json.dumps(_technical_fields(spec), ensure_ascii=False, separators=(",", ":")),
        "export": json.dumps({"format": file_format, "precision": precision, "input": input_kind}),
        "tags": "\n".join(spec.tags),
    }
    if file_format in ("onnx", "openvino"):
        from . import onnx, openvino

        model = onnx.build(tagger.core, spec, precision, input_kind, log_mels)
        if file_format == "onnx":
            onnx.write(model, folder / "model.onnx", metadata)
            return ["model.onnx"]
        openvino.write(model, folder, metadata)
        return ["model.xml", "model.bin"]
    from . import litert, saved_model

    if file_format == "litert":
        litert.write(tagger.core, spec, precision, input_kind, log_mels, waveforms, folder / "model.tflite", metadata)
        return ["model.tflite"]
    saved_model.write(tagger.core, spec, input_kind, folder / "saved_model", metadata)
    return sorted(p.relative_to(folder).as_posix() for p in (folder / "saved_model").rglob("*") if p.is_file())
