"""Load the data of a recipe: clips for training, validation and test."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ...datasets import SPLITS, DataError, Manifest, Report, Row
from ...datasets.opening import MAGNATAGATUNE, DataSettings, Origin, Source, SourceError, locate, open_data
from ...training.loop import TrainingError
from ...training.supervised import check_disjoint
from .recipe_tables import RecipeError

FRACTIONS = {"train": 0.8, "valid": 0.1, "test": 0.1}  # for data without splits


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeData:
    """Valid clips, in disjoint parts.

    Attributes:
        origin: name and version of the data.
        train, valid, test: the parts; `test` may be empty.
        report: validation report on all clips.
        notes: decisions made for the user.
    """

    origin: Origin
    train: Manifest
    valid: Manifest
    test: Manifest
    report: Report
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Manifest]:
        """Parts that are not empty, by name."""
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

    Given splits are kept. If there are none, groups are split at random: 80 % training, 10 % validation, 10 % test.
    If only validation clips are missing, 10 % of the training groups are used.

    Args:
        source: replaces `settings.source`: a manifest; a table or folder as for `Manifest.load`; a data set of
            `datasets.catalogue` as `"gtzan:FOLDER"`, `"jamendo-3:FOLDER"`; MagnaTagATune also as the folder with its
            tables.
        settings: the table `[data]`.
        untagged: do not read tags; folders are read by `Manifest.from_files`.
        seed: random seed of the split.
        root: folder that paths in `settings` are relative to.
        strict: reject data with any problem, instead of leaving bad clips out.
        workers: number of files checked at once.

    Raises:
        RecipeError: no data are named, they cannot be split, or their splits share groups.
        DataError: the data cannot be read; with `strict`, they have problems.
    """
    manifest, origin = read(source, settings, untagged=untagged, root=root)
    if settings.validation:
        same = settings if untagged else dataclasses.replace(settings, tags=manifest.tags)
        other, _ = read(None, dataclasses.replace(same, source=settings.validation), untagged=untagged, root=root)
        manifest = _with_validation_clips(manifest, other)
    manifest, notes = _split(manifest, seed, untagged)
    published = bool(origin.version)  # keep its split, and its clips without tags
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
    """Read data without checking their splits; arguments and errors as in `load`."""
    if source is None and settings.source == MAGNATAGATUNE:
        raise RecipeError("The recipe is for MagnaTagATune. Give its folder (--data, or the argument data).")
    if source is None and not settings.source:
        raise RecipeError("The recipe names no data. Set data.source, or give them (--data, or the argument data).")
    try:
        if source is not None:
            return open_data(source, settings, untagged=untagged)
        _, path = locate(settings.source, root)
        if not path.exists():
            raise RecipeError(
                f"The recipe's data do not exist: {path}. Give their path (--data, or the argument data); the "
                "first lines of the recipe may say how to make them."
            )
        return open_data(settings.source, settings, untagged=untagged, root=root)
    except SourceError as error:
        raise RecipeError(str(error)) from error


# === Splitting ===


def _split(manifest: Manifest, seed: int, untagged: bool) -> tuple[Manifest, list[str]]:
    """Give every row a split; return notes on the decisions."""
    sizes = manifest.split_sizes()
    if "" in sizes and len(sizes) > 1:
        raise RecipeError(
            f"{sizes['']} of {len(manifest)} clips have no split, the others have one. Give every clip a split "
            f"({', '.join(SPLITS)}), or none."
        )
    if "" in sizes:
        manifest = _grouped_split(manifest, FRACTIONS, seed, untagged)
        shares = ", ".join(f"{size:,} {name}" for name, size in manifest.split_sizes().items())
        return manifest, [f"the data have no splits: groups (artists), or else files, were split at random: {shares}"]
    notes = []
    if "train" not in sizes:
        raise RecipeError(f"No clip is in the split train; clips are: {sizes or 'none'}. Give some the split train.")
    if "valid" not in sizes:
        learned = _grouped_split(manifest.split("train"), {"train": 0.9, "valid": 0.1}, seed, untagged)
        manifest = learned.concat(manifest.filter(lambda row: row.split != "train"))
        notes.append(f"no clip is in the split valid: {learned.split_sizes()['valid']:,} were taken from train")
    if "test" not in sizes:
        notes.append("no clip is in the split test, so no score is measured")
    return manifest, notes


def _grouped_split(manifest: Manifest, fractions: dict[str, float], seed: int, untagged: bool) -> Manifest:
    try:
        return manifest.grouped_split(fractions, seed=seed)
    except DataError as error:
        advice = " data.group_folders = 0 makes each file its own group." if untagged else ""
        raise RecipeError(
            f"The data could not be split: {error} Or name the splits in a column 'split'.{advice}"
        ) from error


def _with_validation_clips(manifest: Manifest, other: Manifest) -> Manifest:
    """Replace the split valid by `other`, or by its split valid if it has splits; rows without split become train."""
    if other.split_sizes().keys() - {""}:
        other = other.split("valid")
    rows = [dataclasses.replace(row, split=row.split or "train") for row in manifest if row.split != "valid"]
    rows += [dataclasses.replace(row, split="valid") for row in other]
    return Manifest(tuple(rows), manifest.tags)


def _of_split(manifest: Manifest, name: str) -> tuple[Row, ...]:
    return tuple(row for row in manifest if row.split == name)
