"""Read parts of ID3 and APE tags as bytes, to find what mutagen does not keep.

Source: the informal standards ID3v2.3.0 and ID3v2.4.0 (id3.org), and the APEv2 description of Hydrogenaudio.
"""

from __future__ import annotations

import collections
import os
import re
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

_ID3V1 = 128  # bytes
_APE_FOOTER = 32  # bytes


def version_1(path: str) -> bytes:
    """Return the ID3v1 tag at the end of a file, 128 bytes; empty if there is none."""
    tail = _tail(path, _ID3V1)
    return tail if len(tail) == _ID3V1 and tail.startswith(b"TAG") else b""


def restore_version_1(path: str, tail: bytes) -> None:
    """Write back the ID3v1 tag that a file had; `tail` is empty if it had none."""
    if not tail:
        return
    current = len(version_1(path))
    with open(path, "r+b") as file:
        file.seek(-current, os.SEEK_END)
        file.write(tail)


def has_ape(path: str) -> bool:
    """Return whether a file ends with an APEv2 tag, or has one before its ID3v1 tag."""
    end = _tail(path, _ID3V1 + _APE_FOOTER)
    return b"APETAGEX" in (end[-_APE_FOOTER:][:8], end[-_ID3V1 - _APE_FOOTER :][:8])


def unread_frames(path: str, known: Iterable[str]) -> list[str]:
    """Return the frames of an ID3v2 tag that a reader has missed.

    Args:
        path: MP3, WAV, AIFF or another file with an ID3v2 tag of version 2.3 or 2.4.
        known: names of frames that the reader knows, with repetitions.

    Returns:
        Names, each as often as it is missing. Empty frames are ignored, and so are tags of another structure.
    """
    with open(path, "rb") as file:
        tag = _tag(file)
    missing = collections.Counter(_frames(tag)) - collections.Counter(known)
    return sorted(missing.elements())


def _tail(path: str, count: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(-min(count, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read()


def _tag(file: BinaryIO) -> bytes:
    """Return the ID3v2 tag of a file, from its beginning or from a chunk of RIFF or AIFF."""
    head = file.read(12)
    if head[:4] in (b"RIFF", b"FORM"):
        number = "<I" if head[:4] == b"RIFF" else ">I"
        while len(chunk := file.read(8)) == 8:
            (size,) = struct.unpack(number, chunk[4:])
            if chunk[:4].upper() == b"ID3 ":
                return file.read(size)
            file.seek(size + size % 2, os.SEEK_CUR)
        return b""
    if head[:3] != b"ID3":
        return b""
    file.seek(0)
    return file.read(10 + _syncsafe(head[6:10]))


def _syncsafe(data: bytes) -> int:
    """Decode an integer with 7 bits per byte."""
    number = 0
    for byte in data:
        number = number << 7 | byte & 0x7F
    return number


def _frames(tag: bytes) -> list[str]:
    """Return the names of the frames that are not empty."""
    if len(tag) < 10 or tag[3] not in (3, 4):
        return []
    version, flags, body = tag[3], tag[5], tag[10:]
    if flags & 0x80 and version == 3:
        body = body.replace(b"\xff\x00", b"\xff")
    if flags & 0x40:  # an extended header; in 2.4 its length counts itself
        body = body[4 + struct.unpack(">I", body[:4])[0] :] if version == 3 else body[_syncsafe(body[:4]) :]
    plain, synchronised = list(_walk(body, False)), list(_walk(body, True))
    if version == 3:
        return plain
    return max(synchronised, plain, key=len)  # iTunes wrote plain sizes into 2.4


def _walk(body: bytes, syncsafe: bool) -> Iterator[str]:
    at = 0
    while re.fullmatch(rb"[A-Z][A-Z0-9]{3}", body[at : at + 4]) and at + 10 <= len(body):
        size = _syncsafe(body[at + 4 : at + 8]) if syncsafe else struct.unpack(">I", body[at + 4 : at + 8])[0]
        if size:
            yield body[at : at + 4].decode()
        at += 10 + size
