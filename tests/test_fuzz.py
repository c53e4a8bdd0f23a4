"""Damaged and hostile files become sounds or errors: a small part of `benchmarks/fuzz.py`, and what it found."""

import importlib
import io
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import av_encode, encode, m4a, posix, save, signal, wav_header
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_musictag.apps.library import pool
from keras_musictag.audio import containers as _headers
from keras_musictag.audio import pyav_decoder
from keras_musictag.audio import reading as audio
from keras_musictag.errors import AudioError, TruncatedAudioError, UnsupportedAudioError

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture
def fuzz(monkeypatch):
    """`benchmarks/fuzz.py` as a module, which its worker processes can import too."""
    pytest.importorskip("av")
    if sys.platform != "linux":
        pytest.skip("limits memory as Linux does, and makes files that others cannot")
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    monkeypatch.setattr(pool, "_STREAM", pool._STREAM)  # the script sets it
    return importlib.import_module("fuzz")


def run(fuzz, folder, cases, seed=0):
    return CliRunner().invoke(
        fuzz.main, [str(folder), f"--cases={cases}", f"--seed={seed}", "--sparse-gb=0.001"], catch_exceptions=False
    )


# === The script ===


def test_a_small_part_of_the_fuzz_run(fuzz, tmp_path):
    result = run(fuzz, tmp_path / "fuzz", 240)
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "fuzz" / "findings").exists()
    for outcome in ("tagged", "truncated", "unsupported", "invalid samples", "silent", "too short", "link loop"):
        assert f'"{outcome}": ' in result.output


PLANTED = """
import os
from keras_musictag import audio

def stream(path, **options):
    if "000004-cut" in os.path.basename(path):
        {fault}
    yield from audio.stream(path, **options)
"""


@posix
@pytest.mark.parametrize(
    ("fault", "said"),
    [("os.abort()", "crash: "), ("raise KeyError(1)", "decoder: "), ("raise MemoryError", "memory: ")],
)
def test_the_script_finds_what_is_wrong(fuzz, tmp_path, monkeypatch, fault, said):
    (tmp_path / "planted.py").write_text(PLANTED.format(fault=fault))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fuzz, "STREAM", "planted:stream")
    result = run(fuzz, tmp_path / "fuzz", 6)
    assert result.exit_code == 1
    assert "000004-cut" in result.output and said in result.output
    (finding,) = (tmp_path / "fuzz" / "findings").iterdir()
    assert finding.name.startswith("000004-cut")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tags": {"a": float("nan")}}, "tags {'a': nan}"),
        ({"tags": {tag: 1.5 for tag in "abcde"}}, "tags {"),
        ({"duration_s": 1e9}, "a duration of 1000000000.0 s"),
        ({"size": 1}, "digest or size of something else"),
        ({"sha256": ""}, "digest or size of something else"),
        ({"error": "x"}, "tags beside an error"),
        ({"error_kind": "timeout"}, "timeout: "),
        ({"error_kind": "silent"}, "silent instead of tagged"),
        ({}, ""),
    ],
)
def test_rows_that_are_wrong(fuzz, tmp_path, change, problem):
    path = save(tmp_path / "x.wav", b"RIFF")
    row = {
        "sha256": fuzz.hashlib.sha256(b"RIFF").hexdigest(), "size": 4, "duration_s": 3.0, "error": "", "error_kind": "",
        "tags": {tag: 0.5 for tag in "abcde"},
    }  # fmt: skip
    assert fuzz.wrong({**row, **change}, path, "tagged").startswith(problem)
    assert bool(fuzz.wrong({**row, **change}, path, "tagged")) == bool(problem)
    assert fuzz.wrong(None, path, "") == "there is no row"


def test_a_case_is_always_the_same(fuzz):
    made = fuzz.sounds()
    assert fuzz.sounds() == made
    assert [fuzz.make(number, 7, made) for number in range(30)] == [fuzz.make(number, 7, made) for number in range(30)]
    assert (
        len({fuzz.make(number, seed, made) for number in range(30) for seed in (0, 1)}) > 50
    )  # two may be the same sound, intact


# === In this process ===

_Y = signal(1.0)
_FILES = [encode(_Y, file_format=f) for f in ("WAV", "AIFF", "FLAC", "OGG", "MP3", "W64", "CAF")]
_HEADS = [b"", b"ID3", b"OggS", b"RIFF\xff\xff\xff\xffWAVE", b"\0\0\0\x10ftyp", b"caff", b"\x1aE\xdf\xa3", *_FILES]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    data=st.sampled_from(_FILES),
    bytes_=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8),
    keep=st.integers(0, 2**16),
    offset=st.sampled_from([0.0, 0.3, 2.0]),
)
def test_a_sound_or_an_audio_error(data, bytes_, keep, offset):
    changed = bytearray(data)
    for at, value in bytes_:
        changed[at % len(data)] = value
    try:
        y = audio.load(io.BytesIO(bytes(changed[:keep] or changed)), target_sr=16_000, offset=offset)
    except AudioError as error:
        assert str(error).endswith(".")
    else:
        assert y.dtype == np.float32 and np.isfinite(y).all()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    head=st.sampled_from(_HEADS),
    cut=st.integers(0, 300),
    rest=st.binary(max_size=300),
)
def test_headers_are_read_to_their_end(head, cut, rest):
    for look in (
        _headers.mp3_states_length, _headers.unclosed_wav, _headers.mp4_breaks_off, _headers.misdated_opus,
        _headers.breaks_off,
    ):  # fmt: skip
        look(io.BytesIO(head[:cut] + rest))


# === What the script found ===


@pytest.mark.parametrize("ending", ["au", "snd", "vox"])
def test_no_sound_by_its_name_alone(tmp_path, ending):
    """libsndfile takes anything of these names for samples without a header: noise, with tags."""
    path = save(tmp_path / f"text.{ending}", b"no sound " * 2000)
    with pytest.raises(UnsupportedAudioError, match=r"libsndfile: raw samples without a header"):
        audio.load(path, target_sr=16_000)
    assert audio.duration_of(path) is None
    flac = save(tmp_path / f"flac.{ending}", encode(_Y, file_format="FLAC"))
    assert len(audio.load(flac, target_sr=44_100)) == 44_100
    content = m4a(_Y)  # which libsndfile does not know
    path = save(tmp_path / f"m4a.{ending}", content)
    np.testing.assert_array_equal(audio.load(path, target_sr=44_100), audio.load(io.BytesIO(content), target_sr=44_100))


def test_zeros_for_headers(tmp_path, capfd):
    """FFmpeg takes each eight zeros for an empty chunk: 10 GB of them would keep it busy for hours."""
    pytest.importorskip("av")
    path = save(tmp_path / "zeros.wav", wav_header(0)[:36])
    os.truncate(path, 10**10)
    begun = time.monotonic()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UnsupportedAudioError, match="its headers do not end"):
        patch.setattr(pyav_decoder._Bounded, "left", 2**20)
        audio.load(path, target_sr=16_000)
    assert time.monotonic() - begun < 10  # measured: 0.5 s
    assert capfd.readouterr().err == ""
    long = save(tmp_path / "long.mka", av_encode(signal(20.0), container="matroska", codec="pcm_s16le"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyav_decoder._Bounded, "left", 2**18)  # only the way to the first sound counts
        assert len(audio.load(long, target_sr=44_100)) == 20 * 44_100


def test_a_part_of_a_vorbis_sound_with_damaged_headers(fuzz, tmp_path):
    """libsndfile opens it, gives nothing, and crashes when it is told to seek.

    The file is written anew by each version of libsndfile; the wrong bit is in the third header of Vorbis, "setup",
    among the codebooks that it begins with, and counted from there.
    """
    cases = importlib.import_module("fuzz_cases")
    data = bytearray(cases.sounds()["ogg"])
    data[data.index(b"\x05vorbis") + 126] ^= 64
    for offset in (0.1, 1.0, 2.9):
        with pytest.raises(UnsupportedAudioError, match="libsndfile: its headers are damaged"):
            audio.load(io.BytesIO(cases._rechecked(bytes(data))), target_sr=16_000, offset=offset)


def test_a_w64_that_ends_early():
    """libsndfile cuts its length down to what is there."""
    data = encode(signal(3.0), file_format="W64")
    with pytest.raises(TruncatedAudioError, match=r"decoding stopped after 1\.5 s of 3\.0 s \(the data ends\)"):
        audio.load(io.BytesIO(data[: len(data) // 2]), target_sr=16_000)
    assert len(audio.load(io.BytesIO(data[:-20_000]), target_sr=16_000)) > 44_000  # 0.2 s less
    streamed = data[:16] + bytes(8) + data[24:]
    assert len(audio.load(io.BytesIO(streamed), target_sr=44_100)) == 3 * 44_100


def test_channels_of_all_numbers(tmp_path):
    for channels in (1, 3, 7, 32, 255, 1000):
        y = np.random.default_rng(channels).uniform(-0.5, 0.5, (300, channels))
        soundfile.write(tmp_path / "x.wav", y, 16_000, subtype="FLOAT")
        np.testing.assert_allclose(audio.load(tmp_path / "x.wav", target_sr=16_000), y.mean(axis=1), atol=1e-6)
