"""Checks of the fields of specs, with messages that name the field and what was received."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import SpecError


def require(condition: bool, message: str) -> None:
    if not condition:
        raise SpecError(message)


def require_choice(what: str, value: object, choices: Sequence[object]) -> None:
    require(value in choices, f"{what} must be one of {', '.join(map(repr, choices))}; got {value!r}.")


def require_count(what: str, value: object, least: int = 1) -> None:
    require(
        isinstance(value, int) and not isinstance(value, bool) and value >= least,
        f"{what} must be a whole number of at least {least}; got {value!r}.",
    )


def build(kind: type, data: Any, prefix: str) -> Any:
    """`kind(**data)` with messages that name the JSON fields."""
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
    except TypeError as error:  # a string where a number is compared, and the like
        raise SpecError(f"Wrong type in {prefix.rstrip('.') or 'spec'}: {error}") from error
