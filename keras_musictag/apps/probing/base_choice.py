"""`choose_base`: choose the model to fine-tune on labelled clips, by trying the first stage of fine-tuning.

A linear probe on embeddings underrates models with little information in the vector before their head, since fine-
tuning also uses their earlier stages (`models.layer_statistics`). So each candidate gets the head of the first stage
of fine-tuning, cross-validated on the training clips; validation and test clips are not used. The log-mels and
embeddings of the chosen model are in the cache when it is fine-tuned.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.manifest import Manifest
from ...datasets.opening import Source
from ...datasets.splitting import folds
from ...errors import MusicTagError
from ...evaluation.curve_areas import areas
from ...loading import find_spec, load
from ...models.conversion import is_here
from ...training.embedding_cache import EmbeddingCache
from ...training.finetuning import FineTuneData, FineTuneError, FineTuneSpec
from ...training.finetuning.labelled_data import prepare
from ...training.finetuning.stages import log_likelihoods, new_tagger
from ...training.head_fitting import fit_head
from ...utils.files import cache_folder
from ...utils.tables import Block, Table, plain

_log = logging.getLogger(__name__)

# Default candidates: the first is chosen unless another is clearly better. See docs/small-data.md.
CANDIDATES = ("musicnet_crnn", "baseline_cnn", "musicnn_mtt", "won_musicnn_mtt", "won_fcn_msd", "mn04_audioset")

_MAX_CLIPS = 500  # clips used, for speed


@dataclasses.dataclass(frozen=True, kw_only=True)
class TriedBase:
    """One candidate.

    Attributes:
        model: name of the model.
        log_likelihood: mean log-likelihood of held-out clips, with a head as in the first stage; greater is better.
        behind: difference to the best candidate; `error`: standard error of the difference.
        score: accuracy if clips have one tag each, else the mean ROC-AUC.
        problem: why the candidate was not tried; then the numbers are NaN.
    """

    model: str
    log_likelihood: float = math.nan
    behind: float = math.nan
    error: float = math.nan
    score: float = math.nan
    problem: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseChoice:
    """Result of `choose_base`.

    Attributes:
        model: name of the model to fine-tune.
        tried: the candidates, the best first; last, those that could not be tried.
        metric: metric of `TriedBase.score`: `"accuracy"` or `"ROC-AUC"`.
        clips: number of clips used.
    """

    model: str
    tried: tuple[TriedBase, ...]
    metric: str
    clips: int

    def __str__(self) -> str:
        """Return the table and the choice as text."""
        return plain(self.blocks())

    def blocks(self) -> list[Block]:
        """Return the table and the choice, for printing."""
        rows = [
            (row.model, f"{row.score:.3f}", f"{row.log_likelihood:.3f}", f"{row.behind:.3f} ± {row.error:.3f}")
            for row in self.tried
            if not row.problem
        ]
        table = Table(("base", self.metric, "log-likelihood", "behind"), rows, "<>")
        best = self.tried[0].model
        why = "the best" if self.model == best else f"not clearly worse than {best}, the best"
        return [
            f"Bases, tried on {self.clips} clips with cross-validation, head only:",
            table,
            *(f"Not tried: {row.model} ({row.problem})." for row in self.tried if row.problem),
            f"Chosen: {self.model} ({why}).",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary for JSON."""
        return {
            "model": self.model, "metric": self.metric, "clips": self.clips,
            "tried": [
                {name: None if value != value else value for name, value in dataclasses.asdict(row).items()}
                for row in self.tried
            ],
        }  # fmt: skip


def choose_base(
    data: FineTuneData | Source,
    candidates: Sequence[str | os.PathLike[str]] | None = None,
    *,
    settings: FineTuneSpec | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> BaseChoice:
    """Choose a model to fine-tune, by trying the first stage of fine-tuning with each of a few candidates.

    The candidate with the greatest likelihood of held-out clips is chosen; but the first one, if it is at most one
    standard error behind. Nothing is downloaded: candidates whose weights are not on this machine are left out. The
    same data, candidates and settings give the same choice.

    Args:
        data: labelled clips, as for `fine_tune`, or already prepared.
        candidates: names or folders; by default a few of the zoo.
        settings: settings of the fine-tuning to come; only folds, seed and balance are used.
        cache: folder of log-mels and embeddings, as for `fine_tune`.
        progress: show progress bars.

    Returns:
        `BaseChoice`.

    Raises:
        FineTuneError: no candidate can be tried, or as `fine_tune`.
        DataError: the data cannot be read.

    Example:
        >>> choose_base("clips.csv", ["musicnet_crnn", "mn04_audioset"]).model  # doctest: +SKIP
        'musicnet_crnn'
    """
    settings = settings or FineTuneSpec()
    if not isinstance(data, FineTuneData):
        data = prepare(data, seed=settings.seed)
    clips = _sample(data.train, settings.seed)
    data = dataclasses.replace(data, train=clips)
    folder = Path(cache) if cache is not None else cache_folder() / "log-mels"
    names = [os.fspath(name) for name in candidates or CANDIDATES]
    found: dict[str, np.ndarray] = {}
    problems = {}
    for name in names:
        try:
            if not is_here(find_spec(name)):
                problems[name] = f"not downloaded: keras-musictag download {name}"
                continue
            found[name] = _embeddings(name, data, folder, progress)
        except MusicTagError as error:
            problems[name] = str(error)
    if not found:
        raise FineTuneError(f"None of {len(names)} models can be tried: {problems}")
    usable = np.all([np.isfinite(vectors).all(axis=1) for vectors in found.values()], axis=0)
    data = dataclasses.replace(data, train=_rows(clips, np.flatnonzero(usable)))
    predictions = {name: _held_out(vectors[usable], data, settings) for name, vectors in found.items()}
    return _choice(predictions, data, problems)


def _sample(clips: Manifest, seed: int) -> Manifest:
    """Sample at most `_MAX_CLIPS` clips, in their order."""
    if len(clips) <= _MAX_CLIPS:
        return clips
    return _rows(clips, np.sort(np.random.default_rng(seed).permutation(len(clips))[:_MAX_CLIPS]))


def _rows(manifest: Manifest, numbers: np.ndarray) -> Manifest:
    return Manifest(tuple(manifest[number] for number in numbers.tolist()), manifest.tags)


def _embeddings(name: str, data: FineTuneData, folder: Path, progress: bool) -> np.ndarray:
    """Return the inputs of the new head, float32 `(clips, features)`; NaN for clips that cannot be used."""
    cache = EmbeddingCache(folder, new_tagger(load(name), data))
    return cache.get_many(data.train, progress=progress)[0]


def _held_out(embeddings: np.ndarray, data: FineTuneData, settings: FineTuneSpec) -> np.ndarray:
    """Return out-of-fold probabilities `(clips, tags)`."""
    parts = folds(data.train, settings.folds, seed=settings.seed)
    targets = data.train.targets()
    return fit_head(embeddings, targets, parts, exclusive=data.exclusive, balance=settings.balance).held_out


def _choice(predictions: dict[str, np.ndarray], data: FineTuneData, problems: dict[str, str]) -> BaseChoice:
    targets = data.train.targets()
    each = {name: log_likelihoods(p, targets, data.exclusive) for name, p in predictions.items()}
    order = sorted(each, key=lambda name: -each[name].mean())
    rows = []
    for name in order:
        gap = each[order[0]] - each[name]
        rows.append(
            TriedBase(
                model=name, log_likelihood=float(each[name].mean()), behind=float(gap.mean()),
                error=float(gap.std() / math.sqrt(len(gap))), score=_score(predictions[name], targets, data.exclusive),
            )
        )  # fmt: skip
    first = next(row for row in rows if row.model == next(iter(predictions)))
    return BaseChoice(
        model=first.model if first.behind <= first.error else order[0],
        tried=(*rows, *(TriedBase(model=name, problem=problem) for name, problem in problems.items())),
        metric="accuracy" if data.exclusive else "ROC-AUC",
        clips=len(targets),
    )


def _score(p: np.ndarray, targets: np.ndarray, exclusive: bool) -> float:
    if exclusive:
        return float((p.argmax(axis=1) == targets.argmax(axis=1)).mean())
    return float(np.nanmean([areas(targets[:, tag], p[:, tag])[0] for tag in range(targets.shape[1])]))
