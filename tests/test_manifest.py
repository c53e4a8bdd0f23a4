"""The table all data becomes: rows, formats and what is said about files that cannot be read."""

import dataclasses
import json
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from keras_musictag.datasets.manifest import DataError, Manifest, Row
from keras_musictag.errors import CacheError, MissingExtraError, MusicTagError


def row(name="a.wav", **fields):
    return Row(path=Path("/music", name), **fields)


@pytest.fixture
def table(tmp_path):
    """Write a manifest file; returns its path."""

    def write(content, name="songs.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


HARD = Manifest(
    (
        row("a.wav", tags=("rock", "a|b"), split="train", group="X", source="s:1", licence="CC0-1.0"),
        row('sub/ü, "b"; c.mp3', start=1.25, duration=0.1, tags=("split",), split="test"),
        row("../elsewhere.wav", tags=()),
        row("line\nbreak.wav", tags=("Rock »n« roll", "tag:x")),
    ),
    ("split", "rock", "a|b", "Rock »n« roll", "tag:x", "unused"),
)
SOFT = Manifest(
    (row("a.wav", targets=(0.1, 1 / 3), split="valid"), row("b.wav", targets=(1.0, np.float32(0.7)))), ("z", "a")
)


# === Rows and tables ===


def test_targets_follow_the_order_of_the_tags():
    manifest = Manifest((row(tags=("b", "a")), row("b.wav"), row("c.wav", targets=(0.25, 0, 1))), ("c", "b", "a"))
    targets = manifest.targets()
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, [[0, 1, 1], [0, 0, 0], [0.25, 0, 1]])


def test_a_manifest_is_a_sequence_that_never_changes():
    assert len(HARD) == 4 and next(iter(HARD)).path.name == "a.wav" and HARD[-1] == HARD.rows[3]
    assert HARD[1:3] == Manifest(HARD.rows[1:3], HARD.tags)
    assert repr(HARD) == "Manifest(4 rows, 6 tags, train 1, test 1, no split 2)"
    assert pickle.loads(pickle.dumps(HARD)) == HARD and hash(HARD) == hash(pickle.loads(pickle.dumps(HARD)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        HARD.tags = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        HARD[0].split = "test"


def test_parts_keep_the_tags():
    assert HARD.split("train") == HARD[:1]
    assert HARD.filter(lambda r: r.start > 1) == HARD[1:2]
    assert HARD.split("test").tags == HARD.tags
    assert HARD.split_sizes() == {"train": 1, "test": 1, "": 2}


def test_choosing_tags_reorders_hard_and_soft_targets():
    both = Manifest((row(tags=("a", "b")), row("b.wav", targets=(0.5, 0.25))), ("a", "b"))
    chosen = both.with_tags(["c", "b"])
    np.testing.assert_array_equal(chosen.targets(), [[0, 1], [0, 0.25]])
    assert chosen.tags == ("c", "b") and chosen[0].tags == ("b",)
    assert both.tags == ("a", "b")


def test_joining_needs_the_same_tags():
    assert len(SOFT.concat(SOFT, SOFT)) == 6
    with pytest.raises(DataError, match=r"must have the same tags.*Call with_tags\(\) first"):
        SOFT.concat(SOFT.with_tags(["a", "z"]))


def test_paths_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    relative = Row(path=Path("x/../a.wav"))
    assert relative.path == tmp_path / "a.wav"
    assert Row(path="a.wav") == relative == Row(path=Path("a.wav"), where="somewhere.csv:3")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": -1.0}, r"start must be a number of seconds, 0 or more; got -1.0"),
        ({"start": float("nan")}, r"start must be .* got nan"),
        ({"start": "3"}, r"start must be .* got '3'"),
        ({"duration": 0}, r"duration must be a number of seconds above 0, or None for the rest; got 0"),
        ({"duration": float("inf")}, r"duration must be .* got inf"),
        ({"split": "dev"}, r"split must be train, valid, test or empty; got 'dev'"),
        ({"tags": "rock"}, r"got the string 'rock'\. Put it into a tuple"),
        ({"tags": ("rock", "rock")}, r"Tags occur more than once: 'rock'\. Remove the duplicates"),
        ({"tags": (" rock",)}, r"without spaces around it; got ' rock'"),
        ({"tags": ("",)}, r"A tag must be a name .* got ''"),
        ({"tags": ("rock",), "targets": (1.0,)}, r"either tags or targets; got both"),
        ({"targets": (0.5, 1.5)}, r"targets must be numbers from 0 to 1; got 1.5"),
        ({"targets": (float("nan"),)}, r"targets must be numbers from 0 to 1; got nan"),
    ],
)
def test_invalid_rows(fields, message):
    with pytest.raises(DataError, match=message):
        row(**fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Manifest((row(),), "rock"), r"got the string 'rock'\. Put it into a list"),
        (lambda: Manifest((row(targets=(1.0,)),), ("a", "b")), r"Row 0 \(/music/a.wav\) has 1 targets for 2 tags"),
        (lambda: Manifest((), ("a", "a")), r"Tags occur more than once: 'a'"),
        (lambda: Manifest((row(tags=("x",)),), ("a",)).targets(), r"Row 0 .* that the manifest does not have: 'x'"),
        (lambda: HARD.with_tags(["jazz"]), r"None of the tags 'jazz' is in the manifest.*Check the spelling"),
        (lambda: HARD.split("valid"), r"no rows in the split 'valid'; its rows are: train 1, test 1, no split 2"),
        (lambda: HARD.split("val"), r"no rows in the split 'val'.*Splits are train, valid, test"),
    ],
)
def test_invalid_manifests(make, message):
    with pytest.raises(DataError, match=message) as caught:
        make()
    assert isinstance(caught.value, MusicTagError) and isinstance(caught.value, ValueError)


# === Round trips ===


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("manifest", [HARD, SOFT, HARD[:0]], ids=["hard", "soft", "empty"])
def test_what_is_written_is_read_again(tmp_path, kind, manifest):
    path = tmp_path / f"m.{kind}"
    getattr(manifest, f"to_{kind}")(path)
    again = Manifest.load(path)
    assert again == manifest
    assert list(tmp_path.iterdir()) == [path]
    getattr(again, f"to_{kind}")(path.with_name("n"))
    assert path.with_name("n").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_folder_with_its_manifest_can_be_moved(tmp_path, kind):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    manifest = Manifest((Row(path=old / "sub" / "a.wav", tags=("x",)), row()))
    getattr(manifest, f"to_{kind}")(old / "m")
    assert str(old) not in (old / "m").read_text()
    old.rename(new)
    read = getattr(Manifest, f"from_{kind}")
    assert [r.path for r in read(new / "m")] == [new / "sub" / "a.wav", Path("/music/a.wav")]
    assert read(new / "m", root=tmp_path / "r")[0].path == tmp_path / "r" / "sub" / "a.wav"


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(CacheError, match=r"none/m.csv cannot be written: .* Nothing was changed"):
        HARD.to_csv(tmp_path / "none" / "m.csv")
    unencodable = Manifest((row("a\udce9.wav", tags=("x",)),))
    with pytest.raises(DataError, match=r"m.csv was not written: line 2 has a file name that is not valid UTF-8"):
        unencodable.to_csv(tmp_path / "m.csv")
    with pytest.raises(DataError, match=r"has tags that the manifest does not have: 'x'\. Use validate\(\).ok"):
        Manifest((row(tags=("x",)),), ("a",)).to_csv(tmp_path / "m.csv")
    assert list(tmp_path.iterdir()) == []


# === CSV ===

WANTED = Manifest((row("a.wav", tags=("rock", "x;y,z"), split="valid"), row("b.wav", tags=("pop",), start=1.5)))


@pytest.mark.parametrize(
    "content",
    [
        'file,tags,split,start\na.wav,"rock|x;y,z",val,\nb.wav,pop,,1.5\n',
        '\ufefffile,tags,split,start\r\na.wav,"rock|x;y,z",Validation,\r\nb.wav,pop,,1.5\r\n',
        'file;tags;split;start\na.wav;"rock|x;y,z";dev;\nb.wav;pop;;1,5\n\n;;;\n',
        'sep=;\r\nfile;tags;split;start\r\na.wav;"rock|x;y,z";valid;0\r\nb.wav;pop;;1,5\r\n',
        "file\ttags\tsplit\tstart\na.wav\trock|x;y,z\tvalid\t\nb.wav\tpop\t\t1.5",
        'Start , Path,SUBSET,"labels"\n,a.wav,valid," rock | x;y,z ||rock"\n1.5,b.wav,,pop\n',
        'file,split,start,pop,rock,"x;y,z"\na.wav,valid,0,0,1,1.0\nb.wav,,1.5,1,,0\n',
    ],
    ids=["comma", "bom", "semicolon", "excel", "tab", "names", "columns"],
)
def test_dialects_of_tables(table, content):
    assert Manifest.from_csv(table(content), root="/music") == WANTED


def test_rows_state_their_file_and_line(table):
    manifest = Manifest.load(table('sep=;\nfile;tags\n\na.wav;"x"\n"b\nc.wav";y\nd.wav;z\n'))
    assert [r.where for r in manifest] == ["songs.csv:4", "songs.csv:6", "songs.csv:7"]


def test_columns_of_numbers_are_soft_targets(table):
    manifest = Manifest.from_csv(table("file;happy;sad\na.wav;0,25;1\nb.wav;0;\n"))
    assert manifest.tags == ("happy", "sad") and manifest[0].targets == (0.25, 1.0)
    np.testing.assert_array_equal(manifest.targets(), [[0.25, 1], [0, 0]])


def test_tags_that_are_named_choose_and_order_the_columns(table):
    path = table("file,title,loud,artist,album,soft\na.wav,Song,1,Ann,First,0\n")
    manifest = Manifest.from_csv(path, tags=["soft", "loud"])
    assert manifest.tags == ("soft", "loud") and manifest[0].tags == ("loud",) and manifest[0].group == "Ann"
    with pytest.raises(DataError, match=r"songs.csv:2: title must be a number from 0 to 1, got 'Song'; if the column"):
        Manifest.from_csv(path)
    with pytest.raises(DataError, match=r"no column for the tags 'quiet'; its columns are 'file', 'title'"):
        Manifest.from_csv(path, tags=["quiet", "loud"])


def test_named_tags_are_the_order_and_others_stay_to_be_reported(table):
    manifest = Manifest.from_csv(table("file,tags\na.wav,b|c\n"), tags=["a", "b"])
    assert manifest.tags == ("a", "b") and manifest[0].tags == ("b", "c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"no column for the file: its first line is ''\. The first line must name the columns"),
        ("a.wav,rock\n", r"its first line is 'a.wav,rock'"),
        ("file\na.wav\n", r"has no column with tags; its columns are 'file'\. Add a column 'tags'"),
        ("file,tags,tags\na.wav,x,y\n", r"columns of the same name: 'tags'\. Rename or remove one"),
        (
            'file,tags\na.wav,"rock\nb.wav,pop\n',
            r"line 3 is malformed: unexpected end of data\. A common cause is a quot",
        ),
        (b"file,tags\na.wav,rock\nb\xe9.wav,pop\n", r"line 3 is not UTF-8: byte 0xe9\..*try encoding='cp1252'"),
        (b"file,tags\na\x8d.wav,\xe9\n", r"line 2 is not UTF-8: byte 0x8d\..*try encoding='latin-1'"),
        ("file,tags\na.wav,rock\n".encode("utf-16-le"), r"line 1 has a zero byte.*encoding='utf-16'"),
    ],
)
def test_a_table_that_cannot_be_read(table, content, message):
    with pytest.raises(DataError, match=message):
        Manifest.from_csv(table(content))


def test_another_encoding_can_be_named(table):
    path = table("file,tags\ncafé.wav,rock\n".encode("cp1252"))
    assert Manifest.from_csv(path, encoding="cp1252")[0].path.name == "café.wav"
    assert Manifest.from_csv(table("file,tags\na.wav,é\n".encode("utf-16")), encoding="utf-16").tags == ("é",)
    with pytest.raises(DataError, match=r"There is no encoding 'utf-9'\. Try 'utf-8'"):
        Manifest.from_csv(path, encoding="utf-9")


def test_every_bad_line_is_named(table):
    lines = [
        "file,tags,start,duration,split",
        ",x,,,",
        "b.wav,x,soon,,",
        "c.wav,x,,-1,",
        "d.wav,x,,,live",
        "e.wav,x,,,",
    ]
    with pytest.raises(DataError) as caught:
        Manifest.from_csv(table("\n".join(lines)))
    assert str(caught.value).splitlines()[1:] == [
        "  songs.csv:2: the file is missing",
        "  songs.csv:3: start must be a number of seconds, got 'soon'",
        "  songs.csv:4: duration must be a number of seconds, got '-1'",
        "  songs.csv:5: the split must be train, valid, test or empty; got 'live'",
        "Nothing was loaded. Correct them and try again.",
    ]
    with pytest.raises(DataError, match=r"songs.csv:2: duration must be a number of seconds above 0"):
        Manifest.from_csv(table("file,tags,duration\na.wav,x,0\n"))
    with pytest.raises(DataError, match=r"songs.csv:3: 1 cells for 2 columns"):
        Manifest.from_csv(table("file,tags\na.wav,x\nb.wav\n"))
    with pytest.raises(DataError, match=r"has 30 line\(s\) that cannot be used(.*\n){21}.*and 10 more\n"):
        Manifest.from_csv(table("file,tags\n" + ",x\n" * 30))


# === JSON lines and Parquet ===


def test_variants_of_json_lines(table):
    lines = [
        {"file": "a.wav", "tags": ["x", "y"], "start": 2, "duration": 3.5, "split": "dev", "artist": "Ann"},
        {"file": "b.wav", "tags": "y|x"},
        {"file": "c.wav", "targets": {"z": 0.5, "x": 1}},
        {"file": "d.wav", "tags": None},
    ]
    manifest = Manifest.load(table("\n\n".join(map(json.dumps, lines)), "m.jsonl"), root="/music")
    assert manifest.tags == ("x", "y", "z")
    assert manifest[0] == row(tags=("x", "y"), start=2.0, duration=3.5, split="valid", group="Ann")
    assert manifest[1].tags == ("y", "x") and manifest[1].where == "m.jsonl:3"
    np.testing.assert_array_equal(manifest.targets()[2:], [[1, 0, 0.5], [0, 0, 0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"m.jsonl is empty\. Write a line for each audio file"),
        (
            '{"file": "a.wav", "tags": []\n[1]\n{"file": "b.wav", "tags": []}',
            r"m.jsonl:1: not JSON .*\n  m.jsonl:2: a JSO",
        ),
        ('{"file": "a.wav", "tags": [3]}', r"m.jsonl:1: tags must be names with \| between them, .* got \[3\]"),
        ('{"tags": ["a"]}\n{"file": "b.wav", "targets": {"b": 1}}', r"m.jsonl:2: targets for unknown tags 'b'"),
        ('{"tags": ["a"]}\n{"file": "b.wav", "targets": [1, 1]}', r"has 2 targets for 1 tags"),
        ('{"file": "b.wav", "targets": 3}', r"m.jsonl:1: targets must be numbers by tag, or a list of numbers; got 3"),
        ('{"file": "b.wav", "targets": [NaN]}', r"m.jsonl:1: target 0 must be a number from 0 to 1, got nan"),
        ('{"file": "b.wav", "a": NaN}', r"m.jsonl:1: a must be a number from 0 to 1, got nan"),
        ('{"file": "b.wav", "targets": {"a": 2}}', r"m.jsonl:1: a must be a number from 0 to 1, got 2"),
        ('{"name": "b.wav", "tags": ["a"]}', r"has no column for the file; its columns are 'name', 'tags'"),
        (b'{"file": "\xe9"}', r"m.jsonl line 1 is not UTF-8"),
    ],
)
def test_json_lines_that_cannot_be_read(table, content, message):
    with pytest.raises(DataError, match=message):
        Manifest.load(table(content, "m.jsonl"))


def test_parquet_without_pyarrow(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"'pyarrow', which is not installed.*keras_musictag\[parquet\]"):
        Manifest.load(table("", "m.parquet"))


def test_records_of_a_parquet_table(table, monkeypatch):
    """What pyarrow hands over, without pyarrow: lists, numbers and gaps instead of text."""
    records = [
        {"file": "a.wav", "tags": ["x", "y"], "start": 1.5, "split": "train"},
        {"file": "b.wav", "tags": None, "start": float("nan"), "split": None},
    ]
    parquet, arrow = types.ModuleType("pyarrow.parquet"), types.ModuleType("pyarrow")
    arrow.ArrowInvalid, arrow.parquet = RuntimeError, parquet
    content = types.SimpleNamespace(to_pylist=lambda: records, column_names=list(records[0]))
    parquet.read_table = lambda file: content
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
    path = table("", "m.parquet")
    assert Manifest.load(path, root="/music") == Manifest(
        (row(tags=("x", "y"), start=1.5, split="train"), row("b.wav")), ("x", "y")
    )

    def refuse(file):
        raise RuntimeError("magic bytes")

    parquet.read_table = refuse
    with pytest.raises(DataError, match=r"m.parquet is not a Parquet file: magic bytes\. Write it again"):
        Manifest.load(path)


def test_a_real_parquet_file(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"file": ["a.wav", "b.wav"], "x": [1, 0], "y": [True, False], "split": ["train", None]})
    parquet.write_table(table, tmp_path / "m.parquet")
    manifest = Manifest.load(tmp_path / "m.parquet", root="/music")
    assert manifest == Manifest((row(tags=("x", "y"), split="train"), row("b.wav")), ("x", "y"))


# === Folders ===


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_per_tag(tmp_path):
    touch(tmp_path, "rock/b.MP3", "rock/album/a.wav", "jazz/c.flac", "jazz/cover.jpg", "jazz/.hidden.wav", "top.wav")
    touch(tmp_path, "jazz/.trash/d.wav", ".git/e.wav", "__MACOSX/f.wav", "empty/readme.txt")
    manifest = Manifest.load(tmp_path)
    assert manifest.tags == ("empty", "jazz", "rock")
    assert [(str(r.path.relative_to(tmp_path)), r.tags, r.split) for r in manifest] == [
        ("jazz/c.flac", ("jazz",), ""),
        ("rock/album/a.wav", ("rock",), ""),
        ("rock/b.MP3", ("rock",), ""),
    ]


def test_a_folder_per_split_and_tag(tmp_path):
    touch(tmp_path, "train/rock/a.wav", "val/rock/b.wav", "test/jazz/c.wav")
    manifest = Manifest.load(tmp_path)
    assert manifest.split_sizes() == {"train": 1, "valid": 1, "test": 1} and manifest.tags == ("jazz", "rock")


def test_folders_without_sound(tmp_path):
    touch(tmp_path, "a.wav", "texts/b.txt")
    with pytest.raises(DataError, match=r"has no folders with audio files; it has: a.wav, texts\. Put the files"):
        Manifest.load(tmp_path)
    with pytest.raises(DataError, match=r"a.wav is not a folder"):
        Manifest.from_folders(tmp_path / "a.wav")
    with pytest.raises(
        DataError, match=r"A manifest must be a folder of folders or a file that ends in \.csv.*got '.*m.xlsx'"
    ):
        Manifest.load(tmp_path / "m.xlsx")
    with pytest.raises(DataError, match=r"m.csv cannot be read \(No such file or directory\)"):
        Manifest.load(tmp_path / "m.csv")
