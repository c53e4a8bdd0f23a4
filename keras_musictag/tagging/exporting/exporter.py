"""`export`: write, run, compare, and only then keep."""

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
from ...models.folder import new_folder
from ...models.keras_state import default_settings
from ...models.mel import LogMel
from ...models.spec import SPEC_FILE, ModelSpec
from ...utils.fields import require_choice
from ...utils.files import sha256_of, write_atomically
from ..exported import ExportError, ExportInfo, Format, InputKind, Precision
from ..runtimes import is_installed, readers, require_installed
from .checking import compare
from .export_readme import readme

if TYPE_CHECKING:
    from ...datasets import Manifest
    from ..network_tagger import NetworkTagger

# Measures the change of the AUC: (tagger, folder of the export, data, name of the data, progress) -> figures.
AucChange = Callable[["NetworkTagger", Path, "Manifest", str, bool], dict[str, Any]]

_MOST_EXAMPLES = 32  # windows that are compared, and that int8 is calibrated on, unless there are more sounds


@dataclasses.dataclass(frozen=True)
class Export:
    """What `export` wrote.

    Attributes:
        folder: what `load` takes.
        info: what it is, and what the check measured.
    """

    folder: Path
    info: ExportInfo

    def __str__(self) -> str:
        """A few lines for people."""
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
    """Write a tagger as a file for another runtime, after it was run there and compared with Keras.

    The folder appears complete or not at all. It holds `spec.json`, `export.json`, a README and the model:
    `model.onnx`, `model.tflite`, `model.xml` with `model.bin`, or the folder `saved_model`. Its batch dimension is
    open. Outputs are `probabilities` and, if the network has a layer `"head"`, `embedding`, what enters that.

    Args:
        tagger: what to export.
        path: folder to write.
        format: `"onnx"`, `"litert"`, `"openvino"` or `"saved_model"`.
        precision: `"float32"`; `"float16"`, half the size (on OpenVINO, 16-bit arithmetic too where the processor has
            it); `"int8"`, a quarter of the size, and faster.
        input: `"waveform"` `(batch, spec.window_samples)`, with the preprocessing inside the file, or `"log_mel"`
            `(batch, mels, frames)`, which `load` is faster with: preprocessing is then done by NumPy.
        calibration: sounds like those that will be tagged, for int8, and for the comparison in any case. The bundled
            clip is always among them; it alone is little to calibrate on.
        data: labelled sounds, to measure what the export does to the AUC: the split test, or all without splits. Some
            of the other splits are for calibration too.
        dataset: what they are called.
        auc_change: function that measures it, usually `evaluation.export_comparison.auc_change`; needed with `data`.
        overwrite: replace an export that is there; other files in its folder stay. Other folders are never replaced.
        progress: show progress bars.

    Returns:
        `Export`, with the folder and what was measured.

    Raises:
        ExportError: it cannot be written that way, does not run, or says something else than Keras.
        MissingExtraError: a package for the format, or a runtime to check it, is not installed.
        CacheError: the folder cannot be written, or something else is there.
        AudioError: a sound for calibration cannot be used.
        EvaluationError: `data` cannot be measured on.

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
    sounds = _windows(tagger, [*examples, *_unmeasured(data)], progress)
    spec = dataclasses.replace(tagger._described, weights=None, weights_help="This is an export.", root=None)
    with new_folder(folder, EXPORT_FILES) as new:
        files = _write(tagger, spec, new, format, precision, input, sounds)
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
        info = compare(info, tagger, new, sounds)
        if data is not None and auc_change is not None:
            info = dataclasses.replace(info, auc=auc_change(tagger, new, data, dataset, progress))
        write_atomically(new / EXPORT_FILE, info.to_json().encode())
        write_atomically(new / "README.md", readme(spec, info).encode())
    return Export(folder, info)


# === Before ===


def _check_options(
    folder: Path, file_format: str, precision: str, sound: str, overwrite: bool, with_data: bool
) -> None:
    """Find out before the work, not after it, what cannot be done."""
    for what, value, choices in (
        ("format", file_format, get_args(Format)),
        ("precision", precision, get_args(Precision)),
        ("input", sound, get_args(InputKind)),
    ):
        try:
            require_choice(what, value, choices)
        except ValueError as error:
            raise ExportError(str(error)) from error
    if with_data and file_format == "saved_model":
        raise ExportError(
            "A saved_model is not loaded by this package, so its AUC cannot be measured. Leave the data out."
        )
    if folder.exists() and not (overwrite and (folder / EXPORT_FILE).is_file()):
        advice = "Pass overwrite=True to replace it." if (folder / EXPORT_FILE).is_file() else "Choose another folder."
        raise CacheError(f"{folder} already exists. {advice}")
    if file_format == "saved_model":
        if precision != "float32":
            raise ExportError(
                f"A saved_model is float32; got precision={precision!r}. Export as onnx, openvino or litert."
            )
    elif not any(map(is_installed, readers(file_format))):
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


def _unmeasured(data: Manifest | None) -> list[_Excerpt]:
    """Some rows, evenly spaced, that the AUC is not measured on."""
    rows = [row for row in data or () if row.split and row.split != "test"]
    step = max(1, len(rows) // _MOST_EXAMPLES)
    return [_Excerpt(row.path, row.start, row.duration) for row in rows[::step][:_MOST_EXAMPLES]]


def _windows(tagger: NetworkTagger, examples: Sequence[_Excerpt], progress: bool) -> np.ndarray:
    """Some windows of every sound, float32 `(windows, window_samples)`, and their like at a quarter of the level."""
    from tqdm.auto import tqdm

    spec, found = tagger.spec, []
    most = max(1, _MOST_EXAMPLES // len(examples))
    for source, offset, duration in tqdm(examples, unit="file", desc="decoding", delay=2, disable=not progress):
        blocks = audio.stream(
            source, target_sr=spec.audio.sr, resampler=spec.audio.resampler, offset=offset, duration=duration
        )
        whole = np.concatenate([b.samples for b in windows.cut(blocks, spec, name=audio.describe(source))])
        found.append(whole[np.unique(np.linspace(0, len(whole) - 1, most).round().astype(int))])
    sounds = np.concatenate(found)
    return np.concatenate([sounds, np.float32(0.25) * sounds])


# === Writing ===

# What a person may want to know and a program need not, in a file that is to be small; `spec.json` beside it has them.
_FOR_PEOPLE = ("metrics", "example", "limits", "intended_use", "training_data", "latency", "citation", "claims")


def _needed(spec: ModelSpec) -> dict[str, Any]:
    """What of a spec is repeated in the model file."""
    return {key: value for key, value in spec.to_dict().items() if key not in _FOR_PEOPLE}


def _write(
    tagger: NetworkTagger,
    spec: ModelSpec,
    folder: Path,
    file_format: str,
    precision: str,
    sound: str,
    sounds: np.ndarray,
) -> list[str]:
    """Write the model; returns the names of its files."""
    log_mels = LogMel(spec)(sounds) if precision == "int8" else None
    metadata = {
        "spec": json.dumps(_needed(spec), ensure_ascii=False, separators=(",", ":")),
        "export": json.dumps({"format": file_format, "precision": precision, "input": sound}),
        "tags": "\n".join(spec.tags),
    }
    if file_format in ("onnx", "openvino"):
        from . import onnx, openvino

        model = onnx.build(tagger.core, spec, precision, sound, log_mels)
        if file_format == "onnx":
            onnx.write(model, folder / "model.onnx", metadata)
            return ["model.onnx"]
        openvino.write(model, folder, metadata)
        return ["model.xml", "model.bin"]
    from . import litert, saved_model

    if file_format == "litert":
        litert.write(tagger.core, spec, precision, sound, log_mels, sounds, folder / "model.tflite", metadata)
        return ["model.tflite"]
    saved_model.write(tagger.core, spec, sound, folder / "saved_model", metadata)
    return sorted(p.relative_to(folder).as_posix() for p in (folder / "saved_model").rglob("*") if p.is_file())
