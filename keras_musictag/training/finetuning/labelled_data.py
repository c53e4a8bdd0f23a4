"""Data of fine-tuning: read, check and split labelled clips before any work is done."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ...datasets import SPLITS, DataError, Manifest, Report
from ...datasets.opening import DataSettings, Origin, Source, open_data
from ...datasets.splitting import groups_of
from ...errors import MusicTagError
from ...models.vocabulary import column_of
from ...models.weights import first_names

_MIN_CLIPS = 2  # training clips that a tag needs
_MAX_NAMED = 10  # tags in a message


class FineTuneError(MusicTagError, ValueError):
    """The data are not enough to learn from, the folder holds another run, or training failed twice."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneData:
    """Clips without problems, for fine-tuning. Made by `prepare`.

    Attributes:
        origin: name and source of the data.
        train: training clips.
        validation: clips that decide when to stop and measure the result; `None` without any.
        test: clips that only measure the result; `None` without any.
        exclusive: whether every clip has exactly one tag, of which the tagger chooses one (softmax).
        held_out: whether the clips of `validation` were taken from the training clips.
        report: problems of all clips that were given.
        notes: choices that `prepare` made.
    """

    origin: Origin
    train: Manifest
    validation: Manifest | None
    test: Manifest | None
    exclusive: bool
    held_out: bool
    report: Report
    notes: tuple[str, ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """Names in the order of the outputs."""
        return self.train.tags

    @property
    def parts(self) -> dict[str, Manifest]:
        """The parts that have clips, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def __str__(self) -> str:
        """Sizes, tags with their numbers of clips, and notes."""
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in self.parts.items())
        kind = "one per clip" if self.exclusive else "any number per clip"
        lines = [f"data        {self.origin.title}: {sizes} clips", f"tags        {len(self.tags)}, {kind}"]
        width = max(len(tag) for tag in self.tags)
        counts = {name: part.targets().sum(axis=0) for name, part in self.parts.items()}
        for column, tag in enumerate(self.tags):
            each = ", ".join(f"{count[column]:g} {name}" for name, count in counts.items())
            lines.append(f"  {tag:<{width}}  {each}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def prepare(
    data: Source,
    tags: Sequence[str] | None = None,
    validation: float | Manifest | str | os.PathLike[str] | None = 0.2,
    *,
    single_label: bool | None = None,
    seed: int = 0,
    strict: bool = False,
    workers: int = 2,
) -> FineTuneData:
    """Read, check and split labelled clips.

    Clips with splits keep them. Otherwise groups (artists, albums; files without a group) are split. Bad clips and tags
    with fewer than two training clips are left out and reported.

    Args:
        data: a manifest; a table (`file,tags`, or a column per tag) or a folder per tag, as for `Manifest.load`; a data
            set of `datasets.catalogue` as `"gtzan:FOLDER"`.
        tags: tags to learn, in the order of the outputs; by default, all. Clips that have none of them are negative
            examples.
        validation: share of the groups to hold out, or the clips to validate on, or `None` for none.
        single_label: whether the tagger chooses exactly one tag; by default, if every clip has exactly one.
        seed: random seed of the split.
        strict: refuse data with any problem.
        workers: number of files checked at once.

    Returns:
        `FineTuneData`.

    Raises:
        FineTuneError: there are too few clips or tags to learn from, or `validation` is out of range.
        UnknownTagError: no clip has one of `tags`.
        DataError: the data cannot be read; with `strict`, they have problems.
    """
    settings = DataSettings(tags=tuple(tags or ()))
    manifest, origin = open_data(data, settings)
    if tags is not None:
        _require_known(data, manifest)
    share = None
    if isinstance(validation, (Manifest, str, os.PathLike)):
        given, _ = open_data(validation, dataclasses.replace(settings, tags=manifest.tags))
        manifest = _with_validation(manifest, given)
    elif validation is not None:
        share = float(validation)
        if not 0 < share < 1:
            raise FineTuneError(f"validation must be a share between 0 and 1, clips, or None; got {validation!r}.")
    _require_splits(manifest)
    notes: list[str] = []
    published = bool(origin.version)
    manifest, report = _usable_clips(manifest, tags is not None or published, strict, workers, notes)
    exclusive = _is_exclusive(manifest, single_label)
    has_validation = "valid" in manifest.split_sizes()
    manifest = _split(manifest, share, seed, notes)
    sizes = manifest.split_sizes()
    train = manifest.split("train")
    valid, test = (manifest.split(name) if name in sizes else None for name in SPLITS[1:])
    _require_enough(train, exclusive)
    return FineTuneData(
        origin=origin, train=train, validation=valid, test=test, exclusive=exclusive,
        held_out=valid is not None and not has_validation, report=report, notes=tuple(notes),
    )  # fmt: skip


def merge_validation(data: FineTuneData) -> FineTuneData:
    """Return the data with the validation clips moved to the training clips."""
    assert data.validation is not None
    return dataclasses.replace(data, train=data.train.concat(data.validation), validation=None, held_out=False)


def _with_validation(manifest: Manifest, given: Manifest) -> Manifest:
    """Add the clips of `given` as validation clips; those of `manifest` become training or test clips."""
    rows = [dataclasses.replace(row, split="test" if row.split == "test" else "train") for row in manifest]
    return Manifest((*rows, *(dataclasses.replace(row, split="valid") for row in given)), manifest.tags)


def exclude_clips(data: FineTuneData, bad: Collection[tuple[Path, float]]) -> FineTuneData:
    """Return the data without clips that turned out to be bad, each given by its path and start.

    Raises:
        FineTuneError: too few clips or tags are left to learn from.
    """
    left = {name: part.filter(lambda row: (row.path, row.start) not in bad) for name, part in data.parts.items()}
    train = left["train"]
    gone = [tag for tag, count in zip(data.tags, train.targets().sum(axis=0), strict=True) if not count]
    if gone:
        raise FineTuneError(
            "Without the clips that cannot be used, no training clip has "
            f"{_usable_counts(gone, data.train, train)}. Repair them, or leave these tags out."
        )
    _require_enough(train, data.exclusive)
    kept = {name: part for name, part in left.items() if len(part)}
    held_out = data.held_out and "validation" in kept
    return dataclasses.replace(
        data, train=train, validation=kept.get("validation"), test=kept.get("test"), held_out=held_out
    )


# === Checks ===


def _require_known(data: Source, manifest: Manifest) -> None:
    """Raise for a tag that no clip has, most likely a typing error."""
    present = np.asarray(manifest.targets().any(axis=0))
    absent = [tag for tag, has in zip(manifest.tags, present, strict=True) if not has]
    if absent:
        everything, _ = open_data(data)
        column_of(absent[0], [tag for tag in everything.tags if tag not in absent])


def _usable_clips(
    manifest: Manifest, allow_untagged: bool, strict: bool, workers: int, notes: list[str]
) -> tuple[Manifest, Report]:
    """Return the clips that can be used, with the tags that can be learned, and a report of the problems."""
    report = manifest.validate(strict=strict, workers=workers, allow_untagged=allow_untagged, min_rows=_MIN_CLIPS)
    usable = report.ok
    if not len(usable):
        raise FineTuneError(f"No clip can be used. {report}")
    learned = usable.filter(lambda row: row.split in ("", "train"))
    counts = (learned.targets() > 0).sum(axis=0) if len(learned) else np.zeros(len(usable.tags))
    rare = [tag for tag, count in zip(usable.tags, counts, strict=True) if count < _MIN_CLIPS]
    kept = [tag for tag in usable.tags if tag not in rare]
    if not kept:
        raise FineTuneError(
            f"No tag is on {_MIN_CLIPS} training clips; there are {len(usable.tags)} tags and {len(learned)} training "
            f"clips. Add clips. {report}"
        )
    if rare:
        counts_text = _usable_counts(rare, manifest, learned)
        notes.append(f"left out, being on fewer than {_MIN_CLIPS} training clips: {counts_text}")
        usable = _keep_tags(usable, kept, allow_untagged)
    return usable, report


def _keep_tags(manifest: Manifest, kept: Sequence[str], allow_untagged: bool) -> Manifest:
    """Keep only the tags `kept`; drops clips without any of them, unless `allow_untagged`."""
    manifest = manifest.with_tags(kept)
    return manifest if allow_untagged else manifest.filter(lambda row: bool(row.tags) or any(row.targets or ()))


def _is_exclusive(manifest: Manifest, single_label: bool | None) -> bool:
    targets = manifest.targets()
    has_one_tag = ((targets == 0) | (targets == 1)).all(axis=1) & (targets.sum(axis=1) == 1)
    single = bool(has_one_tag.all())
    if single_label and not single:
        row = manifest[int(np.argmin(has_one_tag))]
        found = ", ".join(row.tags) or ("none" if row.targets is None else "other targets")
        raise FineTuneError(
            f"With single_label=True every clip must have exactly one tag; {row.path} has {found}. Correct it, or omit "
            "single_label."
        )
    return single if single_label is None else single_label


def _require_enough(train: Manifest, exclusive: bool) -> None:
    targets = train.targets()
    varied = targets.min(axis=0) < targets.max(axis=0)
    if exclusive and len(train.tags) < 2:
        raise FineTuneError(
            f"All clips have the single tag {train.tags[0]!r}, so it cannot be learned. Add clips without it, or with "
            "another tag."
        )
    if not varied.any():
        raise FineTuneError(
            f"Each of the tags {_named(train.tags)} is on all {len(train)} clips, so none can be learned. Add clips "
            "without them."
        )


# === Splitting ===


def _require_splits(manifest: Manifest) -> None:
    """Validate that all clips or none have splits, and that some are training clips."""
    sizes = manifest.split_sizes()
    if "" in sizes and len(sizes) > 1:
        raise FineTuneError(
            f"{sizes['']} of {len(manifest)} clips have no split, the others have one. Give every clip a split (train, "
            "valid, test), or none."
        )
    if "" not in sizes and "train" not in sizes:
        raise FineTuneError(f"No clip is in the split train; got {sizes}. Assign some clips to train.")


def _split(manifest: Manifest, validation: float | None, seed: int, notes: list[str]) -> Manifest:
    """Return the clips with splits: their own, or new ones."""
    if "valid" in manifest.split_sizes() or validation is None:
        rows = (dataclasses.replace(row, split=row.split or "train") for row in manifest)
        return Manifest(tuple(rows), manifest.tags)
    learned = manifest.filter(lambda row: row.split in ("", "train"))
    try:
        learned = learned.grouped_split({"train": 1 - validation, "valid": validation}, seed=seed)
    except DataError as error:
        raise FineTuneError(f"No clips can be held out for validation: {error} Or pass validation=None.") from error
    learned = _return_unlearned(learned, notes)
    held_out = learned.split_sizes().get("valid", 0)
    by = "groups (artists, albums)" if any(row.group for row in learned) else "files"
    notes.append(f"{held_out:,} of {len(learned):,} clips are held out for validation, by {by}")
    return learned.concat(manifest.filter(lambda row: row.split not in ("", "train")))


def _return_unlearned(manifest: Manifest, notes: list[str]) -> Manifest:
    """Move groups from validation to train if a tag is on no training clip, e.g. if one artist has all its clips."""
    in_train = np.array([row.split == "train" for row in manifest])
    has = manifest.targets() > 0
    unseen = has.any(axis=0) & ~has[in_train].any(axis=0)
    if not unseen.any():
        return manifest
    names = _named([manifest.tags[column] for column in np.flatnonzero(unseen)])
    notes.append(f"not validated, since all of their clips are in one group: {names}")
    rows = list(manifest)
    for group in groups_of(manifest):
        if has[group][:, unseen].any():
            for number in group:
                rows[number] = dataclasses.replace(rows[number], split="train")
    return Manifest(tuple(rows), manifest.tags)


def _usable_counts(tags: Sequence[str], given: Manifest, usable: Manifest) -> str:
    """Return the names of tags, each with its numbers of usable and of given clips."""
    before, after = (dict(zip(part.tags, (part.targets() > 0).sum(axis=0), strict=True)) for part in (given, usable))
    return first_names([f"{tag!r} ({after[tag]} of {before[tag]} clips usable)" for tag in tags], _MAX_NAMED)


def _named(tags: Sequence[str]) -> str:
    return first_names([repr(tag) for tag in tags], _MAX_NAMED)
