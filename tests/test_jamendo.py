"""MTG-Jamendo on a miniature with the published formats: ragged tables, five splits, two qualities of sound."""

import dataclasses
import shutil
import sys

import pytest
from published_miniatures import JAMENDO_SIZES, jamendo_folder

from keras_musictag.datasets import DataError, Manifest, jamendo

module = sys.modules["keras_musictag.datasets.loaders.jamendo"]  # as an attribute of the package it is the function
PUBLISHED = module.info


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    """The counts of the miniature stand in for the published ones."""
    splits = {str(split): {"all": 8} for split in range(5)}
    monkeypatch.setattr(module, "info", dataclasses.replace(module.info, splits=splits))


@pytest.fixture
def folder(tmp_path):
    return jamendo_folder(tmp_path / "mtg")


def table(folder, part="train"):
    return folder / f"data/splits/split-0/autotagging_top50tags-{part}.tsv"


def test_what_was_published():
    assert PUBLISHED.splits == {str(split): {"all": 54_380} for split in range(5)}
    tags = module._tags()
    assert len(tags) == 50 and list(tags) == sorted(tags)  # as in data/tags/top50.txt
    assert [sum(tag.startswith(kind) for tag in tags) for kind in ("genre---", "instrument---", "mood/theme---")] == [
        31, 14, 5
    ]  # fmt: skip
    assert "CC-BY-NC-SA-4.0" in PUBLISHED.licence and "ICML 2019" in PUBLISHED.citation


def test_a_split(folder):
    manifest = jamendo(folder)
    assert manifest.split_sizes() == JAMENDO_SIZES and manifest.tags == module._tags()
    first = manifest[0]
    assert first.path == folder / "audio/38/917538.mp3" and first.duration is None
    assert first.tags == ("genre---rock", "mood/theme---happy") and first.group == "artist_000001"
    assert first.source == "mtg-jamendo:track_0917538" and "audio_licenses.txt" in first.licence
    assert first.where == "autotagging_top50tags-train.tsv:2"
    assert manifest.targets()[:, manifest.tags.index("genre---rock")].tolist() == [1, 0, 0, 1, 0, 1, 0, 0]


def test_every_split_has_tables_of_its_own(folder):
    jamendo_folder(folder, splits=(3,))
    table3 = folder / "data/splits/split-3/autotagging_top50tags-test.tsv"
    table3.write_text(table3.read_text().replace("genre---indie", "genre---folk"))
    assert jamendo(folder, 3)[-1].tags == ("genre---folk", "instrument---violin")
    assert jamendo(folder)[-1].tags == ("genre---indie", "instrument---violin")
    with pytest.raises(DataError, match=r"has no table split-2/autotagging_top50tags-train.tsv; it has: audio, data\."):
        jamendo(folder, 2)
    for split in (5, -1, True, "full"):
        with pytest.raises(DataError, match=rf"split must be 0, 1, 2, 3 or 4; got {split!r}"):
            jamendo(folder, split)


def test_sound_in_low_quality(folder):
    low = jamendo_folder(folder.parent / "low", suffix=".low.mp3", below="raw_30s/audio-low")
    assert [row.path.name for row in jamendo(low)][:2] == ["917538.low.mp3", "1310775.low.mp3"]
    both = folder / "audio/38"
    shutil.copy(low / "raw_30s/audio-low/38/917538.low.mp3", both)
    assert jamendo(folder)[0].path.name == "917538.mp3"
    (both / "917538.mp3").write_bytes(b"")
    assert jamendo(folder)[0].path.name == "917538.low.mp3"


@pytest.mark.parametrize("place", [".", "audio", "audio-low", "raw_30s/audio"])
def test_where_the_sound_may_be(tmp_path, place):
    folder = jamendo_folder(tmp_path / "mtg", below=place)
    assert jamendo(folder)[0].path == folder / place / "38/917538.mp3"
    (tmp_path / "elsewhere").mkdir()
    for path in sorted((folder / place).glob("[0-9][0-9]")):
        path.rename(tmp_path / "elsewhere" / path.name)
    with pytest.raises(DataError, match=r"mtg has no folders 00 to 99 with audio; it has: .*"):
        jamendo(folder)
    assert len(jamendo(folder, audio=tmp_path / "elsewhere")) == 8


def test_missing_files_are_reported(folder, caplog):
    shutil.rmtree(folder / "audio/38")
    (folder / "audio/73/773.mp3").unlink()
    (folder / "audio/02/1312102.mp3").write_bytes(b"")
    expected = (
        r"^MTG-Jamendo top 50 is not complete: 2 of 8 files in .*audio are missing \(by folder 38: 1, 73: 1; first "
        r"38/917538.mp3\); 1 of 8 files in .*audio are empty \(0 bytes\) \(by folder 02: 1; first 02/1312102.mp3\)\. "
        r"Clone https.*Or pass partial=True to use the existing files\."
    )
    with pytest.raises(DataError, match=expected):
        jamendo(folder)
    assert jamendo(folder, partial=True).split_sizes() == {"train": 2, "valid": 2, "test": 1}
    assert "is not complete: 2 of 8" in caplog.text


@pytest.mark.parametrize(
    ("part", "old", "new", "message"),
    [
        ("train", "TAGS\n", "TAGS\tMORE\n", r"train.tsv begins with 'TRACK_ID.*expected TRACK_ID, .*, TAGS separated"),
        ("train", "\t", ",", r"train.tsv begins with 'TRACK_ID,ARTIST_ID,.*Clone the repository again"),
        ("test", "genre---indie", "indie", r"test.tsv line 3 is not as published: unknown tags 'indie'\. Clone"),
        ("test", "instrument---violin", "genre---indie", r"test.tsv line 3 is not as published: 'track_1312102"),
        ("test", "00/394600", "../394600", r"test.tsv line 2 is not as published: 'track_0394600\\tartist"),
        ("test", "\tgenre---electronic", "", r"test.tsv line 2 is not as published"),
    ],
)
def test_a_damaged_table(folder, part, old, new, message):
    path = table(folder, part)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        jamendo(folder, partial=True)


def test_tables_that_are_not_the_published_ones(folder, caplog):
    text = table(folder).read_text()
    table(folder).write_text(text + text.splitlines()[-1] + "\n")
    with pytest.raises(DataError, match=r"not complete: 1 of their lines repeat a track\. Clone"):
        jamendo(folder)
    table(folder).write_text("".join(text.splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"the tables of split 0 have 7 tracks, expected 8"):
        jamendo(folder)
    table(folder).write_text(text.replace("artist_000002", "artist_000005"))
    with pytest.raises(DataError, match=r"1 artists are in more than one part of split 0, e.g. artist_000005"):
        jamendo(folder)
    assert len(jamendo(folder, partial=True)) == 8
    assert "1 artists are in more than one part" in caplog.text
    table(folder, "test").unlink()
    with pytest.raises(DataError, match=r"autotagging_top50tags-test.tsv does not exist\. Clone"):
        jamendo(folder)


def test_windows_line_ends(folder):
    expected = jamendo(folder)
    table(folder).write_bytes(table(folder).read_bytes().replace(b"\n", b"\r\n"))
    assert jamendo(folder) == expected


def test_a_wrong_folder(folder, tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not a folder\. Clone https://github.com/MTG/mtg-jamendo-dataset"):
        jamendo(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no table .*; it has: mtg\. Did you mean .*/mtg\?"):
        jamendo(tmp_path)
    with pytest.raises(DataError, match=r"has no table .*; it has: 00, 02, .*Did you mean .*/mtg\?"):
        jamendo(folder / "audio")


def test_the_audio_passes_validation_and_the_manifest_is_read_again(folder):
    manifest = jamendo(folder)
    report = manifest.validate(decode=True, min_rows=0)
    assert len(report.ok) == 8 and not report.notes
    assert {problem.kind for problem in report.problems} <= {"tag not in train"}
    manifest.to_jsonl(folder / "manifest.jsonl")
    assert Manifest.load(folder / "manifest.jsonl") == manifest
