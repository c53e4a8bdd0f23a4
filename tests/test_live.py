"""Live sound: `stream` against `taggram`, how late rows come, memory, raw samples in pipes, microphones."""

import io
import json
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import types

import numpy as np
import pytest
from click.testing import CliRunner

import keras_musictag as kmt
from keras_musictag.audio import live
from keras_musictag.audio.microphone import recording
from keras_musictag.audio.pcm import read_pcm
from keras_musictag.audio.reading import load
from keras_musictag.cli import main
from keras_musictag.errors import (
    AudioNotFoundError,
    AudioTooShortError,
    InvalidSamplesError,
    MissingExtraError,
    SilentAudioError,
)

TAGGER = kmt.load("tiny")


def noise(seconds, sr, channels=None, seed=0):
    size = int(seconds * sr) if channels is None else (channels, int(seconds * sr))
    return np.random.default_rng(seed).uniform(-0.5, 0.5, size).astype("float32")


def split(y, sizes):
    """Blocks of these sizes, over and over."""
    blocks, first = [], 0
    while first < y.shape[-1]:
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(y[..., first : first + size])
        first += size
    return blocks


def assert_equal(rows, taggram):
    rows = list(rows)
    np.testing.assert_allclose([row.time for row in rows], taggram.times, atol=1e-9)
    # One window at a time instead of a batch: measured 1.2e-7 on TensorFlow.
    np.testing.assert_allclose(np.stack([row.probabilities for row in rows]), taggram.probabilities, atol=1e-5)


# === The same rows as a taggram ===


@pytest.mark.parametrize("sr", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("sizes", [(441,), (1, 7_000, 0, 99), (10**9,)])
def test_rows_are_those_of_taggram(sr, sizes):
    y = noise(6.3, sr)
    assert_equal(TAGGER.stream(split(y, sizes), sr), TAGGER.taggram(y, sr))


@pytest.mark.parametrize("options", [{"hop_seconds": 0.3}, {"window_seconds": 0.5, "hop_seconds": 2.0}])
def test_rows_with_other_grids(options):
    y = noise(5, 16_000)
    assert_equal(TAGGER.stream(split(y, (1_000,)), 16_000, **options), TAGGER.taggram(y, 16_000, **options))


def test_kinds_of_tags():
    tagger = kmt.load("musicnet_crnn")
    y = noise(8, 12_000)
    assert_equal(tagger.stream([y], 12_000, kinds=["genre"]), tagger.taggram(y, 12_000, kinds=["genre"]))


@pytest.mark.parametrize("kind", ["int16", "float64"])
def test_stereo_of_any_type(kind):
    y = noise(12.5, 44_100, channels=2)
    y = (y * 32_767).astype(kind) if kind == "int16" else y.astype(kind)
    assert_equal(TAGGER.stream(split(y, (1_024,)), 44_100), TAGGER.taggram(y, 44_100))


def test_sound_shorter_than_a_window():
    y = noise(0.3, 16_000)
    assert_equal(TAGGER.stream([y], 16_000), TAGGER.taggram(y, 16_000))


@pytest.mark.parametrize("target", [12_000, 16_000, 32_000])
@pytest.mark.parametrize("sr", [8_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_the_streaming_resampler_is_the_one_shot_resampler(sr, target):
    """Bit for bit; and how long it holds samples back, in seconds of sound."""
    y = noise(2, sr)
    read, got, late = 0, [], 0.0

    def blocks():
        nonlocal read, late
        for block in split(y, (sr // 100,)):
            late = max(late, read / sr - sum(map(len, got)) / target)
            read += len(block)
            yield block

    for block in live.stream_blocks(blocks(), sr, target_sr=target):
        got.append(block)
    np.testing.assert_array_equal(np.concatenate(got), load(y, sr, target_sr=target))
    assert late < live.RESAMPLER_SECONDS


def test_channels_that_cancel_are_heard_after_a_second():
    y = noise(12, 16_000)
    inverted = np.stack([y, -y])
    notes = []
    got = np.concatenate(list(live.stream_blocks(split(inverted, (700,)), 16_000, target_sr=16_000, notes=notes)))
    assert not got[:16_000].any()
    np.testing.assert_array_equal(got[16_000:], y[16_000:])
    assert notes == [
        "The channels have opposite phases and cancel each other out in 11.0 of 12.0 s; the louder channel was used "
        "there."
    ]
    again = np.concatenate(list(live.stream_blocks(split(inverted, (9_999, 1)), 16_000, target_sr=16_000)))
    np.testing.assert_array_equal(again, got)


# === Latency and memory ===


def test_a_row_comes_as_soon_as_its_window_is_complete():
    read = 0

    def blocks():
        nonlocal read
        for block in split(noise(10, 44_100), (441,)):
            read += len(block)
            yield block

    half = TAGGER.taggram(noise(2, 16_000), 16_000).window_seconds / 2
    late = [read / 44_100 - row.time - half for row in TAGGER.stream(blocks(), 44_100)]
    assert len(late) == 9 + 1 and max(late) <= live.RESAMPLER_SECONDS + 0.01  # a block


def test_memory_is_constant():
    def peak(seconds):
        rng = np.random.default_rng(0)
        blocks = (rng.uniform(-0.5, 0.5, 4_410).astype("float32") for _ in range(10 * seconds))
        tracemalloc.start()
        rows = sum(1 for _ in TAGGER.stream(blocks, 44_100))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert abs(rows - seconds) <= 1
        return size

    peak(5)  # what is made once
    short, long = peak(10), peak(100)  # measured: 0.6 MB for either; 90 s of sound are 6 MB
    assert long < short + 500_000


# === Bad sound ===


def test_what_cannot_be_streamed():
    with pytest.raises(ValueError, match="hop_seconds must be positive"):
        TAGGER.stream([], 16_000, hop_seconds=0)  # at once, not when the first row is asked for
    with pytest.raises(AudioTooShortError, match=r"The stream has no samples\. Check its source"):
        list(TAGGER.stream([], 16_000))
    with pytest.raises(InvalidSamplesError, match=r"iterable of arrays.*Pass \[array\]"):
        list(TAGGER.stream(noise(1, 16_000), 16_000))
    with pytest.raises(InvalidSamplesError, match=r"looks like \(samples, channels\)"):
        list(TAGGER.stream([noise(1, 16_000, 2).T], 16_000))
    with pytest.raises(InvalidSamplesError, match=r"That looks like kHz: use 44100"):
        list(TAGGER.stream([noise(1, 16_000)], 44.1))
    bad = noise(3, 16_000)
    bad[40_000] = np.nan
    rows = TAGGER.stream(split(bad, (1_000,)), 16_000)
    assert next(rows).time > 0
    with pytest.raises(InvalidSamplesError, match=r"The stream has samples that are NaN.*at sample 40000"):
        list(rows)
    silent = TAGGER.stream([np.zeros(48_000, "float32")], 16_000)
    assert next(silent).time > 0  # silence may be followed by sound
    with pytest.raises(SilentAudioError, match="The stream is silent"):
        list(silent)


# === Pipes ===


def listen(data, *options, exit_code=0):
    result = CliRunner().invoke(main, ["listen", "-m", "tiny", *options], input=data)
    assert result.exit_code == exit_code, result.output + result.stderr
    return result


def test_json_lines_are_the_rows_of_a_taggram():
    y = noise(4, 44_100, channels=2)
    lines = listen(y.T.astype("<f4").tobytes(), "--sr", "44100", "--channels", "2", "--json").stdout.splitlines()
    expected = TAGGER.taggram(y, 44_100)
    assert [json.loads(line)["time"] for line in lines] == pytest.approx(expected.times, abs=5e-4)  # rounded to ms
    for line, row in zip(lines, expected.probabilities, strict=True):
        assert json.loads(line)["tags"] == pytest.approx(dict(zip(expected.tags, row, strict=True)), abs=1e-5)


def test_text_lines_of_16_bit_samples():
    data = (noise(3, 16_000) * 32_767).astype("<i2").tobytes()
    lines = listen(data, "--sr", "16000", "--format", "s16le", "--top", "2").stdout.splitlines()
    assert len(lines) == 3 and all(line.count(",") == 1 and " s  " in line for line in lines)


def test_a_pipe_that_ends_in_the_middle_of_a_sample():
    data = noise(2, 16_000).tobytes()
    whole = listen(data, "--sr", "16000")
    result = listen(data + b"\0\0\0", "--sr", "16000", exit_code=1)
    assert result.stdout == whole.stdout
    assert "note: The pipe ended in the middle of a sample: 3 of 4 bytes" in result.stderr


def test_samples_may_be_split_anywhere():
    y = noise(0.01, 16_000, channels=2)
    pipe = types.SimpleNamespace(read1=io.BytesIO(y.T.tobytes()).read, read=None)
    pipe.read1 = lambda size, read=pipe.read1: read(5)
    notes = []
    got = np.concatenate(list(read_pcm(pipe, channels=2, notes=notes)), axis=1)
    np.testing.assert_array_equal(got, y)
    assert notes == []


def test_mistakes_on_the_command_line():
    assert "--sr is missing" in listen(b"", exit_code=2).stderr
    assert "The stream has no samples" in listen(b"", "--sr", "16000", exit_code=1).stderr
    integers = (noise(1, 16_000) * 32_767).astype("<i2").tobytes()
    wrong = listen(integers, "--sr", "16000", exit_code=1).stderr
    assert "Or the samples in the pipe are not f32le" in wrong
    with pytest.raises(ValueError, match="sample_format must be one of f32le, s16le; got 'u8'"):
        read_pcm(io.BytesIO(), "u8", notes=[])
    with pytest.raises(ValueError, match="channels must be at least 1; got 0"):
        read_pcm(io.BytesIO(), channels=0, notes=[])


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_ends_it(ctrl_c):
    """In a process of its own: rows appear while the pipe is open, and SIGINT ends it without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_musictag.cli", "listen", "-m", "tiny", "--sr", "16000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        process.stdin.write(noise(2.5, 16_000).tobytes())
        process.stdin.flush()
        assert b" s  " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.wait(60)
        assert process.returncode == 0
        assert b"Traceback" not in process.stderr.read()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


# === Microphones ===


class Card:
    """What `listen` and `recording` use of `sounddevice`: a card that plays noise faster than life."""

    class PortAudioError(Exception):
        pass

    blocks = 30

    @staticmethod
    def query_devices(device, kind):
        if device == "none":
            raise ValueError("No input device matching 'none'")
        return {"default_samplerate": 16_000.0}

    class InputStream:
        def __init__(self, *, samplerate, channels, device, dtype, blocksize, callback):
            assert dtype == "float32"
            self.blocks = split(noise(Card.blocks / 10, samplerate, channels), (blocksize,))
            self.callback = callback

        def __enter__(self):
            for block in self.blocks:
                self.callback(block.T, block.shape[1], None, types.SimpleNamespace(input_overflow=False))

        def __exit__(self, *_):
            pass


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", Card)
    return Card


def test_recording(card):
    with recording(channels=2) as (rate, blocks):
        assert rate == 16_000
        got = np.concatenate([next(blocks) for _ in range(30)], axis=1)
    np.testing.assert_array_equal(got, noise(3, 16_000, 2))


def test_lost_audio_is_noted(card, monkeypatch):
    monkeypatch.setattr(Card, "blocks", 150)
    notes = []
    with recording(notes=notes):
        time.sleep(0)
    assert notes == ["50 blocks of 0.1 s were lost: tagging was slower than the recording."]


def test_listening_to_a_microphone(card, monkeypatch):
    waiting = []

    def take(queue, timeout):
        waiting[:] = waiting or list(queue.queue)
        if len(waiting) == 1:
            raise KeyboardInterrupt  # as somebody who has heard enough
        return waiting.pop(0)

    monkeypatch.setattr("queue.Queue.get", take)
    result = listen(None, "--microphone")
    assert len(result.stdout.splitlines()) == 2 and "Recording at 16000 Hz" in result.stderr


def test_without_a_microphone(card, monkeypatch):
    assert "Cannot record 1 channel(s) from 'none'" in listen(None, "--device", "none", exit_code=1).stderr
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r"Recording from a microphone needs.*keras_musictag\[live\]"):
        recording().__enter__()
    assert "keras_musictag[live]" in listen(None, "--microphone", exit_code=2).stderr


def test_without_portaudio(monkeypatch, tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    with pytest.raises(AudioNotFoundError, match=r"PortAudio library not found.*libportaudio2"):
        recording().__enter__()
