"""Result of `Tagger.tag_many` for one file."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import MusicTagError


@dataclasses.dataclass(frozen=True)
class TagResult:
    """One file of a batch: its tags, or why there are none.

    Attributes:
        source: the element of `sources`.
        tags: tag -> probability, most probable first; `None` after an error.
        error: the reason, `None` on success.
        notes: remarks on audio that could be tagged, one sentence each, e.g. skipped damage or channels that cancel
            each other out.
    """

    source: Any
    tags: dict[str, float] | None = None
    error: MusicTagError | None = None
    notes: tuple[str, ...] = ()
