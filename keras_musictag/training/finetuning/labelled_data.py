"""The data of fine-tuning: clips to learn from and to validate on, and every problem found before any work is done."""

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

LEAST = 2  # clips of a tag that can be learned
_SHOWN = 10  # tags that are named


class FineTuneError(MusicTagError, ValueError):
    """Data that nothing can be learned from, a folder with another run, or training that failed twice."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneData:
    """Clips without a problem. Made by `prepare`.

    Attributes:
        origin: what the data are called.
        train: clips to learn from.
        validation: clips that say when to stop and how good the result is; `None` if there are none.
        test: clips of the split test: they are only measured on; `None` if there are none.
        exclusive: whether every clip has exactly one tag, and the tagger is to choose between them (softmax).
        held_out: whether the clips of `validation` were taken from those to learn from.
        report: on all clips that were given.
        notes: decisions that were made for the user.
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
        """The parts that have clips, by what they are called."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def __str__(self) -> str:
        """Sizes, tags with their numbers of clips, problems and decisions."""
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

    Clips that name their splits keep them. Else groups (artists, albums; files where no group is named) are shared out.
    Bad clips and tags that fewer than two clips have are left out and reported.

    Args:
        data: a manifest; a table (`file,tags`, or a column per tag) or a folder per tag, as for `Manifest.load`; a data
            set of `datasets.catalogue` as `"gtzan:FOLDER"`.
        tags: tags to learn, in the order of the outputs; by default, all. Clips that have none of them are examples of
            their absence.
        validation: share of the groups that is held out, or the clips to validate on, or `None` for none.
        single_label: whether every clip has exactly one tag; by default, whether that is the case.
        seed: of the split.
        strict: refuse data with any problem.
        workers: files looked at at once.

    Returns:
        `FineTuneData`.

    Raises:
        FineTuneError: there is too little to learn from, one class only, or a share that cannot be.
        UnknownTagError: no clip has one of `tags`.
        DataError: the data cannot be read; with `strict`, everything that is wrong with them.
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
    manifest, report = _checked(manifest, tags is not None or published, strict, workers, notes)
    exclusive = _is_exclusive(manifest, single_label)
    chosen = "valid" in manifest.split_sizes()
    manifest = _split(manifest, share, seed, notes)
    sizes = manifest.split_sizes()
    train = manifest.split("train")
    valid, test = (manifest.split(name) if name in sizes else None for name in SPLITS[1:])
    _require_enough(train, exclusive)
    return FineTuneData(
        origin=origin, train=train, validation=valid, test=test, exclusive=exclusive,
        held_out=valid is not None and not chosen, report=report, notes=tuple(notes),
    )  # fmt: skip


def with_all(data: FineTuneData) -> FineTuneData:
    """The data with all clips to learn from but those of the split test; none is held out."""
    assert data.validation is not None
    return dataclasses.replace(data, train=data.train.concat(data.validation), validation=None, held_out=False)


def _with_validation(manifest: Manifest, given: Manifest) -> Manifest:
    """All clips of `given` become those to validate on; those of `manifest` are to train on, or to test."""
    rows = [dataclasses.replace(row, split="test" if row.split == "test" else "train") for row in manifest]
    return Manifest((*rows, *(dataclasses.replace(row, split="valid") for row in given)), manifest.tags)


def without(data: FineTuneData, bad: Collection[tuple[Path, float]]) -> FineTuneData:
    """The data without some clips, which turned out to be bad; each is a path and where its part starts.

    Raises:
        FineTuneError: there is too little left to learn from.
    """
    left = {name: part.filter(lambda row: (row.path, row.start) not in bad) for name, part in data.parts.items()}
    train = left["train"]
    gone = [tag for tag, count in zip(data.tags, train.targets().sum(axis=0), strict=True) if not count]
    if gone:
        raise FineTuneError(
            f"Without the clips that cannot be used, none to learn from has {_counted(gone, data.train, train)}. Mend "
            "them, or leave these tags out."
        )
    _require_enough(train, data.exclusive)
    kept = {name: part for name, part in left.items() if len(part)}
    held_out = data.held_out and "validation" in kept
    return dataclasses.replace(
        data, train=train, validation=kept.get("validation"), test=kept.get("test"), held_out=held_out
    )


# === Checks ===


def _require_known(data: Source, manifest: Manifest) -> None:
    """Refuse a tag that no clip has: a slip of the pen, most likely."""
    absent = [
        tag for tag, has in zip(manifest.tags, np.asarray(manifest.targets().any(axis=0)), strict=True) if not has
    ]
    if absent:
        everything, _ = open_data(data)
        column_of(absent[0], [tag for tag in everything.tags if tag not in absent])


def _checked(
    manifest: Manifest, allow_untagged: bool, strict: bool, workers: int, notes: list[str]
) -> tuple[Manifest, Report]:
    """The clips that can be used, with the tags that can be learned, and what is wrong with the others."""
    report = manifest.validate(strict=strict, workers=workers, allow_untagged=allow_untagged, min_rows=LEAST)
    usable = report.ok
    if not len(usable):
        raise FineTuneError(f"No clip can be used. {report}")
    learned = usable.filter(lambda row: row.split in ("", "train"))
    counts = (learned.targets() > 0).sum(axis=0) if len(learned) else np.zeros(len(usable.tags))
    rare = [tag for tag, count in zip(usable.tags, counts, strict=True) if count < LEAST]
    kept = [tag for tag in usable.tags if tag not in rare]
    if not kept:
        raise FineTuneError(
            f"No tag is on {LEAST} clips that can be learned from; there are {len(usable.tags)} tags and "
            f"{len(learned)} such clips. Add clips. {report}"
        )
    if rare:
        notes.append(f"left out, being on fewer than {LEAST} clips to learn from: {_counted(rare, manifest, learned)}")
        usable = _without(usable, kept, allow_untagged)
    return usable, report


def _without(manifest: Manifest, kept: Sequence[str], allow_untagged: bool) -> Manifest:
    """Only the tags `kept`; clips that had nothing else go with the others."""
    manifest = manifest.with_tags(kept)
    return manifest if allow_untagged else manifest.filter(lambda row: bool(row.tags) or any(row.targets or ()))


def _is_exclusive(manifest: Manifest, single_label: bool | None) -> bool:
    targets = manifest.targets()
    single = bool(((targets == 0) | (targets == 1)).all() and (targets.sum(axis=1) == 1).all())
    if single_label and not single:
        row = manifest[int(np.flatnonzero(targets.sum(axis=1) != 1)[0])] if len(targets) else None
        raise FineTuneError(
            f"With single_label=True every clip must have exactly one tag; {row.path if row else 'one'} has "
            f"{', '.join(row.tags) or 'none' if row else 'other targets'}. Correct it, or leave single_label out."
        )
    return single if single_label is None else single_label


def _require_enough(train: Manifest, exclusive: bool) -> None:
    targets = train.targets()
    varied = targets.min(axis=0) < targets.max(axis=0)
    if exclusive and len(train.tags) < 2:
        raise FineTuneError(
            f"All clips have the one tag {train.tags[0]!r}: there is nothing to tell it from. Add clips without it, or "
            "of another tag."
        )
    if not varied.any():
        raise FineTuneError(
            f"Each of the tags {_named(train.tags)} is on all of the {len(train)} clips: there is nothing to tell them "
            "from. Add clips without them."
        )


# === Splitting ===


def _require_splits(manifest: Manifest) -> None:
    """Refuse splits that say nothing about some clips, or leave none to learn from."""
    sizes = manifest.split_sizes()
    if "" in sizes and len(sizes) > 1:
        raise FineTuneError(
            f"{sizes['']} of {len(manifest)} clips have no split, the others have one. Give every clip a split (train, "
            "valid, test), or none."
        )
    if "" not in sizes and "train" not in sizes:
        raise FineTuneError(f"No clip is in the split train; clips are: {sizes}. Say which ones to learn from.")


def _split(manifest: Manifest, validation: float | None, seed: int, notes: list[str]) -> Manifest:
    """Every clip in a split: those it had, or new ones."""
    if "valid" in manifest.split_sizes() or validation is None:
        rows = (dataclasses.replace(row, split=row.split or "train") for row in manifest)
        return Manifest(tuple(rows), manifest.tags)
    learned = manifest.filter(lambda row: row.split in ("", "train"))
    try:
        learned = learned.grouped_split({"train": 1 - validation, "valid": validation}, seed=seed)
    except DataError as error:
        raise FineTuneError(f"No clips could be held out: {error} Or pass validation=None.") from error
    learned = _spread(learned, notes)
    held_out = learned.split_sizes().get("valid", 0)
    by = "groups (artists, albums)" if any(row.group for row in learned) else "files"
    notes.append(f"{held_out:,} of {len(learned):,} clips are held out for validation, by {by}")
    return learned.concat(manifest.filter(lambda row: row.split not in ("", "train")))


def _spread(manifest: Manifest, notes: list[str]) -> Manifest:
    """Take clips back from validation whose tag would not be learned at all: all of them are of one artist, say."""
    in_train = np.array([row.split == "train" for row in manifest])
    has = manifest.targets() > 0
    unseen = has.any(axis=0) & ~has[in_train].any(axis=0)
    if not unseen.any():
        return manifest
    names = _named([manifest.tags[column] for column in np.flatnonzero(unseen)])
    notes.append(f"not validated, all of their clips being of one group: {names}")
    rows = list(manifest)
    for group in groups_of(manifest):
        if has[group][:, unseen].any():
            for number in group:
                rows[number] = dataclasses.replace(rows[number], split="train")
    return Manifest(tuple(rows), manifest.tags)


def _counted(tags: Sequence[str], given: Manifest, usable: Manifest) -> str:
    """Names of tags, each with how many of its clips are `usable` to learn from."""
    counts = [dict(zip(part.tags, (part.targets() > 0).sum(axis=0), strict=True)) for part in (given, usable)]
    told = [f"{tag!r} ({counts[1][tag]} of {counts[0][tag]} clips usable)" for tag in tags[:_SHOWN]]
    return ", ".join(told) + (f" and {len(tags) - _SHOWN} more" if len(tags) > _SHOWN else "")


def _named(tags: Sequence[str]) -> str:
    return ", ".join(map(repr, tags[:_SHOWN])) + (f" and {len(tags) - _SHOWN} more" if len(tags) > _SHOWN else "")
