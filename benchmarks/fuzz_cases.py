"""The files of `fuzz.py`: damaged and hostile ones, and what only a file system can make."""

from __future__ import annotations

import io
import math
import os
import random
import re
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile

import keras_musictag as kmt

_RATE, _SECONDS = 22_050, 3.0  # of the sounds that are damaged


class Case(NamedTuple):
    """A file to make.

    Attributes:
        name: of the file, as bytes.
        kind: what was done to it.
        content: of the file.
        must: `"tagged"`, `"error"`, or empty if either will do.
    """

    name: bytes
    kind: str
    content: bytes
    must: str


Sounds = dict[str, bytes]  # ending of a name -> content


# === Sounds ===


def sounds() -> Sounds:
    """Three seconds of the bundled clip in every format that is written here."""
    y, rate = soundfile.read(kmt.demo_clip(), dtype="float32", always_2d=True, frames=round(2 * _SECONDS * _RATE))
    y = np.ascontiguousarray(y[:: rate // _RATE])
    written = {"wav": ("WAV", None), "float.wav": ("WAV", "FLOAT"), "24.wav": ("WAV", "PCM_24"), "flac": ("FLAC", None),
               "mp3": ("MP3", None), "ogg": ("OGG", None), "aiff": ("AIFF", None), "w64": ("W64", None),
               "caf": ("CAF", None), "au": ("AU", None), "adpcm.wav": ("WAV", "IMA_ADPCM")}  # fmt: skip
    made = {ending: _encoded(y, *how) for ending, how in written.items()}
    made["opus"] = _encoded(y[: len(y) // 2].repeat(2, axis=0), "OGG", "OPUS", 48_000)
    for ending, container, codec in (
        ("m4a", "ipod", "aac"), ("alac.m4a", "ipod", "alac"), ("mka", "matroska", "flac"), ("wma", "asf", "wmav2"),
        ("tta", "tta", "tta"), ("aac", "adts", "aac"),
    ):  # fmt: skip
        made[ending] = _av_encoded(y, container, codec)
    made["7.1.m4a"] = _av_encoded(np.tile(y, 4), "ipod", "aac", "7.1")
    made["ac3"] = _av_encoded(y.repeat(2, axis=0), "ac3", "ac3", rate=2 * _RATE)
    made["dsf"] = _dsf(y)
    for ending in ("ogg", "opus"):  # libsndfile numbers their streams at random
        serial = made[ending][14:18]
        made[ending] = _rechecked(made[ending].replace(serial, b"\1\2\3\4"))
    return made


def _encoded(y: np.ndarray, file_format: str, subtype: str | None = None, rate: int = _RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, y, rate, format=file_format, subtype=subtype)
    data = file.getvalue()
    peak = data.find(b"PEAK", 0, 2000) + 12  # there libsndfile writes the time, in seconds
    return data if peak < 12 else data[:peak] + bytes(4) + data[peak + 4 :]


def _dsf(y: np.ndarray) -> bytes:
    """DSD64 of a second: a first-order modulator, blocks of 4096 bytes of the channels in turn, lowest bit first."""
    rate = 64 * 44_100
    at = np.arange(rate // 32768 * 32768) * (_RATE / rate)
    density = [(np.interp(at, np.arange(len(y)), channel) + 1) / 2 for channel in y.T]
    bits = np.stack([np.diff(np.floor(np.cumsum(channel)), prepend=0).astype("uint8") for channel in density])
    data = np.packbits(bits, axis=1, bitorder="little").reshape(len(bits), -1, 4096).transpose(1, 0, 2).tobytes()
    fmt = struct.pack("<QIIIIIIQII", 52, 1, 0, len(bits), len(bits), rate, 1, bits.shape[1], 4096, 0)
    head = b"DSD " + struct.pack("<QQQ", 28, 92 + len(data), 0) + b"fmt " + fmt
    return head + b"data" + struct.pack("<Q", 12 + len(data)) + data


def _av_encoded(y: np.ndarray, container: str, codec: str, layout: str = "stereo", rate: int = _RATE) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container, container_options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 128_000
        for first in range(0, len(y), 1024):
            piece = np.ascontiguousarray(y[first : first + 1024]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=layout)
            frame.sample_rate, frame.pts = rate, first
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


# === Cases ===


def make(number: int, seed: int, made: Sounds) -> Case:
    """A case; the same number and seed always give the same one."""
    chance = random.Random(f"{seed}/{number}")
    ending = chance.choice(list(made))
    kind = list(_KINDS)[number % len(_KINDS)]
    change, must = _KINDS[kind]
    content = change(made[ending], chance, made)
    if ending in ("ogg", "opus") and not must and chance.random() < 0.5:
        content = _rechecked(content)
    if kind == "misnamed":
        ending = chance.choice([other for other in made if "." not in other])
    elif kind in ("channels", "samples", "opposite"):
        ending = "wav"
    elif kind in ("holed", "unstated"):
        ending = "mp3"
    odd = os.fsencode("\udcff\udce9") if number % 10 == 0 else b""  # no UTF-8
    return Case(f"{number:06}-{kind}-".encode() + odd + f".{ending}".encode(), kind, content, must)


def _same(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    return data


def _cut(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    return data[: int(len(data) * chance.random() ** chance.choice((0.5, 1, 4)))]


def _flipped(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    new = bytearray(data)
    for _ in range(int(10 ** chance.uniform(0, 2))):
        new[_somewhere(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(new)


def _filled(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    at, length = _somewhere(data, chance), int(10 ** chance.uniform(0, 4.5))
    fill = chance.choice((b"\0" * length, b"\xff" * length, chance.randbytes(length)))
    return data[:at] + fill + data[at + length :]


def _spliced(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    """A piece is left out, doubled, or moved to another place."""
    at, length = _somewhere(data, chance), int(10 ** chance.uniform(0, 4))
    piece, rest = data[at : at + length], data[:at] + data[at + length :]
    to = _somewhere(data, chance)
    return chance.choice((rest, data[:at] + piece * chance.randrange(2, 20) + data[at:], rest[:to] + piece + rest[to:]))


def _joined(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    other = made[chance.choice(list(made))]
    return data[: _somewhere(data, chance)] + other[_somewhere(other, chance) :]


def _lying(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    """Some numbers of the header become the ones that programs stumble over."""
    new = bytearray(data)
    # MP4 has its index at the end, Ogg its length.
    first = chance.choice((0, 0, max(0, len(data) - 2000)))
    for _ in range(chance.randrange(1, 6)):
        width = chance.choice((1, 2, 4, 4, 8))
        top = 2 ** (8 * width)
        number = chance.choice(
            (0, 1, 2, 3, 7, 255, top // 2 - 1, top // 2, top - 1, top - 8, top // 16, len(data), 10**9)
        )
        at = first + chance.randrange(min(len(data) - 8, chance.choice((64, 256, 2000))))
        new[at : at + width] = (number % top).to_bytes(width, chance.choice(("little", "big")))
    return bytes(new)


def _noise(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    """Noise, often behind the first bytes of some format."""
    length = int(10 ** chance.uniform(0, 5))
    return data[: chance.choice((0, 4, 12, 44, 200))] + chance.choice((chance.randbytes(length), bytes(length)))


def _channels(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    count = chance.choice((1, 3, 5, 6, 7, 8, 13, 32, 255, 1000))
    y = np.random.default_rng(chance.randrange(2**32)).uniform(-0.5, 0.5, (2000, count))
    return _encoded(y, chance.choice(("WAV", "AIFF", "CAF")), chance.choice(("PCM_16", "PCM_24", "FLOAT")))


def _samples(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    """What is no sound: not finite, far over full scale, or silence."""
    y = np.full((_RATE, 2), chance.choice((0.0, 1e-8, 1e30, -32768.0, math.nan, math.inf)))
    if chance.random() < 0.5 and not abs(y[0, 0]) < 1:
        y[: chance.randrange(_RATE)] = 0.1
    return _encoded(y, "WAV", "DOUBLE")


def _holed(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    """An MP3 with some thousand bytes of rubbish in the middle, instead of its own or between them."""
    data, length = made["mp3"], chance.randrange(1000, 3000)
    at = chance.randrange(len(data) // 3, len(data) // 2)
    rubbish = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    return data[:at] + rubbish + data[at + chance.choice((0, length)) :]


def _unstated(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    """An MP3 without a header, quiet and loud in turn: its length can only be counted."""
    data = made["mp3"].replace(b"Xing", bytes(4)).replace(b"Info", bytes(4))
    return data[: chance.randrange(len(data) // 4, len(data))] + data


def _opposite(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    y = np.random.default_rng(chance.randrange(2**32)).uniform(-0.5, 0.5, (_RATE, 1))
    y = np.cumsum(y, axis=0) / 100 % 1 - 0.5
    count = chance.choice((1, 2, 5))
    both = np.tile(np.concatenate([y, -chance.choice((1.0, 0.99)) * y], axis=1), count)
    return _encoded(both, chance.choice(("WAV", "AIFF", "FLAC" if count < 5 else "CAF")), "PCM_16")


def _followed(data: bytes, chance: random.Random, made: Sounds) -> bytes:
    """Tags of other formats behind a sound, which may be a FLAC of unknown length."""
    if chance.random() < 0.3:
        data = made["flac"][:22] + bytes(4) + made["flac"][26:]
    ape = b"key=value.." + b"APETAGEX" + struct.pack("<IIII", 2000, 43, 1, 0) + bytes(8)
    return data + chance.choice((b"", ape)) + b"TAG" + chance.randbytes(125)


def _somewhere(data: bytes, chance: random.Random) -> int:
    """A place in a file, more often near its beginning, where the headers are, or near its end."""
    at = int(len(data) * chance.random() ** chance.choice((1, 3, 8)))
    return at if chance.random() < 0.8 else len(data) - 1 - at


def _rechecked(data: bytes) -> bytes:
    """Give all Ogg pages the checksum of what is in them now, so that it is not just dropped."""
    new = bytearray(data)
    for match in re.finditer(b"OggS", data):
        at = match.start()
        table = data[at + 26 : at + 27 + (data[at + 26] if at + 26 < len(data) else 0)]
        end = at + 26 + len(table) + sum(table[1:])
        if end <= len(data) and table:
            new[at + 22 : at + 26] = bytes(4)
            # zlib's checksum has the bits of every byte, and of itself, the other way round.
            mirrored = zlib.crc32(new[at:end].translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
            new[at + 22 : at + 26] = int(f"{mirrored:032b}"[::-1], 2).to_bytes(4, "little")
    return bytes(new)


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_Change = Callable[[bytes, random.Random, Sounds], bytes]
_KINDS: dict[str, tuple[_Change, str]] = {
    "intact": (_same, "tagged"), "misnamed": (_same, "tagged"), "channels": (_channels, "tagged"),
    "samples": (_samples, "error"), "cut": (_cut, ""), "flipped": (_flipped, ""), "filled": (_filled, ""),
    "spliced": (_spliced, ""), "joined": (_joined, ""), "lying": (_lying, ""), "lying again": (_lying, ""),
    "noise": (_noise, ""), "holed": (_holed, "tagged"), "unstated": (_unstated, "tagged"),
    "opposite": (_opposite, "tagged"), "followed": (_followed, "tagged"),
}  # fmt: skip


def odd_files(folder: Path, sparse: int, wav: bytes) -> dict[bytes, str]:
    """What only a file system can make: name -> the kind of error it must have, empty if it must be tagged.

    Args:
        folder: where to; must not be there.
        sparse: bytes of sparse files.
        wav: a sound.
    """
    folder.mkdir()
    (folder / "empty.mp3").touch()
    (folder / "folder.wav").mkdir()
    (folder / "nowhere.wav").symlink_to("nothing")
    (folder / "self.wav").symlink_to("self.wav")
    (folder / "there.wav").symlink_to("back.wav")
    (folder / "back.wav").symlink_to("there.wav")
    (folder / "up").symlink_to(folder)
    (folder / "null.wav").symlink_to(os.devnull)
    (folder / "endless.wav").symlink_to("/dev/zero")
    (folder / "unreadable.wav").symlink_to(
        "/proc/self/mem"
    )  # a regular file that not even root can read from its start
    os.mkfifo(folder / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.wav"))
    (folder / os.fsdecode(b"\xff\xfe\n.wav")).write_bytes(wav)
    (folder / "sound.wav").write_bytes(wav)
    (folder / "link.wav").symlink_to("sound.wav")
    heads = {"zeros.mp3": b"", "head.wav": wav[:36], "tail.wav": wav, "silence.wav": _rf64(sparse)}
    for name, head in heads.items():
        (folder / f"sparse-{name}").write_bytes(head)
        os.truncate(folder / f"sparse-{name}", max(sparse, len(head)))
    return {
        b"empty.mp3": "too short", b"nowhere.wav": "unreadable", b"self.wav": "link loop", b"there.wav": "link loop",
        b"back.wav": "link loop", b"up": "link loop", b"null.wav": "not a file", b"endless.wav": "not a file",
        b"unreadable.wav": "unreadable", b"pipe.wav": "not a file", b"socket.wav": "not a file",
        b"\xff\xfe\n.wav": "tagged", b"sound.wav": "tagged", b"link.wav": "tagged",
        b"sparse-zeros.mp3": "unsupported", b"sparse-head.wav": "unsupported",
        b"sparse-tail.wav": "tagged", b"sparse-silence.wav": "silent",
    }  # fmt: skip


def _rf64(size: int) -> bytes:
    """The header of a WAV of 64-bit lengths, 32-bit stereo at 1 MHz."""
    data = size - 80
    fmt = struct.pack("<IHHIIHH", 16, 1, 2, 1_000_000, 8_000_000, 8, 32)
    ds64 = struct.pack("<IQQQI", 28, size - 8, data, data // 8, 0)
    return b"RF64\xff\xff\xff\xffWAVEds64" + ds64 + b"fmt " + fmt + b"data\xff\xff\xff\xff"
