"""Spec of a fine-tuned tagger, the source of its card: base, data, splits, settings and scores."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, Any

from ...datasets.info import named_licences
from ...models.facts import TrainingData
from .fine_tune_report import FineTuneReport
from .labelled_data import FineTuneData
from .settings import FineTuneSpec

if TYPE_CHECKING:
    from ...models.spec import ModelSpec
    from ...models.thresholds import Thresholds
    from ...tagging.network_tagger import NetworkTagger


def make_spec(
    spec: ModelSpec,
    base: NetworkTagger,
    data: FineTuneData,
    settings: FineTuneSpec,
    report: FineTuneReport,
    *,
    name: str,
    all_clips: bool,
    epochs: int,
    thresholds: Thresholds | None = None,
) -> ModelSpec:
    """Return the spec of the new tagger.

    Args:
        spec: spec with network, front end and tags.
        base: tagger that was fine-tuned.
        data, settings, report: those of fine-tuning; the report is from before the tagger learned from held-out clips.
        name: name of the tagger.
        all_clips: whether it learned from the held-out clips too, after the report was made.
        epochs: number of epochs of the second stage, if its network was kept.
        thresholds: thresholds chosen on held-out clips, `None` without such clips.
    """
    from ... import __version__

    sizes = ", ".join(f"{len(part):,} {part_name}" for part_name, part in data.parts.items())
    clips = len(data.train) + (len(data.validation) if all_clips and data.validation is not None else 0)
    which = "head" if report.kept == "head" else f"whole network, {epochs} epochs"
    base_name, sha256 = base.spec.name, base.weights_sha256 or "in memory"
    labelled = TrainingData(
        name=data.origin.name, role="labelled", n=clips, licence=named_licences(data.train),
        note=f"{sizes}; {data.train.digest()}",
    )  # fmt: skip
    inherited = [
        dataclasses.replace(each, note=f"of the base {base_name}" + (f": {each.note}" if each.note else ""))
        for each in base.spec.training_data
    ]
    metric: dict[str, Any] = {
        "dataset": report.dataset, "split": report.split, "n": report.n_clips,
        "source": f"measured by keras_musictag {__version__}", "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    metric |= {score: round(value, 4) for score, value in report.scores().items()}
    if all_clips and report.split != "test":
        metric["note"] = "before it learned from the validation clips too"
    return dataclasses.replace(
        spec,
        name=name,
        description=f"{base_name} fine-tuned on {data.origin.title}.",
        trained_on=f"{base_name} (sha256 {sha256}), fine-tuned on {data.origin.title}, {clips:,} clips with labels, "
        f"{which}; {_settings_text(settings)}",
        training_data=(labelled, *inherited),
        thresholds=thresholds,
        metrics=(metric,) if report.scores() else (),
    )


def _settings_text(settings: FineTuneSpec) -> str:
    """Return the seed and the settings that are not the defaults, as text."""
    defaults = dataclasses.asdict(FineTuneSpec())
    changed = {name: value for name, value in dataclasses.asdict(settings).items() if value != defaults[name]}
    return ", ".join(f"{name} {value}" for name, value in {"seed": settings.seed, **changed}.items())
