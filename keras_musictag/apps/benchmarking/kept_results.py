"""Results of a model that are kept on disk, so that a benchmark that was interrupted resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...utils.fields import read_json
from ...utils.files import write_atomically

Result = tuple[dict[str, Any], list[dict[str, Any]]]  # the model and its rows


class KeptResults:
    """One JSON file per model in a folder, valid for the same machine, versions and settings only.

    Args:
        folder: the folder; it is made when the first result is kept. `None` keeps nothing.
        conditions: what must be equal for a result to count, as JSON values.
    """

    def __init__(self, folder: Path | None, conditions: dict[str, Any]) -> None:
        """Remember folder and conditions, without reading or writing."""
        self._folder, self._conditions = folder, conditions

    def get(self, model: str, weights: str) -> Result | None:
        """Return what was measured of a model with these weights (sha256), `None` if nothing was."""
        if self._folder is None or not weights:
            return None
        try:
            kept = read_json(self._folder / f"{model}.json")
        except (OSError, ValueError):  # none yet, or damaged: measured again
            return None
        if not isinstance(kept, dict) or kept.get("conditions") != self._conditions | {"weights": weights}:
            return None
        return kept["model"], kept["rows"]

    def put(self, model: str, weights: str, result: Result) -> None:
        """Keep the result of a model; without a sha256 of its weights, nothing is kept."""
        if self._folder is None or not weights:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        kept = {"conditions": self._conditions | {"weights": weights}, "model": result[0], "rows": result[1]}
        write_atomically(self._folder / f"{model}.json", json.dumps(kept, indent=1).encode())
