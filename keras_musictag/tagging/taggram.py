"""Tags over time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..models.vocabulary import column_of, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class TaggramRow(NamedTuple):
    """What `stream` gives for a window: one row of a taggram.

    Attributes:
        time: the middle of the window, in seconds of the sound.
        probabilities: float32 array `(tags,)`.
    """

    time: float
    probabilities: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Taggram:
    """Probabilities of every tag in every window of a track.

    Attributes:
        tags: names for people, in the order of the columns.
        starts: float array `(t,)`: where each window begins, in seconds of the source.
        probabilities: float32 array `(t, tags)`.
        window_seconds: length of a window.
        hop_seconds: from one window to the next.
        model: name of the model.
        notes: what to know of the sound, as in `TagResult`.
    """

    tags: tuple[str, ...]
    starts: np.ndarray
    probabilities: np.ndarray
    window_seconds: float
    hop_seconds: float
    model: str = ""
    notes: tuple[str, ...] = ()

    @property
    def times(self) -> np.ndarray:
        """Float array `(t,)`: the middle of each window, in seconds of the source."""
        return self.starts + self.window_seconds / 2

    def __getitem__(self, tag: str) -> np.ndarray:
        """Probabilities `(t,)` of one tag, called as in `tags` or as trained.

        Raises:
            UnknownTagError: no such tag.
        """
        return self.probabilities[:, column_of(tag if tag in self.tags else name_of(tag), self.tags)]

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.starts)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for `json.dump`."""
        return {
            "model": self.model,
            "window_seconds": self.window_seconds,
            "hop_seconds": self.hop_seconds,
            "times": [round(float(time), 4) for time in self.times],
            "tags": list(self.tags),
            "probabilities": [[round(float(p), 6) for p in row] for row in self.probabilities],
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    def plot(self, ax: Axes | None = None, *, top: int = 12) -> Axes:
        """Draw time against the `top` most probable tags.

        Args:
            ax: Matplotlib axes, `None` for a new figure.
            top: how many tags to show, the most probable first.

        Returns:
            The axes.

        Raises:
            PlotError: there is no window, or `top` is below 1.
            MissingExtraError: Matplotlib is not installed.
        """
        from ..plots import plot_taggram

        return plot_taggram(self, ax, top=top)
