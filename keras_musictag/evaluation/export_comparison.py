"""Compare the accuracy of a tagger with that of its export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..datasets import Manifest
from ..tagging.exported import ExportedTagger
from ..tagging.network_tagger import NetworkTagger
from .measuring import score


def auc_change(tagger: NetworkTagger, folder: Path, data: Manifest, dataset: str, progress: bool) -> dict[str, Any]:
    """Measure the macro ROC-AUC of a tagger and of its export on labelled recordings.

    Args:
        tagger: the tagger that was exported.
        folder: folder of the export.
        data: labelled recordings; the test split is used, or all rows if there are no splits.
        dataset: name of the data set.
        progress: whether to show a progress bar.

    Returns:
        `dataset`, `split`, `n`, `float32` and `export`, for `ExportInfo.auc`.

    Raises:
        EvaluationError: no tag can be scored.
    """
    split = "test" if any(row.split for row in data) else "all"
    names = ("float32", "export")
    exported = ExportedTagger.from_folder(folder)
    scores = score([tagger, exported], data, dataset=dataset, split=split, names=names, progress=progress)
    aucs = {name: float(scores.evaluate(name, n_bootstrap=0).roc_auc.value) for name in names}
    return {"dataset": dataset, "split": split, "n": len(scores.rows), **aucs}
