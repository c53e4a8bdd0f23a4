"""What the bytes of a sound file say about its length, where the decoding libraries keep it to themselves.

Every function takes a binary file and leaves its position anywhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO, Any

_ID3 = b"ID3"
_MP3_SEARCH = 400  # bytes from the first frame on; Xing's and VBRI's names stand within the first 40


@contextlib.contextmanager
def opened(path: Any) -> Iterator[IO[bytes]]:
    """A path as an open file, or a file object, at its beginning. The latter stays open and gets its position back."""
    if not hasattr(path, "read"):
        with open(path, "rb") as file:
            yield file
        return
    position = path.tell()
    path.seek(0)
    try:
        yield path
    finally:
        if not getattr(path, "closed", False):
            path.seek(position)


def mp3_states_length(file: IO[bytes]) -> bool:
    """Whether an MP3 counts its frames (Xing, Info or VBRI header); without, a length is guessed from the bit rate."""
    position = 0
    head = file.read(10)
    while head[:3] == _ID3 and len(head) == 10:  # ID3v2 tags come first; seven bits a byte of their size count
        position += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(position)
        head = file.read(10)
    head += file.read(_MP3_SEARCH)
    if b"VBRI" in head:
        return True
    at = max(head.find(b"Xing"), head.find(b"Info"))
    return at >= 0 and len(head) >= at + 8 and bool(head[at + 7] & 1)  # lowest flag: the number of frames follows


def unclosed_wav(file: IO[bytes]) -> int | None:
    """Where a WAV says that its data is 0 bytes long although data follows, as written to a pipe; `None` if not so."""
    size = _size(file)
    head, position = file.read(12), 12
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    while len(head := _at(file, position, 8)) == 8:
        length = int.from_bytes(head[4:], "little")
        position += 8
        if head[:4] == b"data":
            follower = _at(file, position, 8)
            # A printable name with a length that fits is the next chunk of a WAV that really is empty.
            is_chunk = follower[:4].isascii() and follower[:4].decode("ascii").isprintable()
            is_chunk = is_chunk and position + 8 + int.from_bytes(follower[4:], "little") <= size
            return position - 4 if length == 0 and position < size and not is_chunk else None
        position += length + length % 2
    return None


def mp4_breaks_off(file: IO[bytes]) -> bool:
    """Whether an MP4 (m4a, mov) ends inside one of its top-level boxes or before its index, the `moov` box."""
    size = _size(file)
    if _at(file, 0, 12)[4:8] != b"ftyp":
        return False
    position, indexed = 0, False
    while position < size:
        head = _at(file, position, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a 64-bit length follows
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # up to the end
            length = size - position
        indexed = indexed or head[4:8] == b"moov"
        if length < 8 or position + length > size:
            return True
        position += length
    return not indexed


class Patched:
    """A binary file without a name, and with a few bytes seen as others; as much of the protocol as decoders need."""

    def __init__(self, file: IO[bytes], at: int = 0, patch: bytes = b"") -> None:
        """Show `patch` instead of what `file` has at position `at`."""
        self._file, self._at, self._patch = file, at, patch

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As `io.IOBase.seek`."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As `io.IOBase.tell`."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """As `io.RawIOBase.read`."""
        if not self._patch:
            return self._file.read(size)
        first = self._file.tell()
        data = bytearray(self._file.read(size))
        for position, byte in enumerate(self._patch, start=self._at - first):
            if 0 <= position < len(data):
                data[position] = byte
        return bytes(data)


def _size(file: IO[bytes]) -> int:
    file.seek(0, os.SEEK_END)
    size = file.tell()  # not every file object returns it from `seek`
    file.seek(0)
    return size


def _at(file: IO[bytes], position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)
