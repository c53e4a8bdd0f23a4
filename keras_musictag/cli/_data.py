"""What `--data` may be: a manifest file, a folder, or a known data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import MusicTagError

if TYPE_CHECKING:
    from ..datasets import Manifest

DATA_HELP = "Manifest (CSV, TSV, JSONL, Parquet), folder, magnatagatune:FOLDER or magnatagatune-clean:FOLDER."

_Split = Literal["full", "clean"]
_MAGNATAGATUNE: dict[str, _Split] = {"magnatagatune": "full", "magnatagatune-clean": "clean"}


def load_data(text: str) -> tuple[Manifest, str, str]:
    """Read what `--data` names.

    Args:
        text: a manifest file; a folder per tag; `magnatagatune:FOLDER` or a folder with its tables, the full split;
            `magnatagatune-clean:FOLDER`.

    Returns:
        The manifest, what the data are called, and what their groups are, in one word or nothing if that is not known.

    Raises:
        DataError: it cannot be read; the message says what is there and what is missing.
    """
    from ..datasets import Manifest, magnatagatune

    kind, colon, folder = text.partition(":")
    if not colon or kind not in _MAGNATAGATUNE:
        if not (Path(text) / "annotations_final.csv").is_file():
            return Manifest.load(text), Path(text).resolve().stem, ""
        kind, folder = "magnatagatune", text
    if not folder:
        raise MusicTagError(f"--data {text} names no folder. Write {kind}:FOLDER.")
    split = _MAGNATAGATUNE[kind]
    return magnatagatune(folder, split), f"MagnaTagATune, {split} split", "artist"
