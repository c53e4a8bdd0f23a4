"""Ogg, CAF and Matroska files that break off: decoders take what is left for the whole, what the files say shows it."""

import functools
import io
import re

import numpy as np
import pytest
from audio_files import av_encode, encode, ogg_pages, save, signal
from conftest import SHARED

import keras_musictag as kmt
from keras_musictag.audio import containers as _headers
from keras_musictag.audio import reading as audio
from keras_musictag.errors import TruncatedAudioError

load = functools.partial(audio.load, target_sr=16_000)
SECONDS = 3
OGG, CAF, MATROSKA = (
    "the Ogg stream has no last page",
    "the CAF file ends inside a chunk",
    "the Matroska file is shorter than it says",
)
SOUNDS = {  # name -> (how to make it, what is said of a part)
    "Vorbis": (lambda: encode(signal(SECONDS), file_format="OGG"), OGG),
    "Opus": (lambda: encode(signal(SECONDS, 48_000), 48_000, "OGG", "OPUS"), OGG),
    "Vorbis by FFmpeg": (lambda: ffmpeg(44_100, "ogg", "vorbis", {"strict": "-2"}), OGG),
    "Opus by FFmpeg": (lambda: ffmpeg(48_000, "ogg", "libopus"), OGG),
    "FLAC in Ogg": (lambda: ffmpeg(44_100, "ogg", "flac"), OGG),
    "CAF": (lambda: encode(signal(SECONDS), file_format="CAF"), CAF),
    "CAF by FFmpeg": (lambda: ffmpeg(44_100, "caf", "pcm_s16le"), CAF),
    "CAF, ALAC": (lambda: encode(signal(SECONDS), file_format="CAF", subtype="ALAC_16"), CAF),
    "CAF, ALAC by FFmpeg": (lambda: ffmpeg(44_100, "caf", "alac"), CAF),
    "Matroska, FLAC": (lambda: ffmpeg(44_100, "matroska", "flac"), MATROSKA),
    "Matroska, PCM": (lambda: ffmpeg(44_100, "matroska", "pcm_s16le"), MATROSKA),
    "WebM": (lambda: ffmpeg(48_000, "webm", "libopus"), MATROSKA),
}


def ffmpeg(rate, container, codec, options=None):
    return av_encode(signal(SECONDS, rate, 2), rate, container, codec, options)


@functools.cache
def made(name):
    return SOUNDS[name][0]()


@functools.cache
def vorbis():
    """Pages of a Vorbis file, the headers' two or three among them."""
    return tuple(map(bytes, ogg_pages(encode(signal(20.0), file_format="OGG"))))


# === Real files ===


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_file_that_breaks_off(tmp_path, name, as_file):
    data, why = made(name), SOUNDS[name][1]
    whole = load(io.BytesIO(data))
    for part in (0.5, 0.9, 0.97):
        cut = data[: int(part * len(data))]
        source = io.BytesIO(cut) if as_file else save(tmp_path / "a.sound", cut)
        with pytest.raises(TruncatedAudioError, match=r"Get a complete copy") as raised:
            load(source)
        assert why in str(raised.value) or "Invalid data found" in str(raised.value)  # an ALAC frame cut in two
        usable = re.search(r"with duration=([\d.]+)\.$", str(raised.value))
        if usable:  # the advice holds
            y = load(source, duration=float(usable[1]))
            assert len(y) == round(float(usable[1]) * 16_000)
            np.testing.assert_allclose(y[: len(y) // 2], whole[: len(y) // 2], atol=2e-3)
        else:
            assert "it cannot be decoded" in str(raised.value)  # the table of packets comes last
        with pytest.raises(TruncatedAudioError, match=r"Get a complete copy"):
            load(source, offset=SECONDS - 0.01)


@pytest.mark.parametrize("name", SOUNDS)
def test_a_file_without_any_sound_left(name):
    for length in (30, 60, 300):
        assert _headers.breaks_off(io.BytesIO(made(name)[:length])) == SOUNDS[name][1]
        with pytest.raises(TruncatedAudioError, match=r"Get a complete copy"):
            load(io.BytesIO(made(name)[:length]))


@pytest.mark.parametrize("name", SOUNDS)
def test_whole_files_are_whole(name):
    data = made(name)
    for follower in (b"", b"TAG" + bytes(125), b"x"):
        assert _headers.breaks_off(io.BytesIO(data + follower)) == ""
    assert abs(len(load(io.BytesIO(data))) / 16_000 - SECONDS) < 0.6


def test_the_demo_clip_and_real_music_are_whole():
    with open(kmt.demo_clip(), "rb") as file:
        assert file.read(4) == b"OggS"
        assert _headers.breaks_off(file) == ""
    paths = sorted((SHARED / "music").rglob("*.opus"))[::20]
    if not paths:
        pytest.skip("development data is not here")
    for path in paths:
        data = path.read_bytes()
        assert _headers.breaks_off(io.BytesIO(data)) == "", path
        assert _headers.breaks_off(io.BytesIO(data[: len(data) * 2 // 3])) == OGG, path


# === Ogg ===


def test_ogg_that_ends_with_a_page():
    """No byte of what is there is missing; only the mark on the last page is."""
    pages = vorbis()
    assert len(pages) > 8
    for number in range(4, len(pages)):
        with pytest.raises(TruncatedAudioError, match=OGG):
            load(io.BytesIO(b"".join(pages[:number])))
    unmarked = bytearray(pages[-1])
    unmarked[5] &= ~4
    assert _headers.breaks_off(io.BytesIO(b"".join([*pages[:-1], unmarked]))) == OGG


def test_streams_within_each_other_and_one_after_the_other():
    first = vorbis()
    second = [page[:14] + b"\1\2\3\4" + page[18:] for page in first]  # its checksums are not looked at
    for pages, breaks_off in (
        ([first[0], second[0], *first[1:], *second[1:]], False),
        ([first[0], second[0], *first[1:], *second[1:-1]], True),
        ([*first, *second], False),
        ([*first, *second[:-1]], False),  # decoders play the first
        (first[1:], False),  # where it begins is not known
    ):
        assert bool(_headers.breaks_off(io.BytesIO(b"".join(pages)))) is breaks_off


def test_damaged_ogg_is_not_judged():
    pages = vorbis()
    assert _headers.breaks_off(io.BytesIO(b"".join([*pages[:4], b"noise" * 20, *pages[4:]]))) == ""


# === Written to a pipe ===


def test_files_that_do_not_know_their_length_are_not_judged():
    live = av_encode(signal(SECONDS), container="matroska", codec="flac", container_options={"live": "1"})
    assert b"\x18S\x80g\x01" + b"\xff" * 7 in live[:100]  # a segment of unknown length
    caf = bytearray(made("CAF"))
    at = caf.index(b"data")
    caf[at + 4 : at + 12] = b"\xff" * 8
    for data in (live, bytes(caf)):
        assert _headers.breaks_off(io.BytesIO(data[: len(data) // 2])) == ""
        assert len(load(io.BytesIO(data[: len(data) // 2]))) > 16_000


# === Bytes ===


@pytest.mark.parametrize(
    ("chunks", "breaks_off"),
    [
        ([(b"desc", 32), (b"data", 100)], ""),
        ([(b"desc", 32)], CAF),
        ([(b"desc", 32), (b"data", 100), (b"pakt", 24)], ""),
        ([(b"desc", 32), (b"pakt", 24), (b"data", 100)], ""),
    ],
)
def test_chunks_of_a_caf(chunks, breaks_off):
    data = b"caff\0\1\0\0" + b"".join(name + size.to_bytes(8, "big") + bytes(size) for name, size in chunks)
    assert _headers.breaks_off(io.BytesIO(data)) == breaks_off
    assert _headers.breaks_off(io.BytesIO(data[:-1])) == CAF
    if not breaks_off:  # what comes after the sound may be anything
        assert _headers.breaks_off(io.BytesIO(data + b"info" + (99).to_bytes(8, "big"))) == ""


@pytest.mark.parametrize("width", range(1, 9))
def test_lengths_of_a_matroska_segment(width):
    def number(value):
        return (value | 1 << 7 * width).to_bytes(width, "big")

    ebml, segment = b"\x1aE\xdf\xa3" + number(20) + bytes(20), b"\x18S\x80g"
    data = ebml + segment + number(50) + bytes(50)
    assert _headers.breaks_off(io.BytesIO(data)) == _headers.breaks_off(io.BytesIO(data + b"x")) == ""
    for length in (*range(5, len(ebml)), len(data) - 50 + 1, len(data) - 1):
        assert _headers.breaks_off(io.BytesIO(data[:length])) == MATROSKA, length
    unknown = ebml + segment + number((1 << 7 * width) - 1) + bytes(10)
    assert _headers.breaks_off(io.BytesIO(unknown)) == ""
    assert _headers.breaks_off(io.BytesIO(ebml + segment + b"\0" + bytes(10))) == ""  # no number
