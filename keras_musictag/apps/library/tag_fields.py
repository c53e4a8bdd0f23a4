"""Read and write genre, mood, comment and `MUSICTAG` in the metadata of all formats, where players look for them.

| field | ID3 (MP3, WAV, AIFF) | Vorbis comments (FLAC, Ogg, Opus) | MP4 | APEv2 (WavPack) | ASF (WMA) |
| --- | --- | --- | --- | --- | --- |
| genre | TCON | GENRE | ©gen | Genre | WM/Genre |
| mood | TMOO | MOOD | ----:com.apple.iTunes:MOOD | Mood | WM/Mood |
| comment | COMM, without a description | COMMENT | ©cmt | Comment | Description |
| musictag | TXXX:MUSICTAG | MUSICTAG | ----:com.apple.iTunes:MUSICTAG | MUSICTAG | MUSICTAG |

Several values are stored as several values of one field, not as one text with separators. In ID3 they are separated by
null characters, also in version 2.3, whose standard has no multiple values.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from . import raw_id3_and_ape

FIELDS = ("genre", "mood", "comment", "musictag")
CUSTOM = "MUSICTAG"

_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class UnwritableError(Exception):
    """The metadata of a file cannot be written safely."""


class FileTags:
    """The metadata of a file, in a format where each field is a list of strings under one key.

    Args:
        path: path of the file.
        opened: the file, opened by mutagen.
        keys: field -> key.
    """

    def __init__(self, path: str, opened: Any, keys: Mapping[str, str]) -> None:
        """Add an empty tag if the file has none."""
        self._path, self._opened, self._keys = path, opened, keys
        if opened.tags is None:
            opened.add_tags()

    def get(self, field: str) -> list[str]:
        """Return the values of a field; none if the file does not have it."""
        found = self._opened.tags.get(self._keys[field]) or []
        if type(found).__name__ in ("APEBinaryValue", "APEExtValue"):
            raise UnwritableError(f"its field {self._keys[field]} is not text")
        values = [found] if isinstance(found, str) else list(found)
        return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]

    def set(self, field: str, values: Sequence[str]) -> None:
        """Replace the values of a field."""
        key = self._keys[field]
        freeform = key.startswith("----:")
        self._opened.tags[key] = [value.encode() if freeform else value for value in values]

    def save(self) -> None:
        """Write the file."""
        self._opened.save()

    def check(self) -> None:
        """Raise `UnwritableError` if writing would lose other metadata."""
        if _UNDECODABLE in "".join(map(str, self._other_tags().values())):
            raise UnwritableError("its tags hold text that is not UTF-8 and would be lost")

    def rest(self) -> object:
        """Return all other metadata, to compare before and after."""
        pictures = [picture.write() for picture in getattr(self._opened, "pictures", ())]
        blocks = [
            (block.code, block.write())
            for block in getattr(self._opened, "metadata_blocks", ())
            if type(block).__name__ not in ("VCFLACDict", "Padding")
        ]
        return sorted(self._other_tags().items()), pictures, blocks

    def _other_tags(self) -> dict[str, str]:
        ours = {key.casefold() for key in self._keys.values()}
        tags = self._opened.tags
        return {
            str(key): str([_comparable(value) for value in tags[key]] if isinstance(tags[key], list) else tags[key])
            for key in tags.keys()  # noqa: SIM118 (Vorbis comments are lists of pairs)
            if str(key).casefold() not in ours
        }


def _comparable(value: Any) -> Any:
    return getattr(value, "value", value) if not isinstance(value, (bytes, str)) else value


class ApeTags(FileTags):
    """APEv2 tags, perhaps followed by an ID3v1 tag."""

    def save(self) -> None:
        """Write the file; keep an ID3v1 tag at its end, which mutagen would remove."""
        tail = raw_id3_and_ape.version_1(self._path)
        super().save()
        raw_id3_and_ape.restore_version_1(self._path, tail)


class Id3Tags(FileTags):
    """ID3 tags. Versions 2.3 and 2.4 are kept; 2.2, which no program writes any more, becomes 2.3."""

    def __init__(self, path: str, opened: Any) -> None:
        """Note the version of the tag."""
        super().__init__(path, opened, {"genre": "TCON", "mood": "TMOO", "comment": "COMM", "musictag": "TXXX"})
        self._frames: Any = importlib.import_module("mutagen.id3")
        self._old = opened.tags.version[:2] in ((2, 2), (2, 3))

    def get(self, field: str) -> list[str]:
        """Return the values of a field; genres stored as numbers are returned by name."""
        frame = self._frame(field)
        if frame is None:
            return []
        return list(frame.genres if field == "genre" else frame.text)

    def set(self, field: str, values: Sequence[str]) -> None:
        """Replace the values of a field. Existing values keep their form, such as a number for a genre."""
        existing = self.get(field)
        old, tags = self._frame(field), self._opened.tags
        texts = list(values)
        if old is not None and texts[: len(existing)] == existing:
            texts = [*old.text, *texts[len(existing) :]]
        frame = getattr(self._frames, self._keys[field])
        encoding = self._encoding(old, texts)
        if field == "comment":
            language = old.lang if old is not None else "eng"
            tags.add(frame(encoding=encoding, lang=language, desc="", text=texts))
        elif field == "musictag":
            tags.add(frame(encoding=encoding, desc=CUSTOM, text=texts))
        else:
            tags.setall(self._keys[field], [frame(encoding=encoding, text=texts)])

    def save(self) -> None:
        """Write the file; keep an ID3v1 tag at its end."""
        tail = raw_id3_and_ape.version_1(self._path)
        options = {"v2_version": 3 if self._old else 4, "v23_sep": None}
        self._opened.save(**options)
        raw_id3_and_ape.restore_version_1(self._path, tail)

    def check(self) -> None:
        """Raise `UnwritableError` if the tag has frames that mutagen cannot read, and so would not write."""
        known = [frame.FrameID for frame in self._opened.tags.values()]
        known += [frame[:4].decode("latin-1") for frame in self._opened.tags.unknown_frames]
        lost = raw_id3_and_ape.unread_frames(self._path, known)
        if lost:
            raise UnwritableError(f"its ID3 tag has frames that would be lost: {', '.join(lost)}")

    def rest(self) -> object:
        """Return all other metadata, to compare before and after."""
        ours = [id(self._frame(field)) for field in FIELDS]
        frames = {
            key: sorted((name, str(value)) for name, value in vars(frame).items())
            for key, frame in self._opened.tags.items()
            if id(frame) not in ours
        }
        return sorted(frames.items()), self._opened.tags.unknown_frames

    def _frame(self, field: str) -> Any:
        """Return the frame of a field, or `None`."""
        frames = self._opened.tags.getall(self._keys[field])
        if field == "musictag":
            frames = [frame for frame in frames if frame.desc == CUSTOM]
        elif field == "comment":
            frames = [frame for frame in frames if not frame.desc]
            frames.sort(key=lambda frame: frame.lang != "eng")
        return frames[0] if frames else None

    def _encoding(self, old: Any, texts: Sequence[str]) -> Any:
        """Return the old encoding if it can hold the text: Latin-1 may stand for another encoding, such as cp1251."""
        if old is not None and old.encoding == self._frames.Encoding.LATIN1:
            try:
                "".join(texts).encode("latin-1")
            except UnicodeEncodeError:
                pass
            else:
                return old.encoding
        return self._frames.Encoding.UTF8  # which mutagen writes as UTF-16 in version 2.3


_KEYS: dict[str, dict[str, str]] = {
    "VComment": {"genre": "GENRE", "mood": "MOOD", "comment": "COMMENT", "musictag": CUSTOM},
    "APEv2": {"genre": "Genre", "mood": "Mood", "comment": "Comment", "musictag": CUSTOM},
    "ASFTags": {"genre": "WM/Genre", "mood": "WM/Mood", "comment": "Description", "musictag": CUSTOM},
    "MP4Tags": {
        "genre": "\xa9gen",
        "mood": "----:com.apple.iTunes:MOOD",
        "comment": "\xa9cmt",
        "musictag": f"----:com.apple.iTunes:{CUSTOM}",
    },
}


def open_tags(path: str, name: str | None = None) -> FileTags:
    """Read the metadata of a file.

    Args:
        path: file.
        name: original path, if the file is a copy under another name; its suffix helps to detect the format.

    Returns:
        `FileTags`; nothing is written before `save`.

    Raises:
        UnwritableError: mutagen does not know the format, or the format cannot hold the fields.
        mutagen.MutagenError: the file is damaged.
    """
    mutagen: Any = importlib.import_module("mutagen")
    opened = mutagen.File(name or path)
    if opened is None:
        raise UnwritableError("mutagen does not know its format")
    kind = type(opened)
    if kind.__name__ == "MP3" and (opened.tags is None or opened.tags.version < (2,)):
        ape: Any = importlib.import_module("mutagen.apev2")
        if raw_id3_and_ape.has_ape(path):  # beside an ID3 tag, players would ignore it
            return ApeTags(path, ape.APEv2File(path), _KEYS["APEv2"])
    if opened.tags is None:
        opened.add_tags()
        bases = {base.__name__ for base in type(opened.tags).__mro__}
        opened = kind(path)
    else:
        bases = {base.__name__ for base in type(opened.tags).__mro__}
        opened = kind(path, translate=False) if "ID3Tags" in bases else kind(path)
    if "ID3Tags" in bases:
        return Id3Tags(path, opened)
    for base, keys in _KEYS.items():
        if base in bases:
            return (ApeTags if base == "APEv2" else FileTags)(path, opened, keys)
    raise UnwritableError(f"its metadata ({os.path.splitext(path)[1]}) cannot hold these fields")
