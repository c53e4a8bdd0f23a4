"""The one table all data becomes: a row per sound, with its tags, its split and where it came from.

Conventions: times are seconds of the source file; a `Manifest` never changes, every method gives a new one; the order
of `manifest.tags` is the order of the columns of `manifest.targets()` and of a model's outputs. Paths are absolute; in
a file they are relative to the file's folder, so a folder with sounds and their manifest can be moved.
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
    """Rows, and the tags that are told apart.

    Attributes:
        rows: the sounds.
        tags: names in the order of the targets; the order is the contract. Without any, all tags of the rows in
            alphabetical order.

    Raises:
        DataError: a tag without or with a repeated name, or targets that are not one number per tag.

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
        """Find the tags where none are given, and check that targets fit them."""
        object.__setattr__(self, "rows", tuple(self.rows))
        if isinstance(self.tags, str):
            raise DataError(f"tags must be a sequence of names; got the text {self.tags!r}. Put it into a list.")
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

        With `untagged=True`, a folder is read by `from_files`: whatever sounds are in it, at any depth.

        Raises:
            DataError: there is nothing, or it is of another kind.
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

        There must be a column `file` (or path, filename, filepath, audio), and either `tags` (or labels) with `|`
        between tags, or a column per tag with 0 or 1 (or false and true), or with numbers between for soft targets; an
        empty cell is 0. Where no comma separates the columns, it may be the decimal point.
        `start`, `duration`, `split`, `group` (or artist, album), `source` and `licence` are understood too. A column of
        a tag that bears one of these names is written `tag:start`.

        Args:
            path: the table.
            tags: the tags in their order. With a column per tag, columns of other names are then ignored; else each
                column is a tag. By default, the order of the columns, or the alphabet.
            root: folder that relative paths start at; by default the table's.
            encoding: of the text; by default UTF-8, or UTF-16 if a byte order mark says so.
            untagged: read no tags, and pass over columns of other names; enough for what needs none (distillation).

        Raises:
            DataError: every line that cannot be understood, in one message.
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
            DataError: every line that cannot be understood, in one message.
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
            DataError: every row that cannot be understood, in one message.
        """
        from . import readers

        return cls(*readers.read_parquet(Path(path), tags=tags, root=root, untagged=untagged))

    @classmethod
    def from_folders(cls, root: AnyPath) -> Manifest:
        """Make a row of every sound file in `root/<tag>/`, at any depth.

        Where all folders with sounds in `root` are named like splits, it is `root/<split>/<tag>/`. Hidden files and
        files that are not named like sound are passed over; of sounds outside the folders, a warning tells.

        Raises:
            DataError: there is no folder with a sound in it, or some are named like splits and others are not.
        """
        from . import folders

        return cls(*folders.read_folders(Path(root)))

    @classmethod
    def from_files(cls, root: AnyPath, *, group_folders: int = 1) -> Manifest:
        """Make a row, without tags, of every sound file below `root`, at any depth.

        Files belong together, so that `grouped_split` keeps them on one side, if they are below the same folder of
        `root`: in `root/artist/album/song.mp3`, those of an artist. A file that lies in `root` itself is a group of
        its own. Hidden files and files that are not named like sound are passed over.

        Args:
            root: the folder.
            group_folders: names of folders below `root` that make a group; 2 are an album, 0 makes no groups.

        Raises:
            DataError: there is no sound file.
        """
        from . import folders

        return cls(*folders.read_files(Path(root), group_folders))

    def to_csv(self, path: AnyPath) -> None:
        """Write what `from_csv` reads, a column per tag; the file is there in full or not at all.

        A manifest without tags is read again with `untagged=True`.

        Raises:
            DataError: a name that UTF-8 cannot hold.
            CacheError: the file cannot be written.
        """
        from . import writers

        writers.write_csv(self, Path(path))

    def to_jsonl(self, path: AnyPath) -> None:
        """Write what `from_jsonl` reads; the file is there in full or not at all.

        Raises:
            DataError: a name that UTF-8 cannot hold.
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
        """A row, or a manifest of several."""
        return self._with(self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __repr__(self) -> str:
        """Sizes, not contents."""
        splits = "".join(f", {name or 'no split'} {count}" for name, count in self.split_sizes().items())
        return f"Manifest({len(self)} rows, {len(self.tags)} tags{splits})"

    def _with(self, rows: Iterable[Row]) -> Manifest:
        return Manifest(tuple(rows), self.tags)

    # --- What it says ---

    def targets(self) -> np.ndarray:
        """What a model should answer.

        Returns:
            float32 array (rows, tags): 1 where a row has a tag, 0 where not, or the row's soft targets.

        Raises:
            DataError: a row has a tag that the manifest does not.
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
                    f"Row {number} ({row.where or row.path}) has tags that the manifest does not: "
                    f"{', '.join(map(repr, unknown))}. Use validate().ok, or with_tags() to choose the tags."
                )
            targets[number, [column[tag] for tag in row.tags]] = 1
        return targets

    def split_sizes(self) -> dict[str, int]:
        """Rows per split, the splits in their usual order."""
        counts = collections.Counter(row.split for row in self.rows)
        return {name: counts[name] for name in (*SPLITS, "") if counts[name]}

    def digest(self) -> str:
        """Number of rows, and twelve digits of files' names and sizes, parts and tags, but not of where the files are.

        Raises:
            OSError: a file is not there.
        """
        lines = [
            json.dumps([row.path.name, row.path.stat().st_size, row.start, row.duration, row.tags, row.targets])
            for row in self.rows
        ]
        text = "\n".join([json.dumps(self.tags), *lines])
        return f"{len(self):,} clips, {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}"

    # --- Parts and changes ---

    def split(self, name: str) -> Manifest:
        """The rows of a split.

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
        """The rows for which `keep(row)` is true; the tags stay as they are."""
        return self._with(row for row in self.rows if keep(row))

    def with_tags(self, order: Sequence[str]) -> Manifest:
        """The same rows for other tags: those left out are removed from the rows, new ones belong to no row.

        Raises:
            DataError: none of the tags is known here.
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
        """The rows of several manifests, one after the other.

        Raises:
            DataError: their tags differ: a tag that one of them never asked about is not absent from its sounds.
        """
        for other in others:
            if other.tags != self.tags:
                raise DataError(
                    f"Manifests to join must have the same tags in the same order; got {self.tags[:5]!r}... "
                    f"({len(self.tags)}) and {other.tags[:5]!r}... ({len(other.tags)}). Decide with with_tags() first."
                )
        return self._with(row for manifest in (self, *others) for row in manifest.rows)

    def grouped_split(
        self,
        fractions: Mapping[str, float] | Sequence[float] = (0.8, 0.1, 0.1),
        *,
        seed: int = 0,
        by: Callable[[Row], str] | None = None,
    ) -> Manifest:
        """Assign every row to a split, so that nothing is on two sides and every tag is shared out about evenly.

        Args:
            fractions: `{"train": 0.8, "test": 0.2}`, or numbers for train, valid and test; they add up to 1.
            seed: of the choice; the order of the rows does not matter.
            by: gives the group of a row. By default rows belong together that have the same `group`, the same file or a
                copy of it under another name; for that, files of one size are compared.

        Raises:
            DataError: impossible fractions, or fewer groups than splits.
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
        """Look at every row and file before anything is trained.

        Args:
            decode: decode every sound to its end; else only headers are read.
            workers: files looked at at once.
            strict: raise if there is any problem.
            allow_untagged: rows without any tag are meant, as they always are in a manifest that has no tags.
            min_rows: fewer rows (of the split train, if there is one) are too few for a tag.

        Returns:
            `Report`: `.ok` has the rows without a problem, `.problems` says what is wrong with each of the others and
            with the tags.

        Raises:
            DataError: with `strict`, the report.
        """
        from . import checks

        return checks.validate(
            self, decode=decode, workers=workers, strict=strict, allow_untagged=allow_untagged, min_rows=min_rows
        )
