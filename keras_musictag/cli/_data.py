"""What `--data` may be: a manifest file, a folder, or a known data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..datasets import Manifest

DATA_HELP = (
    "Manifest (CSV, TSV, JSONL, Parquet), folder, or NAME:FOLDER with a data set of `keras-musictag data list`: "
    "magnatagatune, magnatagatune-clean, jamendo, gtzan, emotify."
)


def load_data(text: str) -> tuple[Manifest, str, str]:
    """Read what `--data` names.

    Args:
        text: a manifest file; a folder per tag; a data set of `datasets.catalogue` as `gtzan:FOLDER`,
            `magnatagatune-clean:FOLDER` or `jamendo-3:FOLDER`; a folder with MagnaTagATune's tables, the full split.

    Returns:
        The manifest, what the data are called, and what their groups are, in one word or nothing if that is not known.

    Raises:
        DataError: it cannot be read; the message says what is there and what is missing.
    """
    from ..recipes.data import read
    from ..recipes.tables import DataSettings

    manifest, origin = read(text, DataSettings())
    return manifest, origin.title, origin.grouped_by
