"""Tables and folders as people have them: made by Excel, by pandas, on Windows, with leftovers; and what is learned."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from keras_musictag.datasets import DataError, Manifest, Row

SR = 8000


@pytest.fixture
def table(tmp_path):
    """Write a table; returns its path."""

    def write(content, name="songs.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def sounds(tmp_path):
    """Write a second of noise, another one for each name; returns the folder."""

    def write(*names):
        for number, name in enumerate(names):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).uniform(-0.5, 0.5, SR)
            soundfile.write(tmp_path / name, noise, SR, format="WAV")
        return tmp_path

    return write


def kinds(report):
    return [problem.kind for problem in report.problems]


# === Encodings and numbers ===


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("header", ["file;happy;sad", "sep=;\nfile;happy;sad"])
def test_tables_as_excel_saves_them(table, encoding, newline, header):
    """ "Unicode text" is UTF-16 with a mark; where the decimal point is a comma, the separator is a semicolon."""
    text = f"{header}\nsüß.wav;0,25;1\nb.wav;0;0,5\n;;\n\n".replace("\n", newline)
    manifest = Manifest.load(table(text.encode(encoding)), root="/music")
    assert manifest.tags == ("happy", "sad") and manifest[0].path == Path("/music/süß.wav")
    np.testing.assert_array_equal(manifest.targets(), [[0.25, 1], [0, 0.5]])


@pytest.mark.parametrize("mark", ["", "sep=\t\r\n"])
def test_unicode_text_of_a_country_with_decimal_commas(table, mark):
    text = f"{mark}file\tstart\ttags\r\na.wav\t1,5\trock|pop, soft\r\n"
    for encoding in ("utf-16", "utf-16-be"):
        content = text.encode(encoding) if encoding == "utf-16" else b"\xfe\xff" + text.encode(encoding)
        manifest = Manifest.load(table(content, "songs.txt"))
        assert manifest[0].start == 1.5 and manifest[0].tags == ("rock", "pop, soft")


def test_bytes_that_are_not_utf8_are_not_guessed(table):
    path = table("file,tags\ncafé.wav,chanson\n".encode("cp1252"))
    with pytest.raises(
        DataError, match=r"line 2 is not UTF-8: byte 0xe9\. Save .* as UTF-8 \(Excel: CSV UTF-8\), or try"
    ):
        Manifest.load(path)
    assert Manifest.load(path, encoding="cp1252")[0].path.name == "café.wav"
    with pytest.raises(DataError, match=r"is not utf-16|has a zero byte"):
        Manifest.load(table(b"\xff\xfe\x00\x00f"))


def test_true_and_false(table):
    """As pandas writes the columns of get_dummies, and Excel its own."""
    manifest = Manifest.load(table("file,rock,pop\na.wav,True,False\nb.wav,FALSE,TRUE\n"))
    assert [row.tags for row in manifest] == [("rock",), ("pop",)]
    with pytest.raises(DataError, match=r"songs.csv:2: start must be a number of seconds, got 'True'"):
        Manifest.load(table("file,tags,start\na.wav,rock,True\n"))


# === Tags ===


def test_quoted_tags_with_separators(table):
    text = 'file,tags\r\n"a, b.wav","rock, hard|say ""yes""|a;b"\r\nc.wav, pop \r\n\r\n,\r\n'
    manifest = Manifest.load(table("\ufeff" + text))
    assert [row.tags for row in manifest] == [("rock, hard", 'say "yes"', "a;b"), ("pop",)]
    assert manifest[0].path.name == "a, b.wav"


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("songs.csv", "file,labels\na.wav,\nb.wav, | \n", "labels"),
        ("songs.jsonl", '{"file": "a.wav", "tags": []}\n{"file": "b.wav"}\n', "tags"),
    ],
)
def test_a_table_in_which_nothing_has_a_tag(table, name, content, column):
    path = table(content, name)
    with pytest.raises(DataError, match=f"has no tag in any of its 2 rows. Fill its column '{column}'; if no tags"):
        Manifest.load(path)
    assert len(Manifest.load(path, untagged=True)) == 2
    assert Manifest.load(path, tags=["rock"]).tags == ("rock",)


def test_some_rows_without_tags_are_reported(sounds, table):
    sounds("a.wav", "b.wav", "c.wav")
    manifest = Manifest.load(table("file,tags\na.wav,rock\nb.wav,\nc.wav,pop\n"))
    report = manifest.validate(min_rows=1)
    assert [(problem.where, problem.kind) for problem in report.problems] == [("songs.csv:3", "no tags")]
    assert len(report.ok) == 2 and manifest.validate(min_rows=1, allow_untagged=True).passed


def test_spellings_of_one_tag(sounds, table):
    sounds("a.wav", "b.wav", "c.wav", "d.wav")
    rows = "file,tags\na.wav,Hip Hop\nb.wav,hip  hop| house\nc.wav,house \nd.wav,HOUSE\n"
    report = Manifest.load(table(rows)).validate(min_rows=1)
    assert kinds(report) == ["tag case", "tag case"]
    assert "the tags 'HOUSE', 'house' differ only in how they are written; choose one spelling" in str(report)
    columns = Manifest.load(table("file,Rock, rock,ROCK\na.wav,1,0,0\nb.wav,0,1,0\nc.wav,0,0,1\n"))
    assert kinds(columns.validate(min_rows=1)) == ["tag case"]
    with pytest.raises(DataError, match=r"columns of the same name: 'rock'\. Rename or remove one"):
        Manifest.load(table("file,rock, rock\na.wav,1,0\n"))


def test_one_class_only(sounds):
    rows = [Row(path=sounds(f"{n}.wav") / f"{n}.wav", tags=("rock",)) for n in range(3)]
    report = Manifest(tuple(rows)).validate(min_rows=2)
    assert kinds(report) == ["tag everywhere"] and len(report.ok) == 3
    assert "all 3 rows in all have the tag 'rock', so it cannot be learned; add rows without it" in str(report)
    with pytest.raises(DataError, match="all 3 rows in all have the tag 'rock'"):
        Manifest(tuple(rows)).validate(min_rows=2, strict=True)
    soft = Manifest(tuple(Row(path=row.path, targets=(0.1 * n + 0.1,)) for n, row in enumerate(rows)), ("rock",))
    assert soft.validate(min_rows=2).passed


def test_tags_with_fewer_than_two_clips_and_in_validation_only(sounds, table):
    sounds("a.wav", "b.wav", "c.wav", "d.wav", "e.wav")
    rows = "a.wav,rock,train\nb.wav,rock,train\nc.wav,pop,train\nd.wav,dub,valid\ne.wav,rock,valid\n"
    report = Manifest.load(table("file,tags,split\n" + rows)).validate(min_rows=2)
    assert [problem.reason.split(";")[0] for problem in report.problems] == [
        "the tag 'dub' is only in valid: it cannot be learned",
        "the tag 'pop' has 1 rows in train, fewer than 2 (min_rows)",
    ]


# === Files ===


def test_where_files_are(sounds, table, monkeypatch, tmp_path):
    folder = sounds("sub/a.wav", "b.wav", "odd\\name.wav", "home/d.wav")
    monkeypatch.setenv("HOME", str(folder / "home"))
    names = ["sub\\a.wav", "./sub/../b.wav", str(folder / "b.wav"), "odd\\name.wav", "~/d.wav", "~\\d.wav", "~b.wav"]
    manifest = Manifest.load(table("file,tags\n" + "".join(f"{name},x\n" for name in names)))
    expected = ["sub/a.wav", "b.wav", "b.wav", "odd\\name.wav", "home/d.wav", "home/d.wav", "~b.wav"]
    assert [row.path for row in manifest] == [folder / name for name in expected]
    assert Manifest.load(tmp_path / "songs.csv", root="/music")[0].path == Path("/music/sub/a.wav")


def test_paths_of_a_windows_machine_are_reported(table):
    manifest = Manifest.load(table("file,tags\nC:\\Music\\a.wav,x\n\\\\server\\share\\b.wav,x\n"))
    reasons = [problem.reason for problem in manifest.validate(min_rows=0).problems]
    assert reasons == ["there is no such file; its name has backslashes: was the manifest made on Windows?"] * 2


def test_missing_and_broken_files_are_skipped_and_counted(sounds, table):
    folder = sounds("good.wav", "fine.wav")
    (folder / "zero.wav").touch()
    (folder / "text.mp3").write_text("no sound " * 100)
    lines = "good.wav,x\nfine.wav,y\nmissing.wav,x\nzero.wav,x\ntext.mp3,y\n"
    manifest = Manifest.load(table("file,tags\n" + lines))
    report = manifest.validate(min_rows=1)
    assert str(report).startswith("5 rows: 2 fine, 3 problems (1 missing, 1 zero bytes, 1 undecodable)\n")
    assert [problem.where for problem in report.problems] == ["songs.csv:4", "songs.csv:5", "songs.csv:6"]
    with pytest.raises(DataError, match=r"5 rows: 2 fine, 3 problems"):
        manifest.validate(min_rows=1, strict=True)


# === Folders ===


def test_leftovers_among_folders_of_tags(sounds, caplog):
    folder = (
        sounds("music/rock/a.wav", "music/rock/album/b.WAV", "music/jazz/c.wav", "music/jazz/.trash/d.wav") / "music"
    )
    sounds("music/.hidden/e.wav", "music/__MACOSX/rock/f.wav", "music/jazz/._c.wav")
    for name in ("notes.txt", ".DS_Store", "rock/cover.jpg", "rock/Thumbs.db"):
        (folder / name).touch()
    manifest = Manifest.load(folder)
    assert manifest.tags == ("jazz", "rock") and caplog.text == ""
    assert [(row.where, row.tags) for row in manifest] == [
        ("jazz/c.wav", ("jazz",)), ("rock/a.wav", ("rock",)), ("rock/album/b.WAV", ("rock",)),
    ]  # fmt: skip
    assert manifest.validate(min_rows=1).passed


def test_files_outside_the_folders_cause_a_warning(sounds, caplog):
    folder = sounds("music/rock/a.wav", "music/jazz/b.wav", "music/new.wav", "music/newer.wav") / "music"
    assert len(Manifest.load(folder)) == 2
    message = f"2 audio files are not in the folder of a tag and are left out; the first is {folder / 'new.wav'}."
    assert message in caplog.text
    assert caplog.records[0].levelno == logging.WARNING
    caplog.clear()
    folder = sounds("parts/train/rock/a.wav", "parts/train/loose.wav", "parts/val/rock/b.wav") / "parts"
    assert len(Manifest.load(folder)) == 2 and "1 audio files are not in the folder of a tag" in caplog.text


def test_an_empty_folder_is_a_tag_without_clips(sounds):
    folder = sounds("music/rock/a.wav", "music/jazz/b.wav") / "music"
    (folder / "dub").mkdir()
    report = Manifest.load(folder).validate(min_rows=1)
    assert [problem.reason.split(";")[0] for problem in report.problems] == [
        "the tag 'dub' has 0 rows in all, fewer than 1 (min_rows)"
    ]


def test_folders_whose_names_differ_only_in_how_they_are_written(sounds):
    folder = sounds("music/Rock/a.wav", "music/rock/b.wav", "music/jazz/c.wav", "music/jazz /d.wav") / "music"
    manifest = Manifest.load(folder)
    assert manifest.tags == ("Rock", "jazz", "rock")
    report = manifest.validate(min_rows=1)
    assert kinds(report) == ["tag case"] and "'Rock', 'rock' differ only in how they are written" in str(report)


def test_splits_beside_other_folders(sounds):
    folder = sounds("music/train/rock/a.wav", "music/test/rock/b.wav") / "music"
    (folder / "pictures").mkdir()
    (folder / "valid").mkdir()
    assert Manifest.load(folder).split_sizes() == {"train": 1, "test": 1}
    sounds("music/more/rock/c.wav")
    with pytest.raises(
        DataError, match=r"has folders of splits \(test, train\) and other folders \(more\)\. Move the other"
    ):
        Manifest.load(folder)
    assert Manifest.load(sounds("tags/test/a.wav", "tags/music/b.wav") / "tags").tags == ("music", "test")


def test_splits_without_folders_of_tags(sounds):
    with pytest.raises(DataError, match=r"has no folders with audio files; it has: test, train\. Put the files"):
        Manifest.load(sounds("music/train/a.wav", "music/test/b.wav") / "music")
