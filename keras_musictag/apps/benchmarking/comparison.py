"""Compare two runs of the benchmark: ratios of timings, and which differ beyond noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...utils.tables import Block, plain
from .benchmark_results import BenchmarkError, BenchmarkRun, Row, named, table

SCOPES = ("log_mel", "waveform", "file")


@dataclasses.dataclass(frozen=True)
class BenchmarkComparison:
    """Comparison of two runs.

    Attributes:
        ratios: for each row in both runs and each scope: `model`, `runtime`, `precision`, `threads`, `scope`, the
            medians `before_ms` and `after_ms`, `ratio`, and `verdict`: `"slower"` or `"faster"` if the ranges from the
            10th to the 90th percentile do not overlap, else `"same"`.
        only: rows that are missing or failed in one of the runs.
        notes: differences that make the runs hard to compare, such as another processor.
    """

    ratios: tuple[Mapping[str, Any], ...]
    only: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Mapping[str, Any], ...]:
        """Timings that are slower beyond noise."""
        return tuple(entry for entry in self.ratios if entry["verdict"] == "slower")

    def blocks(self) -> list[Block]:
        """Return the ratios, the number of slower timings, and notes, for printing."""
        columns = (
            ("timing", lambda row: named(row)),
            ("scope", lambda row: row["scope"]),
            ("before ms", lambda row: f"{row['before_ms']:.1f}"),
            ("after ms", lambda row: f"{row['after_ms']:.1f}"),
            ("ratio", lambda row: f"{row['ratio']:.2f}"),
            ("", lambda row: "" if row["verdict"] == "same" else row["verdict"]),
        )
        slower = f"{len(self.regressions)} of {len(self.ratios)} timings are slower beyond noise."
        return [table(columns, self.ratios, keys=2), slower, *self.only, *(f"note: {note}" for note in self.notes)]

    def __str__(self) -> str:
        """Return the comparison as plain text."""
        return plain(self.blocks())


def compare_runs(before: BenchmarkRun, after: BenchmarkRun) -> BenchmarkComparison:
    """Compare the latencies of two runs.

    Raises:
        BenchmarkError: the runs have no row in common.
    """
    first, second = ({named(row): row for row in run.rows} for run in (before, after))
    ratios, only = [], []
    for name in dict.fromkeys([*first, *second]):
        rows = (first.get(name, {}), second.get(name, {}))
        if all("log_mel" in row for row in rows):
            ratios += [_ratio(*rows, scope) for scope in SCOPES]
        else:
            missing = [which for which, row in zip(("before", "after"), rows, strict=True) if "log_mel" not in row]
            only.append(f"{name}: not measured {' and '.join(missing)}")
    if not ratios:
        raise BenchmarkError("The two runs have no row in common that both measured: " + "; ".join(only))
    notes = [
        f"{what} differ: {before.machine.get(key)} and {after.machine.get(key)}"
        for key, what in (("processor", "processors"), ("cores", "cores"), ("system", "systems"))
        if before.machine.get(key) != after.machine.get(key)
    ]
    if before.clip_seconds != after.clip_seconds:
        notes.append(f"clips differ: {before.clip_seconds:g} s and {after.clip_seconds:g} s")
    return BenchmarkComparison(tuple(ratios), tuple(only), tuple(notes))


def _ratio(before: Row, after: Row, scope: str) -> dict[str, Any]:
    a, b = before[scope], after[scope]
    verdict = "same"
    if b["p10_ms"] > a["p90_ms"]:
        verdict = "slower"
    elif b["p90_ms"] < a["p10_ms"]:
        verdict = "faster"
    return {
        **{key: before[key] for key in ("model", "runtime", "precision", "threads")},
        "scope": scope,
        "before_ms": a["median_ms"],
        "after_ms": b["median_ms"],
        "ratio": b["median_ms"] / a["median_ms"],
        "verdict": verdict,
    }
