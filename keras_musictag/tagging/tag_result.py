"""What `Tagger.tag_many` says of each sound."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import MusicTagError


@dataclasses.dataclass(frozen=True)
class TagResult:
    """One file of a batch: its tags, or why there are none.

    Attributes:
        source: what was given.
        tags: tag -> probability, most probable first; `None` after an error.
        error: the reason, `None` if all went well.
        notes: what to know of a sound that could be tagged, a sentence each: damage that was passed over, channels that
            cancel each other out.
    """

    source: Any
    tags: dict[str, float] | None = None
    error: MusicTagError | None = None
    notes: tuple[str, ...] = ()
