"""Fine-tuning from start to end: data, both stages, the better of the two, a report, and a folder to load.

A run has its own folder: `run/` in the folder of the result, else one in the package's cache that is named after base,
data and settings and removed at the end. A killed run that is started again loses little: log-mels and embeddings are
cached, the first stage takes seconds, and the second resumes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from ...datasets import Manifest
from ...datasets.opening import Source
from ...datasets.splitting import folds
from ...models import tagger_folder as saving
from ...models.keras_state import default_settings
from ...models.spec import ModelSpec
from ...models.thresholds import Thresholds, choose
from ...tagging.network_tagger import NetworkTagger
from ...utils.files import slug
from ..loop import RunState
from ..run_folder import run_folder, write_problems
from ..training_spec import TaggerT, TrainingResult
from .description import make_spec
from .estimate import duration_text, seconds_for
from .fine_tune_report import FineTuneReport, make_report
from .labelled_data import FineTuneData, FineTuneError, exclude_clips, merge_validation, prepare
from .settings import TRAINED_SHARE, FineTuneSpec
from .stages import blend, log_likelihoods, new_tagger, solve_head, train_all

if TYPE_CHECKING:
    from ...datasets.log_mel_cache import FeatureCache
    from ..embedding_cache import EmbeddingCache
    from ..head_fitting import FittedHead

_log = logging.getLogger(__name__)

RUN_FILE, REPORT, PLOT = "fine-tuning.json", "report.json", "report.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuned(TrainingResult[TaggerT, FineTuneReport]):
    """Result of `fine_tune`: a `TrainingResult` whose report is a `FineTuneReport`.

    Attributes:
        data: the clips that the tagger was trained and measured on.
    """

    data: FineTuneData


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTunePlan(Generic[TaggerT]):
    """A planned fine-tuning, described by `str`. Made by `plan`.

    Attributes:
        base: tagger to fine-tune.
        data: training and validation clips.
        settings: settings of fine-tuning.
    """

    base: TaggerT
    data: FineTuneData
    settings: FineTuneSpec

    def __str__(self) -> str:
        """Data, stages, and their estimated duration on this machine."""
        first, second = seconds_for(self.base, self.data, self.settings)
        stages = f"embeddings and head, about {duration_text(first)}"
        if self.settings.stages == "full":
            epochs = f"{self.settings.epochs} epoch{'s' if self.settings.epochs > 1 else ''}"
            stages += f"; then the whole network, at most {epochs}, about {duration_text(second)}"
        return f"fine-tune   {self.base.spec.name}\n{self.data}\nstages      {stages}"


def plan(
    tagger: TaggerT,
    data: Source,
    tags: Sequence[str] | None = None,
    *,
    validation: float | Manifest | str | os.PathLike[str] | None = 0.2,
    settings: FineTuneSpec | None = None,
    single_label: bool | None = None,
    strict: bool = False,
) -> FineTunePlan[TaggerT]:
    """Validate the arguments of `fine_tune` and read its data, without training.

    Raises:
        FineTuneError, DataError: as `fine_tune`.
    """
    settings = settings or FineTuneSpec()
    prepared = prepare(data, tags, validation, single_label=single_label, seed=settings.seed, strict=strict)
    return FineTunePlan(base=tagger, data=prepared, settings=settings)


def fine_tune(
    tagger: TaggerT,
    data: Source,
    tags: Sequence[str] | None = None,
    *,
    validation: float | Manifest | str | os.PathLike[str] | None = 0.2,
    folder: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    settings: FineTuneSpec | None = None,
    single_label: bool | None = None,
    strict: bool = False,
    progress: bool = True,
) -> FineTuned[TaggerT]:
    """Make a tagger for new tags from an existing one.

    First a linear classifier is fitted to embeddings of the clips: the input of the base's own head, and statistics of
    the outputs of its stages (`taps`). Then the whole network is trained at a low learning rate, with augmentation and
    fixed batch norms; it is kept unless it does worse on the validation clips.

    Args:
        tagger: tagger to start from; it is not changed.
        data: labelled clips: a `Manifest`; a table with the columns `file` and `tags` (`|` between tags), or a column
            per tag; a folder per tag; a data set as `"gtzan:FOLDER"`.
        tags: tags to learn, in the order of the outputs; by default, all.
        validation: share of the groups (artists, albums; else files) to hold out, or clips to validate on, or `None` to
            learn from all. Clips with splits keep them; those of the split test measure the result.
        folder: folder to save the new tagger in, with report, plot and the files to resume a stopped run. Without a
            folder, the tagger can be saved later.
        cache: folder of log-mels and embeddings; by default, in the package's cache.
        settings: settings of fine-tuning, see `FineTuneSpec`.
        single_label: whether the tagger chooses exactly one tag; by default, if every clip has exactly one.
        strict: refuse data with any problem, instead of leaving bad clips out.
        progress: show progress bars.

    Returns:
        `FineTuned`.

    Raises:
        FineTuneError: there are too few clips or tags to learn from, the folder holds a run with other data or
            settings, or the loss or a weight became NaN or infinite twice, the second time in float32.
        UnknownTagError: no clip has one of `tags`.
        DataError: the data cannot be read; with `strict`, they have problems.
        CacheError: a folder cannot be written, or holds something else.
    """
    prepared = plan(
        tagger, data, tags, validation=validation, settings=settings, single_label=single_label, strict=strict
    )
    if not prepared.data.report.passed:
        _log.warning("%s", "\n".join(map(str, [prepared.data.report, *prepared.data.notes])))
    return carry_out(prepared, folder, cache=cache, strict=strict, progress=progress)


@default_settings()
def carry_out(
    prepared: FineTunePlan[TaggerT],
    folder: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> FineTuned[TaggerT]:
    """Carry out a plan; see `fine_tune`."""
    return _FineTuneRun(prepared, None if folder is None else Path(folder), cache, progress).run(strict)


class _FineTuneRun(Generic[TaggerT]):
    """State of a running plan."""

    def __init__(
        self, prepared: FineTunePlan[TaggerT], folder: Path | None, cache: str | os.PathLike[str] | None, progress: bool
    ) -> None:
        from ...utils.files import cache_folder

        self.base, self.data, self.settings = prepared.base, prepared.data, prepared.settings
        self.folder, self.progress = folder, progress
        self.cache_folder = Path(cache) if cache is not None else cache_folder() / "log-mels"
        self.problems = [str(problem) for problem in self.data.report.problems]
        self.precision: str | None = None  # of the second stage, at its end
        self.notes: list[str] = []
        self.started = time.perf_counter()

    def run(self, strict: bool) -> FineTuned[TaggerT]:
        where: dict[str, Any] = {"cache": self.cache_folder.parent, "file": RUN_FILE, "error": FineTuneError}
        with run_folder(self.folder, self._identity(), **where) as self.run_folder:
            return self._run_stages(strict)

    def _run_stages(self, strict: bool) -> FineTuned[TaggerT]:
        from ..embedding_cache import EmbeddingCache

        tagger = new_tagger(self.base, self.data)
        cache = EmbeddingCache(self.cache_folder, tagger)
        self._embed_all(cache, strict)
        # Before any training, which changes the embeddings.
        embeddings = {name: cache.get_many(part)[0] for name, part in self.data.parts.items()}
        head = solve_head(tagger, self.data, embeddings["train"], self.settings)
        outcome = self._second_stage(tagger, cache.features)
        probabilities, clips, split = self._report_data(tagger, cache.features, head.held_out)
        report = make_report(
            self.data, clips, split, probabilities, model=self.name, kept=outcome.kept,
            log_likelihood=outcome.log_likelihood, seconds=time.perf_counter() - self.started, seed=self.settings.seed,
        )  # fmt: skip
        thresholds = self._thresholds(tagger, cache.features, head.held_out, outcome.kept)
        finished, all_clips = outcome.finished, False
        if self.data.held_out and finished:
            every = np.concatenate([embeddings["train"], embeddings["validation"]])
            refitted, finished = self._refit_on_all(every, cache.features, head, outcome)
            if finished:
                tagger, all_clips = refitted, True
        report = dataclasses.replace(
            report, seconds=time.perf_counter() - self.started, precision=self.precision, notes=tuple(self.notes)
        )
        spec = make_spec(
            tagger.spec, self.base, self.data, self.settings, report, name=self.name,
            all_clips=all_clips, epochs=outcome.epochs, thresholds=thresholds,
        )  # fmt: skip
        tagger = self.base.like(spec, tagger.core)
        tagger.report = report
        if self.folder is not None:
            tagger = self._save(tagger, report)
        elif finished:
            shutil.rmtree(self.run_folder, ignore_errors=True)
        return FineTuned(
            tagger=tagger, data=self.data, report=report, finished=finished, problems=tuple(self.problems),
            folder=self.folder,
        )  # fmt: skip

    # --- Preparation ---

    @property
    def name(self) -> str:
        """Name of the new tagger: that of its folder, else that of the data."""
        name = self.folder.resolve().name if self.folder else self.data.origin.name
        return slug(name, self.base.spec.name)

    def _identity(self) -> dict[str, Any]:
        """Everything that determines the result."""
        settings = dataclasses.asdict(self.settings)
        floor = settings.pop("min_precision")  # only if set, so that runs from before this setting resume
        weights = hashlib.sha256()  # of the weights in memory, which may differ from the file
        for values in self.base.core.get_weights():
            weights.update(np.ascontiguousarray(values).tobytes())
        return {
            "base": {"name": self.base.spec.name, "weights": weights.hexdigest()[:16]},
            "data": {name: part.digest() for name, part in self.data.parts.items()},
            "single_label": self.data.exclusive,
            "settings": {**settings, "min_precision": floor} if floor else settings,
        }

    def _embed_all(self, cache: EmbeddingCache, strict: bool) -> None:
        """Compute the embeddings of all clips, and leave out clips that cannot be used."""
        every = Manifest(tuple(row for part in self.data.parts.values() for row in part), self.data.tags)
        _, bad = cache.get_many(every, progress=self.progress)
        if not bad:
            return
        self.problems += map(str, bad.values())
        message = f"{len(bad)} of {len(every)} clips cannot be used, the first one: {next(iter(bad.values()))}"
        if strict:
            raise FineTuneError(message)
        _log.warning("%s They are left out.", message)
        self.data = exclude_clips(self.data, {(every[number].path, every[number].start) for number in bad})

    # --- Learning ---

    def _second_stage(self, tagger: NetworkTagger, cache: FeatureCache) -> _Outcome:
        """Train the whole network; restore that of the first stage if the second does worse on the validation clips."""
        head = None if self.data.validation is None else self._log_likelihoods(tagger, cache)
        if self.settings.stages == "head":
            return _Outcome("head", {} if head is None else {"head": float(head.mean())}, True)
        before = tagger.core.get_weights()
        state, finished = self._train(tagger, self.data, self.settings, self.run_folder, cache)
        epochs = math.ceil(state.best_step / self.settings.steps_per_epoch(len(self.data.train)))
        if head is None:
            return _Outcome("full" if state.step else "head", {}, finished, epochs)
        full = self._log_likelihoods(tagger, cache)
        scores = {"head": float(head.mean()), "full": float(full.mean())}
        # The second stage is kept if it is worse by no more than a standard error, which few clips make large.
        gains = full - head
        if state.best_step and gains.mean() >= -gains.std() / math.sqrt(len(gains)):
            return _Outcome("full", scores, finished, epochs)
        tagger.core.set_weights(before)
        return _Outcome("head", scores, finished)

    def _train(
        self, tagger: NetworkTagger, data: FineTuneData, settings: FineTuneSpec, folder: Path, cache: FeatureCache
    ) -> tuple[RunState, bool]:
        """Train the second stage and return its state and whether it is finished."""
        before = tagger.core.get_weights()
        state = train_all(tagger, data, settings, folder, cache=cache, progress=self.progress)
        self.precision, self.notes = state.precision, self.notes + state.notes
        if state.step:
            blend(tagger, before, TRAINED_SHARE)
        training = settings.training(len(data.train), data.validation is not None)
        return state, training.is_over(state)

    def _refit_on_all(
        self, embeddings: np.ndarray, cache: FeatureCache, previous: FittedHead, outcome: _Outcome
    ) -> tuple[NetworkTagger, bool]:
        """Repeat the kept stage with the held-out clips too; return the tagger and whether training is finished."""
        data, finished = merge_validation(self.data), True
        tagger = new_tagger(self.base, data)
        solve_head(tagger, data, embeddings, self.settings, previous)
        if outcome.kept == "full":
            assert self.precision is not None  # of the first time, not tested again
            settings = dataclasses.replace(self.settings, epochs=outcome.epochs, precision=self.precision)
            _, finished = self._train(tagger, data, settings, self.run_folder / "all", cache)
        return tagger, finished

    def _log_likelihoods(self, tagger: NetworkTagger, cache: FeatureCache) -> np.ndarray:
        """Log-likelihood of each validation clip."""
        assert self.data.validation is not None
        probabilities = _predict(tagger, self.data.validation, cache)
        return log_likelihoods(probabilities, self.data.validation.targets(), self.data.exclusive)

    # --- Results ---

    def _report_data(
        self, tagger: NetworkTagger, cache: FeatureCache, held_out: np.ndarray
    ) -> tuple[np.ndarray, Manifest, str]:
        """Return the probabilities for the report, their clips, and the name of the split."""
        if self.data.test is not None:
            return _predict(tagger, self.data.test, cache), self.data.test, "test"
        if self.data.validation is not None:
            split = "validation, which also chose when to stop"
            return _predict(tagger, self.data.validation, cache), self.data.validation, split
        count = self._fold_count()
        split = f"train, {count}-fold, first stage only" if count > 1 else "train, tag frequencies only (no folds)"
        return held_out, self.data.train, split

    def _fold_count(self) -> int:
        return len(np.unique(folds(self.data.train, self.settings.folds, seed=self.settings.seed)))

    def _thresholds(
        self, tagger: NetworkTagger, cache: FeatureCache, held_out: np.ndarray, kept: str
    ) -> Thresholds | None:
        """Choose thresholds on the validation clips, else out of fold; never on the split test."""
        probabilities, clips, split = held_out, self.data.train, "train, out of fold"
        if self.data.validation is not None:
            clips, split = self.data.validation, "validation"
            probabilities = _predict(tagger, clips, cache)
        elif kept == "full" or self._fold_count() < 2:
            return None  # the network has learned from all clips
        return choose(
            clips.targets(), probabilities, tagger.tags, dataset=self.data.origin.name, split=split,
            min_precision=self.settings.min_precision,
        )  # fmt: skip

    def _save(self, tagger: TaggerT, report: FineTuneReport) -> TaggerT:
        """Write report and tagger into the folder, the spec last, so that the tagger is complete or absent."""
        from ...errors import MissingExtraError
        from ...plots import save_figure, save_training

        assert self.folder is not None
        write_problems(self.folder, self.problems)
        report.to_json(self.folder / REPORT)
        try:
            save_figure(report.plot(), self.folder / PLOT)
        except MissingExtraError as error:
            _log.warning("No plot was written: %s", error)
        if self.data.validation is not None:  # otherwise there are no scores to plot
            save_training(self.run_folder)
        saving.save_into(tagger.core, tagger.spec, self.folder)
        saved = self.base.like(ModelSpec.from_folder(self.folder.resolve()))
        saved.report = report
        return saved


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """The stage that was kept, the score of each, whether training is finished, and epochs of the second stage."""

    kept: str
    log_likelihood: dict[str, float]
    finished: bool
    epochs: int = 0


def _predict(tagger: NetworkTagger, clips: Manifest, cache: FeatureCache) -> np.ndarray:
    from ...datasets.batches import EvaluationWindows
    from ..supervised import row_outputs

    return row_outputs(tagger.core, EvaluationWindows(clips, tagger.spec, cache, batch_size=8))
