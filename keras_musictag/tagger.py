"""`Tagger`: the public class, which adds fine-tuning, export and upload to `NetworkTagger`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .tagging.network_tagger import NetworkTagger
from .tagging.tag_result import TagResult as TagResult

if TYPE_CHECKING:
    from .datasets import Manifest
    from .datasets.opening import Source
    from .tagging.exported import Format, InputKind, Precision
    from .tagging.exporting import Export
    from .training.finetuning import FineTuneReport


class Tagger(NetworkTagger):
    """A model with its spec and weights. Made by `keras_musictag.load`; see there.

    Attributes:
        spec: the `ModelSpec`.
        tags: tuple of tag names, in the order of the outputs.
        core: `keras.Model`, log-mel `(batch, mels, frames)` -> `(batch, tags)`.
        model: `keras.Model`, waveform `(batch, window_samples)` -> `(batch, tags)`.
        report: the `FineTuneReport` if `fine_tune` has just made the tagger, else `None`.
    """

    report: FineTuneReport | None = None

    def fine_tune(
        self,
        data: Source,
        tags: Sequence[str] | None = None,
        *,
        validation: float | Manifest | str | os.PathLike[str] | None = 0.2,
        **options: Any,
    ) -> Tagger:
        """Make a new tagger for your own tags from this one, which stays unchanged.

        Args:
            data: labelled clips: a `Manifest`, a table (`file,tags`), a folder per tag, or `"gtzan:FOLDER"`.
            tags: tags to learn; by default, all.
            validation: share of the clips to hold out, clips to validate on, or `None`.
            options: `folder`, `cache`, `settings`, `single_label`, `strict`, `progress`, see `finetuning.fine_tune`.

        Returns:
            `Tagger` with its scores in `report` and its training in the spec. The function `fine_tune` takes the same
            arguments and returns a `TrainingResult`: the tagger, its report, and the problems of the data.

        Raises:
            FineTuneError, DataError, CacheError: as `finetuning.fine_tune`.
        """
        from .training.finetuning import fine_tune

        return fine_tune(self, data, tags, validation=validation, **options).tagger

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: Format = "onnx",
        precision: Precision = "float32",
        input: InputKind = "waveform",
        **options: Any,
    ) -> Export:
        """Export to a file for ONNX Runtime, OpenVINO, LiteRT or TensorFlow Serving, checked against Keras.

        Args:
            path: folder to write, which `load` reads without Keras.
            format: `"onnx"`, `"litert"`, `"openvino"` or `"saved_model"`.
            precision: `"float32"`, `"float16"` or `"int8"`.
            input: `"waveform"`, with the preprocessing inside the file, or `"log_mel"`.
            options: `calibration`, `data`, `dataset`, `overwrite`, `progress`, see `exporting.export`.

        Returns:
            `Export`, with the folder and the measured change of the probabilities.

        Raises:
            ExportError, MissingExtraError, CacheError: as `exporting.export`.
        """
        from .evaluation.export_comparison import auc_change
        from .tagging.exporting import export

        return export(self, path, format=format, precision=precision, input=input, auc_change=auc_change, **options)

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
        """Upload the tagger to the Hugging Face Hub, in one commit; arguments and errors are those of `hub.push`.

        Returns:
            `hf://org/repo@commit`, which `load` reads.
        """
        from .models import hub

        return hub.push(
            self, repo_id, private=private, branch=branch, commit_message=commit_message, token=token, exist_ok=exist_ok
        )
