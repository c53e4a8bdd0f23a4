"""Names and kinds of tags, and the outputs they select.

A tag has its name in the training data, e.g. `genre---jazz`, and a readable name, e.g. `jazz`; arguments may be either.
The lists in `tags/` hold both names and the kind of each tag.
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
_LISTS = {  # file in `tags/` -> data set of the tags
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
        tags: names in the training data.
        names: readable names, without repetition.
        kinds: kinds of the tags, from `KINDS`; `None` if they are unknown.
        title: data set of the tags, e.g. `"MagnaTagATune"`, or `OWN_TAGS`.
    """

    tags: tuple[str, ...]
    names: tuple[str, ...]
    kinds: tuple[str, ...] | None = None
    title: str = OWN_TAGS

    @classmethod
    def of(cls, tags: Sequence[str], kinds: Mapping[str, str] | None = None) -> Self:
        """Create the vocabulary of tags; names and kinds are those of the list in `tags/` with the same tags, if any.

        Args:
            tags: names in the training data, or readable names.
            kinds: tag -> kind, for tags that are in no list; the kind of other tags is `other`.

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
        """Return the indices of the outputs that are selected by tags and kinds.

        Args:
            tags: names in the training data or readable names, in the order of the result; by default all.
            kinds: keep only tags of these kinds.

        Raises:
            UnknownTagError: the model does not have a tag.
            ValueError: a kind is unknown, or the kinds of the model's tags are.

        Example:
            >>> Vocabulary.of(("dub", "sad"), {"dub": "genre", "sad": "mood"}).columns(kinds={"mood"})
            [1]
        """
        if isinstance(tags, str):
            tags = [tags]
        selected = list(range(len(self.tags))) if tags is None else [self.column(tag) for tag in tags]
        if kinds is None:
            return selected
        allowed = check_kinds(kinds)
        if self.kinds is None:
            raise ValueError(
                f"The kinds of this model's tags are not known; got kinds={kinds!r}. Pass tags= instead, or add kinds, "
                "a kind for each tag, to its spec.json."
            )
        return [column for column in selected if self.kinds[column] in allowed]

    def column(self, tag: str) -> int:
        """Return the index of the output with a name.

        Raises:
            UnknownTagError: there is no such tag; the message suggests similar ones.
        """
        return self.tags.index(tag) if tag in self.tags else column_of(tag, self.names)


def check_kinds(kinds: Collection[str]) -> frozenset[str]:
    """Validate kinds of tags and return them as a set.

    Args:
        kinds: names from `KINDS`; a single one may be a string.

    Raises:
        ValueError: a kind is not in `KINDS`, or there is none.

    Example:
        >>> check_kinds("genre")
        frozenset({'genre'})
    """
    names = frozenset([kinds] if isinstance(kinds, str) else kinds)
    unknown = sorted(map(str, names.difference(KINDS)))
    if unknown or not names:
        raise ValueError(f"Unknown kinds of tags: {', '.join(unknown) or 'none given'}. Known: {', '.join(KINDS)}.")
    return names


def column_of(tag: str, tags: Sequence[str]) -> int:
    """Return the index of a tag.

    Raises:
        UnknownTagError: there is no such tag; the message suggests similar ones.

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
    """Return the readable name of a tag of any list, and any other text unchanged.

    Example:
        >>> name_of("genre---jazz"), name_of("my own tag")
        ('jazz', 'my own tag')
    """
    for _, entries in _listed().values():
        if tag in entries:
            return entries[tag][0]
    return tag


@functools.cache
def _listed() -> dict[frozenset[str], tuple[str, dict[str, tuple[str, str]]]]:
    """Map the tags of each list, and its readable names, to its title and a dict from tag to name and kind."""
    found: dict[frozenset[str], tuple[str, dict[str, tuple[str, str]]]] = {}
    for file, title in _LISTS.items():
        _, *lines = (_FOLDER / f"{file}.kinds.tsv").read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t") for line in lines]
        found[frozenset(tag for tag, _, _ in rows)] = title, {tag: (name, kind) for tag, kind, name in rows}
        found[frozenset(name for _, _, name in rows)] = title, {name: (name, kind) for _, kind, name in rows}
    return found
