"""Searching a tagged library: conditions on tags, likeness, and what is refused."""

import csv
import dataclasses
import io
import json
import sys

import command_line
import numpy as np
import pytest
from library_files import sounds

import keras_musictag as kmt
from keras_musictag.apps.library import LibraryRow, SearchError, output, search, tag_library
from keras_musictag.errors import AudioNotFoundError, MissingExtraError, UnknownTagError

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

ROW = {"model": "m", "weights_sha256": "w", "spec_digest": "s", "tags_kept": "all", "tagged_at": "2026-01-01T00:00:00Z"}
TAGS = {
    "a.mp3": {"guitar": 0.9, "vocals": 0.6, "female vocal": 0.55},
    "b.mp3": {"guitar": 0.7, "80s": 0.4, "vocals": 0.1},
    "c.mp3": {"Rock": 0.8, "rock": 0.2, "R&B \"'": 0.5, "guitar": 0.5},
    "d.mp3": {"path": 0.9},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """By hand, in a folder that looks like a pattern."""
    folder = tmp_path_factory.mktemp("it's [new]")
    rows = [LibraryRow(path=path, tags=tags, duration_s=60.0 * len(tags), **ROW) for path, tags in TAGS.items()]
    rows.append(LibraryRow(path="broken.mp3", error="is broken", error_kind="unsupported", **ROW))
    output.write(rows, folder / "tags.parquet")
    return folder / "tags.parquet"


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """By a tagger."""
    folder = tmp_path_factory.mktemp("library")
    sounds(folder / "music", 6)
    (folder / "music" / "003.mp3").write_text("no sound")
    tag_library(folder / "music", folder / "tags.parquet", "tiny", embeddings=True, workers=1)
    return folder


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("", "abcd"),
        ("guitar>0.5 and not vocals", "b"),
        ("guitar", "abc"),
        ("not guitar", "d"),
        ("not (guitar or vocals)", "d"),
        ("GUITAR >= 0.7", "ab"),
        ("female vocal > 0.5", "a"),
        ("not Female Vocal and guitar", "bc"),
        ('"female vocal"', "a"),
        ("80s between 0.3 and 0.5", "b"),
        ("r&b \"' = 0.5", "c"),
        ("Rock and not rock", "c"),
        ("guitar + vocals > 1", "a"),
        ("vocals < 0.2 and guitar", "bc"),  # what was not kept counts as 0
        ("duration_s > 150 and path not like '%a%'", "bc"),
        ("path = 'female vocal'", ""),
        ("tags['path'] > 0.5", "d"),  # a column of this name comes first
    ],
)
def test_conditions(table, where, names):
    assert [found.path for found in search(table, where)] == [f"{name}.mp3" for name in names]
    assert search(table.parent, where) == search(table, where)  # a folder of tables


def test_what_is_shown(table):
    (found,) = search(table, "rock < 0.5 and guitar and not vocals", limit=1)
    assert found.tags == pytest.approx({"rock": 0.0, "guitar": 0.7, "vocals": 0.1})
    assert list(found.tags) == ["rock", "guitar", "vocals"] and found.duration_s == 180 and found.similarity is None
    assert list(search(table)[0].tags) == list(TAGS["a.mp3"])


def test_like(tagged):
    song = tagged / "music" / "002.wav"
    found = search(tagged / "tags.parquet", like=song)
    assert found[0].path == str(song) and len(found) == 6
    tagger = kmt.load("tiny")
    mine = tagger.embed(song)
    for file in found:
        other = tagger.embed(file.path)
        cosine = mine @ other / np.linalg.norm(mine) / np.linalg.norm(other)
        assert file.similarity == pytest.approx(cosine, abs=1e-5)  # embeddings have 6 digits
    assert [file.similarity for file in found] == sorted((file.similarity for file in found), reverse=True)
    some = search(tagged / "tags.parquet", "duration_s > 3", like=song, tagger=tagger, limit=2)
    assert some == [dataclasses.replace(file) for file in found if file.duration_s > 3][:2]


def test_like_among_other_models(tagged, tmp_path):
    song = tagged / "music" / "002.wav"
    with open(tagged / "tags.parquet.rows.jsonl", "rb") as file:
        rows = [LibraryRow.from_json(line) for line in file]
    others = [LibraryRow(path=f"{n}.mp3", tags={}, embedding=[1.0] * n, **ROW) for n in (1, 16, 20)]
    output.write([others[0], *rows, *others[1:]], tmp_path / "tags.parquet")
    assert search(tmp_path / "tags.parquet", like=song, tagger="tiny") == search(tagged / "tags.parquet", like=song)


# === What is refused ===


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("gitar > 0.5", UnknownTagError, "Unknown tag 'gitar'. Did you mean 'guitar'"),
        ("guitar >", SearchError, "'guitar >' is no condition: syntax error.*Try: guitar > 0.5"),
        ("guitar); drop table tagged; select (1", SearchError, "is no condition|is more than a condition"),
        ("guitar) union (select * from tagged", SearchError, "is more than a condition"),
        ("guitar > 'much'", SearchError, r"cannot be searched for .*: Conversion Error: Could not convert"),
        ("loud(guitar)", SearchError, "Function with name loud does not exist"),
    ],
)
def test_conditions_that_make_no_sense(table, where, error, message):
    with pytest.raises(error, match=message):
        search(table, where)


def test_tables_that_cannot_be_searched(table, tmp_path):
    with pytest.raises(SearchError, match=r"'none.parquet' does not exist. Write it with: keras-musictag library"):
        search("none.parquet")
    (tmp_path / "tags.csv").touch()
    with pytest.raises(SearchError, match=r"Only Parquet can be searched; got .*tags.csv"):
        search(tmp_path / "tags.csv")
    (tmp_path / "tags.parquet").write_text("no table")
    with pytest.raises(SearchError, match=r"tags.parquet' cannot be searched for ''"):
        search(tmp_path / "tags.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"path": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(SearchError, match=r"was not written by tag_library: it has no column 'sha256'"):
        search(tmp_path / "other.parquet")
    with pytest.raises(SearchError, match=r"has no embeddings to compare with.*--embeddings --update"):
        search(table, like="song.mp3")
    with pytest.raises(ValueError, match="limit must be a whole number of at least 1; got 0"):
        search(table, limit=0)


def test_models_that_do_not_fit(tagged, tmp_path):
    song = tagged / "music" / "000.wav"
    with pytest.raises(AudioNotFoundError):
        search(tagged / "tags.parquet", like="nowhere.mp3")
    with pytest.raises(SearchError, match=r"were made by tiny, not by this musicnet_crnn .*\(tagger, --model\)"):
        search(tagged / "tags.parquet", like=song, tagger="musicnet_crnn")
    rows = [
        LibraryRow(path=name, tags={"x": 1.0}, embedding=[1.0], **{**ROW, "model": name}) for name in ("one", "two")
    ]
    output.write(rows, tmp_path / "two.parquet")
    assert search(tmp_path / "two.parquet", "x")
    output.write([dataclasses.replace(rows[1], weights_sha256="v"), rows[0]], tmp_path / "two.parquet")
    with pytest.raises(SearchError, match=r"has embeddings of one and two. Choose one"):
        search(tmp_path / "two.parquet", like=song)


def test_without_duckdb(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"Searching needs .*keras_musictag\[search\]"):
        search(table)


# === Command ===


def run(*args):
    return command_line.run("search", *args)


def test_command(table, tagged):
    assert run(table, "guitar>0.5 and not vocals").stdout == "b.mp3  guitar 0.70, vocals 0.10\n"
    assert "No file was found." in run(table, "guitar > 1").stderr
    result = run(table, "gitar")
    assert result.exit_code == 2 and "Did you mean 'guitar'" in result.stderr
    first = json.loads(
        run(tagged / "tags.parquet", "--like", tagged / "music" / "002.wav", "--json").stdout.split("\n")[0]
    )
    assert first["path"].endswith("002.wav") and first["similarity"] == pytest.approx(1.0)
    (row,) = csv.DictReader(io.StringIO(run(table, "80s > 0.3", "--csv").stdout))
    assert row["path"] == "b.mp3" and json.loads(row["tags"]) == pytest.approx({"80s": 0.4})
    assert run(tagged / "tags.parquet", "--like", tagged / "music" / "002.wav", "-n", 1).stdout.startswith("1.000  ")
