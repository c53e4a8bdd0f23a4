"""`probe`: which model to start from, found out with a linear classifier on the embeddings of each.

For each model, logistic regression (scikit-learn) on standardised embeddings is fitted to all folds of the clips but
one and predicts that one; the strength of its penalty is chosen by cross-validation within the folds it is fitted to.
Folds keep groups (artist or album, else the file) and copies of a file together, share out tags evenly, and are the
same for all models. A linear probe measures what a model hears, not what it could be trained to hear: Alain & Bengio,
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
from ...training.embeddings import EmbeddingCache, content_digests
from .linear_probe import out_of_fold
from .mfcc import NAME as MFCC
from .mfcc import MfccCache
from .probe_result import ProbedModel as ProbedModel
from .probe_result import ProbeMetric, measure
from .probe_result import Probing as Probing

Model: TypeAlias = "Tagger | str | os.PathLike[str]"

_INNER_FOLDS = 4  # by which C is chosen


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
    """Compare models by what a linear classifier makes of their embeddings.

    Where every clip has exactly one tag, one classifier chooses among all tags (softmax), and models are ordered by
    accuracy. Else there is one for each tag, which weighs clips with and without it alike, and models are ordered by
    the mean ROC-AUC.

    Clips that one of the models cannot use, and tags in fewer than two groups, are left out for all. A model that
    cannot be loaded is a row with its error.

    Args:
        models: taggers, or what `load` takes; each named as it is given, a tagger as its spec is.
        manifest: rows with tags, or with targets of 0 and 1; splits do not count.
        dataset: what the data is called; no number goes without it.
        folds: parts that are predicted in turn.
        mfcc: probe MFCC statistics too, which everybody would try first.
        cache: folder for log-mels and embeddings, which makes a second run fast; `None` for a temporary one.
        n_bootstrap: number of resamples of groups, for 95 % intervals; 0 for none.
        seed: of folds and resamples.
        grouped_by: what the manifest's groups are, in one word, e.g. `"artist"`.
        workers: sounds decoded at once.
        progress: show bars on standard error.

    Returns:
        `Probing`.

    Raises:
        EvaluationError: no model, one given twice, or none that can be probed; targets between 0 and 1; too few tags
            or groups.
        UnknownModelError: no such model or folder.
        DataError: a row has a tag that the manifest does not.
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
        _choose(manifest, _Heard(), content, dataset, folds, seed, grouped_by)  # what is wrong is said before the work
        heard = _listen(given, manifest, folder, workers, progress)
    data = _choose(manifest, heard, content, dataset, folds, seed, grouped_by)
    scores, strengths = _predict(heard, data, progress)
    return _result(heard, data, scores, strengths, n_bootstrap, seed)


# === What the models hear ===


def _named(models: Model | Sequence[Model], mfcc: bool) -> dict[str, Model | None]:
    """Name -> model, `None` for MFCC; all of them before anything is loaded."""
    given = [models] if isinstance(models, (Tagger, str, os.PathLike)) else list(models)
    names = [model.spec.name if isinstance(model, Tagger) else os.fspath(model) for model in given]
    named: dict[str, Model | None] = dict(zip(names, given, strict=True))
    require(bool(named) or mfcc, "There is no model to probe.")
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"Each model must be given once, under a name of its own; more than once: {', '.join(twice)}.")
    require(not (mfcc and MFCC in named), f"{MFCC!r} is what MFCC statistics are called. Give the model another name.")
    return named | ({MFCC: None} if mfcc else {})


@dataclasses.dataclass(frozen=True)
class _Heard:
    """Embeddings of every model that has some.

    Attributes:
        vectors: name -> float32 `(rows of the manifest, features)`, NaN in rows that failed.
        weights: name -> sha256 of the weights.
        errors: name -> why a model has no embeddings.
        failures: number of a row -> the model that could not use it, and why.
    """

    vectors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    weights: dict[str, str] = dataclasses.field(default_factory=dict)
    errors: dict[str, MusicTagError] = dataclasses.field(default_factory=dict)
    failures: dict[int, tuple[str, AudioError]] = dataclasses.field(default_factory=dict)


def _listen(
    given: Mapping[str, Model | None], manifest: Manifest, folder: Path, workers: int, progress: bool
) -> _Heard:
    """One model after the other; a row that one of them cannot use is not given to the next."""
    heard, opened = _Heard(), {}
    for name, model in given.items():  # all of them first: the last may be misspelt
        try:
            opened[name] = _open(model, folder, workers)
        except UnknownModelError:  # a mistake, not a misfortune
            raise
        except MusicTagError as error:
            heard.errors[name] = error
    for name, (cache, sha256) in opened.items():
        usable = [number for number in range(len(manifest)) if number not in heard.failures]
        rows = Manifest(tuple(manifest[number] for number in usable), manifest.tags)
        found, failures = cache.get_many(rows, progress=progress)
        heard.failures.update({usable[number]: (name, error) for number, error in failures.items()})
        if not np.isfinite(np.delete(found, list(failures), axis=0)).all():
            heard.errors[name] = EvaluationError(
                f"The embeddings of {name} are not finite: its training diverged, or its weights are damaged."
            )
            continue
        heard.vectors[name] = np.full((len(manifest), cache.width), np.nan, "float32")
        heard.vectors[name][usable] = found
        heard.weights[name] = sha256
    if not heard.vectors:
        first = next(iter(heard.errors.values()))
        raise EvaluationError(f"None of {len(given)} models can be probed. The first error: {first}") from first
    return heard


def _open(model: Model | None, folder: Path, workers: int) -> tuple[EmbeddingCache | MfccCache, str]:
    """What gives embeddings, and the sha256 of the weights."""
    if model is None:
        return MfccCache(folder, workers=workers), ""
    tagger = model if isinstance(model, Tagger) else load(model)
    return EmbeddingCache(folder, tagger, workers=workers), tagger.weights_sha256


# === What they are asked ===


@dataclasses.dataclass(frozen=True)
class _Data:
    """What is probed.

    Attributes:
        numbers: of the rows of the manifest, int `(rows,)`.
        folds: int `(rows,)`.
        inner: for each fold, folds of the rows outside of it.
        blank: `Scores` of no model.
        excluded: tag -> why it is left out.
        exclusive: every row has exactly one tag.
    """

    numbers: np.ndarray
    folds: np.ndarray
    inner: list[np.ndarray]
    blank: Scores
    excluded: dict[str, str]
    exclusive: bool


def _choose(
    manifest: Manifest,
    heard: _Heard,
    content: Sequence[str | AudioError],
    dataset: str,
    folds: int,
    seed: int,
    grouped_by: str,
) -> _Data:
    """Rows that every model heard, tags that can be told apart, and folds."""
    numbers = np.array([number for number in range(len(manifest)) if number not in heard.failures], int)
    if not len(numbers):
        raise EvaluationError(f"None of {len(manifest)} clips can be used. The first: {heard.failures[0][1]}")
    files = relative_names([row.path for row in manifest])
    copies: dict[str, str] = {}  # content -> the first file that has it: a group, where none is named
    groups = np.array([row.group or copies.setdefault(str(content[n]), files[n]) for n, row in enumerate(manifest)])
    targets = manifest.targets()[numbers]
    exclusive = len(manifest.tags) > 1 and bool((targets.sum(axis=1) == 1).all())
    excluded = _excluded(targets, groups[numbers], manifest.tags)
    tags = [tag for tag in manifest.tags if tag not in excluded]
    require(
        len(tags) >= (2 if exclusive else 1),
        f"There is nothing to tell apart in {dataset}: {len(tags)} of {len(manifest.tags)} tags can be probed. Left "
        f"out: {', '.join(f'{tag} ({why})' for tag, why in excluded.items()) or 'none'}.",
    )
    if exclusive:  # not a clip whose only tag is left out
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
            for n, (model, error) in sorted(heard.failures.items())
        ),
        targets=chosen.targets().astype("int8"), probabilities=np.zeros((0, len(chosen), len(tags)), "float32"),
    )  # fmt: skip
    # Copies of a file are one file to folds.
    alike = [dataclasses.replace(row, path=Path(str(content[n]))) for n, row in zip(numbers, chosen, strict=True)]
    fold, inner = _folds(Manifest(tuple(alike), chosen.tags), folds, seed)
    return _Data(numbers, fold, inner, blank, excluded, exclusive)


def _folds(manifest: Manifest, count: int, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The fold of each row, and for each fold, folds of the rows outside of it."""
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
    """Tags that one fold would have all clips of, or all clips without."""
    excluded = {}
    for tag, has in zip(tags, targets.T > 0, strict=True):
        inside, outside = len(np.unique(groups[has])), len(np.unique(groups[~has]))
        if inside < 2:
            excluded[tag] = "no clip has it" if inside == 0 else "only one group has it"
        elif outside < 2:
            excluded[tag] = "every clip has it" if outside == 0 else "every group but one has it"
    return excluded


# === What they answer ===


def _predict(heard: _Heard, data: _Data, progress: bool) -> tuple[Scores, dict[str, tuple[float, ...]]]:
    """Predictions of all models for rows that their classifiers were not fitted to, and the C of each fold."""
    from tqdm.auto import tqdm

    probabilities, strengths = [], {}
    total = len(heard.vectors) * len(data.inner)
    with tqdm(desc="probing", total=total, unit="fold", delay=2, disable=not progress) as bar:
        for name, vectors in heard.vectors.items():
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
        models=tuple(heard.vectors),
        weights_sha256=tuple(heard.weights.values()),
        probabilities=np.stack(probabilities),
    )
    return scores, strengths


def _result(
    heard: _Heard, data: _Data, scores: Scores, strengths: dict[str, tuple[float, ...]], n_bootstrap: int, seed: int
) -> Probing:
    """Everything measured, the best model first."""
    metric: ProbeMetric = "accuracy" if data.exclusive else "roc_auc"
    rows = [
        dataclasses.replace(
            row,
            weights_sha256=heard.weights[row.model],
            features=heard.vectors[row.model].shape[1],
            strengths=strengths[row.model],
        )
        for row in measure(scores, metric, n_bootstrap, seed)
    ]
    failed = [ProbedModel(model=name, error=str(error)) for name, error in heard.errors.items()]
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
