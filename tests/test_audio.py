"""Reading sound: equal to librosa.load, from any source, block by block, and only the part asked for."""

import functools
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import librosa
import numpy as np
import pytest
import soundfile
from audio_files import (
    CountingFile,
    av_encode,
    encode,
    ffmpeg,
    index_first,
    m4a,
    posix,
    save,
    signal,
    wav_header,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_musictag.audio import decoding, pyav_decoder
from keras_musictag.audio import reading as audio
from keras_musictag.errors import UnsupportedAudioError

load = functools.partial(audio.load, target_sr=16000)


# === Equal to librosa ===


@pytest.mark.parametrize("target", [12000, 16000])
@pytest.mark.parametrize(
    ("file_format", "subtype", "rate", "channels"),
    [
        ("WAV", "PCM_U8", 44100, 1),
        ("WAV", "PCM_16", 44100, 2),
        ("WAV", "PCM_24", 48000, 2),
        ("WAV", "PCM_32", 96000, 1),
        ("WAV", "FLOAT", 22050, 3),
        ("WAV", "DOUBLE", 11025, 2),
        ("WAVEX", "PCM_16", 192000, 2),
        ("WAV", "PCM_16", 16000, 8),
        ("WAV", "PCM_16", 8000, 1),
        ("AIFF", "PCM_16", 44100, 2),
        ("FLAC", "PCM_16", 44100, 2),
        ("FLAC", "PCM_24", 32000, 1),
        ("OGG", "VORBIS", 44100, 2),
        ("OGG", "OPUS", 48000, 2),
        ("OGG", "OPUS", 16000, 1),
        ("MP3", "MPEG_LAYER_III", 44100, 2),
        ("MP3", "MPEG_LAYER_III", 22050, 1),
    ],
)
def test_equal_to_librosa(tmp_path, file_format, subtype, rate, channels, target):
    path = save(tmp_path / "a", encode(signal(1.357, rate, channels), rate, file_format, subtype))
    expected, _ = librosa.load(path, sr=target, mono=True)
    y = load(path, target_sr=target)
    assert y.dtype == np.float32
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, atol=1e-6, rtol=0)  # measured: 1.2e-7


def test_equal_to_librosa_on_real_files(reference_clips):
    for clip in reference_clips:
        expected, _ = librosa.load(clip, sr=12000, mono=True)
        np.testing.assert_allclose(load(clip, target_sr=12000), expected, atol=1e-6, rtol=0)  # measured: 2.4e-7


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    samples=st.integers(1, 5000),
    rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000]),
    target=st.sampled_from([12000, 16000]),
)
@example(samples=147, rate=44100, target=12000)  # 40 samples, if the division is exact; 41 with librosa's rounding
@example(samples=1, rate=192000, target=12000)
def test_arrays_are_resampled_as_librosa_does(samples, rate, target):
    y = signal(samples / rate, rate)[0].astype("float32")
    expected = librosa.resample(y, orig_sr=rate, target_sr=target, res_type="soxr_hq")
    out = load(y, rate, target_sr=target)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("resampler", ["soxr_hq", "soxr_vhq", "soxr_mq"])
def test_resampler_is_the_one_asked_for(resampler):
    y = np.random.default_rng(0).uniform(-0.5, 0.5, 44100).astype("float32")
    expected = librosa.resample(y, orig_sr=44100, target_sr=16000, res_type=resampler)
    np.testing.assert_allclose(load(y, 44100, resampler=resampler), expected, atol=1e-6, rtol=0)
    if resampler != "soxr_hq":
        assert np.abs(load(y, 44100) - expected).max() > 1e-4


# === Arrays ===


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("uint8", [0, 64, 128, 255]),
        ("int8", [-128, -64, 0, 127]),
        ("uint16", [0, 2**14, 2**15, 2**16 - 1]),
        ("int16", [-(2**15), -(2**14), 0, 2**15 - 1]),
        (">i2", [-(2**15), -(2**14), 0, 2**15 - 1]),
        ("uint32", [0, 2**30, 2**31, 2**32 - 1]),
        ("int32", [-(2**31), -(2**30), 0, 2**31 - 1]),
        ("float16", [-1, -0.5, 0, 1]),
        ("float32", [-1, -0.5, 0, 1]),
        ("float64", [-1, -0.5, 0, 1]),
        (">f8", [-1, -0.5, 0, 1]),
        ("longdouble", [-1, -0.5, 0, 1]),
    ],
)
def test_every_type_is_scaled_to_full_range(dtype, values):
    y = np.array(values, dtype)
    out = load(y, 16000)
    assert out.dtype == np.dtype("float32")
    full = np.iinfo(dtype).bits if y.dtype.kind in "iu" else 99  # the largest integer is one step below 1
    np.testing.assert_allclose(out, [-1, -0.5, 0, 1 - 2.0 ** (1 - full)], atol=1e-7)
    np.testing.assert_array_equal(load(np.stack([y, y]), 16000), out)


def test_channels_are_averaged():
    y = signal(0.5, 16000, 8)
    np.testing.assert_allclose(load(y, 16000), y.mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(load(y[:1], 16000), y[0], atol=1e-7)
    np.testing.assert_allclose(load(np.asfortranarray(y)[:, ::-1], 16000), y.mean(axis=0)[::-1], atol=1e-7)


def test_the_result_is_not_a_view_of_the_input():
    y = np.full(1000, 0.5, "float32")
    load(y, 16000)[:] = 0
    assert (y == 0.5).all()
    assert (load(y, 44100).shape, load(y, 16000).flags.writeable) == ((363,), True)


def test_array_and_rate_may_come_as_a_pair():
    y = signal(0.2)
    np.testing.assert_array_equal(load((y, 44100)), load(y, 44100))
    np.testing.assert_array_equal(load((y, np.float64(44100.0))), load(y, np.int32(44100)))


# === Kinds of sources ===


class Named:
    """A path of a kind of its own."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


def test_every_kind_of_source_gives_the_same(tmp_path):
    data = encode(signal(channels=2), file_format="FLAC")
    path = save(tmp_path / "a.flac", data)
    expected = load(path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.flac", data)
    spooled = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    spooled.write(data)
    with (
        spooled,
        open(path, "rb") as file,
        open(path, "rb", buffering=0) as raw,
        zipfile.ZipFile(tmp_path / "a.zip") as archive,
        archive.open("a.flac") as member,
    ):
        for source in (
            str(path),
            Named(str(path)),
            Named(os.fsencode(path)),
            io.BytesIO(data),
            file,
            raw,
            spooled,
            member,
        ):
            np.testing.assert_array_equal(load(source), expected)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg", "a.m4a"])
def test_file_objects_stay_open_at_their_position(tmp_path, name):
    y = signal()
    formats = {"a.wav": "WAV", "a.mp3": "MP3", "a.ogg": "OGG"}
    data = encode(y, file_format=formats[name]) if name in formats else m4a(y)
    with open(save(tmp_path / name, data), "rb") as file:
        file.seek(7)
        first = load(file)
        assert not file.closed
        assert file.tell() == 7
        np.testing.assert_array_equal(load(file), first)
        np.testing.assert_array_equal(
            load(file, offset=0.5, duration=0.25), load(io.BytesIO(data), offset=0.5, duration=0.25)
        )
        assert file.read(3) == data[7:10]


def test_file_objects_are_released_when_the_stream_is_not_read_to_its_end(tmp_path):
    for data in (encode(signal()), m4a(signal())):
        file = io.BytesIO(data)
        blocks = audio.stream(file, target_sr=16000)
        next(blocks)
        blocks.close()
        assert not file.closed
        assert file.tell() == 0


@posix
def test_file_names_need_not_be_utf8(tmp_path):
    y = signal()
    for name, data in ((b"caf\xe9.wav", encode(y)), (b"caf\xe9.m4a", m4a(y)), ("日本 語:1.m4a".encode(), m4a(y))):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
        pathlib.Path(path).write_bytes(data)
        assert load(path).shape == (32000,)
    with pytest.raises(UnsupportedAudioError, match=r"caf\\udce9\.mp3' is not a sound file"):
        load(save(pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp3")), b"text"))


def test_describe():
    assert audio.describe("a/b.wav") == repr("a/b.wav")
    assert audio.describe(pathlib.PurePosixPath("b.wav")) == "'b.wav'"
    assert audio.describe(np.str_("b.wav")) == "'b.wav'"
    assert audio.describe(np.zeros((2, 3))) == "The array of shape (2, 3)"
    assert audio.describe((np.zeros(3), 44100)) == "The array of shape (3,)"
    assert audio.describe(io.BytesIO()) == "The BytesIO object"
    with open(__file__, "rb") as file, open(file.fileno(), "rb", closefd=False) as number:
        assert audio.describe(file) == repr(__file__)
        assert audio.describe(number) == "The BufferedReader object"  # its name is a number


# === Blocks, parts, memory ===


@pytest.mark.parametrize("target", [16000, 44100])
@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3", "m4a", "array"])
def test_block_size_changes_nothing(monkeypatch, file_format, target):
    y = signal(3, channels=2)
    source = {"m4a": lambda: io.BytesIO(m4a(y)), "array": lambda: (y, 44100)}.get(
        file_format, lambda: io.BytesIO(encode(y, file_format=file_format))
    )()
    whole = load(source, target_sr=target)
    monkeypatch.setattr(decoding, "BLOCK_VALUES", 20_000)
    monkeypatch.setattr(pyav_decoder, "_HELD_FRAMES", 3)
    monkeypatch.setattr(audio, "BLOCK_VALUES", 20_000)
    monkeypatch.setattr(audio, "_SOXR_SAMPLES", 1000)
    blocks = list(audio.stream(source, target_sr=target))
    assert len(blocks) > 10
    assert all(len(block) <= 3 * 4096 for block in blocks)  # three of ALAC's frames
    # mpg123 decodes a frame differently in the last bit from one run to the next.
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=3e-7, rtol=0)


@pytest.mark.parametrize(
    ("offset", "duration"), [(0.0, 0.5), (1.2345, 1.0), (2.5, None), (0.3333, 0.3333), (2.75, 9.0)]
)
@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3"])
def test_parts_equal_librosa(tmp_path, file_format, offset, duration):
    path = save(tmp_path / "a", encode(signal(3, channels=2), file_format=file_format))
    expected, _ = librosa.load(path, sr=16000, offset=offset, duration=duration)
    y = load(path, offset=offset, duration=duration)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("offset", "duration"), [(0.0, 0.5), (1.2345, 1.0), (6.5, None), (5.29, 0.29), (7.75, 9.0)])
def test_parts_of_m4a_and_arrays_are_slices(offset, duration):
    y = signal(8, channels=2)
    whole = (np.round(y * 2**15) / 2**15).mean(axis=0)
    first = int(offset * 44100)
    part = whole[first : None if duration is None else first + int(duration * 44100)]
    for source in ((whole, 44100), io.BytesIO(m4a(whole)), io.BytesIO(index_first(m4a(whole)))):
        out = load(source, target_sr=44100, offset=offset, duration=duration)
        assert out.shape == part.shape
        np.testing.assert_allclose(out, part, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("ipod", "aac"), ("adts", "aac"), ("asf", "wmav2"), ("matroska", "aac"), ("wv", "wavpack"), ("ac3", "ac3")],
)
def test_parts_fit_in_every_container(container, codec):
    """Times in milliseconds or guessed from the bit rate must not shift a part."""
    y = signal(6)
    data = av_encode(y, container=container, codec=codec, options={"aac_pns": "0"} if codec == "aac" else None)
    whole = load(io.BytesIO(data), target_sr=44100)
    assert abs(len(whole) / 44100 - 6) < 0.1
    # FFmpeg before 8.1 plays the 1024 samples of AAC's delay where the container is Matroska.
    old = pytest.importorskip("av").library_versions["libavformat"] < (62, 12)
    delay = 1024 if old and container == "matroska" else 0
    fit = np.corrcoef(whole[delay : delay + 200_000], y[0, :200_000])[0, 1]
    assert fit > 0.99 or container in ("adts", "ac3", "asf")
    part = load(io.BytesIO(data), target_sr=44100, offset=4.2, duration=1.0)
    # AAC begun in the middle differs a little; one sample off would be 0.01 in this signal.
    np.testing.assert_allclose(part, whole[185_220 : 185_220 + 44100], atol=2e-3, rtol=0)


def test_only_the_part_is_decoded(monkeypatch):
    frames = []
    read = soundfile.SoundFile.read

    def counting(self, *args, **kwargs):
        y = read(self, *args, **kwargs)
        frames.append(len(y))
        return y

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    for file_format in ("WAV", "FLAC", "OGG", "MP3"):
        frames.clear()
        load(io.BytesIO(encode(signal(10), file_format=file_format)), offset=7, duration=0.5)
        assert sum(frames) == 22050 + (file_format == "OGG")  # whose first one is tried before it is told to seek


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "m4a"])
def test_only_the_part_is_read(file_format):
    y = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 44100 * 30))
    data = m4a(y) if file_format == "m4a" else encode(y, file_format=file_format)
    for offset in (0, 20):
        file = CountingFile(data)
        load(file, offset=offset, duration=1.0)
        assert 44100 < file.bytes_read < 0.2 * len(data)


def test_a_part_of_a_huge_file_is_read_at_once(tmp_path):
    rate, seconds = 44100, 12 * 3600  # 3.8 GB, but for its samples a hole in the file system
    path = tmp_path / "huge.wav"
    part = signal(2.0)[0]
    with open(path, "wb") as file:
        file.write(wav_header(2 * rate * seconds))
        file.seek(44 + 2 * rate * (seconds - 100))
        file.write((part * 2**15).astype("<i2").tobytes())
        file.truncate(44 + 2 * rate * seconds)
    y = load(path, target_sr=rate, offset=seconds - 100, duration=2.0)
    np.testing.assert_allclose(y, part, atol=2**-15)
    assert audio.duration_of(path) == seconds


LONG = """
import re, sys
import numpy as np
from keras_musictag import audio
from keras_musictag.models import windows
from keras_musictag.models.spec import AudioSpec, MelSpec, ModelSpec, WindowSpec

def peak():  # in kB; not getrusage's maxrss, which begins with that of the parent
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

spec = ModelSpec(name="a", architecture="a", audio=AudioSpec(sr=1000), tags=("a",),
                 mel=MelSpec(n_fft=512, hop_length=256, n_mels=96), window=WindowSpec(frames=1366))
idle, count, energy = peak(), 0, 0.0
for batch in windows.cut(audio.stream(sys.argv[1], target_sr=1000), spec):
    count += len(batch.samples)
    energy += float(np.square(batch.samples).sum())
assert "tensorflow" not in sys.modules
print(count, energy > 1, peak() - idle)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(("file_format", "rate", "channels"), [("wav", 1200, 2), ("mka", 1000, 1)])
def test_a_day_in_bounded_memory(tmp_path, file_format, rate, channels):
    """24 hours, silent but for the last minute; at low rates, to be quick: memory depends on the number of samples."""
    path, last = tmp_path / f"long.{file_format}", signal(60, rate, channels)
    if file_format == "wav":
        frame, seconds = 2 * channels, 86_400
        with open(path, "wb") as file:
            file.write(wav_header(frame * rate * seconds, rate=rate, channels=channels))
            file.truncate(44 + frame * rate * (seconds - 60))
            file.seek(0, os.SEEK_END)
            file.write((last * 2**15).astype("<i2").T.tobytes())
    else:
        end = save(tmp_path / "end.wav", encode(last, rate))
        graph = f"anullsrc=r={rate}:cl=mono:d=86340[quiet];[quiet][0]concat=v=0:a=1"
        ffmpeg(path, "-filter_complex", graph, "-c:a", "flac", "-frame_size", "4608", source=end)
    done = subprocess.run([sys.executable, "-c", LONG, path], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    count, loud, kilobytes = done.stdout.split()
    assert (count, loud) == ("248", "True")
    assert int(kilobytes) < 300_000  # measured: 155 and 205 MB, most of it a batch of 32 windows and its copies


def test_duration_of(tmp_path):
    assert audio.duration_of(save(tmp_path / "a.flac", encode(signal(1.5), file_format="FLAC"))) == 1.5
    assert audio.duration_of(save(tmp_path / "a.m4a", b"\0\0\0\x08ftyp")) is None
    assert audio.duration_of(save(tmp_path / "a.raw", b"no header, no length")) is None
    assert audio.duration_of(tmp_path) is None
    assert audio.duration_of(tmp_path / "missing.wav") is None
    assert audio.duration_of("a\0b") is None
