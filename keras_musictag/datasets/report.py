"""Results of `Manifest.validate`."""

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
    """A problem of a row or a tag.

    Attributes:
        kind: short category: `"missing"`, `"zero bytes"`, `"undecodable"`, `"too short"`, `"duplicate"`, ...
        reason: what is wrong and what to do.
        row: index in the manifest, `None` for a problem of a tag.
        path: path of the audio file, or `None`.
        where: file and line that the row was read from, if any.

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
        """Return a one-line description."""
        if self.row is None:
            return self.reason
        return f"row {self.row}{f' ({self.where})' if self.where else ''} {self.path}: {self.reason}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Report of a validation; `str` gives a summary.

    Attributes:
        checked: number of rows.
        ok: rows without a problem, in their order.
        problems: all problems, first those of rows, in the order of the rows; a row can have several.
        notes: observations that may be intended.
    """

    checked: int
    ok: Manifest
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def __str__(self) -> str:
        """Return the numbers of rows without a problem and of problems by kind, and the first problems."""
        kinds = collections.Counter(problem.kind for problem in self.problems)
        counted = f" ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())})" if kinds else ""
        lines = [f"{self.checked} rows: {len(self.ok)} fine, {len(self.problems)} problems{counted}"]
        lines += [f"  {problem}" for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"  ... and {len(self.problems) - _SHOWN} more in .problems")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])
