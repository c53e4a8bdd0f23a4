"""Channels become mono: their mean, but for those that cancel each other out; any number of them, in any layout."""

import re

import numpy as np
import pytest
from audio_files import encode, ffmpeg, load, noted, save, signal

import keras_musictag as kmt
from keras_musictag.audio import mixing
from keras_musictag.audio import reading as audio
from keras_musictag.errors import SilentAudioError

# === Channels that cancel each other out ===

OPPOSITE = "-af", "pan=stereo|c0=c0|c1=-1*c0"


@pytest.mark.parametrize(
    "options",
    [
        ("a.wav",),
        ("a.flac",),
        ("a.mp3", "-b:a", "64k"),
        ("a.m4a", "-b:a", "64k"),
        ("a.opus", "-ar", "48000"),
        ("a.ogg",),
    ],
    ids=lambda options: options[0],
)
def test_opposite_phases(tmp_path, options):
    one = save(tmp_path / "one.wav", encode(signal(12)))
    both = ffmpeg(tmp_path / options[0], *OPPOSITE, *options[1:], source=one)
    y, notes = noted(both)
    expected = load(one)
    length = min(len(y), len(expected))
    assert abs(len(y) - len(expected)) < 0.1 * 16_000
    assert np.std(y[:length]) == pytest.approx(np.std(expected[:length]), rel=0.1)
    (note,) = notes
    assert re.fullmatch(r"The channels have opposite phases and cancel each other out in 12\.\d of 12\.\d s; .*", note)


def test_the_louder_channel_is_used():
    one = signal(3)[0]
    rate = 44_100
    left, right, notes = 0.5 * one, -0.52 * one, []
    y = audio.load(np.stack([left, right]), rate, target_sr=rate, notes=notes)
    np.testing.assert_allclose(y, right, atol=1e-7)
    assert len(notes) == 1
    quieter = audio.load(np.stack([left, 0.3 * right]), rate, target_sr=rate, notes=[])
    np.testing.assert_allclose(quieter, (left + 0.3 * right) / 2, atol=1e-7)  # that is a mix like any other


def test_integers_and_other_numbers_of_channels():
    one = (signal(2)[0] * 2**15).astype("int16")
    for channels in ([one, -one], [one, -one, one, -one], [-one, one // 2, one // 2]):
        notes = []
        y = audio.load(np.stack(channels), 44_100, target_sr=44_100, notes=notes)
        np.testing.assert_allclose(np.abs(y), np.abs(one / 2**15), atol=1e-7)
        assert len(notes) == 1


def test_only_where_they_cancel(monkeypatch):
    """Stretches of 10 s are looked at one by one, whatever blocks they come in."""
    rate = 8000
    left = signal(25, rate)[0].astype("float32")
    right = np.where(np.arange(len(left)) < 10 * rate, left, -left)
    notes = []
    y = audio.load(np.stack([left, right]), rate, target_sr=rate, notes=notes)
    np.testing.assert_allclose(y, left, atol=1e-7)
    (note,) = notes
    assert note.endswith("cancel each other out in 15.0 of 25.0 s; the louder channel was used there.")
    for size in (999, 80_000, 100_001):
        blocks = [np.stack([left, right])[:, at : at + size] for at in range(0, len(left), size)]
        np.testing.assert_allclose(np.concatenate(list(mixing.mix(iter(blocks), rate, []))), y, atol=1e-7)


def test_sounds_mixed_at_once_do_not_share_memory():
    """A thread keeps the memory of a mix for the next one; two that run in turns, and one that is left, have theirs."""
    rate, rng = 8000, np.random.default_rng(0)
    sounds = [rng.uniform(-1, 1, (2, 21 * rate)).astype("float32") for _ in range(3)]

    def mixing_of(y):
        return mixing.mix((y[:, at : at + 5000] for at in range(0, y.shape[1], 5000)), rate, [])

    left = mixing_of(sounds[2])
    next(left)
    for _ in range(2):  # the second time in memory that was used
        turns = zip(*(mixing_of(y) for y in sounds[:2]), strict=True)
        mixed = [np.concatenate(blocks) for blocks in zip(*turns, strict=True)]
        for y, expected in zip(mixed, sounds, strict=False):
            np.testing.assert_allclose(y, expected.mean(axis=0), atol=1e-7)
    rest = np.concatenate(list(left))
    np.testing.assert_allclose(rest, sounds[2].mean(axis=0)[-len(rest) :], atol=1e-7)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_types_of_samples_in_both_layouts(dtype):
    """More than a stretch, an odd number of samples, and a type that changes on the way."""
    rate, rng = 8001, np.random.default_rng(0)
    y = rng.uniform(-1, 1, (25 * rate, 3))
    if dtype[0] in "iu":
        half = 2.0 ** (8 * np.dtype(dtype).itemsize - 1)
        y = (y * (half - 1) + (half if dtype[0] == "u" else 0)).astype(dtype)
        expected = (y.astype("float64") - (half if dtype[0] == "u" else 0)) / half
    else:
        expected = y = y.astype(dtype)
    for samples in (y.T, np.ascontiguousarray(y.T)):
        blocks = [samples[:, at : at + 70_001] for at in range(0, samples.shape[1], 70_001)]
        tail = np.full((3, 100), 0.5)
        mixed = np.concatenate(list(mixing.mix(iter([*blocks, tail]), rate, [])))
        np.testing.assert_allclose(mixed[:-100], expected.mean(axis=1), atol=1e-6)
        np.testing.assert_allclose(mixed[-100:], 0.5, atol=1e-7)


def test_wide_and_one_sided_stereo_is_mixed():
    rng = np.random.default_rng(0)
    rate, y = 16_000, rng.uniform(-0.5, 0.5, (2, 32_000))
    wide = np.stack([y[0], -0.8 * y[0] + 0.6 * y[1]])  # correlation -0.8
    for sound in (y, wide, np.stack([y[0], 0 * y[0]]), rng.uniform(-0.5, 0.5, (64, 32_000))):
        notes = []
        np.testing.assert_allclose(audio.load(sound, rate, target_sr=rate, notes=notes), sound.mean(axis=0), atol=1e-6)
        assert notes == []


def test_silence_stays_silence(caplog):
    quiet = np.full((2, 32_000), 1e-6)
    for sound in (np.zeros((2, 32_000)), np.stack([quiet[0], -quiet[1]])):
        with pytest.raises(SilentAudioError):
            kmt.load("tiny").tag(sound, sr=16_000)
    assert caplog.text == ""


# === Layouts ===

LAYOUTS = [  # file, channels, layout, whether its codec is lossless
    ("quad.wav", 4, "quad", True), ("quad.flac", 4, "quad", True), ("quad.opus", 4, "quad", False),
    ("quad.m4a", 4, "4.0", False), ("a.ac3", 6, "5.1", False), ("a.flac", 7, "6.1", True), ("a.m4a", 8, "7.1", False),
    ("a.wv", 8, "7.1", True), ("a.tta", 8, "7.1", True), ("height.wav", 12, None, True), ("height.tta", 12, None, True),
    ("height.mka", 12, None, True), ("height.caf", 12, None, True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "channels", "layout", "lossless"), LAYOUTS)
def test_layouts(tmp_path, name, channels, layout, lossless):
    """Quad to 7.1.4, the latter with no name for its channels: the mean of all."""
    y = signal(1, 48_000, channels)
    source = save(tmp_path / "source.wav", encode(y, 48_000, "WAVEX"))
    pcm = ("-c:a", "pcm_s16le") if name in ("height.wav", "height.mka", "height.caf") else ()
    as_named = ("-af", f"channelmap=channel_layout={layout}") if layout else ()
    path = ffmpeg(tmp_path / name, *as_named, *pcm, source=source)
    out, notes = noted(path, target_sr=48_000)
    expected = y.mean(axis=0)
    assert notes == [] and abs(len(out) - len(expected)) < 0.1 * 48_000
    if lossless:
        np.testing.assert_allclose(out, expected, atol=2e-4)
    else:
        middle = out[10_000:14_000]
        at = np.argmax(np.correlate(expected, middle, "valid"))
        assert np.corrcoef(middle, expected[at : at + 4000])[0, 1] > 0.85  # codecs drop much of the LFE channel
