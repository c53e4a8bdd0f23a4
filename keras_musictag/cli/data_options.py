"""The option `--data`: a manifest file, a folder, or a published data set by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import printable

if TYPE_CHECKING:
    from ..apps.recipes.recipe_data import RecipeData
    from ..datasets import Manifest
    from ..training.finetuning.labelled_data import FineTuneData

DATA_HELP = (
    "Manifest (CSV, TSV, JSONL, Parquet), folder, or NAME:FOLDER with a data set of `keras-musictag data list`: "
    "magnatagatune, magnatagatune-clean, jamendo, gtzan, emotify."
)


def load_data(text: str) -> tuple[Manifest, str, str]:
    """Read the data named by `--data`.

    Args:
        text: a manifest file; a folder per tag; a data set of `datasets.catalogue` as `gtzan:FOLDER`,
            `magnatagatune-clean:FOLDER` or `jamendo-3:FOLDER`; a folder with MagnaTagATune's tables, the full split.

    Returns:
        The manifest, the name of the data, and what the groups are, in one word (empty if unknown).

    Raises:
        DataError: the data cannot be read; the message says what was found and what is missing.
    """
    from ..datasets.opening import open_data

    manifest, origin = open_data(text)
    return manifest, origin.title, origin.grouped_by


def describe_plan(folder: Path, data: FineTuneData | RecipeData) -> dict[str, Any]:
    """Return the output of `--dry-run --json`: the folder of the result, and the data."""
    return {
        "folder": printable(folder),
        "data": data.origin.title,
        "clips": {name: len(part) for name, part in data.parts.items()},
        "tags": list(data.train.tags),
        "problems": [str(problem) for problem in data.report.problems],
        "notes": [*data.report.notes, *data.notes],
    }
