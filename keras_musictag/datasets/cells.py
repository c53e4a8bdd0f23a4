"""Cells of a table: text, numbers and empty ones."""

from __future__ import annotations

import math
from typing import Any

from .rows import DataError

_BOOLEANS = {"true": 1.0, "false": 0.0}  # as pandas and Excel write them


def is_blank(value: Any) -> bool:
    """Return whether a cell is empty: `None`, NaN or white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(value: Any) -> str:
    """Return a cell as text without surrounding white space; `""` for an empty one."""
    return "" if is_blank(value) else str(value).strip()


def number_of(value: Any, what: str, decimal_comma: bool = False, most: float = 1.0) -> float:
    """Convert a cell to a number from 0 to `most`. An empty cell is 0; NaN is an error, as from a diverged teacher.

    Args:
        value: cell.
        what: name of the column, for the message.
        decimal_comma: whether text may have a comma for the decimal point.
        most: highest valid number.

    Raises:
        DataError: the cell is not a number, or out of range.
    """
    if is_blank(value) and not isinstance(value, float):
        return 0.0
    if isinstance(value, str) and most == 1:
        value = _BOOLEANS.get(value.strip().lower(), value)
    try:
        number = float(value.strip().replace(",", ".") if decimal_comma and isinstance(value, str) else value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= most:
        limit = "a number of seconds" if most > 1 else "a number from 0 to 1"
        hint = "" if most > 1 else "; if the column is not a tag, pass the tags with tags=[...]"
        raise DataError(f"{what} must be {limit}, got {value!r}{hint}")
    return number
