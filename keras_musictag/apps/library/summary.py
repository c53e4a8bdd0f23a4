"""Summary of a library run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from .write_back import WriteBack

_SUFFIXES_SHOWN = 12  # number of suffixes of passed-over files to print, the most frequent ones


@dataclasses.dataclass(frozen=True)
class LibrarySummary:
    """Summary of a run; the counts are numbers of files.

    Attributes:
        out: the output; a string if it is a URL.
        files: files listed.
        tagged: files tagged by this run.
        skipped: files with the same content as in their existing row.
        changed: files with other content than in their row, which is kept: only `update` replaces it.
        noted: files tagged by this run whose row has notes.
        imported: files whose rows were copied from other tables.
        failures: kind of error -> listed files whose row is an error, of this run or an earlier one.
        sound_seconds: duration of the audio tagged by this run.
        seconds: duration of the run.
        passed_over: suffix -> files in the folders that have no suffix of audio files, except hidden ones.
        written: result of writing tags into the files, if requested.
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
        """Number of files whose row is an error."""
        return sum(self.failures.values())

    def __str__(self) -> str:
        """Return the summary as text."""
        rate = f", {self.tagged / self.seconds:.1f} files/s" if self.tagged else ""
        lines = [
            f"{self.out}: {self.files:,} files, {self.tagged:,} tagged now ({self.sound_seconds / 3600:.1f} h of audio "
            f"in {self.seconds:.0f} s{rate}), {self.skipped:,} before, {self.failed:,} failed."
        ]
        if self.failures:
            kinds = sorted(self.failures.items(), key=lambda item: (-item[1], item[0]))
            lines.append("Failed: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds) + ".")
        if self.passed_over:
            counts = sorted(self.passed_over.items(), key=lambda item: (-item[1], item[0]))
            shown = [f"{count:,} {ending or 'without a suffix'}" for ending, count in counts[:_SUFFIXES_SHOWN]]
            others = sum(count for _, count in counts[_SUFFIXES_SHOWN:])
            lines.append("Passed over: " + ", ".join(shown) + (f", {others:,} others" if others else "") + ".")
        if self.imported:
            lines.append(f"{self.imported:,} rows were imported from other tables.")
        if self.noted:
            lines.append(f"{self.noted:,} of the files tagged now have notes: see the column notes.")
        if self.changed:
            lines.append(f"{self.changed:,} files have changed since they were tagged: update to tag them again.")
        if self.written is not None:
            lines.append(str(self.written))
        return "\n".join(lines)
