"""What teachers say of a manifest's tracks: the targets of distillation.

A teacher tags every track once, by its own windows, and its probabilities are kept on disk, named by the content of the
track. The target of a student's window is the mean over the teacher's windows inside it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import AudioError
from ..utils.files import sha256_of, write_atomically
from .loop import TrainingError

if TYPE_CHECKING:
    from ..datasets import Manifest
    from ..tagging.base_tagger import BaseTagger

# A teacher with long windows hears every second at most this often.
_OVERLAPS = 2


class TeacherTargets:
    """A teacher's probabilities for any part of a manifest's tracks.

    Args:
        teacher: tagger with the student's tags, in the same order.
        manifest: tracks; targets are indexed by row number.
        folder: folder in which the teacher's probabilities are kept, by content of the file, teacher and hop.
        frame_seconds: length of a spectrogram frame of the student.
        hop_seconds: time from one window of the teacher to the next.
    """

    def __init__(
        self,
        teacher: BaseTagger,
        manifest: Manifest,
        folder: str | os.PathLike[str],
        *,
        frame_seconds: float,
        hop_seconds: float = 1.0,
    ) -> None:
        """Prepare the targets; `fill` computes them."""
        if not teacher.weights_sha256:
            raise TrainingError(
                f"{teacher!r} cannot be a teacher: its weights are not from a file. Load a pretrained or saved one."
            )
        self.teacher, self.manifest = teacher, manifest
        self.frame_seconds, self.hop_seconds = frame_seconds, hop_seconds
        self.folder = Path(folder) / f"{teacher.weights_sha256[:16]}-{hop_seconds:g}"
        self._known: dict[Path, tuple[np.ndarray, np.ndarray]] = {}

    def fill(self, progress: bool = False) -> list[tuple[Path, AudioError]]:
        """Compute the teacher's probabilities of every file that has none yet.

        Returns:
            (path, error) for every file that the teacher cannot tag.
        """
        from tqdm.auto import tqdm

        bad = []
        paths = list(dict.fromkeys(row.path for row in self.manifest))
        for path in tqdm(paths, unit="file", desc=self.teacher.spec.name, disable=not progress, delay=2):
            try:
                self._windows(Path(path))
            except AudioError as error:  # other errors, such as a full disk, do not concern the file
                bad.append((Path(path), error))
        return bad

    def __call__(self, row: int, start_frame: int, frames: int) -> np.ndarray:
        """Return the mean probabilities `(tags,)` of the teacher's windows inside the student's, or of the nearest."""
        entry, frame, teacher = self.manifest[row], self.frame_seconds, self.teacher.spec.window_seconds
        starts, probabilities = self._windows(Path(entry.path))
        stop = starts[-1] + teacher if entry.duration is None else entry.start + entry.duration
        first = start_frame * frame
        if first >= stop + self.hop_seconds:  # audio shorter than the student's window is repeated
            first = entry.start + (first - entry.start) % (stop - entry.start)
        last = min(first + frames * frame, stop) - teacher
        slack = self.hop_seconds / 100
        inside = (starts >= first - slack) & (starts <= last + slack)
        if not inside.any():
            inside = np.arange(len(starts)) == np.argmin(np.abs(starts - (first + last) / 2))
        return probabilities[inside].mean(axis=0, dtype="float32")

    def row_targets(self) -> np.ndarray:
        """Return the mean probabilities of every row, `(rows, tags)`."""
        return _of_rows(self, self.manifest, self.frame_seconds)

    def _windows(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return starts `(t,)` in seconds and probabilities `(t, tags)` of the teacher's windows of a track."""
        if path not in self._known:
            # A missing file has no digest; the teacher raises the error.
            file = self.folder / f"{sha256_of(path)}.npy" if path.is_file() else None
            if file is not None and file.is_file():
                rows = np.load(file, allow_pickle=False)
            else:
                gram = self.teacher.taggram(
                    path, hop_seconds=self.hop_seconds, window_seconds=self.teacher.spec.window_seconds
                )
                rows = np.column_stack([gram.starts, gram.probabilities]).astype("float32")
                buffer = io.BytesIO()
                np.save(buffer, rows)
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(file or self.folder / f"{sha256_of(path)}.npy", buffer.getvalue())
            self._known[path] = rows[:, 0], rows[:, 1:]
        return self._known[path]


def by_vocabulary(teachers: Sequence[BaseTagger]) -> dict[str, list[BaseTagger]]:
    """Return the teachers that have the same tags in the same order, by the name of the first of them.

    Raises:
        TrainingError: two vocabularies have the same name.
    """
    groups: dict[tuple[str, ...], list[BaseTagger]] = {}
    for teacher in teachers:
        groups.setdefault(teacher.tags, []).append(teacher)
    named = {members[0].spec.name: members for members in groups.values()}
    if len(named) < len(groups):
        names = ", ".join(members[0].spec.name for members in groups.values())
        raise TrainingError(f"Teachers with different tags must have different names; got {names}. Rename a folder.")
    return named


def student_tags(teachers: Sequence[BaseTagger]) -> tuple[str, ...]:
    """Return the tags that a student of these teachers has.

    They are the teachers' tags; of teachers with different tags, one vocabulary after the other, each tag written
    `teacher/tag`: two vocabularies may share a name and mean different things by it.
    """
    groups = by_vocabulary(teachers)
    if len(groups) == 1:
        return teachers[0].tags
    return tuple(f"{name}/{tag}" for name, members in groups.items() for tag in members[0].tags)


class EnsembleTargets:
    """What one or several teachers say of any part of a manifest's tracks.

    Of teachers with the same tags it is the mean probability; teachers with different tags are concatenated.

    Args:
        teachers: taggers; the student's tags are `student_tags(teachers)`.
        manifest, folder, frame_seconds: as in `TeacherTargets`.
        hop_seconds: time from one window of a teacher to the next; half of the window if that is longer.
    """

    def __init__(
        self,
        teachers: Sequence[BaseTagger],
        manifest: Manifest,
        folder: str | os.PathLike[str],
        *,
        frame_seconds: float,
        hop_seconds: float = 1.0,
    ) -> None:
        """Prepare the targets; `fill` computes them."""
        self.manifest, self.frame_seconds = manifest, frame_seconds
        self.vocabularies = {
            name: [
                TeacherTargets(
                    teacher, manifest, folder, frame_seconds=frame_seconds,
                    hop_seconds=max(hop_seconds, round(teacher.spec.window_seconds / _OVERLAPS, 1)),
                )
                for teacher in members
            ]
            for name, members in by_vocabulary(teachers).items()
        }  # fmt: skip
        self.members = [member for members in self.vocabularies.values() for member in members]

    @property
    def key(self) -> str:
        """Name of the teachers' weights and hops."""
        return "+".join(member.folder.name for member in self.members)

    def fill(self, progress: bool = False) -> list[tuple[Path, AudioError]]:
        """Compute every teacher's probabilities of every file that has none yet; returns as `TeacherTargets.fill`."""
        bad: dict[Path, AudioError] = {}
        for member in self.members:
            bad |= dict(member.fill(progress))
        return [*bad.items()]

    def slices(self) -> dict[str, slice]:
        """Return which of the tags belong to each vocabulary, by its name."""
        sizes = [len(members[0].teacher.tags) for members in self.vocabularies.values()]
        ends = np.cumsum(sizes).tolist()
        return {name: slice(end - size, end) for name, size, end in zip(self.vocabularies, sizes, ends, strict=True)}

    def __call__(self, row: int, start_frame: int, frames: int) -> np.ndarray:
        """Return the probabilities `(tags,)` for a part of a row: the mean of the teachers of each vocabulary."""
        return np.concatenate(
            [
                np.mean([member(row, start_frame, frames) for member in members], axis=0, dtype="float32")
                for members in self.vocabularies.values()
            ]
        )

    def row_targets(self) -> np.ndarray:
        """Return the mean probabilities of every row, `(rows, tags)`."""
        return _of_rows(self, self.manifest, self.frame_seconds)


def _of_rows(targets: Callable[[int, int, int], np.ndarray], manifest: Manifest, frame_seconds: float) -> np.ndarray:
    """Return the targets of whole rows, `(rows, tags)`."""
    out = []
    for number, row in enumerate(manifest):
        seconds = row.duration if row.duration is not None else 1e9
        first, frames = (round(value / frame_seconds) for value in (row.start, seconds))
        out.append(targets(number, first, frames))
    return np.stack(out)
