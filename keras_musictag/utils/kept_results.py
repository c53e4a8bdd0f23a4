"""Results kept in JSON files, each valid under the conditions that it was obtained under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import write_atomically


def recall(folder: Path, conditions: Mapping[str, Any]) -> Any:
    """Return the result kept under these conditions, `None` if there is none or its file is damaged."""
    try:
        kept = json.loads(_file(folder, conditions).read_text(encoding="utf-8"))
        return kept["result"] if kept["conditions"] == json.loads(_text(conditions)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(folder: Path, conditions: Mapping[str, Any], result: Any) -> None:
    """Write a result for `recall`; makes the folder.

    Args:
        folder: folder of results.
        conditions: everything that the result depends on. Values that JSON does not know are kept as text.
        result: JSON value.

    Raises:
        OSError: the file cannot be written.
    """
    path = _file(folder, conditions)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"conditions": json.loads(_text(conditions)), "result": result}
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _text(conditions: Mapping[str, Any]) -> str:
    return json.dumps(conditions, sort_keys=True, default=str)


def _file(folder: Path, conditions: Mapping[str, Any]) -> Path:
    return folder / f"{hashlib.sha256(_text(conditions).encode()).hexdigest()[:32]}.json"
