"""The cache holds what the model would see, whoever asks in whatever order; batches depend on (seed, step) alone."""

import os
import pickle
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from audio_files import encode, save, signal

import keras_musictag as kmt
from keras_musictag.audio import reading as audio
from keras_musictag.datasets import log_mel_cache as features
from keras_musictag.datasets.augment import Augmentation, from_power
from keras_musictag.datasets.batches import EvaluationWindows, FeatureCache, TimedBatches, WindowBatches
from keras_musictag.datasets.manifest import DataError, Manifest, Row
from keras_musictag.errors import AudioNotFoundError, AudioTooShortError, CacheError, SilentAudioError, SpecError
from keras_musictag.models.layers import LogMelSpectrogram
from keras_musictag.models.spec import AudioSpec, MelSpec, ModelSpec, WindowSpec
from keras_musictag.models.windows import cut

SR, HOP = 8000, 128
LENGTHS = (20.0, 9.3, 3.0, 0.5)  # s; a window is 1 s, a chunk of the cache 8 s


def make_spec(scaling="log10", frames=63, window=None, **mel):
    numbers = {"n_fft": 256, "hop_length": HOP, "n_mels": 32, "scaling": scaling, **mel}
    return ModelSpec(
        name="test",
        architecture="tiny",
        audio=AudioSpec(sr=SR),
        mel=MelSpec(**numbers),
        window=window or WindowSpec(frames=frames),
        tags=("a", "b"),
    )


def half_a_step(scaling):
    """Error of rounding to float16: half the distance of neighbours, 2**-4 above 64 dB, 2**-8 above 4 log10 units."""
    return {"db": 2**-5, "log10": 2**-9}[scaling] * 1.01


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    paths = [
        save(folder / f"{n}.wav", encode(signal(s, SR, seed=n), SR, subtype="FLOAT")) for n, s in enumerate(LENGTHS)
    ]
    for path in paths:
        os.utime(path, (1e9, 1e9))  # old enough for the index
    return paths


@pytest.fixture(scope="module")
def filled(sounds, tmp_path_factory):
    cache = FeatureCache(tmp_path_factory.mktemp("cache"), make_spec())
    assert cache.fill(sounds) == []
    return cache


@pytest.fixture
def manifest(sounds):
    return Manifest(tuple(Row(path=p, tags=(("a", "b")[n % 2],)) for n, p in enumerate(sounds)), ("a", "b"))


def make_batches(manifest, cache, **options):
    return WindowBatches(manifest, cache.spec, cache, **{"batch_size": 3, "steps": 8, "seed": 5, **options})


def reference(path, spec, **options):
    """What the model sees: `windows.cut`, then the layer. `(windows, mels, frames)` and the frame each begins at."""
    layer = LogMelSpectrogram.from_spec(spec.audio, spec.mel)
    found = list(cut(audio.stream(path, target_sr=SR), spec, **options))
    return np.concatenate([np.asarray(layer(b.samples)) for b in found]), np.concatenate([b.starts for b in found])


# === Values ===


@pytest.mark.contract
@pytest.mark.parametrize("scaling", ["db", "log10"])
@pytest.mark.parametrize("hop_frames", [None, 10])
@pytest.mark.parametrize(("remainder", "short", "top_db"), [("align", "repeat", None), ("drop", "pad", 60.0)])
def test_windows_are_those_of_the_model(tmp_path, sounds, scaling, hop_frames, remainder, short, top_db):
    window = WindowSpec(frames=63, remainder=remainder, short=short)
    spec = make_spec(scaling, window=window, top_db=top_db)
    rows = Manifest(tuple(Row(path=p) for p in sounds), ("a", "b"))
    data = EvaluationWindows(rows, spec, FeatureCache(tmp_path, spec), batch_size=7, hop_frames=hop_frames)
    x, of = (np.concatenate(part) for part in zip(*(data[i] for i in range(len(data))), strict=True))
    np.testing.assert_array_equal(of, data.rows)
    for row, path in enumerate(sounds):
        expected, starts = reference(path, spec, hop_frames=hop_frames)
        np.testing.assert_array_equal(data.starts[of == row], starts)
        np.testing.assert_allclose(x[of == row], expected, rtol=0, atol=half_a_step(scaling))
    assert x.dtype == np.float32


def test_spectrogram_is_that_of_the_whole_track(filled, sounds):
    for path, seconds in zip(sounds, LENGTHS, strict=True):
        y = np.pad(audio.load(path, target_sr=SR), 128)
        expected = np.asarray(LogMelSpectrogram.from_spec(filled.spec.audio, filled.spec.mel)(y[None]))[0].T
        got = filled.get(path)
        assert got.shape == expected.shape == (1 + int(seconds * SR) // HOP, 32)
        np.testing.assert_allclose(got, expected, rtol=0, atol=half_a_step("log10"))
        assert got.dtype == np.float16
        assert got.flags.c_contiguous and not got.flags.writeable


def test_odd_fft_and_hop_that_does_not_divide_it(tmp_path, sounds):
    spec = make_spec("db", n_fft=255, hop_length=100)
    y = np.pad(audio.load(sounds[1], target_sr=SR), 127)
    expected = np.asarray(LogMelSpectrogram.from_spec(spec.audio, spec.mel)(y[None]))[0].T
    np.testing.assert_allclose(FeatureCache(tmp_path, spec).get(sounds[1]), expected, rtol=0, atol=half_a_step("db"))


def test_cached_file_opens_in_numpy(filled, sounds):
    (file,) = [f for f in filled.folder.rglob("*.npy") if len(np.load(f)) == len(filled.get(sounds[0]))]
    np.testing.assert_array_equal(np.load(file, mmap_mode="r"), filled.get(sounds[0]))


@pytest.mark.parametrize("wide", [{"scaling": None}, {"scaling": "db", "amin": 1e-20}])
def test_what_float16_cannot_hold_is_float32(tmp_path, sounds, wide):
    assert FeatureCache(tmp_path, make_spec(**wide)).get(sounds[2]).dtype == np.float32


def test_key_is_content_and_front_end(tmp_path, sounds):
    copy = save(tmp_path / "copy.wav", sounds[2].read_bytes())
    for spec in (make_spec(), make_spec(frames=99), make_spec(top_db=80.0), make_spec(n_mels=16)):
        cache = FeatureCache(tmp_path / "cache", spec)
        assert cache.fill([sounds[2], copy]) == []
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2


# === Robustness ===


@pytest.mark.parametrize("damage", ["empty", "cut off", "header", "longer", "bits"])
def test_damaged_cache_files_are_rebuilt(tmp_path, sounds, damage):
    cache = FeatureCache(tmp_path, make_spec())
    good = np.array(cache.get(sounds[1]))
    (file,) = cache.folder.rglob("*.npy")
    content = file.read_bytes()
    file.write_bytes(
        {
            "empty": b"",
            "cut off": content[:-100],
            "header": b"?" + content[1:],
            "longer": content + bytes(64),
            "bits": content[:999] + bytes(9) + content[1008:],
        }[damage]
    )
    if damage == "bits":  # nothing but the checksum sees it
        assert not np.array_equal(cache.get(sounds[1]), good)
        assert cache.fill([sounds[1]]) == []
    np.testing.assert_array_equal(cache.get(sounds[1]), good)
    assert file.read_bytes() == content


def test_bad_files_are_reported_and_not_fatal(tmp_path, sounds):
    text = save(tmp_path / "text.wav", b"no sound")
    brief = save(tmp_path / "brief.wav", encode(signal(0.01, SR), SR))
    silent = save(tmp_path / "silent.wav", encode(np.zeros(SR), SR))
    paths = [tmp_path / "none.wav", sounds[3], text, brief, silent, sounds[3]]
    cache = FeatureCache(tmp_path / "cache", make_spec())
    bad = cache.fill(paths)
    assert [path for path, _ in bad] == [paths[0], text, brief, silent]
    assert isinstance(bad[0][1], AudioNotFoundError)
    assert isinstance(bad[2][1], AudioTooShortError)
    assert isinstance(bad[3][1], SilentAudioError)
    assert [f.suffix for f in cache.folder.rglob("*") if f.is_file()] == [".npy"]  # nothing half done is left


def test_many_at_once(tmp_path, sounds):
    caches = [FeatureCache(tmp_path, make_spec()) for _ in range(3)]  # as three processes have
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(cache.fill, sounds, 2) for cache in caches for _ in range(2)]
        assert [job.result() for job in jobs] == [[]] * 6
    files = [f for f in caches[0].folder.rglob("*") if f.is_file()]
    assert len(files) == len(sounds)
    index = features._read_index(tmp_path / "index.jsonl")
    assert sorted(index) == sorted(map(str, sounds))


def test_memory_does_not_grow_with_the_track(tmp_path, sounds, monkeypatch):
    def ten_minutes(*_, **__):  # 19 MB of samples
        rng = np.random.default_rng(0)
        yield from (rng.uniform(-0.5, 0.5, 8 * SR).astype("float32") for _ in range(75))

    cache = FeatureCache(tmp_path, make_spec())
    cache.get(sounds[1])  # compiles
    monkeypatch.setattr(audio, "stream", ten_minutes)
    tracemalloc.start()
    try:
        frames = len(cache.get(sounds[0]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert frames == 1 + 600 * SR // HOP
    assert peak < 8e6  # measured: 4.5e6


def test_unwritable_folder(tmp_path, sounds):
    save(tmp_path / "file", b"")
    with pytest.raises(CacheError, match="cannot be written"):
        FeatureCache(tmp_path / "file", make_spec()).get(sounds[3])


def test_index_spares_hashing_until_a_file_changes(tmp_path, sounds, monkeypatch):
    path = save(tmp_path / "a.wav", sounds[3].read_bytes())
    os.utime(path, (1e9, 1e9))
    cache = FeatureCache(tmp_path / "cache", make_spec())
    first = np.array(cache.get(path))
    with (tmp_path / "cache" / "index.jsonl").open("a") as file:
        file.write('["broken off')

    def hashed(*_):
        raise AssertionError("hashed again")

    with monkeypatch.context() as patch:
        patch.setattr(features.hashlib, "file_digest", hashed)
        again = FeatureCache(tmp_path / "cache", make_spec())
        np.testing.assert_array_equal(again.get(path), first)
    path.write_bytes(encode(signal(0.5, SR, seed=9), SR, subtype="FLOAT"))
    os.utime(path, (2e9 / 1.5, 2e9 / 1.5))
    assert not np.array_equal(again.get(path), first)


def test_young_files_are_not_trusted_to_the_index(tmp_path):
    path = save(tmp_path / "a.wav", encode(signal(0.5, SR, seed=1), SR))
    cache = FeatureCache(tmp_path / "cache", make_spec())
    first, changed = np.array(cache.get(path)), path.stat().st_mtime_ns
    path.write_bytes(encode(signal(0.5, SR, seed=2), SR))
    os.utime(path, ns=(changed, changed))  # same size, same time, other content
    assert not np.array_equal(cache.get(path), first)


def test_cache_travels_to_other_processes(filled, sounds):
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(filled)).get(sounds[0]), filled.get(sounds[0]))


# === Batches ===


def test_batches_depend_on_seed_and_step_alone(manifest, filled):
    recipe = Augmentation(mel=filled.spec.mel, gain_db=6.0, time_masks=1, time_mask_frames=9)
    options = {"augment": recipe, "mixup": 0.5}
    data = make_batches(manifest, filled, **options)
    expected = [data[i] for i in range(8)]
    fresh = make_batches(manifest, filled, **options)
    for i in (7, 0, 3):
        np.testing.assert_array_equal(fresh[i][0], expected[i][0])
    with ThreadPoolExecutor(4) as pool:
        for (x, y), (want_x, want_y) in zip(pool.map(fresh.__getitem__, range(8)), expected, strict=True):
            np.testing.assert_array_equal(x, want_x)
            np.testing.assert_array_equal(y, want_y)
    later = make_batches(manifest, filled, first_step=6, **options)
    np.testing.assert_array_equal(later[1][0], expected[7][0])
    assert not np.array_equal(make_batches(manifest, filled, seed=6, **options)[0][0], expected[0][0])
    assert (expected[0][0].shape, expected[0][1].shape) == ((3, 32, 63), (3, 2))
    assert {part.dtype.name for part in expected[0]} == {"float32"}


def test_every_row_comes_once_before_any_comes_again(manifest, filled):
    seen = []
    data = make_batches(manifest, filled, targets=lambda row, start, frames: seen.append(row) or np.zeros(2))
    for i in range(8):
        data[i]
    passes = [seen[i : i + 4] for i in range(0, 24, 4)]
    assert all(sorted(rows) == [0, 1, 2, 3] for rows in passes)
    assert len({tuple(rows) for rows in passes}) > 1
    seen.clear()
    make_batches(manifest, filled, shuffle=False, targets=data._targets)[1]
    assert seen == [3, 0, 1]


def test_windows_are_inside_their_row_and_targets_know_where(sounds, filled):
    part = Manifest((Row(path=sounds[0], start=4.0, duration=3.0, tags=("a",)),), ("a", "b"))
    seen = []

    def teacher(row, start, frames):
        seen.append((row, start, frames))
        return np.array([start / 1000, 0.5])

    data = make_batches(part, filled, batch_size=50, targets=teacher)
    x, y = data[0]
    starts = np.array([start for _, start, _ in seen])
    assert {(row, frames) for row, _, frames in seen} == {(0, 63)}
    assert starts.min() * HOP / SR >= 4.0
    assert (starts.max() + 62) * HOP / SR < 7.0
    assert len(set(starts)) > 20
    np.testing.assert_allclose(y[:, 0], starts / 1000, rtol=1e-6)
    for window, start in zip(x, starts, strict=True):
        np.testing.assert_array_equal(window, filled.get(sounds[0])[start : start + 63].T)


@pytest.mark.parametrize("short", ["repeat", "pad"])
def test_parts_shorter_than_a_window(sounds, tmp_path, short):
    spec = make_spec(window=WindowSpec(frames=63, short=short))
    cache = FeatureCache(tmp_path, spec)
    part = Manifest((Row(path=sounds[0], start=2.0, duration=0.32, tags=("a",)),), ("a", "b"))
    x, _ = make_batches(part, cache, batch_size=1)[0]
    own = cache.get(sounds[0])[125:145].T
    np.testing.assert_array_equal(x[0, :, :20], own)
    expected = own if short == "repeat" else np.broadcast_to(from_power(np.zeros((1, 1)), spec.mel), own.shape)
    np.testing.assert_array_equal(x[0, :, 20:40], expected)


def test_mean_per_row(manifest, filled):
    data = EvaluationWindows(manifest, filled.spec, filled)
    outputs = np.stack([data.rows, np.ones(len(data.rows))], axis=1)
    np.testing.assert_allclose(data.mean_per_row(outputs), [[0, 1], [1, 1], [2, 1], [3, 1]])
    with pytest.raises(ValueError, match="got outputs for 1"):
        data.mean_per_row(outputs[:1])


def test_invalid_arguments_of_batches(manifest, filled, sounds):
    with pytest.raises(DataError, match="no rows"):
        make_batches(manifest[:0], filled)
    with pytest.raises(DataError, match=r"Use manifest.with_tags"):
        make_batches(manifest.with_tags(("b", "a")), filled)
    with pytest.raises(SpecError, match="which differs from that of"):
        WindowBatches(manifest, make_spec("db"), filled, batch_size=1, steps=1, seed=0)
    for wrong in ({"batch_size": 0}, {"steps": 1.5}, {"seed": -1}, {"first_step": -1}, {"mixup": 3}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            make_batches(manifest, filled, **wrong)
    with pytest.raises(IndexError, match="8 steps; got 8"):
        make_batches(manifest, filled)[8]
    late = Manifest((Row(path=sounds[2], start=3.5, tags=("a",)),), ("a", "b"))
    with pytest.raises(AudioTooShortError, match=r"Row 0 .* no frame from 3.5 s"):
        make_batches(late, filled)[0]


@pytest.mark.contract
def test_a_network_trains_on_it(manifest, filled):
    keras.utils.set_random_seed(0)
    model = kmt.models.tiny(2)
    recipe = Augmentation(mel=filled.spec.mel, gain_db=3.0, mel_masks=1, mel_mask_bands=4)
    data = make_batches(manifest, filled, steps=6, augment=recipe, mixup=0.5)
    batches = [data[i] for i in range(6)]
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["seen"]))
    mean = keras.metrics.Mean(name="seen")

    class Watched(keras.Model):
        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            mean.update_state(x)
            return {**super().compute_metrics(x, y, y_pred, sample_weight), "seen": mean.result()}

        @property
        def metrics(self):
            return [*super().metrics, mean]

    watched = Watched(model.inputs, model.outputs)
    watched.compile("adam", "binary_crossentropy")
    history = watched.fit(data, epochs=2, steps_per_epoch=3, shuffle=False, verbose=0, callbacks=[watch])
    assert np.isfinite(history.history["loss"]).all()
    # The epochs went through all steps, one after the other.
    expected = [np.mean([x.mean() for x, _ in batches[first : first + 3]]) for first in (0, 3)]
    np.testing.assert_allclose(seen, expected, rtol=1e-4)
    assert abs(expected[0] / expected[1] - 1) > 1e-3
    evaluation = EvaluationWindows(manifest, filled.spec, filled)
    assert evaluation.mean_per_row(model.predict(evaluation, verbose=0)).shape == (4, 2)


# === Starvation ===


class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.02)
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_order_and_seconds(workers):
    timed = TimedBatches(Slow(range(6)), start=2, workers=workers)
    assert list(timed) == [2, 3, 4, 5]
    assert timed.waiting > 0.01
    assert timed.starved > 0.5  # the loop itself does nothing


def test_reading_ahead_hides_the_reading():
    timed = TimedBatches(Slow(range(6)), workers=2)
    for _ in timed:
        time.sleep(0.1)
    assert timed.working >= 0.6
    assert timed.starved < 0.3  # measured: 0.03


def test_errors_come_through_and_threads_end(manifest, filled):
    def teacher(row, start, frames):
        raise RuntimeError("no teacher")

    with pytest.raises(RuntimeError, match="no teacher"):
        list(TimedBatches(make_batches(manifest, filled, targets=teacher)))
    for _ in TimedBatches(make_batches(manifest, filled)):
        break
