"""Names and kinds of tags: the one place that turns what people write into columns of the outputs.

A model's tags are called as in its training data, `genre---jazz` or `Hip hop music`. People read a shorter name, `jazz`
or `hip hop`, and may write either. The lists in `tags/` say both, and of which kind a tag is.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

from ..errors import UnknownTagError
from ..utils.name_lists import join_names

KINDS = ("genre", "instrument", "mood", "voice", "era", "tempo", "other")

_FOLDER = Path(__file__).with_name("tags")
_LISTS = {  # in `tags/` -> the data set whose tags they are
    "mtt50": "MagnaTagATune",
    "msd50": "Million Song Dataset",
    "jamendo50": "MTG-Jamendo",
    "audioset527": "AudioSet",
}
OWN_TAGS = "own tags"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tags of a model, one entry per output in each field.

    Attributes:
        tags: names as trained.
        names: names for people, each once.
        kinds: one of `KINDS` each; `None` if nobody has said them.
        title: the data set whose tags they are, such as `"MagnaTagATune"`; else `OWN_TAGS`.
    """

    tags: tuple[str, ...]
    names: tuple[str, ...]
    kinds: tuple[str, ...] | None = None
    title: str = OWN_TAGS

    @classmethod
    def of(cls, tags: Sequence[str], kinds: Mapping[str, str] | None = None) -> Self:
        """The vocabulary of these tags, with names and kinds of a list in `tags/` that has the same tags, in any order.

        Args:
            tags: names as trained, or names for people.
            kinds: tag -> kind, for tags of one's own; those left out are of kind `other`.

        Example:
            >>> Vocabulary.of(("dub", "sad"), {"dub": "genre"}).kinds
            ('genre', 'other')
        """
        tags = tuple(tags)
        title, listed = _listed().get(frozenset(tags), (OWN_TAGS, {}))
        names = tuple(listed[tag][0] if listed else tag for tag in tags)
        if kinds:
            return cls(tags, names, tuple(kinds.get(tag, "other") for tag in tags), title)
        return cls(tags, names, tuple(listed[tag][1] for tag in tags) if listed else None, title)

    def columns(self, tags: Sequence[str] | None = None, kinds: Collection[str] | None = None) -> list[int]:
        """Indices of the outputs that are wanted.

        Args:
            tags: names, as trained or for people, in the order they are wanted in; by default all.
            kinds: keep tags of these kinds only.

        Raises:
            UnknownTagError: the model has no such tag.
            ValueError: there is no such kind, or nobody has said the kinds of these tags.

        Example:
            >>> Vocabulary.of(("dub", "sad"), {"dub": "genre", "sad": "mood"}).columns(kinds={"mood"})
            [1]
        """
        if isinstance(tags, str):
            tags = [tags]
        wanted = list(range(len(self.tags))) if tags is None else [self.column(tag) for tag in tags]
        if kinds is None:
            return wanted
        given = check_kinds(kinds)
        if self.kinds is None:
            raise ValueError(
                "The kinds of this model's tags are not known, so kinds= cannot choose among them. Name the tags "
                "(tags=), or add kinds, a kind for each tag, to its spec.json."
            )
        return [column for column in wanted if self.kinds[column] in given]

    def column(self, tag: str) -> int:
        """Index of the output that a name means.

        Raises:
            UnknownTagError: none; the message offers near names.
        """
        return self.tags.index(tag) if tag in self.tags else column_of(tag, self.names)


def check_kinds(kinds: Collection[str]) -> frozenset[str]:
    """Kinds as a set; one may be given as text.

    Raises:
        ValueError: one is not of `KINDS`, or there is none.

    Example:
        >>> check_kinds("genre")
        frozenset({'genre'})
    """
    given = frozenset([kinds] if isinstance(kinds, str) else kinds)
    unknown = sorted(map(str, given.difference(KINDS)))
    if unknown or not given:
        raise ValueError(f"Unknown kinds of tags: {', '.join(unknown) or 'none given'}. Known: {', '.join(KINDS)}.")
    return given


def column_of(tag: str, tags: Sequence[str]) -> int:
    """Index of a tag.

    Raises:
        UnknownTagError: it is not there; the message offers near ones.

    Example:
        >>> column_of("piano", ("guitar", "piano"))
        1
    """
    if tag in tags:
        return tuple(tags).index(tag)
    near = difflib.get_close_matches(str(tag), tags, n=3)
    question = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise UnknownTagError(f"Unknown tag {tag!r}.{question} Known: {join_names(tags)}.")


@functools.cache
def name_of(tag: str) -> str:
    """What people read for a tag of any list; other texts as they are.

    Example:
        >>> name_of("genre---jazz"), name_of("my own tag")
        ('jazz', 'my own tag')
    """
    return next((entries[tag][0] for _, entries in _listed().values() if tag in entries), tag)


@functools.cache
def _listed() -> dict[frozenset[str], tuple[str, dict[str, tuple[str, str]]]]:
    """Tags of each list -> its title, and tag -> name and kind; the names of a list are a list too."""
    found: dict[frozenset[str], tuple[str, dict[str, tuple[str, str]]]] = {}
    for file, title in _LISTS.items():
        _, *lines = (_FOLDER / f"{file}.kinds.tsv").read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t") for line in lines]
        found[frozenset(tag for tag, _, _ in rows)] = title, {tag: (name, kind) for tag, kind, name in rows}
        found[frozenset(name for _, _, name in rows)] = title, {name: (name, kind) for _, kind, name in rows}
    return found
