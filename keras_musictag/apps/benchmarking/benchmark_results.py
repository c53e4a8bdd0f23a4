"""Results of a benchmark: tables for the terminal, JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from ...errors import MusicTagError
from ...utils.files import write_atomically
from ...utils.tables import Block, Table, plain

FORMAT = 1  # version of the JSON file
_KEYS = 4  # columns that identify a row: model, runtime, precision, threads
Row = Mapping[str, Any]


class BenchmarkError(MusicTagError, ValueError):
    """A benchmark cannot be run, or its results cannot be read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """Results of one run.

    Attributes:
        machine: output of `machine.describe`, with the speed of matrix products for each number of threads.
        command: command that made the measurements.
        clip_seconds: length of the clip that was timed.
        models: one mapping per model: parameters, multiply-adds of the clip, file sizes, `scores`. A score has the data
            set, split, n, AUCs and their intervals; it was `measured` in this run, with a runtime and precision, or is
            recorded in the spec. A score that failed has an `error` instead of AUCs.
        rows: one mapping per model, runtime, precision and number of threads: times in milliseconds as
            `{"median_ms", "p10_ms", "p90_ms", "calls"}`, clips per second, seconds to load, peak memory in MB once
            a file is tagged and at the end; or an `error`.
    """

    machine: Mapping[str, Any]
    command: str
    clip_seconds: float
    models: tuple[Row, ...]
    rows: tuple[Row, ...]

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows and scores with an error."""
        return tuple(entry for entry in (*self.rows, *self.scores) if entry.get("error"))

    @property
    def scores(self) -> tuple[Row, ...]:
        """Scores of all models, each with its `model`."""
        return tuple({"model": model["model"], **score} for model in self.models for score in model.get("scores", ()))

    def model(self, name: str) -> Row:
        """Return the mapping of a model in `models`."""
        return next((model for model in self.models if model["model"] == name), {"model": name})

    def to_dict(self) -> dict[str, Any]:
        """Return the results as a dictionary for JSON."""
        return {"benchmark_version": FORMAT, **dataclasses.asdict(self)}

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` to a file; return its path."""
        text = json.dumps(self.to_dict(), indent=1) + "\n"
        write_atomically(Path(path), text.encode())
        return Path(path)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            BenchmarkError: the file does not hold results of a benchmark.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            if fields.pop("benchmark_version") != FORMAT:
                raise ValueError("of another version")
            return cls(**fields | {"models": tuple(fields["models"]), "rows": tuple(fields["rows"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BenchmarkError(f"{path} does not hold results of a benchmark: {error!r}.") from error

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a line per row, with the processor, the values of its model and the score at its precision.

        Returns:
            The path.
        """
        machine = {"processor": self.machine["processor"]}
        rows = [
            _flat({**self.model(row["model"]), **row, **machine, "score": self._score_of(row)}) for row in self.rows
        ]
        keys = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(Path(path), text.getvalue().encode())
        return Path(path)

    def blocks(self) -> list[Block]:
        """Return tables and errors, for printing."""
        machine = self.machine
        head = (
            f"{machine['processor']}, {machine['cores']} cores, {machine['date']}; clip of {self.clip_seconds:g} s, "
            "times in ms (median)"
        )
        blocks: list[Block] = [head, "", table(MODEL_COLUMNS, self.models)]
        blocks += ["", table(ROW_COLUMNS, self._complete(), _KEYS)]
        scores = [score for score in self.scores if "roc_auc" in score]
        if scores:
            blocks += ["", table(SCORE_COLUMNS, scores)]
        return blocks + [f"{named(row)}: {row['error']}" for row in self.failed]

    def __str__(self) -> str:
        """Return tables and errors as plain text."""
        return plain(self.blocks())

    def profile(self) -> str:
        """Return the times of the stages of each row, as plain text."""
        return str(self.profile_table())

    def profile_table(self) -> Table:
        """Return the times of the stages of each row, from file to tags."""
        rows = [{**row, **stages(row)} for row in self.rows if not row.get("error")]
        return table(STAGE_COLUMNS, rows, _KEYS)

    def _complete(self) -> list[dict[str, Any]]:
        """Return the rows without an error, with derived values."""
        return [self.derived(row) for row in self.rows if not row.get("error")]

    def _score_of(self, row: Row) -> Row:
        """Return the first score of a row's model at its precision, if possible with its runtime."""
        scores = [
            score for score in self.model(row["model"]).get("scores", ())
            if "roc_auc" in score and score.get("precision", "float32") == row["precision"]
        ]  # fmt: skip
        return min(scores, key=lambda score: score.get("runtime") != row["runtime"], default={})

    def derived(self, row: Row) -> dict[str, Any]:
        """Add the speed of the network to a row, in GFLOP/s and as a share of this machine's matrix products."""
        operations = 2 * (self.model(row["model"]).get("multiply_adds") or 0)
        speed = operations / row["log_mel"]["median_ms"] / 1e6
        peak = self.machine["matmul_gflops"].get(str(row["threads"]))
        return {
            **row,
            "gflops": speed or None,
            "of_matmul": speed / peak if peak and speed else None,
            "times_real_time": row["best_clips_per_s"] * self.clip_seconds,
        }


def stages(row: Row) -> dict[str, float]:
    """Return milliseconds of decoding, resampling, features, network and the rest, assuming that medians add up."""
    median = {name: row[name]["median_ms"] for name in ("decode", "resample", "log_mel", "waveform", "file")}
    difference = max(0.0, median["waveform"] - median["log_mel"])
    features = row["features"]["median_ms"] if "features" in row else difference
    rest = median["file"] - median["decode"] - median["resample"] - features - median["log_mel"]
    return {"decoding": median["decode"], "resampling": median["resample"], "features": features,
            "network": median["log_mel"], "rest": rest}  # fmt: skip


def named(row: Row) -> str:
    """Return model, runtime, precision and threads of a row as text."""
    threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
    return f"{row['model']}, {row['runtime']} {row['precision']}, {threads}"


def _flat(row: Row) -> dict[str, Any]:
    """Flatten `{"a": {"b": 1}}` to `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": found for inner, found in _flat(value).items()}
        elif not isinstance(value, (list, tuple)):
            flat[key] = value
    return flat


# === Tables ===

Column = tuple[str, Callable[[Row], str]]


def table(columns: tuple[Column, ...], rows: Iterable[Row], keys: int = 1) -> Table:
    """Make a table, with the first column aligned to the left; the first `keys` columns identify a row."""
    return Table([title for title, _ in columns], [[show(row) for _, show in columns] for row in rows], "<>", keys)


def _number(key: str, form: str, scale: float = 1) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        value = row.get(key)
        return "" if value is None else format(value * scale, form)

    return show


def _median(key: str) -> Callable[[Row], str]:
    return lambda row: f"{row[key]['median_ms']:.1f}"


def _spread(key: str) -> Callable[[Row], str]:
    return lambda row: f"{row[key]['median_ms']:.1f} [{row[key]['p10_ms']:.1f}, {row[key]['p90_ms']:.1f}]"


def _size(precision: str) -> Callable[[Row], str]:
    return lambda row: _number(precision, ".2f", 1e-6)(row.get("sizes", {}))


def _interval(key: str) -> Callable[[Row], str]:
    """Format a value with its interval, `0.912 [0.901, 0.922]`; empty if missing."""

    def show(row: Row) -> str:
        ends = f" [{row[f'{key}_low']:.3f}, {row[f'{key}_high']:.3f}]" if f"{key}_low" in row else ""
        return f"{row[key]:.3f}{ends}" if key in row else ""

    return show


def _auc(row: Row) -> str:
    """Return the first ROC-AUC of a model with its interval; one not measured in this run is marked as recorded."""
    scores = [score for score in row.get("scores", ()) if "roc_auc" in score]
    if not scores:
        return ""
    return _interval("roc_auc")(scores[0]) + ("" if scores[0].get("measured") else " (recorded)")


MODEL_COLUMNS: tuple[Column, ...] = (
    ("model", lambda row: row["model"]),
    ("parameters", _number("parameters", ",")),
    ("trainable", _number("trainable_parameters", ",")),
    ("window s", _number("window_seconds", ".1f")),
    ("GMAC per clip", _number("multiply_adds", ".2f", 1e-9)),
    ("MB float32", _size("float32")),
    ("float16", _size("float16")),
    ("int8", _size("int8")),
    ("ROC-AUC", _auc),
)


SCORE_COLUMNS: tuple[Column, ...] = (
    ("model", lambda row: row["model"]),
    ("data set", lambda row: row["dataset"]),
    ("split", lambda row: row["split"]),
    ("n", _number("n", ",")),
    ("ROC-AUC", _interval("roc_auc")),
    ("PR-AUC", _interval("pr_auc")),
    ("with", lambda row: f"{row['runtime']} {row['precision']}" if row.get("measured") else "recorded"),
)
ROW_COLUMNS: tuple[Column, ...] = (
    ("model", lambda row: row["model"]),
    ("runtime", lambda row: row["runtime"]),
    ("precision", lambda row: row["precision"]),
    ("threads", lambda row: str(row["threads"])),
    ("log-mel", _spread("log_mel")),
    ("waveform", _median("waveform")),
    ("file", _median("file")),
    ("clips/s", _number("best_clips_per_s", ".1f")),
    ("batch", _number("best_batch", "d")),
    ("x real time", _number("times_real_time", ",.0f")),
    ("GFLOP/s", _number("gflops", ".0f")),
    ("of matmul", _number("of_matmul", ".0%")),
    ("load s", _number("load_cold_s", ".1f")),
    ("again", _number("load_warm_s", ".2f")),
    ("tag MB", _number("tag_memory_mb", ",.0f")),
    ("peak MB", _number("peak_memory_mb", ",.0f")),
    ("mean |dp|", _number("mean_change", ".1e")),
)
STAGE_COLUMNS: tuple[Column, ...] = (
    *ROW_COLUMNS[:_KEYS],
    *((f"{name} ms", _number(name, ".1f")) for name in ("decoding", "resampling", "features", "network", "rest")),
    ("file ms", _median("file")),
)
