"""What the bytes of a sound file say about its length, where the decoding libraries keep it to themselves or err.

Every function takes a binary file and leaves its position anywhere.
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
_ID3V1, _ID3V1_MORE = 128, 227  # bytes at the end of a file: "TAG", and before it, now and then, "TAG+"
_EBML = b"\x1aE\xdf\xa3"  # which Matroska files begin with
_MP3_SEARCH = 400  # bytes from the first frame on; Xing's and VBRI's names stand within the first 40

# Samples at 48 kHz of an Opus frame, by the configuration in the upper five bits of its packet (RFC 6716, table 2).
_OPUS_SAMPLES = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
_TIME = 6  # where in the header of an Ogg page its time is; stream, number and checksum follow, up to byte 26
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


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
    _, head = _first_mp3_frame(file)
    if b"VBRI" in head:
        return True
    at = _xing(head)
    return at >= 0 and bool(head[at + 7] & 1)  # lowest flag: the number of frames follows


def mp3_bytes_missing(file: IO[bytes], end: int) -> tuple[int, int] | None:
    """How many bytes of an MP3 are not there before position `end`, and how many there are to be.

    Negative if there are more than there should be; `None` if its header (Xing, Info or VBRI) does not count bytes.
    """
    position, head = _first_mp3_frame(file)
    at = head.find(b"VBRI")
    if at >= 0:
        number = head[at + 10 : at + 14]
    else:
        at = _xing(head)
        if at < 0 or not head[at + 7] & 2:
            return None
        begin = at + 8 + 4 * (head[at + 7] & 1)  # behind the number of frames, if there is one
        number = head[begin : begin + 4]
    stated = int.from_bytes(number, "big")
    return (position + stated - end, stated) if len(number) == 4 and stated else None


def _first_mp3_frame(file: IO[bytes]) -> tuple[int, bytes]:
    """Position behind the ID3v2 tags that come first, and the first bytes from there on."""
    position = 0
    head = file.read(10)
    while head[:3] == _ID3 and len(head) == 10:  # seven bits a byte of their size count
        position += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(position)
        head = file.read(10)
    return position, head + file.read(_MP3_SEARCH)


def _xing(head: bytes) -> int:
    """Where a Xing or Info header begins; -1 if there is none whose flags are there."""
    at = max(head.find(b"Xing"), head.find(b"Info"))
    return at if len(head) >= at + 8 else -1


def end_before_tags(file: IO[bytes]) -> int | None:
    """Where the tags at the end of a file (ID3v1, APEv2, Lyrics3) begin; `None` if there are none."""
    size = end = _size(file)
    while True:
        tail = _at(file, max(0, end - _ID3V1 - _ID3V1_MORE), min(end, _ID3V1 + _ID3V1_MORE))
        if tail[-_ID3V1:].startswith(b"TAG") and len(tail) >= _ID3V1:
            end -= _ID3V1 + (_ID3V1_MORE if tail.startswith(b"TAG+") else 0)
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


def breaks_off(file: IO[bytes]) -> str:
    """Why an Ogg, CAF or Matroska (WebM) file cannot be whole; empty where nothing shows it, and for other formats.

    Decoders take what is there of them for all there is. Recordings of broadcasts that nobody closed count as broken
    off, too: in Ogg nothing tells them from the others.
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
    """Whether one of the streams that begin is without its last page, which is marked (RFC 3533, section 6)."""
    position, begun = 0, set()
    while len(head := _at(file, position, 27)) == 27:
        if head[:4] != b"OggS":  # damage, which is not what is asked for
            return False
        lengths = file.read(head[26])
        position += 27 + head[26] + sum(lengths)
        stream, flags = head[14:18], head[5]
        if flags & 2:
            begun.add(stream)
        if flags & 4 and position <= size:
            begun.discard(stream)
            if not begun:  # what may follow is another sound, which no decoder here goes on to
                return False
    return bool(begun)


def _caf_breaks_off(file: IO[bytes], size: int) -> bool:
    """Whether a CAF ends before its data, in it, or in the table of its packets. Other things may follow them."""
    position, has_data = 8, False
    while len(head := _at(file, position, 12)) == 12:
        name, length = head[:4], int.from_bytes(head[4:], "big", signed=True)
        if length < 0:  # data up to the end, as written to a pipe
            return False
        position += 12 + length
        if position > size:
            return name in (b"data", b"pakt") or not has_data
        has_data = has_data or name == b"data"
    return not has_data


def _matroska_breaks_off(file: IO[bytes], size: int) -> bool:
    """Whether a Matroska or WebM file ends before its segment does, if that says where (RFC 9559, RFC 8794)."""
    position = 4
    for _ in range(2):  # the EBML header, then the segment
        field = _at(file, position, 8)
        width = 9 - field[0].bit_length() if field else 1  # of the number: one byte more for each leading zero
        if width > 8:
            return False
        if len(field) < width:
            return True
        number = int.from_bytes(field[:width], "big") - (1 << 7 * width)
        if number == (1 << 7 * width) - 1:  # unknown, as written to a pipe
            return False
        position += width + number + 4  # the next element's name has four bytes
    return position - 4 > size


class _Page(NamedTuple):
    """An Ogg page: where it is, how many bytes, its header from the time to the checksum, its samples at 48 kHz."""

    position: int
    length: int
    fields: bytes
    last: bool
    samples: int

    @property
    def time(self) -> int:
        return int.from_bytes(self.fields[:8], "little", signed=True)


def misdated_opus(file: IO[bytes]) -> dict[int, bytes]:
    """Bytes, by position, that date the pages of an Ogg Opus file by the samples in them; none if they are so already.

    In files that FFmpeg wrote, now and then a page is dated some milliseconds late and one of the next right. There
    libsndfile sees damage and stops, or it drops the end of the sound; other decoders play the packets one after the
    other. Where a stream begins later than at 0, libsndfile skips too little of the encoder's delay. A file that has
    lost pages or has anything else between them is left as it is.

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
    """The pages of an Ogg Opus file in which packets of sound end, and the last; none if it is not one unbroken row."""
    pages: list[_Page] = []
    position, packets, packet, stream = 0, 0, b"", b""
    for number in itertools.count():
        head = _at(file, position, 27)
        lengths = file.read(head[26]) if len(head) == 27 else b""
        body = file.read(sum(lengths))
        length = 27 + len(lengths) + len(body)
        if len(head) < 27 or length < 27 + head[26] + sum(lengths):
            break  # the end, or a page that is cut off
        stream = stream or head[14:18]
        if head[:4] != b"OggS" or head[14:18] != stream or int.from_bytes(head[18:22], "little") != number:
            return []
        ended = at = samples = 0
        begins = not head[5] & 1  # the first packet; otherwise the page begins with the rest of one
        for piece in lengths:
            packet = body[at : at + 2] if begins else packet
            at += piece
            begins = piece < 255
            if begins:
                ended += 1
                samples += _opus_samples(packet)
        packets += ended
        last = bool(head[5] & 4)
        if packets > 2 and (ended or last):  # after the two headers, which have pages of their own
            pages.append(_Page(position, length, head[_TIME:26], last, samples))
        if last:  # of its stream; libsndfile reads no other one
            break
        position += length
    return pages


def _opus_samples(packet: bytes) -> int:
    """Samples at 48 kHz of an Opus packet, by its first two bytes (RFC 6716, section 3)."""
    if not packet:
        return 0
    code = packet[0] & 3
    frames = (1, 2, 2, packet[-1] & 63)[code]
    return frames * _OPUS_SAMPLES[packet[0] >> 3]


def _dated(page: _Page, time: int) -> bytes:
    """The header of a page, from the time to the checksum, with another time.

    The checksum is linear and changes by that of the change: a damaged page stays damaged. It is zlib's with the bits
    of every byte mirrored and nothing inverted.
    """
    old, new = page.fields[:8], time.to_bytes(8, "little")
    change = bytes(_TIME) + bytes(a ^ b for a, b in zip(old, new, strict=True)) + bytes(page.length - _TIME - 8)
    mirrored = zlib.crc32(change.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    checksum = int.from_bytes(page.fields[16:], "little") ^ int(f"{mirrored:032b}"[::-1], 2)
    return new + page.fields[8:16] + checksum.to_bytes(4, "little")


class Patched:
    """A binary file without a name, and with a few bytes seen as others; as much of the protocol as decoders need."""

    def __init__(self, file: IO[bytes], patches: Mapping[int, bytes] | None = None, end: int | None = None) -> None:
        """Show `patches`, by their positions, instead of what `file` has there, and nothing from `end` on.

        Patches do not overlap.
        """
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
        index = bisect.bisect(self._patches, first, key=_position) - 1  # the one before may reach to here
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
