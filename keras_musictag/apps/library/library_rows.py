"""Rows of the output table: a file with its tags, and the model that gave them."""

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
    from ...tagging.base_tagger import BaseTagger
    from ...tagging.choosing import Threshold

# Fields of a spec that the outputs depend on, besides the weights.
_DIGESTED_FIELDS = ("architecture", "config", "audio", "mel", "window", "tags")

# Kinds of error that may be transient: a resumed run tries these files again.
TRANSIENT = frozenset(("unreadable", "changed", "timeout", "crash", "memory"))


class LibraryError(MusicTagError, ValueError):
    """A library run cannot start or continue; the rows so far are kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LibraryRow:
    r"""One file of a library: its tags, or the error.

    Attributes:
        path: absolute path; bytes that are not UTF-8 become `\xe9`. A part of a file is `FILE#t=START,END` in seconds.
        title: title of a cue sheet's track or of a chapter; otherwise empty.
        start_s: start of a part in the file, in seconds; `None` for a whole file.
        sha256: digest of the content; empty if it could not be read.
        size: size in bytes.
        mtime: modification time, in seconds since 1970.
        duration_s: duration of the audio in seconds.
        model: name of the tagger.
        weights_sha256, spec_digest: revision of the tagger: weights, and all else that the outputs depend on.
        tags_kept: selection of tags: `"all"`, `"top 10"`, `">= 0.2"`, `"genre, mood"` (kinds), or several of these:
            `"genre, mood, top 10, >= 0.2"`.
        tags: tag -> probability, most probable first; `None` after an error.
        embedding: input of the classifier, averaged over windows, if requested.
        notes: remarks on audio that could be tagged, a sentence each: it is damaged, or its channels cancel out.
        error: the error in one sentence; empty if there is none.
        error_kind: `"truncated"`, `"timeout"`, ...; see docs/library.md.
        tagged_at: time of tagging, ISO 8601, UTC.
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
        """Return the row as one line of JSON, without a line break."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Read the row in a line.

        Raises:
            ValueError: the line is not JSON.
            TypeError: the line is not a row.
        """
        record = json.loads(line)
        if not isinstance(record, dict):
            raise TypeError("not an object")
        return cls(**record)


COLUMNS = tuple(field.name for field in dataclasses.fields(LibraryRow))


@dataclasses.dataclass(frozen=True)
class Revision:
    """The model and the settings that the rows of a run depend on.

    Attributes:
        model, weights_sha256, spec_digest, tags_kept: as in `LibraryRow`.
        embeddings: whether rows have an embedding.
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
        """Return the revision of the rows that a tagger makes.

        Raises:
            LibraryError: the weights were not loaded from a file, so rows could not identify them.
            NoThresholdsError: `threshold` is `"auto"`, and the model has no thresholds.
            ValueError: a kind of tags does not exist, or the kinds of the tagger's tags are unknown.
        """
        tagger.spec.vocabulary.columns(kinds=kinds)
        if not tagger.weights_sha256:
            raise LibraryError(
                f"The weights of {tagger.spec.name!r} were not loaded from a file, so rows could not identify them. "
                "Save the tagger and load it from its folder."
            )
        kept = [] if kinds is None else [kind for kind in KINDS if kind in check_kinds(kinds)]
        if top is not None:
            kept.append(f"top {top}")
        if threshold == "auto":
            thresholds = json.dumps([float(value) for value in auto_thresholds(tagger.spec)])
            digest = hashlib.sha256(thresholds.encode()).hexdigest()[:8]
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

    def matches(self, row: LibraryRow) -> bool:
        """Return whether a row is of this revision; rows with an error have no embedding."""
        same = all(getattr(row, name) == getattr(self, name) for name in _REVISION_FIELDS)
        return same and (bool(row.error) or (row.embedding is not None) == self.embeddings)

    def fields(self) -> dict[str, Any]:
        """Return the fields of a row that this revision sets."""
        return {name: getattr(self, name) for name in _REVISION_FIELDS}


_REVISION_FIELDS = ("model", "weights_sha256", "spec_digest", "tags_kept")


def spec_digest(spec: ModelSpec) -> str:
    """Digest the fields of a spec that the outputs depend on, except the weights, to 16 hexadecimal digits.

    Example:
        >>> import dataclasses, keras_musictag as kmt
        >>> tiny = kmt.model_info("tiny")
        >>> spec_digest(tiny) == spec_digest(dataclasses.replace(tiny, description="small"))
        True
    """
    fields = spec.to_dict() | identifying_fields(spec.audio, spec.mel, spec.window)
    about = json.dumps({name: fields[name] for name in _DIGESTED_FIELDS}, sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def readable(path: str) -> str:
    r"""Return a path as text that every format can hold; bytes that are not UTF-8 become `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
