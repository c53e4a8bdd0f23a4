"""Decoders: what PyAV reads, and files that are truncated, damaged or only look so."""

import functools
import io
import re
import sys
import warnings

import numpy as np
import pytest
import soundfile
from audio_files import av_encode, encode, index_first, m4a, save, signal, wav_header

from keras_musictag.audio import containers as _headers
from keras_musictag.audio import reading as audio
from keras_musictag.errors import AudioError, AudioTooShortError, TruncatedAudioError, UnsupportedAudioError

pytestmark = pytest.mark.smoke

load = functools.partial(audio.load, target_sr=16000)


# === Other decoders ===


@pytest.mark.parametrize("channels", [1, 2])
def test_m4a_is_lossless_where_its_codec_is(channels):
    y = signal(channels=channels)
    np.testing.assert_allclose(load(io.BytesIO(m4a(y)), target_sr=44100), y.mean(axis=0), atol=1e-6)


def test_aac_begins_where_the_sound_does():
    y = signal(3)[0]
    decoded = load(io.BytesIO(m4a(y, codec="aac")), target_sr=44100)
    assert len(decoded) - len(y) in range(0, 2048)  # the last frame is filled up
    fit = [np.corrcoef(decoded[2000 + shift : 120_000 + shift], y[2000:120_000])[0, 1] for shift in range(-3, 4)]
    assert np.argmax(fit) == 3
    assert fit[3] > 0.99


def test_tags_need_not_be_utf8():
    data = m4a(signal())
    assert data.count(b"Lavf") >= 1  # the encoder's name is the only tag
    assert load(io.BytesIO(data.replace(b"Lavf", b"L\xe9vf"))).shape == (32000,)


@pytest.mark.parametrize("name", ["list.ffconcat", "list.m3u8", "list.mp3"])
@pytest.mark.parametrize("as_file", [False, True])
def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch, name, as_file):
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "secret.m4a", m4a(signal()))
    for text in (
        "ffconcat version 1.0\nfile secret.m4a\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.m4a\n#EXT-X-ENDLIST\n",
    ):
        path = save(tmp_path / name, text.encode())
        with pytest.raises(UnsupportedAudioError, match="is not a sound file"):
            load(io.BytesIO(path.read_bytes()) if as_file else path)


def test_without_pyav_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = save(tmp_path / "a.m4a", m4a(signal()))
    monkeypatch.setitem(sys.modules, "av", None)
    message = (
        r"a\.m4a' is not a sound file that an installed decoder can read \(libsndfile: Format not recognised; "
        r"PyAV: not installed\)\. Check its format, or convert it to WAV or FLAC\. "
        r"For m4a, wma and video files: pip install av\.$"
    )
    with pytest.raises(UnsupportedAudioError, match=message):
        load(path)
    with pytest.raises(UnsupportedAudioError, match="PyAV: not installed"):
        load(io.BytesIO(path.read_bytes()))
    assert load(io.BytesIO(encode(signal(), file_format="MP3"))).shape == (32000,)


# === Truncated and damaged files ===


@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAVEX", "PCM_24"),
        ("RF64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_truncated(tmp_path, file_format, subtype, as_file):
    data = encode(signal(12, channels=2), file_format=file_format, subtype=subtype)
    data = data[: len(data) // 3]
    path = save(tmp_path / "a.sound", data)
    source = io.BytesIO(data) if as_file else path
    message = (
        r"(a\.sound'|^The BytesIO object) is truncated or damaged: decoding stopped after [34]\.\d s of 12\.0 s "
        r"\(.+\)\. Get a complete copy, or use the intact part with duration=([34]\.\d)\.$"
    )
    with pytest.raises(TruncatedAudioError, match=message) as raised:
        load(source)
    duration = float(re.search(message, str(raised.value))[2])
    assert 3.3 < duration < 4.2
    assert load(source, duration=duration).shape == (round(duration * 16000),)  # the advice holds

    with pytest.raises(
        TruncatedAudioError, match=r"decoding stopped after [34]\.\d s .* with duration=([12]\.\d)\.$"
    ) as raised:
        load(source, offset=2, duration=5)
    duration = float(re.search(r"duration=([\d.]+)\.$", str(raised.value))[1])
    assert load(source, offset=2, duration=duration).shape == (round(duration * 16000),)

    with pytest.raises(
        TruncatedAudioError, match=r"nothing can be decoded from 7\.0 s on \(.+\)\. Get a complete copy\.$"
    ):
        load(source, offset=7)


def test_truncated_mp3_of_the_reference(reference_clips):
    clip = next(clip for clip in reference_clips if clip.name.startswith("TRWJ"))
    data = clip.read_bytes()
    assert load(io.BytesIO(data)).shape == (479159,)
    with pytest.raises(TruncatedAudioError, match=r"stopped after 9\.[89] s of 29\.9 s"):
        load(io.BytesIO(data[: len(data) // 3]))


def test_mp3_without_a_stated_length_is_never_called_truncated(reference_clips):
    clip = next(clip for clip in reference_clips if clip.name.startswith("joram"))
    assert soundfile.info(clip).frames - len(load(clip)) == 2356  # the estimate is 0.15 s too long
    data = clip.read_bytes()
    assert load(io.BytesIO(data[: len(data) // 3])).shape == (153792,)


def test_mp3_length_is_used_only_if_stated():
    data = encode(signal(12), file_format="MP3")
    at = data.index(b"Xing")
    assert at < 100
    third = slice(0, len(data) // 3)
    id3 = b"ID3\4\0\0\0\0\x08\0" + bytes(1024)  # an empty tag of 8 * 128 bytes
    for start in (b"", id3, id3 + id3):
        with pytest.raises(TruncatedAudioError, match=r"stopped after [34]\.\d s of 12\.0 s"):
            load(io.BytesIO(start + data[third]))
    assert len(load(io.BytesIO(data.replace(b"Xing", b"\0\0\0\0")[third]))) > 16000  # as much as libsndfile guesses


def test_mp3_with_a_xing_header_that_does_not_count():
    silence_first = np.concatenate([np.zeros(44100 * 6), np.random.default_rng(0).uniform(-0.3, 0.3, 44100 * 6)])
    data = bytearray(encode(silence_first, file_format="MP3"))
    flags = data.index(b"Xing") + 7
    assert data[flags] & 1
    data[flags] &= ~1
    assert soundfile.info(io.BytesIO(data)).duration > 15  # guessed from the quiet beginning
    assert load(io.BytesIO(data)).shape == (192_680,)


@pytest.mark.parametrize("codec", ["aac", "alac"])
def test_truncated_m4a(codec):
    data = m4a(signal(6), codec=codec)
    message = r"is truncated: the MP4 file ends before its index, so it cannot be decoded\. Get a complete copy\.$"
    for part in (0.0005, 0.01, 0.34, 0.9, 0.98):
        with pytest.raises(TruncatedAudioError, match=message):
            load(io.BytesIO(data[: int(part * len(data))]))
    data = index_first(data)
    source = io.BytesIO(data[: len(data) // 2])
    message = (
        r"is truncated or damaged: decoding stopped after [23]\.\d s of 6\.0 s \(.*\)\. .* with duration=([23]\.\d)\.$"
    )
    with pytest.raises(TruncatedAudioError, match=message) as raised:
        load(source)
    duration = float(re.search(message, str(raised.value))[1])
    assert load(source, duration=duration).shape == (round(duration * 16000),)


def test_truncated_m4a_without_pyav(monkeypatch):
    data = m4a(signal())
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(TruncatedAudioError, match="ends before its index"):
        load(io.BytesIO(data[: len(data) // 2]))
    with pytest.raises(UnsupportedAudioError, match="PyAV: not installed"):
        load(io.BytesIO(data))


@pytest.mark.parametrize(
    ("boxes", "breaks_off"),
    [
        ([b"moov" + bytes(20), b"mdat" + bytes(100)], False),
        ([b"mdat" + bytes(100), b"moov" + bytes(20)], False),
        ([b"mdat" + bytes(100)], True),
        ([b"mdat" + bytes(100), b"moov" + bytes(20), b"free" + bytes(4)], False),
        ([], True),
    ],
)
def test_mp4_boxes(boxes, breaks_off):
    boxes = [b"ftypM4A " + bytes(8), *boxes]
    short = [(4 + len(box)).to_bytes(4, "big") + box for box in boxes]
    long = [b"\0\0\0\1" + box[:4] + (12 + len(box)).to_bytes(8, "big") + box[4:] for box in boxes]
    open_ended = [*short[:-1], bytes(4) + short[-1][4:]]  # the last one has no length: it reaches to the end
    for written in (short, long, open_ended):
        data = b"".join(written)
        assert _headers.mp4_breaks_off(io.BytesIO(data)) is breaks_off
        assert _headers.mp4_breaks_off(io.BytesIO(data[:-1])) is (breaks_off or written is not open_ended)
    assert not _headers.mp4_breaks_off(io.BytesIO(b"RIFF" + data))


def test_channels_may_change_and_the_rate_may_not():
    y = signal(2)[0]
    aac = {"container": "adts", "codec": "aac", "options": {"aac_pns": "0"}}
    mono, stereo = av_encode(y, **aac), av_encode(np.stack([y, y]), **aac)
    joined = load(io.BytesIO(mono + stereo), target_sr=44100)
    whole = load(io.BytesIO(mono), target_sr=44100)
    assert abs(len(joined) - 2 * len(whole)) <= 2048
    np.testing.assert_allclose(joined[: len(whole) - 2048], whole[:-2048], atol=1e-6)
    with pytest.raises(TruncatedAudioError, match=r"decoding stopped after 2\.\d s \(the rate changes to 22050 Hz\)"):
        load(io.BytesIO(mono + av_encode(y, 22050, **aac)))


def test_m4a_that_ends_between_two_of_its_frames():
    """Then FFmpeg finds nothing wrong; the length in the header says it."""
    data = index_first(m4a(signal(6), codec="alac"))
    at = data.index(b"mdat")
    cut = data[: at + 4 + (len(data) - at) // 2]
    sizes = data.index(b"stsz") + 16  # sizes of the frames
    position, index = at + 4, 0
    while True:
        size = int.from_bytes(data[sizes + 4 * index : sizes + 4 * index + 4], "big")
        if position + size > len(cut):
            break
        position, index = position + size, index + 1
    with pytest.raises(TruncatedAudioError, match=r"stopped after [23]\.\d s of 6\.0 s \(the data ends\)"):
        load(io.BytesIO(data[:position]))


def test_damaged_files_raise_nothing_but_audio_errors():
    """What comes out is a sound or an AudioError, and nothing is printed about exceptions that had to be ignored."""
    rng = np.random.default_rng(0)
    y = signal(0.5)
    files = [encode(y, file_format=f) for f in ("WAV", "AIFF", "FLAC", "OGG", "AU", "CAF", "W64", "RF64")]
    files += [
        m4a(y, codec="aac"),
        av_encode(y, container="asf", codec="wmav2"),
        av_encode(y, container="matroska", codec="aac"),
    ]
    outcomes = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for trial in range(600):
            data = bytearray(files[trial % len(files)])
            for _ in range(rng.integers(1, 20)):
                data[int(len(data) * rng.uniform() ** 5)] = rng.integers(256)
            del data[int(len(data) * rng.uniform(0.2, 2)) :]
            try:
                outcomes.add(load(io.BytesIO(bytes(data)), offset=rng.choice([0.0, 0.3])).dtype.name)
            except AudioError as error:
                outcomes.add(type(error).__name__)
    assert outcomes >= {"float32", "TruncatedAudioError", "UnsupportedAudioError", "AudioTooShortError"}


# === Only looks bad ===


@pytest.mark.parametrize("data_bytes", [0xFFFFFFFF, 0, 0x7FFFFFFF, 0x80000000, 0x7FFFF000 - 36, 0xFFFFF000])
@pytest.mark.parametrize("riff_bytes", [None, 0, 0xFFFFFFFF])
@pytest.mark.parametrize("as_file", [False, True])
def test_wav_written_to_a_pipe(tmp_path, monkeypatch, data_bytes, riff_bytes, as_file):
    monkeypatch.setitem(sys.modules, "av", None)  # no help wanted
    y = (signal(3, channels=2) * 2**15).astype("<i2")
    data = wav_header(data_bytes, channels=2, riff_bytes=riff_bytes) + y.T.tobytes()
    path = save(tmp_path / "a.wav", data)
    out = load(io.BytesIO(data) if as_file else path, target_sr=44100)
    np.testing.assert_allclose(out, y.mean(axis=0) / 2**15, atol=1e-7)
    part = load(io.BytesIO(data) if as_file else path, target_sr=44100, offset=1, duration=0.5)
    np.testing.assert_array_equal(part, out[44100 : 44100 + 22050])


def test_an_empty_wav_with_a_comment_after_it_is_empty():
    comment = b"LIST\x0c\0\0\0INFOISFT\0\0\0\0"
    with pytest.raises(AudioTooShortError, match="has no samples"):
        load(io.BytesIO(wav_header(0) + comment))


def test_flac_of_unknown_length():
    data = bytearray(encode(signal(), file_format="FLAC"))
    assert data[8 + 13] & 0xF == 0  # STREAMINFO: 36 bits of length after 20 bits of rate, 3 of channels, 5 of depth
    data[8 + 14 : 8 + 18] = bytes(4)
    assert load(io.BytesIO(bytes(data))).shape == (32000,)
    assert load(io.BytesIO(bytes(data)), offset=1.5).shape == (8000,)
    with pytest.raises(AudioTooShortError, match="no samples from 3 s on"):
        load(io.BytesIO(bytes(data)), offset=3)


def test_a_few_samples_missing_are_no_truncation():
    data = encode(signal(3))
    assert load(io.BytesIO(data[: -2 * 44100 // 4])).shape == (44000,)


@pytest.mark.parametrize(("rate", "channels"), [(192_000, 1), (44100, 8), (8000, 32)])
def test_unusual_valid_files(rate, channels):
    y = signal(0.5, rate, channels)
    assert load(y, rate).shape == (8000,)
    assert load(io.BytesIO(encode(y, rate))).shape == (8000,)
