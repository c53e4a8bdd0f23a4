"""`Manifest`: a table of audio files with their tags, splits and origin.

Conventions: times are seconds of the source file; a `Manifest` is immutable, methods return a new one; the order of
`manifest.tags` is that of the columns of `manifest.targets()` and of a model's outputs. Paths are absolute; in a file
they are relative to its folder, so a folder of audio with its manifest can be moved.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .rows import SPLITS as SPLITS
from .rows import AnyPath, tag_names
from .rows import DataError as DataError
from .rows import Row as Row

if TYPE_CHECKING:
    from .report import Report


@dataclasses.dataclass(frozen=True, repr=False)
class Manifest(Sequence[Row]):
    """Rows and tags of a data set.

    Attributes:
        rows: one `Row` per audio file or part of a file.
        tags: names of the tags in the order of the targets; by default all tags of the rows in alphabetical order.

    Raises:
        DataError: a tag has an empty or repeated name, or a row does not have one target per tag.

    Example:
        >>> manifest = Manifest((Row(path=Path("a.wav"), tags=("rock",)), Row(path=Path("b.wav"), tags=("folk",))))
        >>> manifest.tags
        ('folk', 'rock')
        >>> manifest.targets().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
        >>> manifest.with_tags(["rock"]).targets().tolist()
        [[1.0], [0.0]]
    """

    rows: tuple[Row, ...]
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Collect the tags if none are given, and validate the targets."""
        object.__setattr__(self, "rows", tuple(self.rows))
        if isinstance(self.tags, str):
            raise DataError(f"tags must be a sequence of names; got the string {self.tags!r}. Put it into a list.")
        tags = tag_names(self.tags or sorted({tag for row in self.rows for tag in row.tags}))
        object.__setattr__(self, "tags", tags)
        for number, row in enumerate(self.rows):
            if row.targets is not None and len(row.targets) != len(tags):
                raise DataError(
                    f"Row {number} ({row.where or row.path}) has {len(row.targets)} targets for {len(tags)} tags. "
                    "Give every tag a number, and the manifest the names of its tags."
                )

    # --- Reading and writing ---

    @classmethod
    def load(cls, path: AnyPath, **options: Any) -> Manifest:
        """Read a CSV, TSV, JSONL or Parquet file, or a folder per class; `options` are those of the `from_` method.

        With `untagged=True`, a folder is read by `from_files`.

        Raises:
            DataError: the path does not exist, or has another format.
        """
        from . import readers

        path = Path(path)
        if path.is_dir():
            untagged = options.pop("untagged", False)
            return cls.from_files(path, **options) if untagged else cls.from_folders(path, **options)
        read: Callable[..., Manifest] = getattr(cls, f"from_{readers.kind_of(path)}")
        return read(path, **options)

    @classmethod
    def from_csv(
        cls,
        path: AnyPath,
        *,
        tags: Sequence[str] | None = None,
        root: AnyPath | None = None,
        encoding: str = "utf-8-sig",
        untagged: bool = False,
    ) -> Manifest:
        """Read a table whose first line names its columns, separated by commas, semicolons or tabs.

        The table needs a column `file` (or path, filename, filepath, audio), and either `tags` (or labels) with `|`
        between tags, or a column per tag with 0 or 1 (or false and true), or numbers between them for soft targets; an
        empty cell is 0. A comma can be the decimal point if it does not separate the columns. Optional columns are
        `start`, `duration`, `split`, `group` (or artist, album), `source` and `licence`. If a tag has the name of one
        of these columns, its own column is named `tag:start`.

        Args:
            path: the table.
            tags: the tags in order; other tag columns are then ignored. By default all tags, in the order of their
                columns, or in alphabetical order for a column `tags`.
            root: folder that relative paths start at; by default that of the table.
            encoding: encoding of the text; by default UTF-8, or UTF-16 with a byte order mark.
            untagged: do not read tags, and ignore other columns; for distillation, which needs no tags.

        Raises:
            DataError: lines cannot be read; all of them are in one message.
        """
        from . import readers

        return cls(*readers.read_csv(Path(path), tags=tags, root=root, encoding=encoding, untagged=untagged))

    @classmethod
    def from_jsonl(
        cls,
        path: AnyPath,
        *,
        tags: Sequence[str] | None = None,
        root: AnyPath | None = None,
        untagged: bool = False,
    ) -> Manifest:
        """Read a JSON object per line: `{"file": "a.wav", "tags": ["rock"]}`; the keys are the columns of `from_csv`.

        Soft targets are `"targets": {"rock": 0.7}`, or a list in the order of a first line `{"tags": [...]}`.

        Raises:
            DataError: lines cannot be read; all of them are in one message.
        """
        from . import readers

        return cls(*readers.read_jsonl(Path(path), tags=tags, root=root, untagged=untagged))

    @classmethod
    def from_parquet(
        cls,
        path: AnyPath,
        *,
        tags: Sequence[str] | None = None,
        root: AnyPath | None = None,
        untagged: bool = False,
    ) -> Manifest:
        """Read a Parquet file with the columns of `from_csv`; `tags` may be a list.

        Raises:
            MissingExtraError: pyarrow is not installed.
            DataError: rows cannot be read; all of them are in one message.
        """
        from . import readers

        return cls(*readers.read_parquet(Path(path), tags=tags, root=root, untagged=untagged))

    @classmethod
    def from_folders(cls, root: AnyPath) -> Manifest:
        """Make a row of every audio file in `root/<tag>/`, at any depth.

        If all folders with audio in `root` have names of splits, files are read from `root/<split>/<tag>/`. Hidden
        files and files without a suffix of audio files are ignored; audio files outside the folders cause a warning.

        Raises:
            DataError: no folder has an audio file, or only some of the folders have names of splits.
        """
        from . import folders

        return cls(*folders.read_folders(Path(root)))

    @classmethod
    def from_files(cls, root: AnyPath, *, group_folders: int = 1) -> Manifest:
        """Make a row, without tags, of every audio file below `root`, at any depth.

        Files below the same folder of `root` form a group, which `grouped_split` keeps in one split: for
        `root/artist/album/song.mp3`, the files of an artist. Each file directly in `root` is a group of its own. Hidden
        files and files without a suffix of audio files are ignored.

        Args:
            root: the folder.
            group_folders: number of folder levels that define a group: 1 for the artist, 2 for the album in the example
                above, 0 for no groups.

        Raises:
            DataError: there is no audio file.
        """
        from . import folders

        return cls(*folders.read_files(Path(root), group_folders))

    def to_csv(self, path: AnyPath) -> None:
        """Write a table for `from_csv` atomically, with a column per tag.

        A manifest without tags is read with `from_csv(..., untagged=True)`.

        Raises:
            DataError: a file name is not valid UTF-8.
            CacheError: the file cannot be written.
        """
        from . import writers

        writers.write_csv(self, Path(path))

    def to_jsonl(self, path: AnyPath) -> None:
        """Write a file for `from_jsonl` atomically.

        Raises:
            DataError: a file name is not valid UTF-8.
            CacheError: the file cannot be written.
        """
        from . import writers

        writers.write_jsonl(self, Path(path))

    # --- As a sequence ---

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Manifest: ...
    def __getitem__(self, index: int | slice) -> Row | Manifest:
        """Return a row, or a manifest of the rows of a slice."""
        return self._with(self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __repr__(self) -> str:
        """Return the numbers of rows and tags, and the rows per split."""
        splits = "".join(f", {name or 'no split'} {count}" for name, count in self.split_sizes().items())
        return f"Manifest({len(self)} rows, {len(self.tags)} tags{splits})"

    def _with(self, rows: Iterable[Row]) -> Manifest:
        return Manifest(tuple(rows), self.tags)

    # --- Contents ---

    def targets(self) -> np.ndarray:
        """Return the targets of all rows.

        Returns:
            float32 array `(rows, tags)`: 1 if a row has a tag, else 0, or the row's soft targets.

        Raises:
            DataError: a row has a tag that the manifest does not have.
        """
        column = {tag: number for number, tag in enumerate(self.tags)}
        targets = np.zeros((len(self), len(self.tags)), "float32")
        for number, row in enumerate(self.rows):
            if row.targets is not None:
                targets[number] = row.targets
                continue
            unknown = [tag for tag in row.tags if tag not in column]
            if unknown:
                raise DataError(
                    f"Row {number} ({row.where or row.path}) has tags that the manifest does not have: "
                    f"{', '.join(map(repr, unknown))}. Use validate().ok, or with_tags() to choose the tags."
                )
            targets[number, [column[tag] for tag in row.tags]] = 1
        return targets

    def split_sizes(self) -> dict[str, int]:
        """Return the number of rows per split, in the order train, valid, test."""
        counts = collections.Counter(row.split for row in self.rows)
        return {name: counts[name] for name in (*SPLITS, "") if counts[name]}

    def digest(self) -> str:
        """Return the number of rows and twelve digits of a checksum of file names, file sizes, parts and tags.

        The folders of the files are not included.

        Raises:
            OSError: a file does not exist.
        """
        lines = [
            json.dumps([row.path.name, row.path.stat().st_size, row.start, row.duration, row.tags, row.targets])
            for row in self.rows
        ]
        text = "\n".join([json.dumps(self.tags), *lines])
        return f"{len(self):,} clips, {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}"

    # --- Selections and changes ---

    def split(self, name: str) -> Manifest:
        """Return the rows of a split.

        Raises:
            DataError: there are none.
        """
        rows = [row for row in self.rows if row.split == name]
        if not rows:
            sizes = ", ".join(f"{key or 'no split'} {count}" for key, count in self.split_sizes().items())
            raise DataError(
                f"The manifest has no rows in the split {name!r}; its rows are: {sizes or 'none'}. Splits are "
                f"{', '.join(SPLITS)}; grouped_split() makes them."
            )
        return self._with(rows)

    def filter(self, keep: Callable[[Row], bool]) -> Manifest:
        """Return the rows for which `keep(row)` is true, with the same tags."""
        return self._with(row for row in self.rows if keep(row))

    def with_tags(self, order: Sequence[str]) -> Manifest:
        """Return the same rows with other tags: tags left out are removed from the rows, new tags belong to no row.

        Raises:
            DataError: the manifest has none of the tags.
        """
        order = tag_names(order)
        column = {tag: number for number, tag in enumerate(self.tags)}
        if not set(order) & set(column):
            raise DataError(
                f"None of the tags {', '.join(map(repr, order[:5]))} is in the manifest, whose tags are "
                f"{', '.join(map(repr, self.tags[:10])) or 'none'}. Check the spelling."
            )
        known, sources = set(order), [column.get(tag) for tag in order]
        rows = []
        for row in self.rows:
            if row.targets is None:
                change: dict[str, Any] = {"tags": tuple(tag for tag in row.tags if tag in known)}
            else:
                change = {"targets": tuple(0.0 if at is None else row.targets[at] for at in sources)}
            rows.append(dataclasses.replace(row, **change))
        return Manifest(tuple(rows), order)

    def concat(self, *others: Manifest) -> Manifest:
        """Concatenate manifests that have the same tags.

        Raises:
            DataError: the tags differ; a tag that one manifest lacks is not known to be absent from its audio.
        """
        for other in others:
            if other.tags != self.tags:
                raise DataError(
                    f"Manifests to join must have the same tags in the same order; got {self.tags[:5]!r}... "
                    f"({len(self.tags)}) and {other.tags[:5]!r}... ({len(other.tags)}). Call with_tags() first."
                )
        return self._with(row for manifest in (self, *others) for row in manifest.rows)

    def grouped_split(
        self,
        fractions: Mapping[str, float] | Sequence[float] = (0.8, 0.1, 0.1),
        *,
        seed: int = 0,
        by: Callable[[Row], str] | None = None,
    ) -> Manifest:
        """Assign every row to a split, so that no group is in two splits and every tag is divided about evenly.

        Args:
            fractions: `{"train": 0.8, "test": 0.2}`, or numbers for train, valid and test; they add up to 1.
            seed: random seed; the result does not depend on the order of the rows.
            by: returns the group of a row. By default, rows with the same `group` or the same file form a group; copies
                of a file are found by comparing files of equal size.

        Raises:
            DataError: fractions are not valid, or there are fewer groups than splits.
        """
        from . import splitting

        return dataclasses.replace(self, rows=splitting.grouped_split(self, fractions, seed=seed, by=by))

    def validate(
        self,
        *,
        decode: bool = False,
        workers: int = 2,
        strict: bool = False,
        allow_untagged: bool = False,
        min_rows: int = 5,
    ) -> Report:
        """Check every row and file before training.

        Args:
            decode: decode all audio; by default only headers are read.
            workers: number of files checked at once.
            strict: raise if there is any problem.
            allow_untagged: accept rows without tags, as is always the case if the manifest has no tags.
            min_rows: minimum number of rows per tag, in the split train if there are splits.

        Returns:
            `Report`: `.ok` has the rows without a problem, `.problems` the problems of the other rows and of the tags.

        Raises:
            DataError: with `strict`, there are problems; the message is the report.
        """
        from . import checks

        return checks.validate(
            self, decode=decode, workers=workers, strict=strict, allow_untagged=allow_untagged, min_rows=min_rows
        )
