"""Every source that is no sound, and every impossible argument, has its own error and message."""

import contextlib
import functools
import io
import os
import re
import stat
import tempfile

import numpy as np
import pytest
from audio_files import encode, m4a, posix, save, signal, wav_header

from keras_musictag.audio import reading as audio
from keras_musictag.errors import AudioNotFoundError, AudioTooShortError, InvalidSamplesError, UnsupportedAudioError

load = functools.partial(audio.load, target_sr=16000)


# === No file ===


def test_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = rf"^'no/song\.mp3' does not exist in {re.escape(repr(os.getcwd()))}\. Check the path\.$"
    with pytest.raises(AudioNotFoundError, match=message):
        load("no/song.mp3")
    with pytest.raises(FileNotFoundError, match=r"song\.mp3' does not exist\. Check the path\.$"):
        load(tmp_path / "song.mp3")
    with pytest.raises(ValueError, match="'' does not exist"):
        load("")


def test_impossible_paths(tmp_path):
    with pytest.raises(AudioNotFoundError, match=r"'a\\x00b' cannot be opened \(.*embedded null .*\)\. Check the path"):
        load("a\0b")
    file = save(tmp_path / "a.wav", encode(signal()))
    with pytest.raises(AudioNotFoundError, match=r"b\.wav' (cannot be opened \(Not a directory\)|does not exist)"):
        load(file / "b.wav")


def test_folder(tmp_path):
    with pytest.raises(AudioNotFoundError, match=r"' is a folder\. Give a sound file\.$"):
        load(tmp_path)


@posix
def test_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    message = r"pipe\.wav' is not a regular file \(a pipe, .*\)\. Read it into io\.BytesIO first\.$"
    with pytest.raises(AudioNotFoundError, match=message):
        load(tmp_path / "pipe.wav")
    with pytest.raises(AudioNotFoundError, match="'/dev/zero' is not a regular file"):
        load("/dev/zero")


@contextlib.contextmanager
def nobody():
    """Without root's right to read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@posix
def test_no_permission():
    message = r"a\.wav' cannot be opened \(Permission denied\)\. Check the path and the permissions\.$"
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "a.wav")
        with open(path, "wb") as file:
            file.write(encode(signal()))
        os.chmod(path, 0)
        with nobody(), pytest.raises(AudioNotFoundError, match=message):
            load(path)
        os.chmod(path, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        with nobody():
            assert load(path).shape == (32000,)


# === No sound in it ===


@pytest.mark.parametrize("as_file", [False, True])
def test_empty_file(tmp_path, as_file):
    path = save(tmp_path / "a.wav", b"")
    with pytest.raises(AudioTooShortError, match=r"is empty \(0 bytes\)\. Get a complete copy\.$"):
        load(io.BytesIO() if as_file else path)


@pytest.mark.parametrize("data_bytes", [0, 88200])
def test_wav_of_a_header_only(data_bytes):
    with pytest.raises(AudioTooShortError, match=r"^The BytesIO object has no samples\. Get a complete copy\.$"):
        load(io.BytesIO(wav_header(data_bytes)))


JUNK = {
    "text.mp3": b"Dear diary,\ntoday nothing happened.\n" * 100,
    "text.wav": "naïve café\n".encode() * 100,
    "page.flac": b"<!DOCTYPE html><html><body>404</body></html>",
    "subtitles.m4a": b"1\n00:00:01,000 --> 00:00:02,000\nla la la\n\n" * 20,
    "random.mp3": np.random.default_rng(1).bytes(100_000),
    "random.wav": np.random.default_rng(2).bytes(3),
    "zeros.ogg": bytes(100_000),
    "picture.opus": b"\x89PNG\r\n\x1a\n" + bytes(1000),
    "archive.m4a": b"PK\3\4" + bytes(1000),
    "headerless.raw": np.random.default_rng(3).bytes(1000),
}


@pytest.mark.parametrize("name", JUNK)
@pytest.mark.parametrize("as_file", [False, True])
def test_no_sound_file(tmp_path, name, as_file):
    path = save(tmp_path / name, JUNK[name])
    what = "The BytesIO object" if as_file else f"'.*{re.escape(name)}'"
    message = rf"^{what} is not a sound file .* \(libsndfile: .*; PyAV: .*\)\. Check its format, or convert it to WAV"
    with pytest.raises(UnsupportedAudioError, match=message):
        load(io.BytesIO(JUNK[name]) if as_file else path)


def test_a_video_without_audio():
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        output.mux(stream.encode(None))
    with pytest.raises(UnsupportedAudioError, match="PyAV: no audio in it"):
        load(file)


# === Samples ===


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_not_finite(tmp_path, bad, channels):
    y = signal(2, 44100, channels).astype("float32")
    y[-1, 50_000] = y[0, 60_000] = bad
    message = (
        r"has samples that are NaN or infinite, the first one at sample 50000\. Replace them, .* numpy\.nan_to_num\.$"
    )
    with pytest.raises(InvalidSamplesError, match=r"^The array of shape \(.*\) " + message):
        load(y, 44100)
    path = save(tmp_path / "a.wav", encode(y, subtype="FLOAT"))
    with pytest.raises(InvalidSamplesError, match=r"a\.wav' " + message):
        load(path)
    with pytest.raises(InvalidSamplesError, match=message):
        load(path, offset=1.0)
    assert load(path, duration=1.0).shape == (16000,)


def test_infinities_that_cancel_and_doubles_too_large_for_float32():
    with pytest.raises(InvalidSamplesError, match="NaN or infinite, the first one at sample 1"):
        load(np.array([[0, np.inf, 0], [0, -np.inf, 0]]), 16000)
    with pytest.raises(InvalidSamplesError, match="NaN or infinite, the first one at sample 2"):
        load(np.array([0, 0, 1e300]), 16000)


def test_samples_are_counted_from_the_beginning_of_the_sound():
    y = np.zeros(3_000_000, "float32")  # several blocks
    y[2_500_000] = np.nan
    with pytest.raises(InvalidSamplesError, match=r"the first one at sample 2500000\."):
        load(y, 44100)


def test_integers_cast_to_float():
    y = (signal(1)[0] * 2**15).astype("int16")
    message = r"has floats up to 1\d{4} where full scale is 1\. Divide by the full scale .* or pass the integers\.$"
    with pytest.raises(InvalidSamplesError, match=message):
        load(y.astype("float32"), 44100)
    assert np.abs(load(y, 44100)).max() < 0.5
    assert np.abs(load(20 * (y / 2**15), 44100)).max() > 5  # loud, and left as it is


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_64_bit_integers(dtype):
    message = rf"^Integers must have at most 32 bits; got an array of {dtype}\. .* e\.g\. y\.astype\('int16'\)\.$"
    with pytest.raises(InvalidSamplesError, match=message):
        load(np.arange(1000, dtype=dtype), 44100)


@pytest.mark.parametrize("dtype", ["bool", "complex64", "object", "U3", "datetime64[s]"])
def test_no_samples_at_all(dtype):
    with pytest.raises(InvalidSamplesError, match=r"^Samples must be integers or floats; got an array of .+\.$"):
        load(np.zeros(1000, dtype), 44100)


@pytest.mark.parametrize("shape", [(), (1, 2, 1000)])
def test_wrong_dimensions(shape):
    message = rf"^An array must be \(samples,\) or \(channels, samples\); got shape {re.escape(str(shape))}\.$"
    with pytest.raises(InvalidSamplesError, match=message):
        load(np.zeros(shape), 44100)


def test_wrong_orientation():
    message = r"^An array of shape \(44100, 2\) looks like \(samples, channels\); .* is expected: pass y\.T\.$"
    with pytest.raises(InvalidSamplesError, match=message):
        load(np.zeros((44100, 2)), 44100)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 44100)])
def test_empty_array(shape):
    with pytest.raises(AudioTooShortError, match=rf"^The array of shape {re.escape(str(shape))} has no samples\.$"):
        load(np.zeros(shape), 44100)


def test_one_sample_is_resampled():
    """What is too short for a model is for `windows.cut` to say."""
    assert load(np.ones(1), 16000).shape == (1,)
    assert load(np.ones(1), 8000).shape == (2,)


# === Rates ===


def test_array_without_a_rate():
    for arguments in ((np.ones(1000),), (np.ones(1000), None), ((np.ones(1000), None),)):
        with pytest.raises(
            InvalidSamplesError,
            match=r"The sample rate of an array is missing\. Pass it too, e\.g\. tag\(y, sr=44100\)\.$",
        ):
            load(*arguments)


@pytest.mark.parametrize(
    "sr", [0, -44100, np.nan, np.inf, "44100", True, 44100.5, 999, 2_000_000, 1 + 1j, [44100], b"1"]
)
def test_impossible_rates(sr):
    message = rf"^sr: the sample rate must be a whole number of Hz from 1000 to 1000000; got {re.escape(repr(sr))}\.$"
    with pytest.raises(InvalidSamplesError, match=message):
        load(np.ones(1000), sr)


@pytest.mark.parametrize(("sr", "hz"), [(44.1, 44100), (16, 16000), (192.0, 192000)])
def test_rates_in_khz(sr, hz):
    with pytest.raises(InvalidSamplesError, match=rf"got {sr}\. That looks like kHz: use {hz}\.$"):
        load(np.ones(1000), sr)


def test_rate_of_a_file(tmp_path):
    path = save(tmp_path / "a.wav", encode(signal(), 100))
    with pytest.raises(InvalidSamplesError, match=r"a\.wav': the sample rate must be a whole number .*; got 100\."):
        load(path)
    with pytest.raises(InvalidSamplesError, match=r"^target_sr: the sample rate must be a whole number .*; got 12\."):
        load(np.ones(1000), 44100, target_sr=12)


# === Sources ===


@pytest.mark.parametrize(
    "source", [None, 3, 2.5, b"RIFF", bytearray(b"RIFF"), memoryview(b"RIFF"), [0.0, 0.1], {"a": 1}, object()]
)
def test_no_source(source):
    message = (
        rf"^A source must be a path, a binary file object or a NumPy array with its sr; got {type(source).__name__}\. "
        r"Wrap encoded bytes in io\.BytesIO, samples in numpy\.asarray\.$"
    )
    with pytest.raises(InvalidSamplesError, match=message):
        load(source)
    with pytest.raises(InvalidSamplesError, match=message):
        load((source, 44100))


def test_invalid_tuple_sources():
    y = np.ones(1000)
    for arguments, got in (
        (((y, 44100, 1),), "3 items and sr=None"),
        (((),), "0 items"),
        (((y, 44100), 44100), "2 items and sr=44100"),
    ):
        with pytest.raises(
            InvalidSamplesError, match=rf"^A tuple source must be \(array, sr\), without a separate sr; got {got}"
        ):
            load(*arguments)


def test_sr_of_a_file_is_rejected(tmp_path):
    path = save(tmp_path / "a.wav", encode(signal()))
    for arguments in ((path, 44100), (str(path), 16000), ((path, 44100),)):
        message = r"^sr=\d+ goes with an array; '.*a\.wav' states its own rate\. Leave sr out\.$"
        with pytest.raises(InvalidSamplesError, match=message):
            load(*arguments)
    with pytest.raises(InvalidSamplesError, match=r"sr=44100 goes with an array; The BytesIO object states"):
        load(io.BytesIO(encode(signal())), 44100)


class Stream(io.RawIOBase):
    def readable(self):
        return True


class Text(io.BytesIO):
    """As codecs.open gives: a file object that returns text but is no TextIOBase."""

    def read(self, size=-1):
        return super().read(size).decode("latin-1")


def test_file_objects_that_cannot_be_used(tmp_path):
    path = save(tmp_path / "a.wav", encode(signal()))
    message = r" must be a seekable binary file\. Open it with mode 'rb', or read it into io\.BytesIO\.$"
    with open(path, encoding="latin-1") as file, pytest.raises(InvalidSamplesError, match=r"a\.wav'" + message):
        load(file)
    for file in (io.StringIO("RIFF"), Stream()):
        with pytest.raises(InvalidSamplesError, match=rf"^The {type(file).__name__} object{message}"):
            load(file)
    with open(tmp_path / "b.wav", "wb") as file, pytest.raises(InvalidSamplesError, match=r"b\.wav'" + message):
        load(file)
    with pytest.raises(
        InvalidSamplesError, match=r"must be a binary file; its read\(\) returned str\. Open it with mode 'rb'"
    ):
        load(Text(b"RIFF"))


def test_pipe_as_file_object():
    reading, writing = os.pipe()
    os.close(writing)
    with open(reading, "rb") as file, pytest.raises(InvalidSamplesError, match="must be a seekable binary file"):
        load(file)


def test_closed_file_object(tmp_path):
    with open(save(tmp_path / "a.wav", encode(signal())), "rb") as file:
        pass
    with pytest.raises(InvalidSamplesError, match=r"a\.wav' is closed\. Open it again with mode 'rb'\.$"):
        load(file)


# === Parts ===


def test_offset_beyond_the_end(tmp_path):
    y = signal(2)
    sources = [(y, 44100), io.BytesIO(m4a(y))]
    sources += [save(tmp_path / f, encode(y, file_format=f)) for f in ("WAV", "FLAC", "OGG", "MP3")]
    for source in sources:
        message = r" has no samples from 2\.5 s on\. Choose a part within the audio\.$"
        with pytest.raises(AudioTooShortError, match=message):
            load(source, offset=2.5)
        with pytest.raises(AudioTooShortError, match=r" has no samples from 1000000\.0 s on for 3 s\. Choose a part"):
            load(source, offset=1e6, duration=3)


@pytest.mark.parametrize("value", [-1, -0.001, np.nan, np.inf, -np.inf, 1e12, "1", True, None, 1j, [1]])
def test_impossible_offsets_and_durations(value):
    message = rf" must be a number of seconds, not negative and finite; got {re.escape(repr(value))}\.$"
    with pytest.raises(InvalidSamplesError, match="^offset" + message):
        load(np.ones(1000), 16000, offset=value)
    if value is not None:
        with pytest.raises(InvalidSamplesError, match="^duration" + message):
            load(np.ones(1000), 16000, duration=value)


def test_duration_zero():
    with pytest.raises(InvalidSamplesError, match=r"^duration must be more than 0 seconds, or None for all; got 0\.$"):
        load(np.ones(1000), 16000, duration=0.0)
    with pytest.raises(AudioTooShortError, match=r"has no samples for 1e-09 s\. Choose a part within"):
        load(np.ones(1000), 16000, duration=1e-9)


def test_errors_come_when_the_stream_is_read():
    blocks = audio.stream("no.wav", target_sr=16000)
    with pytest.raises(AudioNotFoundError):
        next(blocks)
