"""Manifests without tags, which distillation needs: tables, folders, what is written and what validation says."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from keras_musictag.datasets import DataError, Manifest, Row

ROWS = (
    Row(path=Path("/music/a.wav"), start=1.5, duration=2.0, split="train", group="Ann", source="s", licence="CC0-1.0"),
    Row(path=Path("/music/b.wav")),
)


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("rows", [ROWS, ()], ids=["rows", "empty"])
def test_what_is_written_is_read_again(tmp_path, kind, rows):
    manifest = Manifest(rows)
    path = tmp_path / f"m.{kind}"
    getattr(manifest, f"to_{kind}")(path)
    again = Manifest.load(path, untagged=True)
    assert again == manifest and again.tags == () and again.targets().shape == (len(rows), 0)


def test_a_table_without_tags_says_how_to_ask_for_it(tmp_path):
    path = write(tmp_path / "m.csv", "file,artist\na.wav,Ann\n")
    with pytest.raises(DataError, match=r"no column with tags; .* If no tags are needed, pass untagged=True"):
        Manifest.load(path)
    assert Manifest.load(path, untagged=True) == Manifest((Row(path=tmp_path / "a.wav", group="Ann"),))
    message = r"m.csv is read either with tags or untagged; got the tags \['x'\] and untagged=True\. Leave one out"
    with pytest.raises(DataError, match=message):
        Manifest.load(path, untagged=True, tags=["x"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "file,title,tags,rock\na.wav,A song,x|y,1\n"),
        ("m.jsonl", '{"tags": ["x"]}\n{"file": "a.wav", "title": "A song", "targets": {"rock": 7}}\n'),
    ],
)
def test_tags_and_columns_of_other_names_are_passed_over(tmp_path, name, text):
    assert Manifest.load(write(tmp_path / name, text), untagged=True) == Manifest((Row(path=tmp_path / "a.wav"),))


def test_a_column_without_a_name_is_no_target(tmp_path):
    """As pandas writes the numbers of the rows."""
    path = write(tmp_path / "m.csv", ",file,tags\n0,a.wav,rock\n1,b.wav,\n")
    assert [row.tags for row in Manifest.load(path)] == [("rock",), ()]


@pytest.fixture
def music(tmp_path):
    for name in ("Ann/One/1.mp3", "Ann/Two/2.WAV", "Bob/3.flac", "4.ogg", "5.ogg", "Bob/cover.jpg", ".trash/6.wav"):
        path = tmp_path / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "music"


def test_every_sound_below_a_folder(music):
    manifest = Manifest.load(music, untagged=True)
    assert manifest == Manifest.from_files(music) and manifest.tags == ()
    names = ["4.ogg", "5.ogg", "Ann/One/1.mp3", "Ann/Two/2.WAV", "Bob/3.flac"]
    assert [str(row.path.relative_to(music)) for row in manifest] == names == [row.where for row in manifest]
    assert [row.group for row in manifest] == ["", "", "Ann", "Ann", "Bob"]
    albums = Manifest.load(music, untagged=True, group_folders=2)
    assert [row.group for row in albums] == ["", "", "Ann/One", "Ann/Two", "Bob"]
    assert {row.group for row in Manifest.from_files(music, group_folders=0)} == {""}


def test_an_artist_is_in_one_split(music):
    for seed in range(5):
        split = Manifest.from_files(music).grouped_split({"train": 0.6, "test": 0.4}, seed=seed)
        assert len({row.split for row in split if row.group == "Ann"}) == 1
        assert set(split.split_sizes()) == {"train", "test"}


def test_folders_without_sound(music, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    with pytest.raises(DataError, match=r"texts has no audio files; it has: a.txt\. Suffixes .* \.mp3, "):
        Manifest.load(tmp_path / "texts", untagged=True)
    with pytest.raises(DataError, match=r"texts has no folders with audio files; .* pass untagged=True"):
        Manifest.load(tmp_path / "texts")
    with pytest.raises(DataError, match=r"4.ogg is not a folder\. Pass the folder that has the audio files"):
        Manifest.from_files(music / "4.ogg")
    with pytest.raises(DataError, match=r"group_folders must be a whole number, 0 or more; got -1"):
        Manifest.from_files(music, group_folders=-1)


def test_validation_of_untagged_rows(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 8000), 8000)
    report = Manifest((Row(path=path), Row(path=tmp_path / "missing.wav"))).validate()
    assert [problem.kind for problem in report.problems] == ["missing"] and len(report.ok) == 1
    assert not Manifest((Row(path=path),), ("rock",)).validate(min_rows=0).passed
    with pytest.raises(DataError, match=r"None of the tags 'x' is in the manifest, whose tags are none"):
        report.ok.with_tags(["x"])
