"""Read what audio files state about their length, where the decoding libraries do not report it or report it wrongly.

Every function takes a binary file and may leave it at any position.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

_ID3 = b"ID3"
_ID3V1, _ID3V1_ENHANCED = 128, 227  # bytes of "TAG" at the end of a file, and of "TAG+", which may precede it
_EBML = b"\x1aE\xdf\xa3"  # first bytes of Matroska files
_MP3_SEARCH = 400  # bytes read from the first frame on; the names Xing and VBRI are within the first 40

# Samples at 48 kHz in an Opus frame, by the upper five bits of the packet's first byte (RFC 6716, table 2).
_OPUS_SAMPLES = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
_TIME = 6  # position of the time in the header of an Ogg page; stream, number and checksum follow, up to byte 26
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@contextlib.contextmanager
def opened(path: Any) -> Iterator[IO[bytes]]:
    """Open a path, or go to the beginning of a file object, which stays open and gets its position back."""
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
    """Return whether the header of an MP3 (Xing, Info or VBRI) states its number of frames."""
    _, head = _first_mp3_frame(file)
    if b"VBRI" in head:
        return True
    at = _xing(head)
    return at >= 0 and bool(head[at + 7] & 1)  # lowest flag: the number of frames follows


def mp3_bytes_missing(file: IO[bytes], end: int) -> tuple[int, int] | None:
    """Return how many bytes of an MP3 are missing before position `end`, and how many its header states.

    The first is negative if there are more bytes than stated. `None` if the header (Xing, Info or VBRI) states none.
    """
    position, head = _first_mp3_frame(file)
    at = head.find(b"VBRI")
    if at >= 0:
        number = head[at + 10 : at + 14]
    else:
        at = _xing(head)
        if at < 0 or not head[at + 7] & 2:
            return None
        begin = at + 8 + 4 * (head[at + 7] & 1)  # after the number of frames, if there is one
        number = head[begin : begin + 4]
    stated = int.from_bytes(number, "big")
    return (position + stated - end, stated) if len(number) == 4 and stated else None


def _first_mp3_frame(file: IO[bytes]) -> tuple[int, bytes]:
    """Return the position after leading ID3v2 tags, and the first bytes from there."""
    position = 0
    head = file.read(10)
    while head[:3] == _ID3 and len(head) == 10:  # the size is stored in seven bits per byte
        position += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(position)
        head = file.read(10)
    return position, head + file.read(_MP3_SEARCH)


def _xing(head: bytes) -> int:
    """Return where a Xing or Info header begins; -1 if there is none or its flags are cut off."""
    at = max(head.find(b"Xing"), head.find(b"Info"))
    return at if len(head) >= at + 8 else -1


def end_before_tags(file: IO[bytes]) -> int | None:
    """Return where the tags at the end of a file (ID3v1, APEv2, Lyrics3) begin; `None` if there are none."""
    size = end = _size(file)
    while True:
        tail = _at(file, max(0, end - _ID3V1 - _ID3V1_ENHANCED), min(end, _ID3V1 + _ID3V1_ENHANCED))
        if tail[-_ID3V1:].startswith(b"TAG") and len(tail) >= _ID3V1:
            end -= _ID3V1 + (_ID3V1_ENHANCED if tail.startswith(b"TAG+") else 0)
        elif tail[-32:-24] == b"APETAGEX":
            flags = int.from_bytes(tail[-12:-8], "little")
            end -= int.from_bytes(tail[-20:-16], "little") + (32 if flags >> 31 else 0)  # a header is not counted
        elif tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
            end -= int(tail[-15:-9]) + 15
        else:
            return end if 0 <= end < size else None
        if end <= 0:
            return None


def unclosed_wav(file: IO[bytes]) -> int | None:
    """Return the position of the data length in a WAV that states 0 although data follows, else `None`.

    Programs that write to a pipe make such files.
    """
    size = _size(file)
    head, position = file.read(12), 12
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    while len(head := _at(file, position, 8)) == 8:
        length = int.from_bytes(head[4:], "little")
        position += 8
        if head[:4] == b"data":
            follower = _at(file, position, 8)
            # In an empty WAV, another chunk may follow: a printable name and a length that fits into the file.
            is_chunk = follower[:4].isascii() and follower[:4].decode("ascii").isprintable()
            is_chunk = is_chunk and position + 8 + int.from_bytes(follower[4:], "little") <= size
            return position - 4 if length == 0 and position < size and not is_chunk else None
        position += length + length % 2
    return None


def mp4_breaks_off(file: IO[bytes]) -> bool:
    """Return whether an MP4 (m4a, mov) ends inside a top-level box or has no index (`moov` box)."""
    size = _size(file)
    if _at(file, 0, 12)[4:8] != b"ftyp":
        return False
    position, indexed = 0, False
    while position < size:
        head = _at(file, position, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a 64-bit length follows
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # the box extends to the end of the file
            length = size - position
        indexed = indexed or head[4:8] == b"moov"
        if length < 8 or position + length > size:
            return True
        position += length
    return not indexed


def breaks_off(file: IO[bytes]) -> str:
    """Return why an Ogg, CAF or Matroska (WebM) file is incomplete; empty if it looks complete, or for other formats.

    Decoders read a truncated file of these formats without an error. A recorded stream that was never closed counts as
    truncated too: in Ogg, the two look the same.
    """
    size = _size(file)
    head = _at(file, 0, 4)
    if head == b"OggS" and _ogg_breaks_off(file, size):
        return "the Ogg stream has no last page"
    if head == b"caff" and _caf_breaks_off(file, size):
        return "the CAF file ends inside a chunk"
    if head == _EBML and _matroska_breaks_off(file, size):
        return "the Matroska file is shorter than it says"
    return ""


def _ogg_breaks_off(file: IO[bytes], size: int) -> bool:
    """Return whether a stream has begun and has no page marked as its last (RFC 3533, section 6)."""
    position, begun = 0, set()
    while len(head := _at(file, position, 27)) == 27:
        if head[:4] != b"OggS":  # damaged, but not necessarily truncated
            return False
        lengths = file.read(head[26])
        position += 27 + head[26] + sum(lengths)
        stream, flags = head[14:18], head[5]
        if flags & 2:
            begun.add(stream)
        if flags & 4 and position <= size:
            begun.discard(stream)
            if not begun:  # a chained stream may follow, which no decoder here reads
                return False
    return bool(begun)


def _caf_breaks_off(file: IO[bytes], size: int) -> bool:
    """Return whether a CAF ends before or within its data, or within its packet table."""
    position, has_data = 8, False
    while len(head := _at(file, position, 12)) == 12:
        name, length = head[:4], int.from_bytes(head[4:], "big", signed=True)
        if length < 0:  # the data extends to the end, as programs write to a pipe
            return False
        position += 12 + length
        if position > size:
            return name in (b"data", b"pakt") or not has_data
        has_data = has_data or name == b"data"
    return not has_data


def _matroska_breaks_off(file: IO[bytes], size: int) -> bool:
    """Return whether a Matroska or WebM file is shorter than its segment states (RFC 9559, RFC 8794)."""
    position = 4
    for _ in range(2):  # the EBML header, then the segment
        field = _at(file, position, 8)
        width = 9 - field[0].bit_length() if field else 1  # bytes of the number: one more for each leading zero bit
        if width > 8:
            return False
        if len(field) < width:
            return True
        number = int.from_bytes(field[:width], "big") - (1 << 7 * width)
        if number == (1 << 7 * width) - 1:  # unknown length, as programs write to a pipe
            return False
        position += width + number + 4  # the identifier of the next element has four bytes
    return position - 4 > size


class _Page(NamedTuple):
    """A page of an Ogg Opus file.

    Attributes:
        position, length: in the file, in bytes.
        fields: bytes of the header from the time to the checksum.
        last: whether it is the last page of its stream.
        samples: samples at 48 kHz of the packets that end in it.
    """

    position: int
    length: int
    fields: bytes
    last: bool
    samples: int

    @property
    def time(self) -> int:
        return int.from_bytes(self.fields[:8], "little", signed=True)


def misdated_opus(file: IO[bytes]) -> dict[int, bytes]:
    """Return corrected bytes by position for the pages of an Ogg Opus file whose times disagree with their samples.

    FFmpeg sometimes writes a page whose time is some milliseconds late. libsndfile takes this for damage and stops, or
    drops the end of the audio; other decoders ignore it. If a stream begins later than at 0, libsndfile skips too
    little of the encoder delay. Files with missing pages, or with other data between pages, are not corrected.

    Sources: RFC 7845 (Ogg Opus), section 4; RFC 3533 (Ogg), section 6.
    """
    pages = _opus_pages(file)
    if len(pages) < 2:
        return {}
    times = list(itertools.accumulate(page.samples for page in pages))
    begin = min(page.time - time for page, time in zip(pages[:-1], times, strict=False))
    end = pages[-1].time - begin
    if pages[-1].last and times[-2] < end < times[-1]:  # the rest of the last page is padding
        times[-1] = end
    return {
        page.position + _TIME: _dated(page, time) for page, time in zip(pages, times, strict=True) if page.time != time
    }


def _opus_pages(file: IO[bytes]) -> list[_Page]:
    """Return the last page of an Ogg Opus file and all in which audio packets end; none if any page is missing."""
    pages: list[_Page] = []
    position, packets, packet, stream = 0, 0, b"", b""
    for number in itertools.count():
        head = _at(file, position, 27)
        lengths = file.read(head[26]) if len(head) == 27 else b""
        body = file.read(sum(lengths))
        length = 27 + len(lengths) + len(body)
        if len(head) < 27 or length < 27 + head[26] + sum(lengths):
            break  # end of the file, or a truncated page
        stream = stream or head[14:18]
        if head[:4] != b"OggS" or head[14:18] != stream or int.from_bytes(head[18:22], "little") != number:
            return []
        ended = at = samples = 0
        begins = not head[5] & 1  # else the page begins with the rest of a packet
        for piece in lengths:
            packet = body[at : at + 2] if begins else packet
            at += piece
            begins = piece < 255
            if begins:
                ended += 1
                samples += _opus_samples(packet)
        packets += ended
        last = bool(head[5] & 4)
        if packets > 2 and (ended or last):  # the first two packets are headers on pages of their own
            pages.append(_Page(position, length, head[_TIME:26], last, samples))
        if last:  # libsndfile reads the first stream only
            break
        position += length
    return pages


def _opus_samples(packet: bytes) -> int:
    """Return the number of samples at 48 kHz in an Opus packet, from its first two bytes (RFC 6716, section 3)."""
    if not packet:
        return 0
    code = packet[0] & 3
    frames = (1, 2, 2, packet[-1] & 63)[code]
    return frames * _OPUS_SAMPLES[packet[0] >> 3]


def _dated(page: _Page, time: int) -> bytes:
    """Return the header of a page, from the time to the checksum, with another time.

    The checksum is linear, so the checksum of the change is added and a damaged page stays damaged. It is that of zlib
    with the bits of every byte mirrored and without inversion.
    """
    old, new = page.fields[:8], time.to_bytes(8, "little")
    change = bytes(_TIME) + bytes(a ^ b for a, b in zip(old, new, strict=True)) + bytes(page.length - _TIME - 8)
    mirrored = zlib.crc32(change.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    checksum = int.from_bytes(page.fields[16:], "little") ^ int(f"{mirrored:032b}"[::-1], 2)
    return new + page.fields[8:16] + checksum.to_bytes(4, "little")


class Patched:
    """A binary file, without a name, in which some bytes are replaced. Has the methods that decoders need."""

    def __init__(self, file: IO[bytes], patches: Mapping[int, bytes] | None = None, end: int | None = None) -> None:
        """Replace bytes of `file` by `patches` (position -> bytes, not overlapping) and hide all from `end` on."""
        self._file, self._end = file, end
        self._patches = sorted((patches or {}).items())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As `io.IOBase.seek`."""
        if whence == os.SEEK_END and self._end is not None:
            offset, whence = offset + self._end, os.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As `io.IOBase.tell`."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """As `io.RawIOBase.read`."""
        if self._end is not None:
            left = max(0, self._end - self._file.tell())
            size = left if size < 0 else min(size, left)
        if not self._patches:
            return self._file.read(size)
        first = self._file.tell()
        data = bytearray(self._file.read(size))
        end = first + len(data)
        index = bisect.bisect(self._patches, first, key=_position) - 1  # the patch before may extend to here
        for at, patch in self._patches[max(0, index) : bisect.bisect_left(self._patches, end, key=_position)]:
            begin, stop = max(at, first), min(at + len(patch), end)
            if begin < stop:
                data[begin - first : stop - first] = patch[begin - at : stop - at]
        return bytes(data)


def _position(patch: tuple[int, bytes]) -> int:
    return patch[0]


def _size(file: IO[bytes]) -> int:
    file.seek(0, os.SEEK_END)
    size = file.tell()  # not every file object returns it from `seek`
    file.seek(0)
    return size


def _at(file: IO[bytes], position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)
