"""Cutting tracks into windows: equal to patches of librosa's spectrogram, whatever the blocks, in bounded memory."""

import time
import tracemalloc

import librosa
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_musictag.errors import AudioTooShortError, SilentAudioError
from keras_musictag.models.layers import LogMelSpectrogram
from keras_musictag.models.spec import AudioSpec, MelSpec, ModelSpec, WindowSpec
from keras_musictag.models.windows import cut

pytestmark = pytest.mark.smoke


def make_spec(frames=187, remainder="align", short="repeat", sr=16000, n_fft=512, hop_length=256, n_mels=96):
    return ModelSpec(
        name="test",
        architecture="test",
        audio=AudioSpec(sr=sr),
        mel=MelSpec(n_fft=n_fft, hop_length=hop_length, n_mels=n_mels, scaling="log10"),
        window=WindowSpec(frames=frames, remainder=remainder, short=short),
        tags=("a",),
    )


SMALL = {"frames": 7, "n_fft": 64, "hop_length": 16}


def noise(samples, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype("float32")


def windows_of(blocks, spec, **options):
    batches = list(cut(blocks, spec, **options))
    return np.concatenate([b.samples for b in batches]), np.concatenate([b.starts for b in batches])


def expected_windows(y, spec, hop_frames):
    """The definition, on the whole track at once."""
    mel, frames = spec.mel, spec.window.frames
    pad = mel.n_fft // 2
    missing = spec.window_samples - 2 * pad - len(y)
    if missing > 0:
        y = np.concatenate([y, np.tile(y, 1 + missing // len(y))[:missing] * (spec.window.short == "repeat")])
    padded = np.pad(y, pad)
    total = 1 + (len(padded) - mel.n_fft) // mel.hop_length
    starts = list(range(0, total - frames + 1, hop_frames or frames))
    if hop_frames is None and spec.window.remainder == "align" and starts[-1] != total - frames:
        starts.append(total - frames)
    return np.stack([padded[s * mel.hop_length :][: spec.window_samples] for s in starts]), np.array(starts)


# === Equal to librosa ===


@pytest.mark.parametrize(
    ("n_fft", "hop_length", "frames", "remainder", "hop_frames"),
    [
        (512, 256, 187, "drop", None),
        (512, 256, 187, "align", None),
        (512, 256, 187, "drop", 62),
        (1024, 300, 40, "align", None),  # the hop divides neither the FFT nor the track
        (511, 256, 50, "align", None),  # odd FFT
        (256, 512, 50, "align", None),  # gaps between frames
    ],
)
def test_windows_are_patches_of_the_spectrogram_of_the_whole_track(n_fft, hop_length, frames, remainder, hop_frames):
    spec = make_spec(frames, remainder, n_fft=n_fft, hop_length=hop_length, n_mels=40)
    y = noise(10 * 16000 + 123)
    mel = {"sr": 16000, "n_fft": n_fft, "hop_length": hop_length, "n_mels": 40}
    whole = np.log10(1 + 10_000 * librosa.feature.melspectrogram(y=y, center=True, pad_mode="constant", **mel))
    windows, starts = windows_of([y], spec, hop_frames=hop_frames)
    patches = np.log10(1 + 10_000 * librosa.feature.melspectrogram(y=windows, center=False, **mel))
    assert windows.dtype == np.float32
    assert patches.shape == (len(starts), 40, frames)
    for patch, start in zip(patches, starts, strict=True):
        np.testing.assert_allclose(patch, whole[:, start : start + frames], atol=1e-5, rtol=0)  # measured: 0


def test_windows_through_the_layer_are_librosas_patches():
    spec = make_spec()
    y = noise(10 * 16000)
    whole = librosa.feature.melspectrogram(y=y, sr=16000, n_fft=512, hop_length=256, n_mels=96, pad_mode="constant")
    whole = np.log10(1 + 10_000 * whole)
    windows, starts = windows_of([y], spec)
    patches = np.asarray(LogMelSpectrogram.from_spec(spec.audio, spec.mel)(windows))
    assert list(starts) == [0, 187, 374, 626 - 187]
    for patch, start in zip(patches, starts, strict=True):
        np.testing.assert_allclose(patch, whole[:, start : start + 187], atol=1e-5, rtol=0)  # measured: 3.2e-6


# === Independent of blocks and batches ===


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    samples=st.integers(64, 3000),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
    batch_size=st.integers(1, 9),
    hop_frames=st.none() | st.integers(1, 40),
    remainder=st.sampled_from(["drop", "align"]),
    short=st.sampled_from(["repeat", "pad"]),
    n_fft=st.sampled_from([64, 63, 8]),
)
@example(samples=3000, cuts=[], batch_size=1, hop_frames=None, remainder="align", short="repeat", n_fft=64)
@example(samples=64, cuts=list(range(64)), batch_size=9, hop_frames=None, remainder="drop", short="pad", n_fft=64)
@example(samples=2999, cuts=list(range(3000)), batch_size=2, hop_frames=40, remainder="drop", short="pad", n_fft=8)
def test_any_split_and_any_batch_size_give_the_same_windows(
    samples, cuts, batch_size, hop_frames, remainder, short, n_fft
):
    spec = make_spec(frames=7, n_fft=n_fft, hop_length=16, remainder=remainder, short=short)
    y = noise(samples)
    blocks = np.split(y, sorted(min(c, samples) for c in cuts))
    batches = list(cut(blocks, spec, hop_frames=hop_frames, batch_size=batch_size))
    windows, starts = expected_windows(y, spec, hop_frames)
    assert all(1 <= len(batch.samples) <= batch_size for batch in batches)
    np.testing.assert_array_equal(np.concatenate([batch.starts for batch in batches]), starts)
    np.testing.assert_array_equal(np.concatenate([batch.samples for batch in batches]), windows)


def test_windows_do_not_alias_the_input():
    y = noise(4000)
    before = y.copy()
    for batch in cut([y], make_spec(**SMALL)):
        batch.samples[:] = 9
    np.testing.assert_array_equal(y, before)


# === Policies ===


def test_align_adds_a_last_window_that_ends_with_the_track():
    spec = make_spec(**SMALL)  # windows of 7 frames 16 samples apart
    y = noise(16 * 20)  # 21 frames: three windows, nothing left
    assert windows_of([y], spec)[1].tolist() == [0, 7, 14]
    y = noise(16 * 21)
    assert windows_of([y], spec)[1].tolist() == [0, 7, 14, 15]
    y = noise(16 * 22 - 1)  # less than a frame more changes nothing
    assert windows_of([y], spec)[1].tolist() == [0, 7, 14, 15]
    windows, _ = windows_of([noise(16 * 26)], spec)
    np.testing.assert_array_equal(windows[-1][-32:], np.zeros(32))  # the padding after the track


def test_drop_leaves_the_remainder():
    spec = make_spec(remainder="drop", **SMALL)
    assert windows_of([noise(16 * 20)], spec)[1].tolist() == [0, 7, 14]
    assert windows_of([noise(16 * 26)], spec)[1].tolist() == [0, 7, 14]
    assert windows_of([noise(16 * 27)], spec)[1].tolist() == [0, 7, 14, 21]


def test_musicnns_number_of_windows():
    spec = make_spec(remainder="drop")
    for seconds in (3, 10, 29.12):
        y = noise(round(seconds * 16000))
        frames = 1 + len(y) // 256
        assert len(windows_of([y], spec)[1]) == (frames - 187) // 187 + 1  # range(0, frames - 187 + 1, 187)


def test_hop_frames_keeps_to_its_grid():
    spec = make_spec(**SMALL)
    assert windows_of([noise(16 * 26)], spec, hop_frames=3)[1].tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert windows_of([noise(16 * 26)], spec, hop_frames=np.int64(9))[1].tolist() == [0, 9, 18]
    assert windows_of([noise(16 * 26)], spec, hop_frames=1000)[1].tolist() == [0]


def test_windows_that_hear_less_are_filled_as_short_tracks_are():
    y, frames = noise(16 * 26), 4
    for short in ("repeat", "pad"):
        spec = make_spec(**SMALL, short=short)
        samples, starts = windows_of([y], spec, hop_frames=3, heard_frames=frames)
        heard = (frames - 1) * spec.mel.hop_length + spec.mel.n_fft
        padded = np.pad(y, spec.mel.n_fft // 2)
        assert starts[-1] * spec.mel.hop_length + heard <= len(padded)
        for window, start in zip(samples, starts, strict=True):
            piece = padded[start * spec.mel.hop_length :][:heard]
            rest = np.resize(piece, len(window)) if short == "repeat" else np.pad(piece, (0, len(window) - heard))
            np.testing.assert_array_equal(window, rest)
    whole = windows_of([y], make_spec(**SMALL), hop_frames=3)
    for more in (make_spec(**SMALL).window.frames, 1000):
        np.testing.assert_array_equal(windows_of([y], make_spec(**SMALL), hop_frames=3, heard_frames=more)[0], whole[0])


@pytest.mark.parametrize("hop_frames", [None, 1, 7, 100])
def test_a_short_track_is_repeated_or_padded_to_one_window(hop_frames):
    y = noise(70)  # a window needs 6 * 16 = 96 samples besides the padding
    repeated, starts = windows_of([y], make_spec(short="repeat", **SMALL), hop_frames=hop_frames)
    assert starts.tolist() == [0]
    np.testing.assert_array_equal(repeated[0], np.pad(np.concatenate([y, y[:26]]), 32))
    padded, starts = windows_of([y], make_spec(short="pad", **SMALL), hop_frames=hop_frames)
    assert starts.tolist() == [0]
    np.testing.assert_array_equal(padded[0], np.pad(y, (32, 26 + 32)))


def test_a_very_short_track_is_repeated_many_times():
    y = noise(512)
    windows, _ = windows_of([y], make_spec(short="repeat"))
    needed = 186 * 256
    np.testing.assert_array_equal(windows[0], np.pad(np.tile(y, 94)[:needed], 256))


def test_a_track_of_exactly_one_window():
    y = noise(96)
    windows, starts = windows_of([y], make_spec(**SMALL))
    assert starts.tolist() == [0]
    np.testing.assert_array_equal(windows[0], np.pad(y, 32))


# === Errors ===


@pytest.mark.parametrize("blocks", [[], [np.zeros(0, "float32")], [noise(1)], [noise(300), noise(211)]])
def test_less_than_an_analysis_frame_is_too_short(blocks):
    samples = sum(map(len, blocks))
    message = (
        rf"'a\.wav' is too short: it has {samples} samples at 16000 Hz, .* needs 512 \(32 ms\)\. Use longer audio\."
    )
    with pytest.raises(AudioTooShortError, match=message):
        list(cut(blocks, make_spec(), name="'a.wav'"))
    assert len(windows_of([noise(512)], make_spec())[0]) == 1


@pytest.mark.parametrize("seconds", [1, 60])
@pytest.mark.parametrize("level", [0.0, 1e-6, -3e-5])
def test_silence(seconds, level):
    message = (
        r"The audio is silent: its peak of .* is below one 16-bit quantisation step, 3\.1e-05\. Check the recording"
    )
    with pytest.raises(SilentAudioError, match=message):
        list(cut([np.full(seconds * 16000, level, "float32")], make_spec()))


@pytest.mark.parametrize("step", [2**-15, -(2**-15)])
def test_one_16_bit_step_is_not_silence(step):
    y = np.zeros(60 * 16000, "float32")
    y[30 * 16000] = step
    assert len(windows_of([y], make_spec())[0]) == 21


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, None])
def test_counts(value):
    with pytest.raises(ValueError, match=r"batch_size must be a whole number of at least 1; got "):
        list(cut([noise(4000)], make_spec(**SMALL), batch_size=value))
    if value is not None:
        with pytest.raises(ValueError, match=r"hop_frames must be a whole number of at least 1; got "):
            list(cut([noise(4000)], make_spec(**SMALL), hop_frames=value))


# === Cost ===


@pytest.mark.parametrize("hop_frames", [None, 62, 10**6])
def test_memory_does_not_grow_with_the_track(hop_frames):
    spec, second = make_spec(), noise(16000)

    def peak(seconds):
        tracemalloc.start()
        try:
            for _ in cut((second.copy() for _ in range(seconds)), spec, hop_frames=hop_frames, batch_size=8):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # 8 windows are 1.5 MB; an hour of samples is 230 MB.
    assert peak(3600) < 1.5 * peak(60) < 15e6


def test_batches_do_not_keep_the_blocks():
    spec = make_spec()
    tracemalloc.start()
    try:
        for _ in cut((np.ones(16000 * 60, "float32") for _ in range(60)), spec, hop_frames=60 * 62, batch_size=60):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6  # measured: 31 MB, 23 of them the windows and their stack; with their blocks 230


def test_small_blocks_cost_no_more_than_large_ones():
    """Every block used to copy a whole batch of windows; the frames of an m4a are small."""
    spec = make_spec(frames=1366, sr=12000)
    y = noise(12000 * 600)

    def seconds(samples):
        start = time.process_time()
        count = sum(len(b.samples) for b in cut((y[i : i + samples] for i in range(0, len(y), samples)), spec))
        assert count == 21
        return time.process_time() - start

    assert seconds(280) < 5 * seconds(len(y)) + 1.0  # measured: 0.15 s and 0.04 s; 37 s before
