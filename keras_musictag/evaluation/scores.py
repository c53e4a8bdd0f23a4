"""`Scores`: probabilities of taggers on labelled audio, from which results are computed without reading audio again.

Conventions: targets are 0 or 1, `(rows, tags)`; probabilities are float32 `(taggers, rows, tags)`. File names are
relative to the common folder of all files, with `/`, so scores made on two machines can be compared.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.files import write_atomically
from .metrics import compare_scores, evaluate_scores
from .results import Comparison, Evaluation, EvaluationError, Failure, require

if TYPE_CHECKING:
    import os

_VERSION = 1  # of the file format


@dataclasses.dataclass(frozen=True)
class ScoredRow:
    """The audio of a row.

    Attributes:
        file: path relative to the common folder of all files.
        start: offset in seconds.
        duration: duration in seconds, `None` for the rest of the file.
        group: group that the intervals resample: the artist, or the file if no group is known.
    """

    file: str
    start: float
    duration: float | None
    group: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Probabilities of one or more taggers for the same rows, and the true tags. Made by `measuring.score`.

    Attributes:
        models: distinct names of the taggers.
        weights_sha256: checksum of the weights of each tagger; empty if there is no file of these weights.
        dataset, split: names of the data set and the split.
        grouped_by: what a group is: `"track"`, `"artist"`, ...
        tags: tags that the data and all taggers have.
        missing_tags: tags of the data that some tagger does not have.
        rows: `ScoredRow`s that all taggers could tag.
        failed: `Failure`s of the other rows.
        targets: int8 array `(rows, tags)`.
        probabilities: float32 array `(taggers, rows, tags)`.
    """

    models: tuple[str, ...]
    weights_sha256: tuple[str, ...]
    dataset: str
    split: str
    grouped_by: str
    tags: tuple[str, ...]
    missing_tags: tuple[str, ...] = ()
    rows: tuple[ScoredRow, ...]
    failed: tuple[Failure, ...] = ()
    targets: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        """Validate shapes and names."""
        shape = (len(self.models), len(self.rows), len(self.tags))
        require(
            self.probabilities.shape == shape and self.targets.shape == shape[1:],
            f"{shape[0]} taggers, {shape[1]} rows and {shape[2]} tags need probabilities of shape {shape} and targets "
            f"{shape[1:]}; got {self.probabilities.shape} and {self.targets.shape}.",
        )
        repeated = [name for name, count in collections.Counter(self.models).items() if count > 1]
        require(not repeated, f"Taggers must have distinct names; got {', '.join(map(repr, repeated))} more than once.")

    # --- Measuring ---

    def evaluate(
        self, model: str | None = None, *, n_bootstrap: int = 1000, confidence: float = 0.95, seed: int = 0
    ) -> Evaluation:
        """Measure one tagger.

        Args:
            model: name of the tagger; optional if there is only one.
            n_bootstrap, confidence, seed: as in `metrics.evaluate_scores`.

        Returns:
            `Evaluation`.

        Raises:
            EvaluationError: no such tagger, no tag with both classes, or only one group to resample.
        """
        if model is None:
            require(len(self.models) == 1, f"There are {len(self.models)} taggers: {', '.join(self.models)}. Name one.")
        index = self._index(self.models[0] if model is None else model)
        result = evaluate_scores(
            self.targets, self.probabilities[index], self.tags, **self._settings(n_bootstrap, confidence, seed),
            model=self.models[index], weights_sha256=self.weights_sha256[index],
        )  # fmt: skip
        return self._noted(result)

    def compare(
        self, a: str, b: str, *, n_bootstrap: int = 1000, confidence: float = 0.95, seed: int = 0
    ) -> Comparison:
        """Measure the difference of two taggers, A minus B, on the same rows and resamples.

        Args:
            a, b: names of the taggers.
            n_bootstrap, confidence, seed: as in `metrics.compare_scores`.

        Returns:
            `Comparison`.

        Raises:
            EvaluationError: as `evaluate`.
        """
        first, second = self._index(a), self._index(b)
        result = compare_scores(
            self.targets, self.probabilities[first], self.probabilities[second], self.tags,
            **self._settings(n_bootstrap, confidence, seed), model_a=a, model_b=b,
            weights_sha256_a=self.weights_sha256[first], weights_sha256_b=self.weights_sha256[second],
        )  # fmt: skip
        return dataclasses.replace(result, a=self._noted(result.a), b=self._noted(result.b))

    def _index(self, model: str) -> int:
        require(model in self.models, f"There are no scores of {model!r}, only of {', '.join(self.models)}.")
        return self.models.index(model)

    def _settings(self, n_bootstrap: int, confidence: float, seed: int) -> dict[str, Any]:
        settings = {"dataset": self.dataset, "split": self.split, "grouped_by": self.grouped_by}
        groups = [row.group for row in self.rows]
        return {**settings, "groups": groups, "n_bootstrap": n_bootstrap, "confidence": confidence, "seed": seed}

    def _noted(self, result: Evaluation) -> Evaluation:
        return dataclasses.replace(result, missing_tags=self.missing_tags, failed=self.failed)

    # --- Joining ---

    def join(self, other: Scores) -> Scores:
        """Return the scores of all taggers of both, on the rows and tags that both have.

        Raises:
            EvaluationError: data set, split or labels differ, or no row or tag is in common.
        """
        mine, theirs = (f"{scores.dataset} {scores.split}" for scores in (self, other))
        require(mine == theirs, f"Scores on {mine} and on {theirs} cannot be compared. Score both on the same rows.")
        places = {key: place for place, key in enumerate(other._keys())}
        pairs = [(place, places[key]) for place, key in enumerate(self._keys()) if key in places]
        tags = tuple(tag for tag in self.tags if tag in other.tags)
        require(
            bool(pairs and tags),
            f"The scores have {len(pairs)} rows and {len(tags)} tags in common, so nothing can be compared. The first "
            f"files are {self.rows[0].file!r} and {other.rows[0].file!r}.",
        )
        a, b = self._take([pair[0] for pair in pairs], tags), other._take([pair[1] for pair in pairs], tags)
        different = int((a.targets != b.targets).any(axis=1).sum())
        require(
            not different,
            f"{different} of {len(pairs)} rows have different labels, so these are two versions of {self.dataset!r}. "
            f"Score all taggers on the same one.",
        )
        return dataclasses.replace(
            a,
            models=(*self.models, *other.models),
            weights_sha256=(*self.weights_sha256, *other.weights_sha256),
            missing_tags=tuple(dict.fromkeys((*a.missing_tags, *b.missing_tags))),
            failed=tuple(
                {(failure.file, failure.start): failure for failure in (*other.failed, *self.failed)}.values()
            ),
            probabilities=np.concatenate([a.probabilities, b.probabilities]),
        )

    def _keys(self) -> list[tuple[str, float, float | None, int]]:
        """Return a key per row: file, start, duration, and the number of equal rows before it."""
        seen: collections.Counter[Any] = collections.Counter()
        keys = []
        for row in self.rows:
            part = (row.file, row.start, row.duration)
            keys.append((*part, seen[part]))
            seen[part] += 1
        return keys

    def _take(self, rows: Sequence[int], tags: Sequence[str]) -> Scores:
        columns = [self.tags.index(tag) for tag in tags]
        return dataclasses.replace(
            self,
            tags=tuple(tags),
            missing_tags=(*self.missing_tags, *(tag for tag in self.tags if tag not in tags)),
            rows=tuple(self.rows[row] for row in rows),
            targets=self.targets[np.ix_(rows, columns)],
            probabilities=self.probabilities[np.ix_(range(len(self.models)), rows, columns)],
        )

    # --- Files ---

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write all data to an `.npz` file, which `load` reads, or a table of the rows to a `.csv` file.

        Returns:
            Path of the file.

        Raises:
            EvaluationError: the suffix is neither `.npz` nor `.csv`.
            CacheError: the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        require(suffix in (".npz", ".csv"), f"Scores are saved as .npz or .csv; got {str(path)!r}.")
        write_atomically(path, self._npz() if suffix == ".npz" else self._csv())
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scores:
        """Read an `.npz` file written by `save`.

        Raises:
            EvaluationError: the file is missing or has other content.
        """
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                require(about.pop("version") == _VERSION, "another version of this package wrote it")
                for field, kind in (("rows", ScoredRow), ("failed", Failure)):
                    about[field] = tuple(kind(*values) for values in about[field])
                for field in ("models", "weights_sha256", "tags", "missing_tags"):
                    about[field] = tuple(about[field])
                return cls(**about, targets=file["targets"], probabilities=file["probabilities"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise EvaluationError(
                f"{path} cannot be read as scores: {error}. Pass an .npz file written by `evaluate --scores` or "
                "Scores.save."
            ) from error

    def _npz(self) -> bytes:
        arrays = ("targets", "probabilities")
        about = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in arrays
        }
        for name in ("rows", "failed"):
            about[name] = [dataclasses.astuple(value) for value in about[name]]
        file = io.BytesIO()
        np.savez_compressed(
            file,
            about=np.array(json.dumps({"version": _VERSION, **about})),
            targets=self.targets.astype("int8"),
            probabilities=self.probabilities.astype("float32"),
        )
        return file.getvalue()

    def _csv(self) -> bytes:
        """Return a table with the columns file, start, duration, group, then `target:TAG`, then `MODEL:TAG`."""
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        names = [f"{what}:{tag}" for what in ("target", *self.models) for tag in self.tags]
        table.writerow([field.name for field in dataclasses.fields(ScoredRow)] + names)
        for number, row in enumerate(self.rows):
            values = (f"{value:.6g}" for value in self.probabilities[:, number].ravel())
            table.writerow([*dataclasses.astuple(row), *self.targets[number].tolist(), *values])
        return text.getvalue().encode("utf-8", "replace")
