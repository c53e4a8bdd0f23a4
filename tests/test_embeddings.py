"""Embeddings on disk: those of `Tagger.embed`, computed once for a content, a part and a network, whatever happens."""

import dataclasses
import shutil

import keras
import librosa
import numpy as np
import pytest
import soundfile
from labelled_sounds import labelled_sounds

import keras_musictag as kmt
from keras_musictag.apps.probing.mfcc import MfccCache
from keras_musictag.audio import reading as audio
from keras_musictag.datasets import Manifest, Row
from keras_musictag.errors import (
    AudioNotFoundError,
    AudioTooShortError,
    CacheError,
    SpecError,
    TruncatedAudioError,
    UnsupportedAudioError,
)
from keras_musictag.training import embedding_cache as embeddings
from keras_musictag.training.embedding_cache import EmbeddingCache

RATE = 16_000
# The same backend, the same values, other batches: measured 2.4e-7.
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def rows(tmp_path):
    """Six sounds of 2.5 s, and two parts of the first."""
    manifest = Manifest.from_csv(labelled_sounds(tmp_path / "sounds", count=6))
    parts = [dataclasses.replace(manifest[0], start=start, duration=1.2) for start in (0.5, 1.0)]
    return Manifest((*manifest.rows, *parts), manifest.tags)


@pytest.fixture
def nothing_is_computed(monkeypatch):
    """A function after which nothing is computed any more."""

    def forbid():
        monkeypatch.setattr(audio, "stream", lambda *_, **__: pytest.fail("decoded"))
        monkeypatch.setattr(EmbeddingCache, "_from_cache", lambda *_: pytest.fail("computed"))

    return forbid


def parts(folder):
    return sorted((folder / "embeddings").rglob("*.npz"))


# === What they are ===


@pytest.mark.contract
def test_they_are_those_of_embed(tiny, rows, tmp_path):
    """Measured on TensorFlow: log-mels in float16 move them by up to 0.0009."""
    found, failures = EmbeddingCache(tmp_path, tiny).get_many(rows)
    assert (found.shape, found.dtype, failures) == ((8, 16), np.float32, {})
    expected = [tiny.embed(row.path) for row in rows[:6]]
    assert np.allclose(found[:6], expected, rtol=0, atol=0.01)


def test_parts_are_where_they_should_be_and_the_whole_is_their_mean(tiny, tmp_path):
    frames, hop = tiny.spec.window.frames, tiny.spec.mel.hop_length
    y = np.random.default_rng(0).uniform(-0.5, 0.5, (5 * frames - 1) * hop)  # five windows
    y[: len(y) // 2] *= 0.1
    soundfile.write(tmp_path / "a.wav", y, RATE)
    row = Row(path=tmp_path / "a.wav")
    seconds = frames * hop / RATE
    windows = [dataclasses.replace(row, start=number * seconds, duration=seconds) for number in range(5)]
    cache = EmbeddingCache(tmp_path / "cache", tiny)
    found, _ = cache.get_many(Manifest([row, *windows]))
    assert cache.width == 16
    assert np.allclose(found[0], found[1:].mean(axis=0), **CLOSE)
    assert np.abs(found[1] - found[5]).max() > 0.1
    assert np.allclose(found[1], tiny.embed(row.path, duration=seconds), rtol=0, atol=0.1)


# === Once ===


def test_a_second_time_computes_nothing(tiny, rows, tmp_path, nothing_is_computed):
    cache = EmbeddingCache(tmp_path, tiny)
    first, _ = cache.get_many(rows)
    nothing_is_computed()
    assert np.array_equal(cache.get_many(rows)[0], first)
    assert np.array_equal(EmbeddingCache(tmp_path, kmt.load("tiny")).get_many(rows)[0], first)
    other_order = Manifest(rows.rows[::-1], rows.tags)
    assert np.array_equal(EmbeddingCache(tmp_path, tiny).get_many(other_order)[0], first[::-1])


def test_copies_and_new_names_cost_nothing(tiny, rows, tmp_path, nothing_is_computed):
    first, _ = EmbeddingCache(tmp_path, tiny).get_many(rows)
    nothing_is_computed()
    shutil.copytree(tmp_path / "sounds", tmp_path / "again")
    moved = [dataclasses.replace(row, path=tmp_path / "again" / row.path.name, tags=()) for row in rows]
    assert np.array_equal(EmbeddingCache(tmp_path, tiny).get_many(Manifest(moved))[0], first)


def test_rows_with_the_same_sound_are_computed_once(tiny, rows, tmp_path, monkeypatch):
    shutil.copy(rows[0].path, tmp_path / "copy.wav")
    computed = []
    compute = EmbeddingCache._from_cache
    monkeypatch.setattr(EmbeddingCache, "_from_cache", lambda self, rows: computed.extend(rows) or compute(self, rows))
    same = Manifest((rows[0], Row(path=tmp_path / "copy.wav"), rows[1], rows[0]))
    found, _ = EmbeddingCache(tmp_path, tiny).get_many(same)
    assert len(computed) == 2
    assert np.array_equal(found[[0, 1]], found[[3, 0]]) and not np.array_equal(found[0], found[2])


def test_sound_is_decoded_once_for_all_taggers_of_a_front_end(tiny, rows, tmp_path, monkeypatch):
    EmbeddingCache(tmp_path, tiny).get_many(rows)
    other = kmt.load("tiny", weights=None)
    monkeypatch.setattr(audio, "stream", lambda *_, **__: pytest.fail("decoded"))
    found, failures = EmbeddingCache(tmp_path, other).get_many(rows)
    assert np.isfinite(found).all() and failures == {}


def test_a_network_that_was_trained_on_gets_its_own_and_a_new_head_does_not(rows, tmp_path, nothing_is_computed):
    tagger = kmt.load("tiny")
    cache = EmbeddingCache(tmp_path, tagger)
    first, _ = cache.get_many(rows)
    kernel = tagger.core.get_layer("conv1").kernel
    kernel.assign(2 * kernel)
    second, _ = cache.get_many(rows)
    assert np.abs(first - second).max() > 0.01
    kernel.assign(kernel / 2)
    head = tagger.core.get_layer("head").kernel
    head.assign(2 * head)
    nothing_is_computed()
    assert np.array_equal(cache.get_many(rows)[0], first)


def test_other_windows_are_other_embeddings(tiny, rows, tmp_path):
    first, _ = EmbeddingCache(tmp_path, tiny).get_many(rows)
    window = dataclasses.replace(
        tiny.spec.window, remainder="drop" if tiny.spec.window.remainder == "align" else "align"
    )
    other = kmt.Tagger(dataclasses.replace(tiny.spec, window=window), core=tiny.core)
    second, _ = EmbeddingCache(tmp_path, other).get_many(rows)
    assert np.abs(first[:6] - second[:6]).max() > 0.001
    assert len(list((tmp_path / "embeddings").iterdir())) == 2


# === What goes wrong ===


def test_bad_sounds_are_reported_and_the_others_go_on(tiny, rows, tmp_path):
    (tmp_path / "text.wav").write_text("not music\n" * 100)
    beyond = dataclasses.replace(rows[0], start=60.0)
    bad = [Row(path=tmp_path / "text.wav"), Row(path=tmp_path / "gone.wav"), beyond]
    mixed = Manifest((bad[0], *rows.rows, *bad[1:]), rows.tags)
    for _ in range(2):
        found, failures = EmbeddingCache(tmp_path, tiny).get_many(mixed)
        assert list(failures) == [0, 9, 10]
        assert [type(error) for error in failures.values()] == [
            UnsupportedAudioError, AudioNotFoundError, AudioTooShortError
        ]  # fmt: skip
        assert np.isnan(found[list(failures)]).all() and np.isfinite(found[1:9]).all()
    assert np.array_equal(found[1:9], EmbeddingCache(tmp_path, tiny).get_many(rows)[0])
    assert list(EmbeddingCache(tmp_path, tiny).get_many(Manifest([bad[0]]))[1]) == [0]


def test_a_good_part_of_a_broken_file_is_used(tiny, rows, tmp_path):
    whole = rows[0].path.read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) * 3 // 4])  # 1.9 of 2.5 s
    row = Row(path=tmp_path / "cut.wav")
    found, failures = EmbeddingCache(tmp_path, tiny).get_many(
        Manifest([row, dataclasses.replace(row, duration=1.0), dataclasses.replace(row, start=1.5)])
    )
    assert {number: type(error) for number, error in failures.items()} == {
        0: TruncatedAudioError,
        2: TruncatedAudioError,
    }
    assert np.allclose(found[1], tiny.embed(rows[0].path, duration=1.0), **CLOSE)


def test_what_was_done_before_a_kill_is_kept(tiny, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "_BLOCK", 3)
    compute, done = EmbeddingCache._from_cache, []

    def interrupted(self, rows):
        if done:
            raise KeyboardInterrupt
        done.extend(rows)
        return compute(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingCache, "_from_cache", interrupted)
        with pytest.raises(KeyboardInterrupt):
            EmbeddingCache(tmp_path, tiny).get_many(rows)
    computed = []
    monkeypatch.setattr(EmbeddingCache, "_from_cache", lambda self, rows: computed.extend(rows) or compute(self, rows))
    found, _ = EmbeddingCache(tmp_path, tiny).get_many(rows)
    assert len(done) == 3 and len(computed) == 5
    assert np.allclose(found, EmbeddingCache(tmp_path / "new", tiny).get_many(rows)[0], **CLOSE)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_damaged_files_are_computed_again(tiny, rows, tmp_path, damage):
    first, _ = EmbeddingCache(tmp_path, tiny).get_many(rows)
    (path,) = parts(tmp_path)
    content = bytearray(path.read_bytes())
    content[-900] ^= 255  # in the vectors
    with np.load(path) as file:
        keys = file["keys"]
    np.savez(tmp_path / "other.npz", keys=keys, vectors=np.zeros((len(keys), 3), "float32"))
    new = {"cut": content[:200], "flipped": content, "empty": b"", "other": (tmp_path / "other.npz").read_bytes()}
    path.write_bytes(new[damage])
    assert np.allclose(EmbeddingCache(tmp_path, tiny).get_many(rows)[0], first, **CLOSE)
    assert parts(tmp_path) == [path]


def test_a_folder_that_cannot_be_made(tiny, rows, tmp_path):
    cache = EmbeddingCache(tmp_path / "cache", tiny)
    cache.features.fill([row.path for row in rows])
    (tmp_path / "cache" / "embeddings").write_text("in the way")
    with pytest.raises(CacheError, match=r"embeddings.* cannot be made"):
        cache.get_many(rows)


def test_networks_without_embeddings(tiny, tmp_path):
    x = keras.Input(tiny.spec.input_shape)
    flat = keras.layers.Dense(5, name="last")(keras.layers.Flatten()(x))
    with pytest.raises(SpecError, match="'tiny' has no embeddings: its network has no layer named 'head'"):
        EmbeddingCache(tmp_path, kmt.Tagger(tiny.spec, core=keras.Model(x, flat)))
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(5, name="head")(x))
    with pytest.raises(SpecError, match=r"the input of its head has the shape \(None, 32, 63\)"):
        EmbeddingCache(tmp_path, kmt.Tagger(tiny.spec, core=keras.Model(x, pooled)))


# === MFCC ===


def test_mfcc_statistics(rows, tmp_path, nothing_is_computed):
    (tmp_path / "text.wav").write_text("not music\n" * 100)
    soundfile.write(tmp_path / "short.wav", 0.1 * np.ones(800), RATE)  # 50 ms: less than a frame
    mixed = Manifest((*rows.rows, Row(path=tmp_path / "text.wav"), Row(path=tmp_path / "short.wav")), rows.tags)
    found, failures = MfccCache(tmp_path / "cache").get_many(mixed)
    assert (found.shape, found.dtype, list(failures)) == ((10, 80), np.float32, [8])
    assert np.isfinite(np.delete(found, 8, axis=0)).all()
    y, _ = librosa.load(rows[0].path, sr=22_050)
    mfcc = librosa.feature.mfcc(y=y, sr=22_050, n_mfcc=20)
    delta = librosa.feature.delta(mfcc)
    assert np.allclose(found[0], [*mfcc.mean(1), *mfcc.std(1), *delta.mean(1), *delta.std(1)], rtol=1e-3, atol=1e-3)
    nothing_is_computed()
    assert np.array_equal(MfccCache(tmp_path / "cache").get_many(rows)[0], found[:8])
