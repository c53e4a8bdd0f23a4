"""The stages of a library run by themselves: listing, decoding, batches; and what they refuse."""

import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from audio_files import posix
from library_files import sound, sounds

import keras_musictag as kmt
from keras_musictag.apps.library import LibraryError, decoding, listing, tag_library
from keras_musictag.apps.library import local_engine as run
from keras_musictag.apps.library.batching import Batcher, network
from keras_musictag.apps.library.decoding import Ended, Job, Opened, decode, message_fields, message_from
from keras_musictag.apps.library.pool import DecodeWorkers
from keras_musictag.datasets import Manifest, Row
from keras_musictag.errors import SpecError

SPEC = kmt.model_info("tiny")


def names(found, root):
    return [os.path.relpath(listed.path, root) for listed in found.files]


# === Listing ===


def test_folders_are_walked_in_order(tmp_path):
    for name in ("b/2.wav", "b/1.MP3", "a/x/3.flac", "c.ogg", "notes.txt", ".trash/4.wav", "b/._1.MP3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = listing.find(tmp_path)
    assert names(found, tmp_path) == ["c.ogg", "a/x/3.flac", "b/1.MP3", "b/2.wav"]
    assert found.files == listing.find([tmp_path, tmp_path / "b", tmp_path / "c.ogg"]).files  # each once
    assert names(listing.find([tmp_path / "b", tmp_path]), tmp_path)[:2] == ["b/1.MP3", "b/2.wav"]


def test_a_thousand_folders_deep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(300):  # a path of 600 characters; recursion would not get much further
        os.mkdir("d")
        os.chdir("d")
    open("x.wav", "w").close()
    assert len(listing.find(tmp_path).files) == 1


@pytest.fixture
def open_folder():
    """A folder that everybody can enter, which pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@posix
def test_without_permission(open_folder):
    secret = sound(open_folder / "secret.wav")
    secret.chmod(0)
    sounds(open_folder / "locked", 2)
    (open_folder / "locked").chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may read everything
    try:
        found = listing.find(open_folder)
        assert {os.path.basename(listed.path): listed.kind for listed in found.files} == {
            "secret.wav": "",
            "locked": "unreadable",
        }
        (ended,) = decode(Job(str(secret)), SPEC)
        (below,) = decode(Job(str(open_folder / "locked" / "000.wav")), SPEC)
    finally:
        os.seteuid(user)
        (open_folder / "locked").chmod(0o755)
    assert ended.kind == below.kind == "unreadable"
    assert "secret.wav' cannot be read (Permission denied)" in ended.error and "cannot be accessed" in below.error


@posix
def test_linked_folders_are_entered_once(tmp_path):
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "1.wav").touch()
    (tmp_path / "a").symlink_to(tmp_path / "z")
    (tmp_path / "b").symlink_to(tmp_path / "z")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "2.wav").touch()
    (tmp_path / "z" / "out").symlink_to(elsewhere)
    (tmp_path / "z" / "round").symlink_to(tmp_path / "z" / "round")
    found = listing.find(tmp_path / "z")
    assert names(found, tmp_path / "z") == ["1.wav", "round", "out/2.wav"]
    assert [listed.kind for listed in found.files] == ["", "link loop", ""]
    assert names(listing.find(tmp_path), tmp_path) == ["elsewhere/2.wav", "z/1.wav", "z/round"]
    assert names(listing.find(tmp_path / "a"), tmp_path / "a")[0] == "1.wav"


def test_lists_and_tables(tmp_path):
    paths = sounds(tmp_path / "music", 3)
    (tmp_path / "list.txt").write_bytes(
        b"\xef\xbb\xbfmusic/000.wav\r\n\r\n#1.wav\r\nmusic/../music/001.wav\nna\xefve.wav"
    )
    found = names(listing.find(tmp_path / "list.txt"), tmp_path)
    assert found == ["music/000.wav", "#1.wav", "music/001.wav", os.fsdecode(b"na\xefve.wav")]
    (tmp_path / "list.m3u").write_text(f"#EXTM3U\n#EXTINF:1,Artist\nmusic/000.wav\n{paths[2]}\n")
    assert names(listing.find(str(tmp_path / "list.m3u")), tmp_path) == ["music/000.wav", "music/002.wav"]
    (tmp_path / "table.csv").write_text("path,tags\nmusic/002.wav,rock\nmusic/001.wav,\n")
    assert names(listing.find(tmp_path / "table.csv"), tmp_path) == ["music/002.wav", "music/001.wav"]
    manifest = Manifest((Row(path=paths[1]), Row(path=paths[0])))
    assert names(listing.find(manifest), tmp_path) == ["music/001.wav", "music/000.wav"]
    with pytest.raises(LibraryError, match=r"lists a part of .*001\.wav' \(start 3 s\); a library takes whole files"):
        listing.find(Manifest((Row(path=paths[1], start=3.0),)))
    (tmp_path / "list.txt").write_bytes("music/000.wav".encode("utf-16"))
    with pytest.raises(LibraryError, match=r"Line 1 of .*list\.txt' is no path: it has null characters"):
        listing.find(tmp_path / "list.txt")


def test_a_list_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "list.txt").touch()
    monkeypatch.setattr("builtins.open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(LibraryError, match=r"list\.txt' cannot be read \(Permission denied\)"):
        listing.find(tmp_path / "list.txt")


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(LibraryError, match="'nowhere' does not exist"):
        tag_library("nowhere", tmp_path / "tags.csv", "tiny")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top must be a whole number of at least 1; got 0"),
        ({"workers": 1.5}, "workers must be a whole number of at least 1; got 1.5"),
        ({"threshold": 2}, "threshold must be a probability from 0 to 1, or 'auto'; got 2"),
        ({"timeout": 0}, "timeout must be a positive number of seconds; got 0"),
    ],
)
def test_numbers_that_cannot_be(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tag_library(tmp_path, tmp_path / "tags.jsonl", "tiny", **options)


# === Decoding ===


def test_decoding_gives_the_windows_of_the_tagger(tmp_path):
    path = sound(tmp_path / "a.wav", 50.3)
    opened, *blocks, ended = decode(Job(str(path)), SPEC)
    assert opened.size == path.stat().st_size
    assert ended == Ended("decoded", duration_s=50.3) and len(blocks) == 3
    tagger = kmt.load("tiny")
    mean = network(tagger, False)(np.concatenate(blocks)).mean(axis=0)
    np.testing.assert_allclose(mean, [tagger.tag(path)[tag] for tag in tagger.tags], atol=1e-6)  # other batches
    assert [type(m) for m in decode(Job(str(path), known=opened.sha256), SPEC)] == [Opened, Ended]
    assert list(decode(Job(str(path), known=opened.sha256), SPEC))[1].outcome == "same"
    assert list(decode(Job(str(path), known="0" * 64, replace=False), SPEC))[1].outcome == "other"
    assert list(decode(Job(str(path), known="0" * 64), SPEC))[-1].outcome == "decoded"


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("no.wav", "unreadable", "does not exist"),
        (".", "not a file", "is a folder"),
        ("a\0b", "unreadable", "a path"),
    ],
)
def test_what_is_no_file(tmp_path, path, kind, said):
    (ended,) = decode(Job(os.path.join(tmp_path, path)), SPEC)
    assert (ended.outcome, ended.kind) == ("failed", kind) and said in ended.error


def test_messages_survive_the_pipe():
    for message in (Opened("0" * 64, 3, 1.5), Ended("failed", error="\udce9 Ж", kind="silent"), Ended("decoded", 3.0)):
        assert message_from(message_fields(message)) == message


def test_workers_that_cannot_be_started(tmp_path, monkeypatch):
    path = sound(tmp_path / "a.wav")
    monkeypatch.setattr(kmt.apps.library.pool, "_STREAM", "no_such_module:stream")
    with pytest.raises(
        LibraryError, match=r"could be started with .*: ModuleNotFoundError: No module named 'no_such_module'"
    ):
        tag_library(path, tmp_path / "tags.jsonl", "tiny")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(LibraryError, match=r"could be started with '.*no-python': .*No such file"):
        tag_library(path, tmp_path / "tags.jsonl", "tiny")


def test_workers_wait_for_the_network(tmp_path):
    for number in range(3):
        sound(tmp_path / f"{number}.wav", 600)  # 25 blocks of windows each
    with DecodeWorkers(SPEC, 1, 60.0) as pool:
        jobs = iter([Job(str(tmp_path / f"{number}.wav")) for number in range(3)])
        events = pool.run(jobs)
        next(events)
        for _ in range(20):
            if pool._events.full():
                break
            pool._stopped.wait(0.2)
        assert pool._events.full() and len(list(jobs)) == 2  # not even the second file was begun
        assert sum(isinstance(message, np.ndarray) for _, message in events) == 25


# === Batches ===


@pytest.mark.parametrize(("seconds", "most"), [(1.0, 16), (60.0, 16), (300.0, 3), (3_600.0, 1)])
def test_what_waits_for_the_network_is_bounded(seconds, most):
    spec = dataclasses.replace(SPEC, window=dataclasses.replace(SPEC.window, frames=round(seconds * 62.5)))
    waiting = DecodeWorkers(spec, 3, 60.0)._events.maxsize / 3
    assert waiting == most
    assert waiting == 1 or waiting * 4 * spec.window_samples <= 2**26


def test_batches_are_full_and_means_are_right():
    sizes, rng = [], np.random.default_rng(0)
    batcher = Batcher(lambda windows: (sizes.append(len(windows)), windows.sum(axis=1, keepdims=True))[1], size=8)
    files = {key: rng.normal(size=(rng.integers(1, 30), 3)).astype("float32") for key in range(20)}
    ahead = [(key, block) for key, windows in files.items() for block in np.array_split(windows, 3) if len(block)]
    means = {}
    for key, block in ahead:
        batcher.add(key, block)
        if block[-1] is files[key][-1] or np.array_equal(block[-1], files[key][-1]):
            if key % 7 == 3:
                batcher.drop(key)
            else:
                batcher.end(key)
        means |= dict(batcher.finished())
    assert set(sizes) == {8} and len(means) >= 15
    means |= dict(batcher.finished(flush=True))
    assert set(means) == {key for key in files if key % 7 != 3}
    for key, mean in means.items():
        np.testing.assert_allclose(mean, files[key].sum(axis=1).mean(keepdims=True), rtol=1e-5, atol=1e-6)
    assert list(batcher.finished(flush=True)) == []


@pytest.mark.contract
def test_the_network_with_embeddings(tmp_path):
    tagger = kmt.load("tiny")
    path = sound(tmp_path / "a.wav", 3.0)
    _, windows, _ = decode(Job(str(path)), SPEC)
    both = network(tagger, True)(windows).mean(axis=0)
    np.testing.assert_allclose(both[:5], network(tagger, False)(windows).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(both[5:], tagger.embed(path), atol=1e-5)


@pytest.mark.contract
def test_outputs_do_not_depend_on_the_place_in_a_batch():
    import keras

    tagger = kmt.load("tiny")
    windows = np.random.default_rng(0).normal(size=(24, SPEC.window_samples)).astype("float32") / 10
    run = network(tagger, True)
    # TensorFlow and JAX: exactly; PyTorch: measured 3e-8
    atol = 1e-7 if keras.backend.backend() == "torch" else 0
    np.testing.assert_allclose(run(windows[::-1]), run(windows)[::-1], rtol=0, atol=atol)


def test_an_exported_tagger(tmp_path):
    pytest.importorskip("onnxruntime")
    tagger, path = kmt.load("tiny"), sound(tmp_path / "a.wav", 3.0)
    tagger.export(tmp_path / "export", format="onnx")
    exported = kmt.load(tmp_path / "export", runtime="onnxruntime")
    summary = tag_library(path, tmp_path / "tags.jsonl", exported, embeddings=True)
    assert summary.tagged == 1
    row = json.loads((tmp_path / "tags.jsonl").read_text())
    np.testing.assert_allclose(
        [row["tags"][tag] for tag in tagger.tags], [tagger.tag(path)[tag] for tag in tagger.tags], atol=1e-5
    )
    np.testing.assert_allclose(row["embedding"], tagger.embed(path), atol=1e-4)


def test_networks_without_embeddings():
    import keras

    tagger = kmt.load("tiny")
    inputs = keras.Input(tagger.spec.input_shape)
    end = keras.layers.Dense(5, name="end")
    core = keras.Model(inputs, end(keras.layers.Flatten()(inputs)))
    with pytest.raises(SpecError, match="no layer named 'head'"):
        network(kmt.Tagger(tagger.spec, core), True)
    head = keras.layers.Dense(5, name="head")
    core = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(head(inputs)))
    with pytest.raises(SpecError, match=r"the input of its head has the shape \(None, 32, 63\)"):
        network(kmt.Tagger(tagger.spec, core), True)


def test_a_network_that_gives_nan(tmp_path, monkeypatch):
    path = sound(tmp_path / "a.wav")
    monkeypatch.setattr(run, "network", lambda *_: lambda windows: np.full((len(windows), 5), np.nan))
    assert tag_library(path, tmp_path / "tags.jsonl", "tiny").failures == {"model": 1}
    assert "gives NaN or infinity for" in (tmp_path / "tags.jsonl").read_text()


def test_changes_during_a_failure_are_noticed(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"no sound")

    def grows(path, **_):
        with open(path, "ab") as file:
            file.write(b"more")
        raise ValueError("odd")
        yield

    *_, ended = decode(Job(str(path)), SPEC, grows)
    assert ended.kind == "changed" and decoding.ChangedError.__name__ not in ended.error
