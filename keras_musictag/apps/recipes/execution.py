"""Run recipes: decode the audio, then train, evaluate and save a network.

The folder of a run becomes that of a tagger: `spec.json`, `weights.safetensors` and `README.md` are written after
training, `evaluation.json` after evaluation. Its subfolder `run/` holds the run of `training.fit`, `run.json` with the
recipe and digests of the data, `log.png` if Matplotlib is installed, and `problems.txt` with all problems of the data.
A folder resumes the same recipe on the same data, and rejects any other.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...datasets import Manifest
from ...datasets.info import named_licences
from ...datasets.opening import Source
from ...errors import AudioError
from ...models import tagger_folder as saving
from ...models.spec import ModelSpec, TrainingData
from ...training.run_folder import PROBLEMS, run_folder, write_problems
from ...training.training_spec import RunState, TrainingResult
from ...utils.files import slug
from .planning import Plan, plan_recipe
from .recipe import Recipe
from .recipe_tables import RecipeError

if TYPE_CHECKING:
    from ...datasets.log_mel_cache import FeatureCache
    from ...evaluation.results import Agreement, Evaluation
    from ...tagger import Tagger

_log = logging.getLogger(__name__)

RUN_FILE, EVALUATION = "run.json", "evaluation.json"


# === Result ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result(TrainingResult["Tagger", RunState]):
    """Result of `run_recipe`: a `TrainingResult` whose folder `load` reads, unless it stopped before any validation.

    Attributes:
        evaluation: evaluation on the labels of the test split, if it has labels.
        agreement: agreement with the teacher on the test split, for distillation.
        dropped: number of files that could not be decoded.
    """

    folder: Path
    evaluation: Evaluation | None = None
    agreement: Agreement | None = None
    dropped: int = 0


def run_recipe(
    recipe: Recipe | str | os.PathLike[str],
    data: Source | None,
    folder: str | os.PathLike[str],
    *,
    cache: FeatureCache | str | os.PathLike[str] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> Result:
    """Run a recipe: check the data, train or distil, evaluate on the test split, and save.

    Args:
        recipe: a `Recipe`, or an argument for `Recipe.load`.
        data, strict: as in `plan_recipe`.
        folder: folder of the tagger, for `load`; `folder/run` holds the run, which resumes if it was interrupted.
        cache: folder of log-mels, shared between runs; by default in this package's cache.
        progress: show progress bars.

    Returns:
        `Result`.

    Raises:
        RecipeError, DataError, TrainingError: the recipe cannot be run.
        CacheError: the cache folder holds something else, or cannot be written.
    """
    return carry_out(plan_recipe(recipe, data, strict=strict), folder, cache=cache, strict=strict, progress=progress)


def carry_out(
    plan: Plan,
    folder: str | os.PathLike[str],
    *,
    cache: FeatureCache | str | os.PathLike[str] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> Result:
    """Run a plan of `plan_recipe`; arguments and errors as in `run_recipe`."""
    return _Run(plan, Path(folder), cache, progress).run(strict)


class _Run:
    """Runs a plan."""

    def __init__(
        self, plan: Plan, folder: Path, cache: FeatureCache | str | os.PathLike[str] | None, progress: bool
    ) -> None:
        self.plan, self.recipe, self.folder, self.progress = plan, plan.recipe, folder, progress
        self.parts = plan.data.parts
        self.given_cache = cache
        self.problems = [str(problem) for problem in plan.data.report.problems]
        self.dropped = 0

    def run(self, strict: bool) -> Result:
        with run_folder(self.folder, self._about(), file=RUN_FILE, error=RecipeError) as self.run_folder:
            return self._run_locked(strict)

    def _run_locked(self, strict: bool) -> Result:
        from ...loading import load, untrained
        from ...plots import save_training
        from ...training.teacher_targets import student_tags

        self.teachers = [load(name) for name in self.recipe.teachers]
        tags = student_tags(self.teachers) if self.teachers else self.parts["train"].tags
        self.tagger = untrained(self.recipe.model, tags, seed=self.recipe.seed)
        self.cache = self._cache()
        self.teacher_folder = self.cache.folder.parent / "teachers"  # shared between runs, like log-mels
        self._fill_caches(strict)
        tagger, state = self._train()
        save_training(self.run_folder, score=self.plan.training.monitor)
        result = Result(
            tagger=tagger, report=state, finished=self.plan.training.is_over(state), problems=tuple(self.problems),
            folder=self.folder, dropped=self.dropped,
        )  # fmt: skip
        if not state.best_step:
            return result
        result = dataclasses.replace(result, tagger=self._save(self._new_spec(tagger, state)))
        return self._evaluate(result) if result.finished and "test" in self.parts else result

    # --- Preparation ---

    def _cache(self) -> FeatureCache:
        from ...datasets.log_mel_cache import FeatureCache
        from ...utils.files import cache_folder

        if isinstance(self.given_cache, FeatureCache):
            return self.given_cache
        return FeatureCache(self.given_cache or cache_folder() / "log-mels", self.tagger.spec)

    def _fill_caches(self, strict: bool) -> None:
        """Decode all files and compute the teacher's outputs; leave out files that cannot be decoded."""
        clips = Manifest(tuple(row for part in self.parts.values() for row in part), self.parts["train"].tags)
        bad = dict(self.cache.fill([row.path for row in clips], progress=self.progress))
        if self.teachers:
            decoded = clips.filter(lambda row: row.path not in bad)
            if len(decoded):
                bad |= self._targets(decoded).fill(self.progress)
        self.problems += [f"{path}: {error}" for path, error in bad.items()]
        write_problems(self.run_folder, self.problems)
        if not bad:
            return
        for error in bad.values():
            if not isinstance(error, AudioError):  # e.g. a full disk: not an error of the file
                raise error
        first = next(iter(bad.values()))
        message = f"{len(bad)} of {len({row.path for row in clips})} files cannot be used, the first one: {first}"
        if strict:
            raise RecipeError(f"{message} All are in {self.run_folder / PROBLEMS}.")
        _log.warning("%s They are left out; all are in %s.", message, self.run_folder / PROBLEMS)
        parts = {name: part.filter(lambda row: row.path not in bad) for name, part in self.parts.items()}
        self.parts = {name: part for name, part in parts.items() if len(part)}
        self.dropped = len(bad)
        if self.teachers and len(self.parts.get("valid", ())) < 3:
            raise RecipeError(
                f"Fewer than three clips of the split valid can be used: too few to measure agreement. {message}"
            )
        missing = [name for name in ("train", "valid") if name not in self.parts]
        if missing:
            raise RecipeError(f"No clip of the split {missing[0]} can be used. {message}")

    def _targets(self, manifest: Manifest) -> Any:
        from ...training.teacher_targets import EnsembleTargets

        spec = self.tagger.spec
        return EnsembleTargets(
            self.teachers, manifest, self.teacher_folder,
            frame_seconds=spec.mel.hop_length / spec.audio.sr, hop_seconds=self.recipe.distillation.hop_seconds,
        )  # fmt: skip

    def _about(self) -> dict[str, Any]:
        """Return the recipe and digests of the data, which determine the result; paths are left out."""
        recipe = self.recipe.to_dict()
        for name in ("source", "validation", "name"):
            del recipe["data"][name]
        recipe["training"] = dataclasses.asdict(self.plan.training)
        return {"recipe": recipe, "data": {name: part.digest() for name, part in self.parts.items()}}

    # --- Training ---

    def _train(self) -> TrainingResult[Tagger, RunState]:
        from ...training.distillation import distil
        from ...training.supervised import train

        recipe, spec = self.recipe, self.tagger.spec
        options: dict[str, Any] = {
            "cache": self.cache,
            "training": self.plan.training,
            "batch_size": recipe.batches.batch_size,
            "mixup": recipe.batches.mixup,
            "augment": recipe.augmentation(spec.mel),
            "progress": self.progress,
            **dataclasses.asdict(recipe.network),
        }
        parts = (self.parts["train"], self.parts["valid"], self.run_folder)
        if not self.teachers:
            return train(self.tagger, *parts, shared_groups=True, **options)  # checked by the plan
        options |= {
            "teacher_folder": self.teacher_folder,
            "shared_groups": True,
            **dataclasses.asdict(recipe.distillation),
        }
        return distil(self.tagger, self.teachers, *parts, **options)

    # --- Results ---

    def _new_spec(self, tagger: Tagger, state: RunState) -> ModelSpec:
        """Return the spec of the trained tagger, with its training data."""
        recipe, origin, clips = self.recipe, self.plan.data.origin, self.parts["train"]
        teachers = [teacher.spec for teacher in self.teachers]
        used = [
            TrainingData(
                name=origin.name, n=len(clips), licence=named_licences(clips),
                role="unlabelled" if teachers else "labelled",
                note=", ".join(text for text in (origin.version, "split train") if text),
            )
        ]  # fmt: skip
        used += [
            TrainingData(name=teacher.name, role="teacher", licence=teacher.license or "not stated")
            for teacher in teachers
        ]
        heard = [
            dataclasses.replace(each, role="teacher_data") for teacher in teachers for each in teacher.training_data
        ]
        used += dict.fromkeys(heard)
        labels = f"without labels, distilled from {recipe.teacher_names}" if teachers else "with labels"
        steps = f"{state.best_step:,} of {self.plan.training.steps:,} steps, seed {recipe.seed}"
        return dataclasses.replace(
            tagger.spec,
            name=slug(self.folder.resolve().name, tagger.spec.name),
            description=f"{recipe.model} {'distilled' if teachers else 'trained'} on {origin.title}.",
            trained_on=f"{origin.title}, {len(clips):,} clips {labels}; {steps}",
            training_data=tuple(used),
        )

    def _save(self, spec: ModelSpec) -> Tagger:
        """Write the tagger's files into the folder, the spec last, so that a tagger is complete or absent."""
        from ...loading import load

        saving.save_into(self.tagger.core, spec, self.folder)
        return load(self.folder.resolve())

    def _evaluate(self, result: Result) -> Result:
        """Evaluate on the test split, and add the metrics to spec and card."""
        from ... import __version__

        test, origin = self.parts["test"], self.plan.data.origin
        evaluation, agreement = self._evaluation(result.tagger), None
        data = {"dataset": origin.name, "split": ", ".join(filter(None, ("test", origin.version)))}
        provenance = {"source": f"measured by keras_musictag {__version__}", "date": datetime.date.today().isoformat()}
        metrics: list[dict[str, Any]] = []
        if evaluation is not None:
            scores = {name: value for name, value in evaluation.to_dict().items() if name.startswith(("roc_", "pr_"))}
            rounded = {name: round(value, 4) for name, value in scores.items() if value is not None}
            metrics.append({**data, "n": evaluation.n_clips, **rounded, **provenance})
            evaluation.to_json(self.folder / EVALUATION)
        if self.teachers and len(test) > 1:
            agreement = self._agreement(test)
            correlation, area = round(agreement.correlation, 4), round(agreement.roc_auc, 4)
            scores = {"correlation": correlation, "teacher_roc_auc": area}
            note = f"agreement with {self.recipe.teacher_names}"
            metrics.append({**data, "n": agreement.n_clips, **scores, "note": note, **provenance})
        spec = dataclasses.replace(result.tagger.spec, metrics=tuple(metrics))
        return dataclasses.replace(result, tagger=self._save(spec), evaluation=evaluation, agreement=agreement)

    def _evaluation(self, tagger: Tagger) -> Evaluation | None:
        from ...evaluation.measuring import evaluate
        from ...evaluation.results import EvaluationError

        test, origin = self.parts["test"], self.plan.data.origin
        if not set(test.tags) & set(tagger.tags):
            return None
        groups = {row.group or row.path for row in test}
        try:
            return evaluate(
                tagger, test, dataset=origin.title, split="test", cache=self.cache, grouped_by=origin.grouped_by,
                n_bootstrap=1000 if len(groups) > 1 else 0, progress=self.progress,
            )  # fmt: skip
        except EvaluationError as error:
            _log.warning("The split test gives no score: %s", error)
            return None

    def _agreement(self, test: Manifest) -> Agreement:
        from ...datasets.batches import EvaluationWindows
        from ...evaluation.metrics import agreement
        from ...training.supervised import row_outputs

        windows = EvaluationWindows(test, self.tagger.spec, self.cache)
        return agreement(row_outputs(self.tagger.core, windows), self._targets(test).row_targets(), self.tagger.tags)
