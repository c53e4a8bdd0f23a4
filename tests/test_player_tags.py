"""Genre, mood and comment where players look for them; all that was there before stays."""

import json
import os
import re
from pathlib import Path

import pytest
import soundfile
from audio_files import encode, save, signal
from click.testing import CliRunner
from player_files import KINDS, PROGRAMS, TAGS, VOCABULARY, WRITTEN, how_much, read_back, sound_files, write

from keras_musictag.apps.library import WriteOptions, raw_id3_and_ape, tag_fields, tag_plans
from keras_musictag.apps.library.write_back import FileToWrite, TagWriter
from keras_musictag.cli import main
from keras_musictag.models.vocabulary import Vocabulary

mutagen = pytest.importorskip("mutagen")
id3 = pytest.importorskip("mutagen.id3")

DOCS = Path(__file__).parents[1] / "docs" / "library.md"
RANK = {"none": 0, "first": 1, "all": 2}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Files of all formats, with our tags, and their old content."""
    folder = tmp_path_factory.mktemp("music")
    made = sound_files(folder)
    before = {label: path.read_bytes() for label, path in made.items()}
    result = write(made.values(), folder / "undo.jsonl")
    assert not result.refused and len(result.written) == len(made)
    return made, before


def documented():
    """(format, field, program) -> how much it reads, as the table of docs/library.md has it."""
    cells = {}
    for label, *columns in re.findall(r"^\| ([^|]+?) \| (.*ffprobe.*|.*TagLib.*) \|$", DOCS.read_text(), re.MULTILINE):
        for field, cell in zip(WRITTEN, columns[0].split(" | "), strict=False):
            for program in PROGRAMS:
                much = "first" if f"{program} (first)" in cell else "all" if program in cell else "none"
                cells[label, field, program] = much
    return cells


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_read_what_was_written(written, program):
    made, _ = written
    table = documented()
    assert len(table) >= 13 * 3 * 3
    for label, path in made.items():
        for field in WRITTEN:
            much = how_much(path, program, field)
            if much is None:
                pytest.skip(f"needs {program}")
            # A newer program may read more than the one that the table was made with.
            assert RANK[much] >= RANK[table[label, field, program]], (label, field, read_back(path, program))
            assert much == "all" or program == "ffprobe", (label, field)


def test_what_was_there_stays(written):
    made, before = written
    old = made["MP3, ID3v2.3, ID3v1 and APE"]
    tags = id3.ID3(old, translate=False)
    assert tags.version == (2, 3, 0) and tags["TYER"].text == ["1999"] and tags["TIT2"].text == ["Ж"]
    assert tags["APIC:"].data == b"picture" and tags["COMM:iTunNORM:eng"].text == ["0000"]
    was = before["MP3, ID3v2.3, ID3v1 and APE"]
    tail = was[was.index(b"APETAGEX") :]
    assert old.read_bytes().endswith(tail)
    for label in ("MP3, ID3v2.3, ID3v1 and APE", "MP3, APE and ID3v1", "MP3, ID3v1 only"):
        last = made[label].read_bytes()[-128:]
        assert last == before[label][-128:] and last.startswith(b"TAG")
    ape = made["MP3, APE only"].read_bytes()
    assert not ape.startswith(b"ID3") and b"-6.5 dB" in ape
    first = id3.ID3(made["MP3, ID3v1 only"])
    assert first["TIT2"].text == ["title"] and first["COMM::eng"].text[0].endswith("rock, pop | sad, happy")
    assert made["FLAC, ID3v2 before it"].read_bytes()[:22] == before["FLAC, ID3v2 before it"][:22]
    for label in ("FLAC", "FLAC, ID3v2 before it"):
        flac = mutagen.File(made[label])
        assert flac["foreign"] == ["field"] and flac["artist"] == ["one", "two"]
    assert {"musictag": tag_fields.open_tags(str(made["Opus"])).get("musictag")} == {"musictag": ["flute"]}


def test_older_id3_and_plain_sizes(tmp_path):
    """ID3v2.2 becomes 2.3; a genre given as a number stays one; sizes as iTunes wrote them are no lost frames."""
    sound = encode(signal(0.5, rate=44_100), 44_100, "MP3")
    frames = b"TT2\0\0\6\0title" + b"TCO\0\0\5\0(17)"
    save(tmp_path / "a.mp3", b"ID3\2\0\0\0\0\0" + bytes([len(frames)]) + frames + sound)
    long = b"TIT2" + (300).to_bytes(4, "big") + b"\0\0" + b"\0" + b"x" * 299 + b"TALB\0\0\0\2\0\0\0y"
    save(tmp_path / "b.mp3", b"ID3\4\0\0\0\0" + bytes([len(long) >> 7, len(long) & 127]) + long + sound)
    assert not write([tmp_path / "a.mp3", tmp_path / "b.mp3"], tmp_path / "undo").refused
    tags = id3.ID3(tmp_path / "a.mp3", translate=False)
    assert tags.version == (2, 3, 0) and tags["TCON"].text == ["(17)", "pop"] and tags["TCON"].genres == ["Rock", "pop"]
    assert id3.ID3(tmp_path / "b.mp3")["TIT2"].text == ["x" * 299]


# === Which values ===


def test_options(tmp_path):
    path = save(tmp_path / "a.flac", encode(signal(0.3), file_format="FLAC"))
    opened = mutagen.File(path)
    opened["genre"], opened["comment"] = ["Rock", "Old"], ["Ripped"]
    opened.save()
    undo = tmp_path / "undo"

    def found():
        tags = tag_fields.open_tags(str(path))
        return {field: tags.get(field) for field in tag_fields.FIELDS if tags.get(field)}

    write([path], undo, WriteOptions(only_missing=True, comment="{tags}", most=1))
    assert found() == {"genre": ["Rock", "Old"], "comment": ["Ripped"], "mood": ["sad"], "musictag": ["flute"]}
    write([path], undo, WriteOptions(min_prob=0.8, comment="{genre} - {mood}"))
    assert found()["genre"] == ["Rock", "Old", "pop"] and found()["comment"] == ["Ripped | rock, pop"]
    write([path], undo, WriteOptions(replace=True, kinds=["genre"], comment="{genre}"))
    kept = {"mood": ["sad"], "musictag": ["flute"]}
    assert found() == {"genre": ["rock", "pop"], "comment": ["rock, pop"], **kept}
    assert write([path], undo, WriteOptions(kinds=["genre"], comment="{genre}")).unchanged == 1
    assert write([path], undo, tags={}).unchanged == 1


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{genre} | {mood}", "rock, pop | sad, happy"),
        ("{voice} | {mood}", "sad, happy"),
        ("{genre} | {voice} | {mood}", "rock, pop | sad, happy"),
        ("{mood} | {voice}", "sad, happy"),
        ("[{genre}]", "[rock, pop]"),
        ("by ear: {voice}", ""),
        ("{tags}!", "rock, pop, flute!"),
    ],
)
def test_comments(template, text):
    values = tag_plans.wanted(TAGS, VOCABULARY, WriteOptions(comment=template))
    assert values.get("comment", [""]) == [text]


def test_tags_whose_kinds_are_not_known():
    unknown = Vocabulary.of(("a", "b"))
    assert tag_plans.wanted({"a": 0.9, "b": 0.1}, unknown, WriteOptions()) == {"musictag": ["a"]}
    with pytest.raises(ValueError, match="min_prob must be a probability from 0 to 1; got nan"):
        WriteOptions(min_prob=float("nan"))


# === Bad input ===


def test_bad_files_are_reported_and_the_rest_done(tmp_path):
    sound = encode(signal(0.3, rate=44_100), 44_100, "MP3")
    cyrillic = "Песня".encode("cp1251")
    made = {name: save(tmp_path / name, sound) for name in ("cyrillic.mp3", "many.mp3", "read-only.mp3", "junk.mp3")}
    tags = id3.ID3()
    tags.add(id3.TCON(encoding=0, text=[cyrillic.decode("latin-1")]))
    tags.add(id3.TIT2(encoding=0, text=[cyrillic.decode("latin-1")]))
    tags.save(made["cyrillic.mp3"], v2_version=3)
    tags = id3.ID3()
    tags.add(id3.TCON(encoding=3, text=[f"genre {number}" for number in range(10_000)]))
    tags.save(made["many.mp3"])
    frames = b"TIT2\0\0\0\2\0\0\0x" + b"TALB\0\0\0\2\0\0\x09x"  # there is no encoding 9
    save(made["junk.mp3"], b"ID3\3\0\0\0\0\0" + bytes([len(frames)]) + frames + sound)
    made["read-only.mp3"].chmod(0o444)
    made["bytes.flac"] = save(tmp_path / "bytes.flac", encode(signal(0.3), file_format="FLAC"))
    opened = mutagen.File(made["bytes.flac"])
    opened["artist"] = "ABCDE"
    opened.save()
    save(made["bytes.flac"], made["bytes.flac"].read_bytes().replace(b"ABCDE", cyrillic))
    made["broken.mp3"] = save(tmp_path / "broken.mp3", b"no sound")
    made["none.wav"] = tmp_path / "none.wav"
    made["a.au"] = tmp_path / "a.au"
    soundfile.write(made["a.au"], signal(0.3)[0], 44_100)
    made["hard.mp3"] = save(tmp_path / "hard.mp3", sound)
    os.link(made["hard.mp3"], tmp_path / "other.mp3")
    made["target.mp3"] = save(tmp_path / "target.mp3", sound)
    made["link.mp3"] = tmp_path / "link.mp3"
    made["link.mp3"].symlink_to(made["target.mp3"])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = write(made.values(), tmp_path / "undo.jsonl")
    reasons = {Path(path).name: reason for path, reason in result.refused.items()}
    assert reasons.pop("read-only.mp3") == "it or its folder is read-only"
    assert reasons.pop("junk.mp3") == "its ID3 tag has frames that would be lost: TALB"
    assert "not UTF-8" in reasons.pop("bytes.flac") and "HeaderNotFoundError" in reasons.pop("broken.mp3")
    assert "FileNotFoundError" in reasons.pop("none.wav") and "does not know its format" in reasons.pop("a.au")
    assert "hard links" in reasons.pop("hard.mp3") and not reasons
    assert {Path(path).name for path in result.written} == {"cyrillic.mp3", "many.mp3", "target.mp3"}
    assert made["link.mp3"].is_symlink() and result.unchanged == 1  # its target has them
    tags = id3.ID3(made["cyrillic.mp3"], translate=False)
    assert tags["TIT2"].text == [cyrillic.decode("latin-1")] and tags["TCON"].encoding == id3.Encoding.LATIN1
    assert cyrillic in made["cyrillic.mp3"].read_bytes()
    assert len(id3.ID3(made["many.mp3"])["TCON"].text) == 10_002
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert changed == {"cyrillic.mp3", "many.mp3", "target.mp3", "link.mp3"}


def test_other_metadata_that_would_change(tmp_path, monkeypatch):
    """Whatever mutagen does: if another field is not what it was, the file stays."""
    path = save(tmp_path / "a.flac", encode(signal(0.3), file_format="FLAC"))
    before = path.read_bytes()

    def save_more(tags):
        tags._opened.tags["TITLE"] = "another"
        tags._opened.save()

    monkeypatch.setattr(tag_fields.FileTags, "save", save_more)
    assert list(write([path], tmp_path / "undo").refused.values()) == ["its other tags would change"]
    assert path.read_bytes() == before and not (tmp_path / "undo").exists()


def test_blocks_of_files_that_are_none(tmp_path):
    for content in (
        b"",
        b"ID3",
        b"ID3\4\0\x40\0\0\0\0",
        b"RIFF\4\0\0\0WAVE",
        b"ID3\3\0\0\0\0\0\x0aTIT2\xff\xff\xff\xff\0\0",
    ):
        path = save(tmp_path / "x", content)
        assert raw_id3_and_ape.unread_frames(str(path), ["TIT2"]) == [] and not raw_id3_and_ape.has_ape(str(path))


# === The command ===


def test_tag_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    song = save(tmp_path / "song.flac", encode(signal(0.5), file_format="FLAC"))
    save(tmp_path / "broken.flac", b"no sound")
    before = song.read_bytes()

    def run(*words):
        return CliRunner().invoke(main, ["tag", "-m", "tiny", *words], catch_exceptions=False)

    words = ("song.flac", "--write", "--min-prob", "0", "--most", "2", "--comment", "{tags}")
    result = run(*words)
    assert result.exit_code == 0 and "song.flac\n  + comment: " in result.stdout and "  + musictag: " in result.stdout
    assert "no file was changed" in result.stderr and song.read_bytes() == before
    result = run("broken.flac", *words, "--no-dry-run", "--json")
    broken, told = map(json.loads, result.stdout.splitlines())
    assert result.exit_code == 1 and "error" in broken and told["file"] == "song.flac"
    assert [change["field"] for change in told["changes"]] == ["comment", "musictag"]
    assert read_back(song, "mutagen")["comment"] == list(told["changes"][0]["after"])
    assert "keras-musictag.undo.jsonl" in result.stderr
    result = run("--undo")
    assert "1 files restored" in result.stdout and song.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["broken.flac", "song.flac"]
    assert "The undo file" in run("--undo").stderr and "Leave FILES out" in run("--undo", "song.flac").stderr
    assert (
        "can only be used with --write. Add it." in run("song.flac", "--most", "2").stderr
        and "Missing FILES" in run().stderr
    )
    assert "cannot be printed as CSV" in run("song.flac", "--write", "--csv").stderr


def test_one_writer_per_undo_file(tmp_path):
    from keras_musictag.apps.library import LibraryError

    path = save(tmp_path / "a.flac", encode(signal(0.3), file_format="FLAC"))
    with TagWriter(Vocabulary.of(tuple(KINDS), KINDS), WriteOptions(), tmp_path / "undo") as writer:
        with pytest.raises(LibraryError, match="Another run is writing"):
            write([path], tmp_path / "undo")
        assert writer.write(FileToWrite(str(path), TAGS)).changes
