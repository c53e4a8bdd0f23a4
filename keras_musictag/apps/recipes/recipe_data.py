"""The data of a recipe: from what a recipe or a command names to clips to train, to validate and to test on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ...datasets import SPLITS, DataError, Manifest, Report, Row
from ...datasets.opening import MAGNATAGATUNE, DataSettings, Origin, Source, SourceError, locate, open_data
from ...training.loop import TrainingError
from ...training.supervised import check_disjoint
from .recipe_tables import RecipeError

FRACTIONS = {"train": 0.8, "valid": 0.1, "test": 0.1}  # of data that have no splits


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeData:
    """Clips without a problem, in parts that share nothing.

    Attributes:
        origin: what the data are called.
        train, valid, test: the parts; `test` may be empty.
        report: on all clips.
        notes: decisions that were made for the user.
    """

    origin: Origin
    train: Manifest
    valid: Manifest
    test: Manifest
    report: Report
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Manifest]:
        """The parts that have clips."""
        return {name: getattr(self, name) for name in SPLITS if len(getattr(self, name))}


def load(
    source: Source | None,
    settings: DataSettings,
    *,
    untagged: bool,
    seed: int,
    root: Path | None = None,
    strict: bool = False,
    workers: int = 2,
) -> RecipeData:
    """Read, split and validate the data.

    Clips that have splits keep them. Where no clip has one, groups are shared out, 80 % to train, 10 % to validate and
    10 % to test on; where only clips to validate on are missing, they are taken from 10 % of the training groups.

    Args:
        source: instead of `settings.source`: a manifest; a table or folder as for `Manifest.load`; a data set of
            `datasets.catalogue` as `"gtzan:FOLDER"`, `"jamendo-3:FOLDER"`; MagnaTagATune also as a folder that has its
            tables.
        settings: the table `[data]`.
        untagged: tags are neither needed nor read, and folders are those of `Manifest.from_files`.
        seed: of the split.
        root: folder that the paths in `settings` start at.
        strict: refuse data with any problem, instead of leaving bad clips out.
        workers: files looked at at once.

    Raises:
        RecipeError: nothing names the data, they cannot be split, or their splits share groups.
        DataError: they cannot be read; with `strict`, everything that is wrong with them.
    """
    manifest, origin = read(source, settings, untagged=untagged, root=root)
    if settings.validation:
        same = settings if untagged else dataclasses.replace(settings, tags=manifest.tags)
        other, _ = read(None, dataclasses.replace(same, source=settings.validation), untagged=untagged, root=root)
        manifest = _validated_on(manifest, other)
    manifest, notes = _split(manifest, seed, untagged)
    published = bool(origin.version)  # its split, and its clips without tags, are as they are
    allow_untagged = untagged or published or settings.allow_untagged
    report = manifest.validate(strict=strict, workers=workers, allow_untagged=allow_untagged)
    for name in ("train", "valid"):
        if not any(row.split == name for row in report.ok):
            raise RecipeError(f"No clip of the split {name} can be used. {report}")
    train, valid, test = (Manifest(_of_split(report.ok, name), manifest.tags) for name in SPLITS)
    data = RecipeData(origin=origin, train=train, valid=valid, test=test, report=report, notes=tuple(notes))
    try:
        check_disjoint(data.parts, settings.shared_groups or published)
    except TrainingError as error:
        raise RecipeError(str(error).replace("pass shared_groups=True", "set data.shared_groups = true")) from error
    return data


# === Reading ===


def read(
    source: Source | None, settings: DataSettings, *, untagged: bool = False, root: Path | None = None
) -> tuple[Manifest, Origin]:
    """Read data as they are, without a check of their splits: arguments and errors of `load`."""
    if source is None and settings.source == MAGNATAGATUNE:
        raise RecipeError("The recipe is for MagnaTagATune. Say which folder it is in: --data FOLDER, or run(FOLDER).")
    if source is None and not settings.source:
        raise RecipeError("The recipe names no data. Set data.source, or give some: --data, or run(data).")
    try:
        if source is not None:
            return open_data(source, settings, untagged=untagged)
        _, path = locate(settings.source, root)
        if not path.exists():
            raise RecipeError(
                f"The recipe's data are not there: {path}. Say where they are (--data, or run(data)); the recipe's "
                "first lines may say how they were made."
            )
        return open_data(settings.source, settings, untagged=untagged, root=root)
    except SourceError as error:
        raise RecipeError(str(error)) from error


# === Splitting ===


def _split(manifest: Manifest, seed: int, untagged: bool) -> tuple[Manifest, list[str]]:
    """Every row in a split, and what was decided."""
    sizes = manifest.split_sizes()
    if "" in sizes and len(sizes) > 1:
        raise RecipeError(
            f"{sizes['']} of {len(manifest)} clips have no split, the others have one. Give every clip a split "
            f"({', '.join(SPLITS)}), or none."
        )
    if "" in sizes:
        manifest = _shared_out(manifest, FRACTIONS, seed, untagged)
        shares = ", ".join(f"{size:,} {name}" for name, size in manifest.split_sizes().items())
        return manifest, [f"the data have no splits: groups (artists), or else files, were shared out, {shares}"]
    notes = []
    if "train" not in sizes:
        raise RecipeError(f"No clip is in the split train; clips are: {sizes or 'none'}. Say which ones to learn from.")
    if "valid" not in sizes:
        learned = _shared_out(manifest.split("train"), {"train": 0.9, "valid": 0.1}, seed, untagged)
        manifest = learned.concat(manifest.filter(lambda row: row.split != "train"))
        notes.append(f"no clip is in the split valid: {learned.split_sizes()['valid']:,} were taken from train")
    if "test" not in sizes:
        notes.append("no clip is in the split test, so no score will be stated")
    return manifest, notes


def _shared_out(manifest: Manifest, fractions: dict[str, float], seed: int, untagged: bool) -> Manifest:
    try:
        return manifest.grouped_split(fractions, seed=seed)
    except DataError as error:
        advice = " data.group_folders = 0 makes each file a group of its own." if untagged else ""
        raise RecipeError(
            f"The data could not be split: {error} Or name the splits in a column 'split'.{advice}"
        ) from error


def _validated_on(manifest: Manifest, other: Manifest) -> Manifest:
    """`other`, or its split valid if it has splits, becomes the split valid; what has no split is to train on."""
    if other.split_sizes().keys() - {""}:
        other = other.split("valid")
    rows = [dataclasses.replace(row, split=row.split or "train") for row in manifest if row.split != "valid"]
    rows += [dataclasses.replace(row, split="valid") for row in other]
    return Manifest(tuple(rows), manifest.tags)


def _of_split(manifest: Manifest, name: str) -> tuple[Row, ...]:
    return tuple(row for row in manifest if row.split == name)
