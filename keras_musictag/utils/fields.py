"""Validate the fields of specs; messages name the field and the value received."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SpecError
from .checks import check_count

_LARGEST_JSON = 2**24  # bytes


def require(condition: bool, message: str) -> None:
    """Raise `SpecError(message)` unless `condition` holds."""
    if not condition:
        raise SpecError(message)


def require_choice(what: str, value: object, choices: Sequence[object]) -> None:
    """Raise `SpecError` unless `value` is one of `choices`."""
    require(value in choices, f"{what} must be one of {', '.join(map(repr, choices))}; got {value!r}.")


def require_count(what: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Raise `SpecError` unless `value` is an int of at least `least` and at most `most`."""
    check_count(what, value, least, kind=int, error=SpecError)
    if most is not None:
        require_most(what, value, most)


def require_most(what: str, value: Any, most: int) -> None:
    """Raise `SpecError` if `value` exceeds `most`, before arrays of that size are allocated."""
    require(value <= most, f"{what} must be at most {most:,}; got {value:,}.")


def read_json(path: Path) -> Any:
    """Read JSON from an untrusted file.

    Raises:
        FileNotFoundError: the file does not exist.
        SpecError: it is not a regular file, too large, or not JSON.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe could block forever, a device never end
            raise OSError("it is not a regular file")
        with path.open("rb") as file:
            content = file.read(_LARGEST_JSON + 1)
        if len(content) > _LARGEST_JSON:
            raise OSError(f"it has more than {_LARGEST_JSON:,} bytes")
        return json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, numbers of 5,000 digits
        raise SpecError(f"{path} cannot be read as JSON: {error}") from error


def build(kind: type, data: Any, prefix: str) -> Any:
    """Return `kind(**data)`; messages name the JSON fields.

    Raises:
        SpecError: a field is unknown, missing or invalid.
    """
    require(isinstance(data, Mapping), f"{prefix.rstrip('.')} must be an object; got {data!r}.")
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(data) - known)
    require(not unknown, f"Unknown field {prefix}{', '.join(map(str, unknown))}. Known: {', '.join(sorted(known))}.")
    needed = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(needed - set(data))
    require(not missing, f"Missing field {prefix}{', '.join(missing)}.")
    try:
        return kind(**data)
    except TypeError as error:  # e.g. a string compared with a number
        raise SpecError(f"Wrong type in {prefix.rstrip('.') or 'spec'}: {error}") from error
