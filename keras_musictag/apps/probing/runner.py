"""`probe`: compare base models by a linear classifier on their embeddings.

For each model, logistic regression (scikit-learn) on standardised embeddings is fitted to all folds but one and
predicts that one; the strength of its penalty is chosen by cross-validation within the folds it is fitted to. Folds
keep groups (artist or album, else the file) and copies of a file together, balance the tags, and are the same for all
models. A linear probe measures the information in the embeddings, not what fine-tuning could add: Alain & Bengio,
"Understanding intermediate layers using linear classifier probes" (2016).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ...datasets import splitting
from ...datasets.manifest import Manifest
from ...errors import AudioError, MusicTagError, UnknownModelError
from ...evaluation.measuring import relative_names
from ...evaluation.results import EvaluationError, Failure, require, require_count, require_named
from ...evaluation.scores import ScoredRow, Scores
from ...loading import load
from ...tagger import Tagger
from ...training.embedding_cache import EmbeddingCache, content_digests
from .linear_probe import out_of_fold
from .mfcc import NAME as MFCC
from .mfcc import MfccCache
from .probe_result import ProbedModel as ProbedModel
from .probe_result import ProbeMetric, measure
from .probe_result import Probing as Probing

Model: TypeAlias = "Tagger | str | os.PathLike[str]"

_INNER_FOLDS = 4  # folds for choosing C


# === Public ===


def probe(
    models: Model | Sequence[Model],
    manifest: Manifest,
    *,
    dataset: str,
    folds: int = 5,
    mfcc: bool = False,
    cache: str | os.PathLike[str] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    grouped_by: str = "",
    workers: int = 2,
    progress: bool = True,
) -> Probing:
    """Compare models by cross-validating a linear classifier on their embeddings.

    If every clip has exactly one tag, one classifier predicts the tag (softmax), and models are ordered by accuracy.
    Otherwise there is a classifier per tag, which gives clips with and without the tag the same total weight, and
    models are ordered by the mean ROC-AUC.

    Clips that one of the models cannot use, and tags in fewer than two groups, are left out for all models. A model
    that cannot be loaded gets a row with its error.

    Args:
        models: taggers, or arguments for `load`, which are the names of the rows; a tagger has the name in its spec.
        manifest: rows with tags, or with targets of 0 and 1; splits are ignored.
        dataset: name of the data.
        folds: number of cross-validation folds.
        mfcc: also probe MFCC statistics, as a baseline.
        cache: folder for log-mels and embeddings, which makes a second run fast; `None` for a temporary one.
        n_bootstrap: number of resamples of groups, for 95 % intervals; 0 for none.
        seed: random seed of folds and resamples.
        grouped_by: what the manifest's groups are, in one word, e.g. `"artist"`.
        workers: number of files decoded at once.
        progress: show progress bars on standard error.

    Returns:
        `Probing`.

    Raises:
        EvaluationError: there is no model, a model is given twice, or none can be probed; targets are between 0 and 1;
            there are too few tags or groups.
        UnknownModelError: a model or folder does not exist.
        DataError: a row has a tag that the manifest does not have.
        CacheError: the cache cannot be written.

    Example:
        >>> import numpy as np, soundfile, keras_musictag as kmt
        >>> from keras_musictag.datasets import Manifest, Row
        >>> folder, rng, rows = Path(tempfile.mkdtemp()), np.random.default_rng(0), []
        >>> for number in range(12):
        ...     path, tag = folder / f"{number}.wav", ("loud", "quiet")[number % 2]
        ...     soundfile.write(path, rng.uniform(-1, 1, 16_000) * (0.9 if tag == "loud" else 0.01), 16_000)
        ...     rows.append(Row(path=path, tags=(tag,)))
        >>> result = kmt.probe("tiny", Manifest(rows), dataset="noise", folds=3, n_bootstrap=0, progress=False)
        >>> result.metric, result.best.features, f"{result.best.accuracy:.2f}"
        ('accuracy', 16, '1.00')
    """
    for name, value, least in (("folds", folds, 2), ("n_bootstrap", n_bootstrap, 0), ("seed", seed, 0)):
        require_count(name, value, least)
    require_count("workers", workers, 1)
    require_named(dataset, "all")
    given = _named(models, mfcc)
    require(len(manifest) > 0, f"{dataset} has no rows, so there is nothing to probe.")
    require(
        all(target in (0, 1) for row in manifest for target in row.targets or ()),
        f"{dataset} has targets between 0 and 1: probes need yes or no. Choose a threshold, and write 0 and 1.",
    )
    with contextlib.ExitStack() as stack:
        folder = Path(cache or stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        content = content_digests(manifest, folder, workers, progress=progress)
        _choose(manifest, _Vectors(), content, dataset, folds, seed, grouped_by)  # raise errors before the work
        embeddings = _embed(given, manifest, folder, workers, progress)
    data = _choose(manifest, embeddings, content, dataset, folds, seed, grouped_by)
    scores, strengths = _predict(embeddings, data, progress)
    return _result(embeddings, data, scores, strengths, n_bootstrap, seed)


# === Embeddings ===


def _named(models: Model | Sequence[Model], mfcc: bool) -> dict[str, Model | None]:
    """Return name -> model, `None` for MFCC; check the names before anything is loaded."""
    given = [models] if isinstance(models, (Tagger, str, os.PathLike)) else list(models)
    names = [model.spec.name if isinstance(model, Tagger) else os.fspath(model) for model in given]
    named: dict[str, Model | None] = dict(zip(names, given, strict=True))
    require(bool(named) or mfcc, "There is no model to probe.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    require(not repeated, f"Each model must be given once, under its own name; repeated: {', '.join(repeated)}.")
    require(not (mfcc and MFCC in named), f"{MFCC!r} is the name of the MFCC statistics. Give the model another name.")
    if mfcc:
        named[MFCC] = None
    return named


@dataclasses.dataclass(frozen=True)
class _Vectors:
    """Embeddings of all models.

    Attributes:
        vectors: name -> float32 `(rows of the manifest, features)`, NaN in rows that failed.
        weights: name -> sha256 of the weights.
        errors: name -> why a model has no embeddings.
        failures: row number -> the model that could not use the row, and the error.
    """

    vectors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    weights: dict[str, str] = dataclasses.field(default_factory=dict)
    errors: dict[str, MusicTagError] = dataclasses.field(default_factory=dict)
    failures: dict[int, tuple[str, AudioError]] = dataclasses.field(default_factory=dict)


def _embed(
    given: Mapping[str, Model | None], manifest: Manifest, folder: Path, workers: int, progress: bool
) -> _Vectors:
    """Compute the embeddings of each model; skip rows that an earlier model could not use."""
    embeddings, opened = _Vectors(), {}
    for name, model in given.items():  # load all first: a later name may be misspelt
        try:
            opened[name] = _open(model, folder, workers)
        except UnknownModelError:  # a mistake of the user
            raise
        except MusicTagError as error:
            embeddings.errors[name] = error
    for name, (cache, sha256) in opened.items():
        usable = [number for number in range(len(manifest)) if number not in embeddings.failures]
        rows = Manifest(tuple(manifest[number] for number in usable), manifest.tags)
        found, failures = cache.get_many(rows, progress=progress)
        embeddings.failures.update({usable[number]: (name, error) for number, error in failures.items()})
        if not np.isfinite(np.delete(found, list(failures), axis=0)).all():
            embeddings.errors[name] = EvaluationError(
                f"The embeddings of {name} are not finite: its training diverged, or its weights are damaged."
            )
            continue
        embeddings.vectors[name] = np.full((len(manifest), cache.width), np.nan, "float32")
        embeddings.vectors[name][usable] = found
        embeddings.weights[name] = sha256
    if not embeddings.vectors:
        first = next(iter(embeddings.errors.values()))
        raise EvaluationError(f"None of {len(given)} models can be probed. The first error: {first}") from first
    return embeddings


def _open(model: Model | None, folder: Path, workers: int) -> tuple[EmbeddingCache | MfccCache, str]:
    """Return the embedding cache of a model, and the sha256 of its weights."""
    if model is None:
        return MfccCache(folder, workers=workers), ""
    tagger = model if isinstance(model, Tagger) else load(model)
    return EmbeddingCache(folder, tagger, workers=workers), tagger.weights_sha256


# === Rows, tags and folds ===


@dataclasses.dataclass(frozen=True)
class _Data:
    """Rows, tags and folds to probe.

    Attributes:
        numbers: numbers of the rows in the manifest, int `(rows,)`.
        folds: fold of each row, int `(rows,)`.
        inner: for each fold, folds of the rows outside it.
        blank: `Scores` without models.
        excluded: tag -> why it is left out.
        exclusive: whether every row has exactly one tag.
    """

    numbers: np.ndarray
    folds: np.ndarray
    inner: list[np.ndarray]
    blank: Scores
    excluded: dict[str, str]
    exclusive: bool


def _choose(
    manifest: Manifest,
    embeddings: _Vectors,
    content: Sequence[str | AudioError],
    dataset: str,
    folds: int,
    seed: int,
    grouped_by: str,
) -> _Data:
    """Select the rows that every model can use and the tags that can be probed, and make folds."""
    numbers = np.array([number for number in range(len(manifest)) if number not in embeddings.failures], int)
    if not len(numbers):
        raise EvaluationError(f"None of {len(manifest)} clips can be used. The first: {embeddings.failures[0][1]}")
    files = relative_names([row.path for row in manifest])
    copies: dict[str, str] = {}  # content -> first file with it, the group of rows without a group
    groups = np.array([row.group or copies.setdefault(str(content[n]), files[n]) for n, row in enumerate(manifest)])
    targets = manifest.targets()[numbers]
    exclusive = len(manifest.tags) > 1 and bool((targets.sum(axis=1) == 1).all())
    excluded = _excluded(targets, groups[numbers], manifest.tags)
    tags = [tag for tag in manifest.tags if tag not in excluded]
    require(
        len(tags) >= (2 if exclusive else 1),
        f"There are too few tags to probe in {dataset}: {len(tags)} of {len(manifest.tags)} tags can be probed. Left "
        f"out: {', '.join(f'{tag} ({why})' for tag, why in excluded.items()) or 'none'}.",
    )
    if exclusive:  # leave out clips whose only tag is left out
        numbers = numbers[targets[:, [tag in tags for tag in manifest.tags]].any(axis=1)]
    chosen = Manifest(tuple(manifest[number] for number in numbers.tolist()), manifest.tags).with_tags(tags)
    blank = Scores(
        models=(), weights_sha256=(), dataset=dataset, split=f"{folds}-fold cross-validation",
        grouped_by=(grouped_by or "group") if any(row.group for row in chosen) else "track", tags=chosen.tags,
        rows=tuple(
            ScoredRow(files[n], row.start, row.duration, str(groups[n]))
            for n, row in zip(numbers.tolist(), chosen, strict=True)
        ),
        failed=tuple(
            Failure(model, files[n], manifest[n].start, str(error))
            for n, (model, error) in sorted(embeddings.failures.items())
        ),
        targets=chosen.targets().astype("int8"), probabilities=np.zeros((0, len(chosen), len(tags)), "float32"),
    )  # fmt: skip
    # Folds treat copies of a file as one file.
    by_content = [dataclasses.replace(row, path=Path(str(content[n]))) for n, row in zip(numbers, chosen, strict=True)]
    fold, inner = _folds(Manifest(tuple(by_content), chosen.tags), folds, seed)
    return _Data(numbers, fold, inner, blank, excluded, exclusive)


def _folds(manifest: Manifest, count: int, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the fold of each row, and for each fold, folds of the rows outside it."""
    fold = splitting.folds(manifest, count, seed=seed)
    found = int(fold.max()) + 1
    require(
        found == count,
        f"{count} folds need at least {count} groups (artists, albums, else files); the {len(manifest)} clips make "
        f"{found}. Use fewer folds.",
    )
    inner = []
    for held_out in range(count):
        rows = tuple(manifest[number] for number in np.flatnonzero(fold != held_out).tolist())
        inner.append(splitting.folds(Manifest(rows, manifest.tags), _INNER_FOLDS, seed=seed))
    return fold, inner


def _excluded(targets: np.ndarray, groups: np.ndarray, tags: Sequence[str]) -> dict[str, str]:
    """Return the tags with fewer than two groups of clips that have them, or that do not."""
    excluded = {}
    for tag, has in zip(tags, targets.T > 0, strict=True):
        inside, outside = len(np.unique(groups[has])), len(np.unique(groups[~has]))
        if inside < 2:
            excluded[tag] = "no clip has it" if inside == 0 else "only one group has it"
        elif outside < 2:
            excluded[tag] = "every clip has it" if outside == 0 else "every group but one has it"
    return excluded


# === Predictions ===


def _predict(embeddings: _Vectors, data: _Data, progress: bool) -> tuple[Scores, dict[str, tuple[float, ...]]]:
    """Return the out-of-fold predictions of all models, and the C of each fold."""
    from tqdm.auto import tqdm

    probabilities, strengths = [], {}
    total = len(embeddings.vectors) * len(data.inner)
    with tqdm(desc="probing", total=total, unit="fold", delay=2, disable=not progress) as bar:
        for name, vectors in embeddings.vectors.items():
            predicted, strengths[name] = out_of_fold(
                vectors[data.numbers],
                data.blank.targets,
                data.folds,
                data.inner,
                exclusive=data.exclusive,
                done=bar.update,
            )
            probabilities.append(predicted)
    scores = dataclasses.replace(
        data.blank,
        models=tuple(embeddings.vectors),
        weights_sha256=tuple(embeddings.weights.values()),
        probabilities=np.stack(probabilities),
    )
    return scores, strengths


def _result(
    found: _Vectors, data: _Data, scores: Scores, strengths: dict[str, tuple[float, ...]], n_bootstrap: int, seed: int
) -> Probing:
    """Measure all models; the best comes first."""
    metric: ProbeMetric = "accuracy" if data.exclusive else "roc_auc"
    rows = [
        dataclasses.replace(
            row,
            weights_sha256=found.weights[row.model],
            features=found.vectors[row.model].shape[1],
            strengths=strengths[row.model],
        )
        for row in measure(scores, metric, n_bootstrap, seed)
    ]
    failed = [ProbedModel(model=name, error=str(error)) for name, error in found.errors.items()]
    return Probing(
        models=(*rows, *failed),
        scores=scores,
        folds=data.folds,
        metric=metric,
        n_bootstrap=n_bootstrap,
        seed=seed,
        excluded=data.excluded,
        untagged=int((~scores.targets.any(axis=1)).sum()),
    )
