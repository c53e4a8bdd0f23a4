"""Validate arguments."""

from __future__ import annotations

import numbers


def check_count(
    name: str,
    value: object,
    least: int = 1,
    *,
    none: str | None = None,
    kind: type = numbers.Integral,
    error: type[Exception] = ValueError,
) -> None:
    """Raise `error` unless `value` is a whole number of at least `least`.

    Args:
        name: name of the argument, for the message.
        value: value received.
        least: lowest valid value.
        none: text for the message after `or None`, e.g. `" for all cores"`, if `None` is valid too.
        kind: type of valid values; by default NumPy's integers are valid, too. A `bool` never is.
        error: class of the error.

    Example:
        >>> check_count("threads", 0, none=" for all cores")
        Traceback (most recent call last):
        ValueError: threads must be a whole number of at least 1, or None for all cores; got 0.
    """
    if value is None and none is not None:
        return
    # `isinstance` comes first: what is no number cannot be compared.
    if isinstance(value, bool) or not isinstance(value, kind) or value < least:  # type: ignore[operator]
        alternative = "" if none is None else f", or None{none}"
        raise error(f"{name} must be a whole number of at least {least}{alternative}; got {value!r}.")
