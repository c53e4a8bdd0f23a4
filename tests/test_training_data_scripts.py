"""The scripts of zoo/ that collect training data: what they take out of packages, who trains, what is measured."""

import collections
import csv
import importlib
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

import keras_musictag as kmt
from keras_musictag.loading import untrained

ZOO = Path(__file__).parents[1] / "zoo"


@pytest.fixture
def script(monkeypatch):
    """Import a script of zoo/ by name, as Python does when it runs one."""
    monkeypatch.syspath_prepend(str(ZOO))
    return importlib.import_module


def sound(path, seconds=2.0, sr=16_000, level=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    y = level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * sr)) / sr)
    soundfile.write(path, y, sr)
    return path


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# === fetch_free_music.py ===


def test_the_table_names_each_track_once_with_a_licence(script):
    rows = script("fetch_free_music").read_table()
    assert len(rows) == 686 and len({row["file"] for row in rows}) == len(rows)
    assert all(row["licence"] and row["title"] and not row["member"].startswith("/") for row in rows)


def test_tracks_are_files_members_of_zips_and_mixes_of_stems(script, tmp_path):
    fetch = script("fetch_free_music")
    content = tmp_path / "content"
    plain = sound(content / "usr/a.wav").read_bytes()
    with zipfile.ZipFile(content / "usr/music.pk3", "w") as archive:
        archive.writestr("music/b.ogg", b"in the archive")
    for stem, level in zip(fetch.STEMS, (0.25, 0.5), strict=True):
        sound(content / "usr/song" / stem.replace(".ogg", ".wav"), level=level).rename(content / "usr/song" / stem)
    assert fetch.extract(content, "usr/music.pk3.d/music/b.ogg", tmp_path / "out/b.ogg")
    assert (tmp_path / "out/b.ogg").read_bytes() == b"in the archive"
    assert fetch.extract(content, "usr/song/mix.flac", tmp_path / "out/mix.flac")
    assert np.abs(soundfile.read(tmp_path / "out/mix.flac")[0]).max() == pytest.approx(0.75, abs=1e-3)
    assert fetch.extract(content, "usr/a.wav", tmp_path / "out/a.wav")
    assert (tmp_path / "out/a.wav").read_bytes() == plain
    for missing in ("usr/none.ogg", "usr/music.pk3.d/music/none.ogg", "usr/none.pk3.d/a.ogg", "usr/mix.flac"):
        assert not fetch.extract(content, missing, tmp_path / "out/none")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.wav", "b.ogg", "mix.flac"]


# === training_data.py ===


@pytest.fixture
def collected(script, tmp_path, monkeypatch):
    """Manifests of 20 artists, of whom one also made free music, and one has human tags."""
    music = [
        {
            "file": f"{i}.wav", "collection": "emotify", "artist": f"artist {i // 2}", "genre": "rock",
            "label": "", "licence": "some", "mtt_tags": "guitar|unknown" if i == 3 else "",
        }
        for i in range(40)
    ]  # fmt: skip
    music += [
        {
            "file": f"{i}.wav",
            "collection": "songs",
            "artist": "",
            "genre": "",
            "label": "",
            "licence": "other",
            "mtt_tags": "",
        }
        for i in range(40, 60)
    ]
    music.append(music[-1] | {"file": "60.wav", "collection": "instruments10", "label": "Cello"})
    for number, row in enumerate(music):
        sound(tmp_path / "music" / row["file"], level=0.1 + number / 100)
    index = write_table(tmp_path / "music" / "index.csv", music)
    split = {row.path.name: row for row in script("training_data").split_music(index, 0)}
    tested = next(row.group for row in split.values() if row.split == "test" and row.source == "emotify")
    free = [
        {
            "file": f"p/{name}.wav", "collection": "free music", "package": "p", "member": f"{name}.wav",
            "title": name, "artist": artist, "licence": "GPL",
        }
        for name, artist in (("mine", ""), ("theirs", tested))
    ]  # fmt: skip
    for row in free:
        sound(tmp_path / "free" / row["file"], sr=44_100)
    table = write_table(tmp_path / "free" / "index.csv", free)
    command = ["training_data.py", str(tmp_path / "out"), "--music", str(index), "--free", str(table)]
    monkeypatch.setattr("sys.argv", command)
    script("training_data").main()
    from keras_musictag.datasets import Manifest

    return Manifest.load(tmp_path / "out" / "manifest.csv", untagged=True), tmp_path / "out", split


def test_nobody_trains_who_tests_validates_or_was_labelled(collected):
    manifest, _, split = collected
    groups = {part: {row.group for row in manifest.split(part)} for part in ("train", "valid", "test")}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["valid"]
    assert "artist 1" not in groups["train"]  # whose track has human tags
    assert {row.path.name for row in manifest.split("train") if row.source == "free music"} == {"p-mine-0.flac"}
    for part in ("valid", "test"):
        assert {row.path.name for row in manifest.split(part)} == {n for n, r in split.items() if r.split == part}


def test_free_music_is_converted_and_hours_are_counted(collected):
    manifest, out, _ = collected
    (free,) = (row for row in manifest if row.source == "free music")
    assert soundfile.info(free.path).samplerate == 16_000 and soundfile.info(free.path).channels == 1
    with (out / "hours.csv").open(newline="") as file:
        hours = {row["source"]: row for row in csv.DictReader(file)}
    assert hours["free music"] == {"source": "free music", "licence": "GPL", "tracks": "1", "hours": "0.001"}
    assert float(hours["emotify"]["hours"]) == pytest.approx(int(hours["emotify"]["tracks"]) * 2 / 3600, abs=1e-3)


def test_what_is_derived_holds_none_who_were_left_out(collected, script, monkeypatch):
    manifest, out, _ = collected
    monkeypatch.setattr("sys.argv", [*sys.argv, "--derive"])
    script("training_data").main()
    from keras_musictag.datasets import Manifest

    derived = [row for row in Manifest.load(out / "manifest.csv", untagged=True) if row.path.parent.name == "derived"]
    known = {row.path.stem for row in manifest.split("train")}
    counts = collections.Counter(row.source for row in derived)
    own = sum(row.source == "emotify" for row in manifest.split("train"))
    assert counts["emotify, mixture"] == counts["emotify, other speed"] == 2 * own
    assert {row.split for row in derived} == {"train"}
    for row in derived:  # `a-x0.900` is a at another speed, `a+b` both at once
        assert set(row.path.stem.partition("-x")[0].split("+")) <= known


def test_a_second_manifest_trains_on_free_music_alone(collected):
    from keras_musictag.datasets import Manifest

    manifest, out, _ = collected
    free = Manifest.load(out / "free.csv", untagged=True)
    assert {row.path.name for row in free.split("train")} == {"p-mine-0.flac"}
    for part in ("valid", "test"):
        assert free.split(part).rows == manifest.split(part).rows


@pytest.mark.parametrize(
    ("source", "licence", "free"),
    [
        ("free music", "GPL-2+", True),
        ("enigma_anthems, other speed", "CC BY 4.0", True),
        ("free music", "freeware, may modify; NOT sold alone", False),
        ("emotify, mixture", "Magnatune excerpts", False),
    ],
)
def test_what_is_free_goes_by_collection_and_licence(script, source, licence, free):
    from keras_musictag.datasets import Row

    assert script("training_data").is_free(Row(path="a.flac", source=source, licence=licence)) is free


def test_labelled_recordings_are_for_evaluation(collected):
    from keras_musictag.datasets import Manifest

    manifest, out, _ = collected
    ((row, *others),) = [Manifest.load(out / "instruments.csv").rows]
    assert not others and row.tags == ("Cello",) and row.path not in {row.path for row in manifest}


def test_human_tags_are_those_of_the_model(collected):
    from keras_musictag.datasets import Manifest

    _, out, _ = collected
    human = Manifest.load(out / "human.csv")
    assert len(human) == 1 and human[0].tags == ("guitar",)


# === split_vocabularies.py ===


def test_each_vocabulary_becomes_a_tagger_of_its_own(script, tmp_path, monkeypatch):
    tags = ("a/tone", "a/noise", "b/tone")
    joint = untrained("tiny", tags, seed=3)
    run = joint.save(tmp_path / "run")
    monkeypatch.setattr("sys.argv", ["split_vocabularies.py", str(run)])
    script("split_vocabularies").main()
    heard = kmt.load(run).tag(kmt.demo_clip())
    for teacher, own in (("a", ("tone", "noise")), ("b", ("tone",))):
        part = kmt.load(run / teacher)
        assert part.tags == own
        expected = {tag: heard[f"{teacher}/{tag}"] for tag in own}
        assert part.tag(kmt.demo_clip()) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="has one vocabulary: its tag 'tone' names no teacher"):
        script("split_vocabularies").split(kmt.load(run / "b"))


# === feature_teacher.py ===


def test_features_are_whitened_components_of_the_embedding(script, tmp_path):
    teacher = untrained("tiny", ("a", "b"), seed=1)
    clips = [np.random.default_rng(n).uniform(-1, 1, 16_000).astype("float32") ** (1 + n) for n in range(12)]
    vectors = np.stack([teacher.embed(clip, sr=16_000) for clip in clips])
    made = kmt.load(script("feature_teacher").with_features(teacher, vectors, 3).save(tmp_path / "features"))
    assert made.spec.name == "tiny-features" and made.tags == ("feature 00", "feature 01", "feature 02")
    heard = np.array([[made.tag(clip, sr=16_000)[tag] for tag in made.tags] for clip in clips])
    logits = np.log(heard / (1 - heard))
    np.testing.assert_allclose(logits.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(logits.T), np.eye(3), atol=1e-2)
    with pytest.raises(ValueError, match="13 features need as many tracks; got 12"):
        script("feature_teacher").with_features(teacher, vectors, 13)
