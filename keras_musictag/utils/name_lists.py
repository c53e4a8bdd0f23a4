"""Write and read lists of names in one line of text, as in `--tags` and in messages.

The format is that of a CSV row: a name that contains the separator is in quotation marks, in which a quotation mark is
doubled. `csv.reader([text], delimiter=separator, skipinitialspace=True)` reads such a line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable


def join_names(names: Iterable[str], separator: str = ",") -> str:
    """Join names to a line of text that `split_names` reads.

    Args:
        names: without spaces around them.
        separator: one character; a space follows it.

    Example:
        >>> print(join_names(["rock", "Folk, World, & Country"]))
        rock, "Folk, World, & Country"
    """
    return f"{separator} ".join(_quoted(name, separator) for name in names)


def split_names(text: str, separator: str = ",") -> list[str]:
    """Split a line of text into names and strip their spaces.

    Raises:
        ValueError: a quotation mark is not closed, or a name is empty.

    Example:
        >>> split_names('rock, "Folk, World, & Country"')
        ['rock', 'Folk, World, & Country']
    """
    advice = f"Write names with {separator!r} between them, those that contain it in double quotation marks."
    try:
        (names,) = csv.reader([text], delimiter=separator, skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{text!r} is no list of names. {advice}") from error
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise ValueError(f"{text!r} has an empty name. {advice}")
    return names


def _quoted(name: str, separator: str) -> str:
    if separator in name or name.startswith('"'):
        return '"' + name.replace('"', '""') + '"'
    return name
