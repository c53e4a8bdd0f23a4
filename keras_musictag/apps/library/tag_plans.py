"""Choose the values of a file's fields: the kind of a tag decides the field, options decide how many."""

from __future__ import annotations

import dataclasses
import math
import string
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ...models.vocabulary import KINDS, check_kinds
from ...utils.checks import check_count
from .tag_fields import FIELDS

if TYPE_CHECKING:
    from ...models.vocabulary import Vocabulary

MOST, MIN_PROB = 3, 0.5

_FIELD_OF = {"genre": "genre", "mood": "mood"}  # kind -> field; all other kinds go to `musictag`
_BETWEEN = " | "  # between an existing comment and ours


@dataclasses.dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """Options for writing tags into files.

    Attributes:
        most: maximum number of tags per kind, the most probable ones.
        min_prob: minimum probability of a tag to write.
        kinds: kinds of tags to write; by default all. Genres go to the field genre, moods to the field mood, all
            others, and tags of unknown kind, to the field `MUSICTAG`.
        comment: template of a comment, such as `"{genre} | {mood}"`: names of kinds, or `{tags}` for the most probable
            tags of all kinds. Empty: no comment.
        only_missing: skip fields that have a value.
        replace: replace existing values; by default, new ones are added to them.

    Raises:
        ValueError: a number is out of range, a kind is unknown, or the template has other names.

    Example:
        >>> WriteOptions(comment="{genre} | {mood}").most
        3
    """

    most: int = MOST
    min_prob: float = MIN_PROB
    kinds: Collection[str] | None = None
    comment: str = ""
    only_missing: bool = False
    replace: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        check_count("most", self.most)
        if not (0 <= self.min_prob <= 1) or math.isnan(self.min_prob):
            raise ValueError(f"min_prob must be a probability from 0 to 1; got {self.min_prob!r}.")
        if self.kinds is not None:
            check_kinds(self.kinds)
        if self.only_missing and self.replace:
            raise ValueError("only_missing keeps existing values, replace removes them: choose one.")
        _check_template(self.comment)


@dataclasses.dataclass(frozen=True)
class Change:
    """Change of a field: its values before and after."""

    field: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    def __str__(self) -> str:
        """Return the change as lines of a diff."""
        lines = [f"  - {self.field}: {_line(self.before)}"] if self.before else []
        return "\n".join([*lines, f"  + {self.field}: {_line(self.after)}"])


def _line(values: tuple[str, ...]) -> str:
    shown = [value if value.isprintable() else repr(value) for value in values[:20]]
    return "; ".join(shown) + (f"; ... ({len(values):,} values)" if len(values) > len(shown) else "")


def check_known(vocabulary: Vocabulary, options: WriteOptions) -> None:
    """Raise `ValueError` if the options need kinds, and those of the model's tags are unknown."""
    vocabulary.columns(kinds=options.kinds)
    named = [name for _, name, _, _ in string.Formatter().parse(options.comment) if name in KINDS]
    if named and vocabulary.kinds is None:
        raise ValueError(
            f"The kinds of this model's tags are not known, so a comment cannot have {{{named[0]}}}. Write {{tags}}, "
            "or add kinds, a kind for each tag, to its spec.json."
        )


def by_kind(tags: Mapping[str, float], vocabulary: Vocabulary, options: WriteOptions) -> dict[str, list[str]]:
    """Select the most probable tags of each kind.

    Args:
        tags: display name -> probability.
        vocabulary: defines the kinds of the tags; a tag of unknown kind is `other`.
        options: `most`, `min_prob` and `kinds` are used.

    Returns:
        Kind -> tags, the most probable first; kinds without tags are left out.

    Example:
        >>> from keras_musictag.models.vocabulary import Vocabulary
        >>> words = Vocabulary.of(("dub", "ska", "sad"), {"dub": "genre", "ska": "genre", "sad": "mood"})
        >>> by_kind({"dub": 0.9, "ska": 0.8, "sad": 0.7}, words, WriteOptions(most=1))
        {'genre': ['dub'], 'mood': ['sad']}
    """
    kind_of = dict(zip(vocabulary.names, vocabulary.kinds or (), strict=False))
    chosen = None if options.kinds is None else check_kinds(options.kinds)
    selected: dict[str, list[str]] = {}
    for tag in sorted(tags, key=lambda tag: -tags[tag]):
        kind = kind_of.get(tag, "other")
        few = len(selected.get(kind, ())) < options.most
        if few and tags[tag] >= options.min_prob and (chosen is None or kind in chosen):
            selected.setdefault(kind, []).append(tag)
    return selected


def wanted(tags: Mapping[str, float], vocabulary: Vocabulary, options: WriteOptions) -> dict[str, list[str]]:
    """Return the values to write.

    Args:
        tags: display name -> probability.
        vocabulary: defines the kinds of the tags.
        options: which tags to write.

    Returns:
        Field -> values, the most probable first; fields without values are left out.

    Example:
        >>> from keras_musictag.models.vocabulary import Vocabulary
        >>> words = Vocabulary.of(("dub", "sad", "flute"), {"dub": "genre", "sad": "mood", "flute": "instrument"})
        >>> wanted({"dub": 0.9, "flute": 0.8, "sad": 0.1}, words, WriteOptions(comment="{genre}, {instrument}"))
        {'genre': ['dub'], 'musictag': ['flute'], 'comment': ['dub, flute']}
    """
    of_kind = by_kind(tags, vocabulary, options)
    kind_of = {tag: kind for kind, kind_tags in of_kind.items() for tag in kind_tags}
    probable = sorted(kind_of, key=lambda tag: -tags[tag])
    values: dict[str, list[str]] = {}
    for tag in probable:
        values.setdefault(_FIELD_OF.get(kind_of[tag], "musictag"), []).append(tag)
    comment = _comment(options, of_kind, probable)
    if comment:
        values["comment"] = [comment]
    return values


def changes(found: Mapping[str, list[str]], new: Mapping[str, list[str]], options: WriteOptions) -> list[Change]:
    """Return the changes that give fields new values.

    Args:
        found: field -> existing values.
        new: field -> values, from `wanted`.
        options: whether to keep existing values.

    Example:
        >>> [change.after for change in changes({"genre": ["Rock"]}, {"genre": ["rock", "pop"]}, WriteOptions())]
        [('Rock', 'pop')]
    """
    made = []
    for field in FIELDS:
        before, values = found.get(field, []), new.get(field, [])
        existing = [value for value in before if value.strip()]
        if not values or (options.only_missing and existing):
            continue
        if options.replace or not existing:
            after = values
        elif field == "comment":
            has = any(values[0] in value for value in before)
            after = before if has else [f"{before[0]}{_BETWEEN}{values[0]}", *before[1:]]
        else:
            known = {value.strip().casefold() for value in before}
            after = [*before, *(value for value in values if value.casefold() not in known)]
        if after != before:
            made.append(Change(field, tuple(before), tuple(after)))
    return made


# === Comments ===


def _check_template(template: str) -> None:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"The comment {template!r} is not a template: {error}.") from error
    names = ("tags", *KINDS)
    for _, name, form, conversion in parts:
        if name is not None and (name not in names or form or conversion):
            raise ValueError(
                f"The comment {template!r} has {{{name}}}; a comment may have "
                f"{', '.join(f'{{{known}}}' for known in names)}."
            )


def _comment(options: WriteOptions, of_kind: Mapping[str, list[str]], probable: list[str]) -> str:
    """Fill the template; empty if it would have no tags. The separator before a kind without tags is left out."""
    text, has_tags, left_out = "", False, False
    for literal, name, _, _ in string.Formatter().parse(options.comment):
        values = probable[: options.most] if name == "tags" else of_kind.get(name or "", [])
        separates = not any(character.isalnum() for character in literal)
        missing = name is not None and not values
        if separates and (missing or (left_out and not has_tags)):
            literal = ""
        text += literal + ", ".join(values)
        has_tags, left_out = has_tags or bool(values), left_out or missing
    return text if has_tags else ""
