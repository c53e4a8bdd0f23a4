"""Measure taggers on labelled audio: `evaluate` returns the scores, `score` keeps the probabilities.

Each row of a manifest is tagged as by `Tagger.tag` (mean over windows) and measured by `metrics`. Tags of tagger and
manifest are matched by name. Tags that only the tagger has are ignored, as the data does not say where they are absent;
tags that only the manifest has are listed in the result.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..datasets.manifest import Manifest
from ..errors import AudioError
from ..tagging.base_tagger import BaseTagger
from .results import Evaluation, EvaluationError, Failure, require, require_count
from .scores import ScoredRow as ScoredRow
from .scores import Scores as Scores

if TYPE_CHECKING:
    from ..datasets import Row
    from ..datasets.log_mel_cache import FeatureCache

_log = logging.getLogger(__name__)


# === Public ===


def evaluate(
    tagger: BaseTagger,
    manifest: Manifest,
    *,
    dataset: str,
    split: str = "test",
    cache: FeatureCache | str | os.PathLike[str] | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    strict: bool = False,
    grouped_by: str = "",
    workers: int = 2,
    batch_size: int = 8,
    progress: bool = True,
) -> Evaluation:
    """Compute ROC-AUC and PR-AUC of a tagger on labelled audio, macro and per tag, with bootstrap intervals.

    Intervals resample whole groups: the `group` of the rows (artist, album), or the file of rows without one.

    Args:
        tagger: tagger to measure.
        manifest: rows with tags, or with targets of 0 and 1.
        dataset: name of the data set, e.g. `"magnatagatune"`.
        split: `"train"`, `"valid"`, `"test"`, or `"all"` for every row.
        cache: log-mels on disk (see `features.FeatureCache`), or a folder for them. Audio is then decoded once for all
            taggers of a front end. Results differ by the rounding to float16, and at the edges of rows that are a part
            of a file, where windows then include the audio beside it.
        n_bootstrap: number of resamples; 0 for no intervals.
        confidence: level of the intervals.
        seed: random seed of the resamples.
        strict: raise at the first row that cannot be tagged, instead of leaving it out.
        grouped_by: what the manifest's groups are, in one word, e.g. `"artist"`.
        workers: number of files decoded at once.
        batch_size: windows per call, with `cache`.
        progress: show a progress bar on standard error.

    Returns:
        `Evaluation`; `.failed` has the rows that could not be tagged, `.missing_tags` the tags the tagger lacks.

    Raises:
        EvaluationError: no tag in common, targets between 0 and 1, no tag with both classes, no row of the split, or
            only one group to resample.
        AudioError: with `strict`, a row cannot be tagged.
        CacheError: the cache cannot be written.

    Example:
        >>> import keras_musictag as kmt
        >>> from keras_musictag.datasets import Manifest, Row
        >>> clip = kmt.demo_clip()
        >>> rows = [Row(path=clip, start=s, duration=2, tags=("tone",) if s else ("noise",)) for s in (0, 4, 8)]
        >>> result = kmt.evaluate(kmt.load("tiny"), Manifest(rows), dataset="demo", split="all", n_bootstrap=0)
        >>> result.n_clips, result.n_groups, result.tags
        (3, 1, ('tone', 'noise'))
    """
    blank = _blank([tagger], manifest, dataset, split, grouped_by)
    # Evaluate zeros first, to raise errors before any file is decoded.
    blank[0].evaluate(n_bootstrap=min(n_bootstrap, 1) if isinstance(n_bootstrap, int) else n_bootstrap)
    scores = _score([tagger], *blank, cache, strict, workers, batch_size, progress)
    return scores.evaluate(n_bootstrap=n_bootstrap, confidence=confidence, seed=seed)


def score(
    taggers: BaseTagger | Sequence[BaseTagger],
    manifest: Manifest,
    *,
    dataset: str,
    split: str = "test",
    cache: FeatureCache | str | os.PathLike[str] | None = None,
    strict: bool = False,
    grouped_by: str = "",
    names: Sequence[str] | None = None,
    workers: int = 2,
    batch_size: int = 8,
    progress: bool = True,
) -> Scores:
    """Tag labelled audio with one or more taggers, and keep the probabilities.

    Rows that one of the taggers cannot tag, and tags that one of them does not have, are left out for all.

    Args:
        taggers: taggers to measure.
        manifest, dataset, split, cache, strict, grouped_by, workers, batch_size, progress: as in `evaluate`.
        names: names of the taggers; by default, those in their specs.

    Returns:
        `Scores`, with the methods `evaluate`, `compare` and `save`.

    Raises:
        EvaluationError, AudioError, CacheError: as `evaluate`.
    """
    taggers = [taggers] if isinstance(taggers, BaseTagger) else list(taggers)
    require(len(taggers) > 0, "There is no tagger to measure.")
    require(
        names is None or len(names) == len(taggers), f"There must be a name per tagger; got {names} for {len(taggers)}."
    )
    blank = _blank(taggers, manifest, dataset, split, grouped_by, names)
    blank[0].evaluate(blank[0].models[0], n_bootstrap=0)
    return _score(taggers, *blank, cache, strict, workers, batch_size, progress)


# === Rows to tag ===


def _blank(
    taggers: Sequence[BaseTagger],
    manifest: Manifest,
    dataset: str,
    split: str,
    grouped_by: str,
    names: Sequence[str] | None = None,
) -> tuple[Scores, Manifest]:
    """Return `Scores` whose probabilities are 0, and the rows to tag."""
    chosen = rows_of_split(manifest, split)
    tags = tuple(tag for tag in taggers[0].tags if tag in manifest.tags and all(tag in t.tags for t in taggers))
    if not tags:
        theirs = ", ".join(map(repr, manifest.tags[:10])) or "none"
        ours = "; ".join(f"{tagger.spec.name} has {', '.join(map(repr, tagger.tags[:10]))}" for tagger in taggers)
        raise EvaluationError(
            f"Data and tagger have no tag in common: {dataset} has {theirs}; {ours}. Tags are matched by name and "
            "spelling: rename those of the data."
        )
    files = relative_names([row.path for row in chosen])
    rows = tuple(
        ScoredRow(file, row.start, row.duration, row.group or file) for file, row in zip(files, chosen, strict=True)
    )
    targets = chosen.with_tags(tags).targets()
    soft = targets[(targets != 0) & (targets != 1)]
    if len(soft):
        raise EvaluationError(
            f"{dataset} has targets between 0 and 1, e.g. {soft[0]:g}; ROC-AUC and PR-AUC need 0 or 1. Compare the "
            "targets with a threshold first."
        )
    scores = Scores(
        models=tuple(names or (tagger.spec.name for tagger in taggers)),
        weights_sha256=tuple(tagger.weights_sha256 for tagger in taggers),
        dataset=dataset,
        split=split,
        grouped_by=(grouped_by or "group") if any(row.group for row in chosen) else "track",
        tags=tags,
        missing_tags=tuple(tag for tag in manifest.tags if tag not in tags),
        rows=rows,
        targets=targets.astype("int8"),
        probabilities=np.zeros((len(taggers), len(rows), len(tags)), "float32"),
    )
    return scores, chosen


def rows_of_split(manifest: Manifest, split: str) -> Manifest:
    """Return the rows of a split, or all rows for `"all"`.

    Raises:
        EvaluationError: the manifest is empty or has no splits.
    """
    require(len(manifest) > 0, "The manifest has no rows, so there is nothing to measure.")
    if split == "all":
        return manifest
    require(
        any(row.split for row in manifest),
        f"The data has no splits, so there is no {split!r} among its {len(manifest)} rows. Pass split='all' (--split "
        "all) to measure on every row, or make splits with Manifest.grouped_split().",
    )
    return manifest.split(split)


def relative_names(paths: Sequence[Path]) -> list[str]:
    """Return the paths relative to their common folder, or unchanged if they have none."""
    try:
        common = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # several drives
        return [path.as_posix() for path in paths]
    return [path.relative_to(common).as_posix() for path in paths]


# === Tagging ===


def _score(
    taggers: Sequence[BaseTagger],
    blank: Scores,
    manifest: Manifest,
    cache: FeatureCache | str | os.PathLike[str] | None,
    strict: bool,
    workers: int,
    batch_size: int,
    progress: bool,
) -> Scores:
    """Fill in the probabilities, and keep the rows that all taggers could tag."""
    require_count("workers", workers, 1)
    require_count("batch_size", batch_size, 1)
    failed: dict[int, Failure] = {}
    probabilities = []
    for model, tagger in zip(blank.models, taggers, strict=True):
        outputs = np.zeros((len(manifest), len(tagger.tags)), "float32")
        todo = list(range(len(manifest)))
        if cache is not None:
            todo = _from_cache(tagger, manifest, cache, outputs, workers, batch_size, progress)
        errors = _from_audio(tagger, manifest, todo, outputs, strict, workers, progress)
        for number, error in errors.items():
            row = blank.rows[number]
            failed.setdefault(number, Failure(model, row.file, row.start, str(error)))
        probabilities.append(outputs[:, [tagger.tags.index(tag) for tag in blank.tags]])
    kept = [number for number in range(len(manifest)) if number not in failed]
    if failed:
        require(
            bool(kept), f"None of {len(manifest)} rows could be tagged. The first error: {failed[min(failed)].reason}"
        )
        _log.warning("%d of %d rows could not be tagged and are left out.", len(failed), len(manifest))
    return dataclasses.replace(
        blank,
        rows=tuple(blank.rows[number] for number in kept),
        failed=tuple(failed[number] for number in sorted(failed)),
        targets=blank.targets[kept],
        probabilities=np.stack(probabilities)[:, kept],
    )


def _from_audio(
    tagger: BaseTagger,
    manifest: Manifest,
    numbers: Sequence[int],
    outputs: np.ndarray,
    strict: bool,
    workers: int,
    progress: bool,
) -> dict[int, AudioError]:
    """Fill rows `(tags,)` of `outputs` with `Tagger.tag`; returns the errors of the rows that cannot be tagged."""
    from tqdm.auto import tqdm

    def tag(row: Row) -> np.ndarray | AudioError:
        try:
            tags = tagger.tag(row.path, offset=row.start, duration=row.duration)
        except AudioError as error:
            return error
        return np.array([tags[name] for name in tagger.spec.vocabulary.names], "float32")

    if not numbers:
        return {}
    tagger.prepare()
    errors = {}
    pool = ThreadPoolExecutor(workers)  # decoding and inference overlap
    try:
        results = pool.map(tag, [manifest[number] for number in numbers])
        bar = tqdm(results, desc=tagger.spec.name, total=len(numbers), unit="row", delay=2, disable=not progress)
        for number, result in zip(numbers, bar, strict=True):
            if isinstance(result, np.ndarray):
                outputs[number] = result
            elif strict:
                raise result
            else:
                errors[number] = result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return errors


def _from_cache(
    tagger: BaseTagger,
    manifest: Manifest,
    cache: FeatureCache | str | os.PathLike[str],
    outputs: np.ndarray,
    workers: int,
    batch_size: int,
    progress: bool,
) -> list[int]:
    """Fill rows of `outputs` from cached log-mels; returns the numbers of the rows that the cache has none for."""
    from tqdm.auto import tqdm

    from ..datasets.batches import EvaluationWindows, TimedBatches
    from ..datasets.log_mel_cache import FeatureCache

    if not isinstance(cache, FeatureCache):
        cache = FeatureCache(cache, tagger.spec)
    bad = dict(cache.fill([row.path for row in manifest], workers, progress))
    for error in bad.values():
        if not isinstance(error, AudioError):
            raise error
    done = []
    for number, row in enumerate(manifest):
        try:
            if row.path not in bad:
                EvaluationWindows(manifest[number : number + 1], tagger.spec, cache)
                done.append(number)
        except AudioError:  # the row is beyond the end of its file; the tagger will raise a better message
            continue
    if done:
        windows = EvaluationWindows(
            Manifest(tuple(manifest[number] for number in done), manifest.tags),
            tagger.spec,
            cache,
            batch_size=batch_size,
        )
        batches = TimedBatches(windows, workers=1)
        bar = tqdm(batches, desc=tagger.spec.name, total=len(windows), unit="batch", delay=2, disable=not progress)
        outputs[done] = windows.mean_per_row(np.concatenate([tagger.predict_log_mels(x) for x, _ in bar]))
    return sorted(set(range(len(manifest))) - set(done))
