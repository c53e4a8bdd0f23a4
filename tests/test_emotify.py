"""Emotify on a miniature with the published formats: votes, numbers of excerpts, artists in the files' own tags."""

import collections
import shutil
import sys

import numpy as np
import pytest
from published_miniatures import EMOTIONS, emotify_folder

from keras_musictag.datasets import DataError, emotify

module = sys.modules["keras_musictag.datasets.loaders.emotify"]  # as an attribute of the package it is the function


@pytest.fixture(autouse=True)
def five_per_genre(monkeypatch):
    monkeypatch.setattr(module, "PER_GENRE", 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return emotify_folder(tmp_path_factory.mktemp("made"))


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "emotify")
    return tmp_path / "emotify"


def by_hand(folder):
    """Share of listeners by excerpt and emotion."""
    given = collections.defaultdict(list)
    for line in (folder / "data.csv").read_text().splitlines()[1:]:
        cells = line.split(",")
        given[int(cells[0])].append([int(cell) for cell in cells[2:11]])
    return np.array([np.mean(given[number], axis=0) for number in sorted(given)])


def test_what_was_published(monkeypatch):
    monkeypatch.undo()
    assert module.info.splits == {name: {"all": 400} for name in ("emotions", "votes", "genre")}
    assert tuple(EMOTIONS) == module.EMOTIONS and module.PER_GENRE == 100
    assert module._file_of(100, {}) == "classical/100.mp3"
    assert module._file_of(101, {}) == "electronic/1.mp3"
    assert module._file_of(215, {}) == "pop/15.mp3" and module._file_of(400, {}) == "rock/100.mp3"
    assert "Aljanaki" in module.info.citation


def test_emotions_are_votes_above_the_median(folder):
    manifest = emotify(folder)
    assert manifest.tags == tuple(EMOTIONS) and len(manifest) == 20
    shares = by_hand(folder)
    np.testing.assert_array_equal(manifest.targets(), shares > np.median(shares, axis=0))
    assert [row.source for row in manifest] == [f"emotify:{number}" for number in range(1, 21)]
    assert manifest[5].path == folder / "emotifymusic/electronic/1.mp3"


def test_votes_and_genres(folder):
    np.testing.assert_allclose(emotify(folder, "votes").targets(), by_hand(folder), rtol=1e-6)  # float32
    genres = emotify(folder, "genre")
    assert genres.tags == ("classical", "electronic", "pop", "rock")
    assert [row.tags for row in genres] == [(genre,) for genre in genres.tags for _ in range(5)]
    with pytest.raises(DataError, match=r"labels must be 'emotions', 'votes', 'genre'; got 'mood'"):
        emotify(folder, "mood")


def test_artists_are_in_one_split(folder, caplog):
    manifest = emotify(folder)
    assert manifest[0].group == manifest[1].group == "Artist 0" and manifest[2].group == "Artist 1"
    splits = collections.defaultdict(set)
    for row in manifest:
        splits[row.group].add(row.split)
    assert len(splits) == 10 and all(len(names) == 1 for names in splits.values())
    assert manifest.split_sizes() == {"train": 12, "valid": 4, "test": 4}
    assert emotify(folder) == manifest and not caplog.messages
    for labels in ("votes", "genre"):  # the split is that of the excerpts, not of the labels
        assert [row.split for row in emotify(folder, labels)] == [row.split for row in manifest]
    assert any(emotify(folder, seed=seed) != manifest for seed in (1, 2, 3))


def test_the_split_is_the_same_in_another_folder(folder, tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    there = tmp_path / "b" / "c" / "again"
    shutil.copytree(folder, there)
    assert [row.split for row in emotify(there)] == [row.split for row in emotify(folder)]


def test_artists_that_the_files_do_not_name(tmp_path, caplog):
    folder = emotify_folder(tmp_path, artists=False)
    assert not any(row.group for row in emotify(folder))
    assert "The artists of 20 of 20 excerpts of Emotify are not known" in caplog.text
    assert "pass artists={number: name}" in caplog.text
    known = {number: f"Artist {number % 6}" for number in range(1, 21)}
    manifest = emotify(folder, artists=known)
    assert [row.group for row in manifest] == list(known.values())
    assert len({row.split for row in manifest if row.group == "Artist 3"}) == 1


@pytest.mark.parametrize("place", ["beside", "table inside", "folders outside"])
def test_where_things_may_be(folder, place):
    if place == "table inside":
        (folder / "data.csv").rename(folder / "emotifymusic" / "data.csv")
    if place == "folders outside":
        for path in list((folder / "emotifymusic").iterdir()):
            path.rename(folder / path.name)
    assert len(emotify(folder)) == 20


def test_missing_files_are_reported(folder, caplog):
    shares = by_hand(folder)
    (folder / "emotifymusic/pop/2.mp3").unlink()
    (folder / "emotifymusic/rock/5.mp3").write_bytes(b"")
    table = folder / "data.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if not line.startswith("7,")))
    expected = (
        r"^Emotify is not complete: 1 of 20 files in .*/emotifymusic are missing \(by folder pop: 1; first "
        r"pop/2.mp3\); 1 of 20 files .* are empty .*first rock/5.mp3\); .*data.csv has no votes for 1 of 20 excerpts, "
        r"first 7\. Get data.csv"
    )
    with pytest.raises(DataError, match=expected):
        emotify(folder)
    manifest = emotify(folder, partial=True)
    assert len(manifest) == 17 and "Emotify is not complete" in caplog.text
    rated = np.delete(shares, 6, axis=0)  # what an excerpt is does not depend on which sounds are there
    np.testing.assert_array_equal(manifest.targets()[-1], shares[18] > np.median(rated, axis=0))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" tension", " stress", r"data.csv has no column 'tension'; its columns are 'track id, genre, amazement"),
        (
            "\n6,electronic",
            "\n6,pop",
            r"line \d+ is not as published: track id '6', genre 'pop', emotions '[01,]+'\. G",
        ),
        ("\n6,electronic", "\n21,electronic", r"line \d+ is not as published: track id '21'"),
        ("\n6,electronic", "\n?,electronic", r"track id '\?'"),
        ("\n6,electronic,", "\n6,electronic,2,", r"line \d+ is not as published: .*emotions '2,"),
    ],
)
def test_a_damaged_table(folder, old, new, message):
    table = folder / "data.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        emotify(folder, partial=True)


def test_a_table_without_votes(folder):
    table = folder / "data.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"data.csv has no votes\. Get the published one from http"):
        emotify(folder, partial=True)


def test_a_wrong_folder(folder, tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not a folder\. Get data.csv and emotifymusic.zip"):
        emotify(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no data.csv; it has: emotify\. Did you mean .*/emotify\?"):
        emotify(tmp_path)
    shutil.rmtree(folder / "emotifymusic")
    with pytest.raises(DataError, match=r"has no folders classical, electronic, pop, rock; it has: data.csv\. Get"):
        emotify(folder)


def test_the_audio_passes_validation(folder):
    report = emotify(folder, "genre").validate(decode=True, min_rows=1)
    assert len(report.ok) == 20 and not report.notes
