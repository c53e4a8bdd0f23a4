"""Sound files made in the tests: signals, encoders, and WAV headers as one likes them."""

import functools
import io
import os
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile

from keras_musictag.audio import reading as audio

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file names, pipes, permissions and programs")


load = functools.partial(audio.load, target_sr=16_000)


def noted(source, **options):
    """A sound, and the notes on it."""
    notes = []
    return load(source, notes=notes, **options), notes


def save(path, data):
    """The path, with the data in the file."""
    path.write_bytes(data)
    return path


def signal(seconds=2.0, rate=44100, channels=1, seed=0):
    """A chirp and a little noise per channel, float64 `(channels, samples)` within [-0.5, 0.5]."""
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    tones = [0.3 * np.sin(2 * np.pi * 110 * (c + 1) * t * (1 + t / 10)) for c in range(channels)]
    return np.stack(tones) + 0.02 * rng.uniform(-1, 1, (channels, len(t)))


def encode(y, rate=44100, file_format="WAV", subtype=None):
    """Bytes of a sound file with samples `y` `(channels, samples)`, written by libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, np.atleast_2d(y).T, rate, format=file_format, subtype=subtype)
    return file.getvalue()


def av_encode(y, rate=44100, container="ipod", codec="alac", options=None, container_options=None):
    """Bytes of a sound file with samples `y` `(channels, samples)`, written by FFmpeg; `ipod` is m4a."""
    av = pytest.importorskip("av")
    y = np.atleast_2d(y).astype("float32")
    layout = {1: "mono", 2: "stereo"}[len(y)]
    file = io.BytesIO()
    with av.open(file, "w", format=container, container_options=container_options) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout, options=options or {})
        stream.bit_rate = 128_000
        for first in range(0, y.shape[1], 1024):
            piece = np.ascontiguousarray(y[:, first : first + 1024])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, first
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def m4a(y, rate=44100, codec="alac"):
    """An m4a file; AAC without the noise that its decoder would make up differently each time."""
    return av_encode(y, rate, "ipod", codec, {"aac_pns": "0"} if codec == "aac" else None)


def ffmpeg(path, *options, source=None):
    """A file made by the ffmpeg program, from another one or from what `options` say."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg program")
    given = [] if source is None else ["-i", os.fspath(source)]
    command = ["ffmpeg", "-v", "error", "-y", *given, *options, os.fspath(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def dsd(y, rate=64 * 44100):
    """Bits `(channels, samples)` of a sound, `(channels, samples)` at any rate, by a first-order modulator."""
    y = np.atleast_2d(y)
    at = np.arange(y.shape[1] * (rate // 44100) // 32768 * 32768) / (rate // 44100)
    density = [(np.interp(at, np.arange(y.shape[1]), channel) + 1) / 2 for channel in y]
    return np.stack([np.diff(np.floor(np.cumsum(channel)), prepend=0).astype("uint8") for channel in density])


def dsf(bits, rate=64 * 44100):
    """A DSF file of bits `(channels, samples)`: blocks of 4096 bytes, one channel after another, lowest bit first."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    data = packed.reshape(len(bits), -1, 4096).transpose(1, 0, 2).tobytes()
    fmt = struct.pack("<QIIIIIIQII", 52, 1, 0, len(bits), len(bits), rate, 1, bits.shape[1], 4096, 0)
    head = b"DSD " + struct.pack("<QQQ", 28, 92 + len(data), 0) + b"fmt " + fmt
    return head + b"data" + struct.pack("<Q", 12 + len(data)) + data


def dff(bits, rate=64 * 44100):
    """A DSDIFF file of two channels of bits: bytes of the channels in turn, highest bit first."""

    def chunk(name, content):
        return name + struct.pack(">Q", len(content)) + content

    properties = b"SND " + chunk(b"FS  ", struct.pack(">I", rate)) + chunk(b"CHNL", b"\0\2SLFTSRGT")
    properties += chunk(b"CMPR", b"DSD \x0enot compressed\0")
    data = np.packbits(bits, axis=1).T.tobytes()
    form = b"DSD " + chunk(b"FVER", b"\1\5\0\0") + chunk(b"PROP", properties) + chunk(b"DSD ", data)
    return chunk(b"FRM8", form)


def index_first(data):
    """An m4a with its index (`moov`) before the sound, as for streaming: FFmpeg's `faststart`, with offsets moved."""
    boxes, position = [], 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        boxes.append(data[position : position + length])
        position += length
    (index,) = [box for box in boxes if box[4:8] == b"moov"]
    others = [box for box in boxes if box[4:8] != b"moov"]
    at = index.index(b"stco")  # type, 4 bytes of flags, number of offsets, offsets of 4 bytes
    (count,) = struct.unpack_from(">I", index, at + 8)
    offsets = struct.unpack_from(f">{count}I", index, at + 12)
    moved = bytearray(index)
    struct.pack_into(f">{count}I", moved, at + 12, *(offset + len(index) for offset in offsets))
    return others[0] + bytes(moved) + b"".join(others[1:])


def ogg_pages(data):
    """The pages of an Ogg file, as a list of bytearrays."""
    pages, position = [], 0
    while position < len(data):
        lengths = data[position + 27 : position + 27 + data[position + 26]]
        end = position + 27 + len(lengths) + sum(lengths)
        pages.append(bytearray(data[position:end]))
        position = end
    return pages


def misdate(data, samples):
    """An Ogg file with some pages, by number, dated later by so many samples, and with the right checksums."""
    pages = ogg_pages(data)
    for number, change in samples.items():
        page = pages[number]
        (time,) = struct.unpack_from("<q", page, 6)
        struct.pack_into("<qIII", page, 6, time + change, *struct.unpack_from("<II", page, 14), 0)
        crc = 0
        for byte in page:
            crc ^= byte << 24
            for _ in range(8):
                crc = (crc << 1) ^ (0x104C11DB7 if crc & 0x80000000 else 0)
        struct.pack_into("<I", page, 22, crc)
    return b"".join(pages)


def wav_header(data_bytes, *, rate=44100, channels=1, bits=16, riff_bytes=None):
    """The 44 bytes before the samples of a PCM WAV that says it has `data_bytes` bytes of them."""
    frame = channels * bits // 8
    riff = min(data_bytes + 36, 0xFFFFFFFF) if riff_bytes is None else riff_bytes
    fmt = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * frame, frame, bits)
    return b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + fmt + b"data" + struct.pack("<I", data_bytes)


class CountingFile(io.BytesIO):
    """A file that counts the bytes read from it."""

    bytes_read = 0

    def read(self, size=-1):
        data = super().read(size)
        self.bytes_read += len(data)
        return data

    def readinto(self, buffer):
        count = super().readinto(buffer)
        self.bytes_read += count
        return count
