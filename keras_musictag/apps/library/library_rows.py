"""Rows of the output table: a file with its tags, and the model they are from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Self

from ...errors import MusicTagError
from ...models.front_end import identifying_fields
from ...models.thresholds import auto_thresholds
from ...models.vocabulary import KINDS, check_kinds

if TYPE_CHECKING:
    from ...models.spec import ModelSpec
    from ...tagging.base import BaseTagger
    from ...tagging.choosing import Threshold

# What the outputs of a network depend on, besides the weights.
_DECIDES = ("architecture", "config", "audio", "mel", "window", "tags")

# Kinds of error that may be the moment's fault and not the content's: a resumed run tries those files again.
PASSING = frozenset(("unreadable", "changed", "timeout", "crash", "memory"))


class LibraryError(MusicTagError, ValueError):
    """A library run that cannot begin or go on; what it has done so far is kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LibraryRow:
    r"""One file of a library: its tags, or why there are none.

    Attributes:
        path: absolute; bytes that are no UTF-8 are written `\xe9`. Of a part of a file, `FILE#t=START,END` in seconds.
        title: of a track of a cue sheet, or of a chapter; otherwise empty.
        start_s: seconds into the file at which a part begins; `None` for a whole file.
        sha256: of the content; empty where it could not be read.
        size: bytes.
        mtime: when the content was last changed, seconds since 1970.
        duration_s: seconds of sound.
        model: name of the tagger.
        weights_sha256, spec_digest: its revision: weights, and what else decides the outputs.
        tags_kept: which tags there are: `"all"`, `"top 10"`, `">= 0.2"`, `"genre, mood"` (kinds), or several of these:
            `"genre, mood, top 10, >= 0.2"`.
        tags: tag -> probability, most probable first; `None` after an error.
        embedding: what enters the classifier, averaged over windows, if it was asked for.
        notes: what to know of a sound that could be tagged, a sentence each: it is damaged, or its channels cancel
            each other out.
        error: the reason in one sentence, empty if all went well.
        error_kind: `"truncated"`, `"timeout"`, ...; see docs/library.md.
        tagged_at: ISO 8601, UTC.
    """

    path: str
    sha256: str = ""
    size: int | None = None
    mtime: float | None = None
    duration_s: float | None = None
    model: str
    weights_sha256: str
    spec_digest: str
    tags_kept: str
    tags: dict[str, float] | None = None
    embedding: list[float] | None = None
    notes: str = ""
    error: str = ""
    error_kind: str = ""
    tagged_at: str
    title: str = ""
    start_s: float | None = None

    def to_json(self) -> str:
        """One line, without a line break."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """The row of a line.

        Raises:
            ValueError: it is no JSON.
            TypeError: it is something else than a row.
        """
        record = json.loads(line)
        if not isinstance(record, dict):
            raise TypeError("not an object")
        return cls(**record)


COLUMNS = tuple(field.name for field in dataclasses.fields(LibraryRow))


@dataclasses.dataclass(frozen=True)
class Revision:
    """What decides the rows of a run, besides the files: the model, and what is kept of its outputs.

    Attributes:
        model, weights_sha256, spec_digest, tags_kept: as in `LibraryRow`.
        embeddings: whether rows have one.
    """

    model: str
    weights_sha256: str
    spec_digest: str
    tags_kept: str
    embeddings: bool

    @classmethod
    def of(
        cls,
        tagger: BaseTagger,
        top: int | None,
        threshold: Threshold,
        embeddings: bool,
        kinds: Collection[str] | None = None,
        unsure: bool = False,
    ) -> Self:
        """The revision of a tagger's rows.

        Raises:
            LibraryError: the weights are in no file, so nobody could tell later what gave the rows.
            NoThresholdsError: `threshold` is `"auto"`, and the model has none.
            ValueError: there is no such kind of tags, or the kinds of the tagger's tags are not known.
        """
        tagger.spec.vocabulary.columns(kinds=kinds)
        if not tagger.weights_sha256:
            raise LibraryError(
                f"The weights of {tagger.spec.name!r} are in no file, so rows could not say what they came from. Save "
                "the tagger and load it from its folder."
            )
        kept = [] if kinds is None else [kind for kind in KINDS if kind in check_kinds(kinds)]
        if top is not None:
            kept.append(f"top {top}")
        if threshold == "auto":
            least = json.dumps([float(value) for value in auto_thresholds(tagger.spec)])
            digest = hashlib.sha256(least.encode()).hexdigest()[:8]
            kept.append(f">= thresholds {digest}" + (", else none" if unsure else ""))
        elif threshold > 0:
            kept.append(f">= {threshold:g}")
        return cls(
            tagger.spec.name,
            tagger.weights_sha256,
            spec_digest(tagger.spec),
            ", ".join(kept) or "all",
            embeddings,
        )

    def made(self, row: LibraryRow) -> bool:
        """Whether a row is of this revision; an error has no embedding to look at."""
        same = all(getattr(row, name) == getattr(self, name) for name in _OF_ROW)
        return same and (bool(row.error) or (row.embedding is not None) == self.embeddings)

    def fields(self) -> dict[str, Any]:
        """What it contributes to a row."""
        return {name: getattr(self, name) for name in _OF_ROW}


_OF_ROW = ("model", "weights_sha256", "spec_digest", "tags_kept")


def spec_digest(spec: ModelSpec) -> str:
    """16 hexadecimal digits that stand for everything in a spec that its outputs depend on, but for the weights.

    Example:
        >>> import dataclasses, keras_musictag as kmt
        >>> tiny = kmt.model_info("tiny")
        >>> spec_digest(tiny) == spec_digest(dataclasses.replace(tiny, description="small"))
        True
    """
    fields = spec.to_dict() | identifying_fields(spec.audio, spec.mel, spec.window)
    about = json.dumps({name: fields[name] for name in _DECIDES}, sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def readable(path: str) -> str:
    r"""A path as text that every format can hold; bytes that are no UTF-8 become `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
