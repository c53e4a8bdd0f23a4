"""What is learned from, and what is not: every problem of the data is found, told and got round before any training."""

import collections
import dataclasses
import shutil
import sys

import numpy as np
import pytest
from own_tags import TAGS, own_tags
from published_miniatures import emotify_folder
from two_tags import two_tags

from keras_musictag.datasets import DataError, Manifest, Row
from keras_musictag.errors import UnknownTagError
from keras_musictag.models.spec import SpecError
from keras_musictag.training.finetuning import FineTuneError, FineTuneSpec
from keras_musictag.training.finetuning.labelled_data import exclude_clips, prepare


@pytest.fixture
def sounds(tmp_path):
    """24 sounds of three kinds by four artists."""
    return own_tags(tmp_path / "sounds", seconds=0.2)


def with_splits(manifest, splits):
    """The rows with these splits, in turn."""
    rows = [dataclasses.replace(row, split=splits[number % len(splits)]) for number, row in enumerate(manifest)]
    return Manifest(tuple(rows), manifest.tags)


def kinds(data):
    return collections.Counter(problem.kind for problem in data.report.problems)


def write(path, *lines, encoding="utf-8"):
    path.write_bytes("\r\n".join(lines).encode(encoding))
    return path


# === What data may be ===


def test_a_tag_that_no_clip_has(sounds):
    with pytest.raises(UnknownTagError, match=r"Unknown tag 'tikc'\. Did you mean 'tick'\? Known: beep, hiss, tick\."):
        prepare(sounds, ["beep", "tikc"])


def test_a_folder_per_tag(sounds, tmp_path):
    data = prepare(tmp_path / "sounds")
    assert data.tags == TAGS and data.exclusive and data.origin.title == "sounds"
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 19, "validation": 5}
    assert data.notes == ("5 of 24 clips are held out for validation, by files",)
    told = str(data).splitlines()
    assert told[:2] == ["data        sounds: 19 train, 5 validation clips", "tags        3, one per clip"]
    assert [line.split()[0] for line in told[2:5]] == list(TAGS) and told[5].startswith("note: 5 of 24 clips")
    assert sum(int(line.split()[1]) for line in told[2:5]) == 19


def test_tables(sounds, tmp_path):
    names = [row.path.relative_to(tmp_path) for row in sounds]
    write(
        tmp_path / "one.csv", "file,tags", *(f"{name},{name.parts[1]}|any" for name in names[:-1]), f"{names[-1]},any"
    )
    with_any = prepare(tmp_path / "one.csv")
    assert with_any.tags == ("any", *TAGS) and not with_any.exclusive
    lines = [",".join([str(name), *(str(int(tag == name.parts[1])) for tag in TAGS)]) for name in names]
    columns = prepare(write(tmp_path / "columns.csv", "file,beep,hiss,tick", *lines))
    assert columns.tags == TAGS and columns.exclusive
    excel = write(tmp_path / "excel.csv", "file;tags", *(f"{name};{name.parts[1]}" for name in names))
    assert prepare(excel).tags == TAGS
    excel = write(
        tmp_path / "unicode.txt", "file\ttags", *(f"{name}\t{name.parts[1]}" for name in names), encoding="utf-16"
    )
    assert prepare(excel).tags == TAGS
    for data in (columns, prepare(excel)):
        np.testing.assert_array_equal(np.sort(data.train.targets().sum(axis=1)), 1)


def test_a_published_data_set_keeps_its_splits(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["keras_musictag.datasets.loaders.emotify"], "PER_GENRE", 10)
    data = prepare(f"emotify-genre:{emotify_folder(tmp_path / 'emotify', per_genre=10)}")
    assert data.tags == ("classical", "electronic", "pop", "rock") and data.exclusive
    assert list(data.parts) == ["train", "validation", "test"] and data.origin.grouped_by == "artist"
    assert not data.notes, "nothing had to be decided"


def test_some_of_the_tags(sounds):
    data = prepare(sounds, ["tick", "beep"])
    assert data.tags == ("tick", "beep") and not data.exclusive, "the others are examples of neither"
    assert len(data.train) + len(data.validation) == 24
    with pytest.raises(DataError, match=r"None of the tags 'dub' is in the manifest, whose tags are 'beep', 'hiss'"):
        prepare(sounds, ["dub"])
    with pytest.raises(DataError, match="Tags occur more than once: 'tick'"):
        prepare(sounds, ["tick", "tick"])


def test_one_tag_against_everything_else(sounds):
    data = prepare(sounds, ["tick"])
    assert (
        data.tags == ("tick",) and not data.exclusive and data.train.targets().mean() == pytest.approx(1 / 3, abs=0.1)
    )


# === One tag per clip, or any number ===


def test_single_label_is_found_out_or_said(sounds, tmp_path):
    assert prepare(sounds).exclusive and not prepare(sounds, single_label=False).exclusive
    several = two_tags(tmp_path / "two", seconds=0.2)
    assert not prepare(several).exclusive
    with pytest.raises(FineTuneError, match=r"every clip must have exactly one tag; .*2\.wav has tonal, noisy"):
        prepare(several, single_label=True)
    with pytest.raises(FineTuneError, match=r"every clip must have exactly one tag; .* has none\. Correct it"):
        prepare(sounds, ["tick"], single_label=True)
    soft = Manifest(tuple(dataclasses.replace(row, tags=(), targets=(0.5, 0.5)) for row in several), several.tags)
    with pytest.raises(FineTuneError, match=r"every clip must have exactly one tag; .* has other targets\. Correct"):
        prepare(soft, single_label=True)


# === Splits ===


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_artist_is_on_two_sides(sounds, seed):
    data = prepare(sounds, seed=seed)
    groups = {name: {row.group for row in part} for name, part in data.parts.items()}
    assert not groups["train"] & groups["validation"]
    assert data.notes == (
        f"{len(data.validation)} of 24 clips are held out for validation, by groups (artists, albums)",
    )
    assert prepare(sounds, seed=seed).train == data.train, "the same seed, the same split"


def test_copies_are_on_one_side(sounds, tmp_path):
    for row in [row for row in sounds if row.path.stem in "0123"]:
        shutil.copy(row.path, row.path.with_name(f"copy of {row.path.name}"))
    data = prepare(tmp_path / "sounds", validation=0.3)
    original = {
        name: {row.path.name.removeprefix("copy of ") + row.tags[0] for row in part}
        for name, part in data.parts.items()
    }
    assert not original["train"] & original["validation"]
    assert any("copies of other files: 12" in note for note in data.report.notes)


def test_given_splits_are_kept(sounds):
    data = prepare(with_splits(sounds, ["train", "train", "valid", "test"]))
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 12, "validation": 6, "test": 6}
    assert any("groups (artists, albums) are in more than one split" in note for note in data.report.notes)
    data = prepare(with_splits(sounds, ["train", "train", "train", "test"]))
    assert len(data.test) == 6 and len(data.train) + len(data.validation) == 18, "validation is taken from train"
    data = prepare(with_splits(sounds, ["train", "test"]), validation=None)
    assert list(data.parts) == ["train", "test"]


def test_no_validation(sounds):
    data = prepare(sounds, validation=None)
    assert list(data.parts) == ["train"] and len(data.train) == 24 and not data.notes


def test_validation_of_its_own(sounds, tmp_path):
    other = own_tags(tmp_path / "others", per_tag=2, seconds=0.2, seed=1)
    for given in (other, tmp_path / "others"):
        data = prepare(with_splits(sounds, ["", "valid", "test"]) if given is other else sounds, validation=given)
        assert {row.path for row in data.validation} == {row.path for row in other}
        assert len(data.train) == (16 if given is other else 24)
    data = prepare(sounds, validation=Manifest(other.rows + sounds.rows[:2], TAGS))
    assert len(data.train) == 22 and kinds(data) == {"duplicate": 2}, "they are only validated on"
    with pytest.raises(DataError, match="None of the tags"):
        prepare(sounds, validation=two_tags(tmp_path / "two", seconds=0.2))


@pytest.mark.parametrize("share", [0, 1, -0.2, 1.5, True, float("nan")])
def test_impossible_shares(sounds, share):
    with pytest.raises(FineTuneError, match=r"validation must be a share between 0 and 1, clips, or None; got"):
        prepare(sounds, validation=share)


def test_shares_of_any_type(sounds):
    assert len(prepare(sounds, validation=np.float32(0.25)).validation) == 6


def test_splits_that_cannot_be(sounds):
    with pytest.raises(FineTuneError, match=r"6 of 24 clips have no split, the others have one\. Give every clip"):
        prepare(with_splits(sounds, ["train", "train", "train", ""]))
    with pytest.raises(FineTuneError, match=r"No clip is in the split train; got .*Assign some clips to train"):
        prepare(with_splits(sounds, ["valid", "test"]))
    alone = Manifest(tuple(dataclasses.replace(row, group="one") for row in sounds), TAGS)
    with pytest.raises(FineTuneError, match=r"No clips can be held out for validation: .*Or pass validation=None"):
        prepare(alone)
    assert len(prepare(alone, validation=None).train) == 24


def test_a_tag_of_one_artist_stays_where_it_can_be_learned(sounds):
    """Whatever is held out: two artists with a tag of their own each cannot both stay by chance."""
    rows = [dataclasses.replace(row, group="".join(row.tags)) for row in sounds if row.tags != ("beep",)]
    data = prepare(Manifest(tuple(rows), ("hiss", "tick")), validation=0.5)
    assert len(data.train) == 16 and data.validation is None
    assert data.notes[0].startswith("not validated, since all of their clips are in one group: ")


# === Bad input ===


def test_bad_files_are_reported_and_left_out(sounds, tmp_path):
    folder = tmp_path / "sounds"
    (folder / "tick" / "7.wav").write_bytes(b"")
    (folder / "tick" / "6.wav").write_bytes(b"RIFF" + b"no sound at all" * 9)
    sounds[0].path.unlink()
    missing = Row(path=folder / "nothing.wav", tags=("hiss",))
    data = prepare(Manifest((*sounds, missing), TAGS))
    assert kinds(data) == {"missing": 2, "zero bytes": 1, "undecodable": 1}
    assert len(data.train) + len(data.validation) == 21
    with pytest.raises(DataError, match=r"The manifest has problems\. 25 rows: 21 fine, 4 problems \(2 missing"):
        prepare(Manifest((*sounds, missing), TAGS), strict=True)
    shutil.rmtree(folder)
    with pytest.raises(FineTuneError, match=r"No clip can be used\. 24 rows: 0 fine, 24 problems \(24 missing\)"):
        prepare(sounds)


def test_tags_that_cannot_be_learned(sounds, tmp_path):
    rare = Manifest(
        (*sounds[:-7], dataclasses.replace(sounds[0], path=sounds[-1].path, tags=("bleep",))), (*TAGS, "bleep")
    )
    data = prepare(rare)
    assert data.tags == ("beep", "hiss") and data.exclusive
    assert data.notes[0] == (
        "left out, being on fewer than 2 training clips: 'tick' (1 of 1 clips usable), 'bleep' (1 of 1 clips usable)"
    )
    assert kinds(data)["rare tag"] == 2 and len(data.train) + len(data.validation) == 16
    with pytest.raises(DataError, match=r"the tag 'bleep' has 1 rows in all, fewer than 2"):
        prepare(rare, strict=True)
    each = Manifest(tuple(dataclasses.replace(row, tags=(f"t{n}",)) for n, row in enumerate(sounds)))
    with pytest.raises(FineTuneError, match=r"No tag is on 2 training clips; there are 24 tags and 24"):
        prepare(each)


def test_a_tag_in_validation_only(sounds):
    rows = [dataclasses.replace(row, split="valid" if row.tags == ("tick",) else "train") for row in sounds]
    rows[0] = dataclasses.replace(rows[0], split="valid")
    data = prepare(Manifest(tuple(rows), TAGS))
    assert data.tags == ("beep", "hiss") and len(data.validation) == 1
    assert "'tick'" in data.notes[0] and kinds(data) == {"tag not in train": 1}


def test_the_same_sound_in_two_splits(sounds):
    manifest = with_splits(sounds, ["train", "train", "valid"])
    shutil.copy(manifest[2].path, manifest[0].path)  # known by what is in it, not by its name
    same = dataclasses.replace(manifest[3], split="test")
    data = prepare(Manifest((*manifest, same), TAGS))
    assert kinds(data)["duplicate"] == 2 and len(data.train) == 14
    assert any("the same file is also in the split valid" in problem.reason for problem in data.report.problems)


def test_one_class_only(sounds):
    beeps = sounds.filter(lambda row: row.tags == ("beep",)).with_tags(["beep"])
    with pytest.raises(FineTuneError, match=r"All clips have the single tag 'beep', so it cannot be learned\. Add"):
        prepare(beeps)
    both = Manifest(tuple(dataclasses.replace(row, tags=("a", "b")) for row in sounds))
    with pytest.raises(FineTuneError, match=r"Each of the tags 'a', 'b' is on all \d+ clips, so none can be learned"):
        prepare(both)


def test_clips_without_tags(sounds):
    rows = (*sounds.rows[1:], dataclasses.replace(sounds[0], tags=()))
    data = prepare(Manifest(rows, TAGS))
    assert kinds(data) == {"no tags": 1} and data.exclusive and len(data.train) + len(data.validation) == 23
    asked = prepare(Manifest(rows, TAGS), TAGS)  # whoever names the tags means that it has none of them
    assert not asked.report.problems and not asked.exclusive and len(asked.train) + len(asked.validation) == 24


def test_names_that_differ_only_in_case(sounds):
    rows = [
        dataclasses.replace(row, tags=("Tick",)) if n % 2 and row.tags == ("tick",) else row
        for n, row in enumerate(sounds)
    ]
    data = prepare(Manifest(tuple(rows)))
    assert kinds(data) == {"tag case": 1}
    assert "the tags 'Tick', 'tick' differ only in how they are written" in str(data.report)
    with pytest.raises(DataError, match="differ only in how they are written; choose one spelling"):
        prepare(Manifest(tuple(rows)), strict=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,tags\na.wav,caf\xe9\n".encode("latin-1"), r"line 2 is not UTF-8: byte 0xe9\. Save the file as UTF-8"),
        (b"name,tags\na.wav,x\n", r"has no column for the file: its first line is 'name,tags'"),
        (b"file,tags\na.wav,\nb.wav,\n", r"has no tag in any of its 2 rows\. Fill its column 'tags'"),
        (b"file,tags\na.wav,x,y\n", r"data\.csv:2: 3 cells for 2 columns"),
        (b"file,artist\na.wav,x\n", r"has no column with tags; its columns are 'file', 'artist'\. Add a column"),
        (b"", r"has no column for the file"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "data.csv").write_bytes(text)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / "data.csv")


def test_data_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.csv cannot be read \(No such file or directory\)"):
        prepare(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="has no folders with audio files; it has: nothing"):
        prepare(tmp_path)
    with pytest.raises(DataError, match=r"A manifest must be a folder of folders or a file that ends in"):
        prepare(tmp_path / "data.xlsx")


def test_clips_that_turn_out_to_be_bad_later(sounds):
    data = prepare(sounds)
    bad = [(row.path, row.start) for row in (data.train[0], *data.validation)]
    left = exclude_clips(data, bad)
    assert len(left.train) == len(data.train) - 1 and left.validation is None and left.report is data.report
    ticks = [(row.path, row.start) for row in sounds if row.tags == ("tick",)]
    with pytest.raises(
        FineTuneError,
        match=r"Without the clips that cannot be used, no training clip has 'tick' \(0 of [5-8] clips usable\)",
    ):
        exclude_clips(data, ticks)


# === Settings ===


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": "tail"}, "stages must be one of .*; got 'tail'"),
        ({"epochs": 0}, "epochs must be .* at least 1; got 0"),
        ({"folds": 1}, "folds must be .* at least 2; got 1"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0 and finite; got 0\.0"),
        ({"balance": 2}, "balance must be between 0 and 1; got 2"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(SpecError, match=message):
        FineTuneSpec(**settings)
