"""What `Manifest.validate` found."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .manifest import Manifest


_SHOWN = 20  # problems listed by `str`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        row: index in the manifest, `None` if it is about a tag as a whole.
        path: of the sound, or `None`.
        kind: a word or two to count by: `"missing"`, `"zero bytes"`, `"undecodable"`, `"too short"`, `"duplicate"`, ...
        reason: what is wrong and what to do.
        where: file and line that the row came from, if it did.

    Example:
        >>> print(Problem(row=4, path=Path("/a.wav"), kind="missing", reason="there is no such file", where="x.csv:6"))
        row 4 (x.csv:6) /a.wav: there is no such file
    """

    kind: str
    reason: str
    row: int | None = None
    path: Path | None = None
    where: str = ""

    def __str__(self) -> str:
        """One line."""
        if self.row is None:
            return self.reason
        return f"row {self.row}{f' ({self.where})' if self.where else ''} {self.path}: {self.reason}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a validation; `str` makes a summary of it.

    Attributes:
        checked: rows looked at.
        ok: the rows without a problem, in their order.
        problems: everything that is wrong, those of rows first, in the order of the rows; a row can have several.
        notes: what is worth knowing but may be meant.
    """

    checked: int
    ok: Manifest
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        """How many rows are fine, how many have which problem, and the first problems in full."""
        kinds = collections.Counter(problem.kind for problem in self.problems)
        counted = f" ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())})" if kinds else ""
        lines = [f"{self.checked} rows: {len(self.ok)} fine, {len(self.problems)} problems{counted}"]
        lines += [f"  {problem}" for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"  ... and {len(self.problems) - _SHOWN} more in .problems")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])
