"""What a library run did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from .write_back import WriteBack

_NAMED = 12  # endings of files that were passed over, the most frequent ones


@dataclasses.dataclass(frozen=True)
class LibrarySummary:
    """What a run did.

    Attributes:
        out: the output; text where it is a URL.
        files: how many were listed.
        tagged: files tagged by this run.
        skipped: files that the output had rows for, whose content is the same.
        changed: files whose content is another than that of their row, which stays: only `update` replaces it.
        noted: files tagged by this run whose row has notes.
        imported: files whose rows were taken from other tables.
        failures: kind of error -> files of this listing whose row is an error, by this run or an earlier one.
        sound_seconds: duration of what this run tagged.
        seconds: how long it took.
        passed_over: ending of a name -> files in the folders that are not named like sounds, hidden ones apart.
        written: what became of the files' own metadata, if tags were to be written there.
    """

    out: Path | str
    files: int
    tagged: int
    skipped: int
    changed: int
    failures: Mapping[str, int]
    sound_seconds: float
    seconds: float
    noted: int = 0
    imported: int = 0
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)
    written: WriteBack | None = None

    @property
    def failed(self) -> int:
        """Files whose row is an error."""
        return sum(self.failures.values())

    def __str__(self) -> str:
        """A few lines for people."""
        rate = f", {self.tagged / self.seconds:.1f} files/s" if self.tagged else ""
        lines = [
            f"{self.out}: {self.files:,} files, {self.tagged:,} tagged now ({self.sound_seconds / 3600:.1f} h of sound "
            f"in {self.seconds:.0f} s{rate}), {self.skipped:,} before, {self.failed:,} failed."
        ]
        if self.failures:
            kinds = sorted(self.failures.items(), key=lambda item: (-item[1], item[0]))
            lines.append("Failed: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds) + ".")
        if self.passed_over:
            counts = sorted(self.passed_over.items(), key=lambda item: (-item[1], item[0]))
            named = [f"{count:,} {ending or 'without an ending'}" for ending, count in counts[:_NAMED]]
            others = sum(count for _, count in counts[_NAMED:])
            lines.append("Passed over: " + ", ".join(named) + (f", {others:,} others" if others else "") + ".")
        if self.imported:
            lines.append(f"{self.imported:,} rows were imported from other tables.")
        if self.noted:
            lines.append(f"{self.noted:,} of the files tagged now have notes: see the column notes.")
        if self.changed:
            lines.append(f"{self.changed:,} files have changed since they were tagged: update to tag them again.")
        if self.written is not None:
            lines.append(str(self.written))
        return "\n".join(lines)
