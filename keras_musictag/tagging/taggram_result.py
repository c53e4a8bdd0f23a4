"""Tags over time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..models.vocabulary import column_of, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class TaggramRow(NamedTuple):
    """One row of a taggram, as `stream` yields it.

    Attributes:
        time: middle of the window, in seconds.
        probabilities: float32 array `(tags,)`.
    """

    time: float
    probabilities: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Taggram:
    """Probabilities of every tag in every window of a track.

    Attributes:
        tags: display names, in the order of the columns.
        starts: float array `(t,)`: start of each window, in seconds of the source.
        probabilities: float32 array `(t, tags)`.
        window_seconds: length of a window.
        hop_seconds: time from one window to the next.
        model: name of the model.
        notes: remarks on the audio, as in `TagResult`.
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
        """Return the probabilities `(t,)` of one tag, named as in `tags` or as trained.

        Raises:
            UnknownTagError: no such tag.
        """
        return self.probabilities[:, column_of(tag if tag in self.tags else name_of(tag), self.tags)]

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.starts)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of plain lists for `json.dump`."""
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
            top: number of tags to draw.

        Returns:
            The axes.

        Raises:
            PlotError: the taggram has no rows, or `top` is below 1.
            MissingExtraError: Matplotlib is not installed.
        """
        from ..plots import plot_taggram

        return plot_taggram(self, ax, top=top)
