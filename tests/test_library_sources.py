"""Cue sheets, chapters and playlists as sources; searches as playlists, and by several sounds."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
from audio_files import ffmpeg, save, signal
from click.testing import CliRunner
from library_files import sound, sounds

import keras_musictag as kmt
from keras_musictag.apps.library import (
    Found,
    LibraryError,
    WriteOptions,
    listing,
    search,
    tag_library,
    write_m3u,
)
from keras_musictag.apps.library import (
    cue_and_chapters as segments,
)
from keras_musictag.cli import main

CUE = """REM DATE 1999
PERFORMER "Somebody"
TITLE "Album"
FILE "album.wav" WAVE
  TRACK 01 AUDIO
    TITLE "Erste Töne"
    INDEX 01 00:00:00
  TRACK 02 AUDIO
    TITLE "Second"
    INDEX 00 00:01:00
    INDEX 01 00:01:15
  TRACK 03 AUDIO
    INDEX 01 00:03:00
"""


def write_sound(path, seconds=4.0):
    soundfile.write(path, signal(seconds, 16_000)[0], 16_000)
    return path


def rows(table):
    return {row["path"]: row for row in map(json.loads, table.read_text(encoding="utf-8").splitlines())}


def names(found, folder):
    return [os.path.relpath(listed.path, folder) for listed in found.files]


# === Cue sheets ===


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_a_row_per_track(tmp_path, encoding):
    """The sheet names a WAV that is a FLAC now; rows are those of the parts by themselves."""
    music = tmp_path / "music"
    music.mkdir()
    album, other = write_sound(music / "album.flac"), sound(music / "other.wav")
    save(music / "album.cue", CUE.replace("\n", "\r\n").encode(encoding))
    table = tmp_path / "tags.jsonl"
    tagger = kmt.load("tiny")
    summary = tag_library(music, table, tagger, workers=1)
    assert (summary.files, summary.tagged, summary.failed) == (4, 4, 0) and ".cue" not in summary.passed_over
    found = rows(table)
    assert list(found) == [*(f"{album}#t={times}" for times in ("0,1.2", "1.2,3", "3")), str(other)]
    tracks = [row for row in found.values() if row["start_s"] is not None]
    assert [row["title"] for row in tracks] == ["Erste Töne", "Second", "Track 03"]
    assert [row["start_s"] for row in tracks] == [0, 1.2, 3] and [row["duration_s"] for row in tracks] == [1.2, 1.8, 1]
    assert found[str(other)]["title"] == "" and found[str(other)]["start_s"] is None
    alone = tagger.tag(album, offset=1.2, duration=1.8)
    assert tracks[1]["tags"] == pytest.approx(alone, abs=2e-6)  # rows have 6 digits
    again = tag_library(music, table, tagger, workers=1)
    assert (again.skipped, again.tagged) == (4, 0)
    save(music / "album.cue", CUE.replace("00:03:00", "00:02:00").encode(encoding))
    changed = tag_library(music, table, tagger, workers=1)
    assert (changed.skipped, changed.tagged) == (2, 2)
    assert {path.rpartition("=")[2] for path in rows(table) if "#" in path} == {"0,1.2", "1.2,2", "2"}


def test_bad_sheets_are_reported_and_the_rest_is_done(tmp_path):
    music = tmp_path / "music"
    (music / "in").mkdir(parents=True)
    for name in ("past.wav", "twice.wav", "in/far.wav"):
        write_sound(music / name, 2.0)
    write_sound(tmp_path / "outside.wav")
    bad = {
        "outside.cue": CUE.replace("album.wav", "../outside.wav"),
        "absolute.cue": CUE.replace("album.wav", str(tmp_path / "outside.wav")),
        "below.cue": CUE.replace("album.wav", "in\\far.wav"),
        "missing.cue": CUE,
        "twice.cue": CUE.replace("album.wav", "twice.wav").replace("00:03:00", "00:00:00"),
        "empty.cue": "",
        "utf16.cue": "\0F\0I\0L\0E",
    }
    for name, text in bad.items():
        save(music / name, text.encode())
    save(music / "past.cue", CUE.replace("album.wav", "past.wav").encode())
    table = tmp_path / "tags.jsonl"
    summary = tag_library(music, table, "tiny", workers=1)
    assert summary.failures == {"cue sheet": len(bad), "too short": 1}
    found = {os.path.basename(path): row for path, row in rows(table).items()}
    for name, said in {
        "outside.cue": "outside its folder",
        "absolute.cue": "outside its folder",
        "below.cue": "outside its folder",
        "missing.cue": "which does not exist",
        "twice.cue": "do not ascend",
        "empty.cue": "names no file with tracks",
    }.items():
        assert said in found[name]["error"]
    assert "has no samples from 3.0 s on" in found["past.wav#t=3"]["error"]
    assert all(found[name]["tags"] for name in ("past.wav#t=0,1.2", "past.wav#t=1.2,3", "twice.wav", "far.wav"))
    for name in bad:
        (music / name).unlink()
    again = tag_library(music, table, "tiny", workers=1)  # reports of sheets that are gone go too
    assert again.failures == {"too short": 1} and len(rows(table)) == 5


def test_sheets_for_files_of_one_track(tmp_path):
    write_sound(tmp_path / "one.wav"), write_sound(tmp_path / "two.wav")
    lines = [f'FILE "{name}.wav" WAVE\nTRACK 01 AUDIO\nINDEX 01 00:00:00\n' for name in ("one", "two")]
    save(tmp_path / "a.cue", "".join(lines).encode())
    assert names(listing.find(tmp_path), tmp_path) == ["one.wav", "two.wav"]
    save(tmp_path / "b.cue", CUE.replace("album", "one").encode())
    save(tmp_path / "c.cue", CUE.replace("album", "one").replace("03:00", "02:00").encode())
    assert names(listing.find(tmp_path / "b.cue"), tmp_path) == ["one.wav#t=0,1.2", "one.wav#t=1.2,3", "one.wav#t=3"]
    assert len(listing.find([tmp_path, tmp_path / "b.cue"]).files) == 4  # of two sheets, the first counts


def test_tracks_are_not_written_into_their_file(tmp_path):
    pytest.importorskip("mutagen")
    album = write_sound(tmp_path / "album.flac")
    save(tmp_path / "album.cue", CUE.encode())
    before = album.read_bytes()
    options = {"write_tags": WriteOptions(min_prob=0.0), "dry_run": False}
    summary = tag_library(tmp_path, tmp_path / "tags.jsonl", "tiny", workers=1, **options)
    assert set(summary.written.refused.values()) == {"it is a part of a file, which has one set of tags"}
    assert album.read_bytes() == before


# === Chapters ===


@pytest.mark.parametrize("name", ["book.m4b", "book.mka"])
def test_chapters(tmp_path, name):
    source = write_sound(tmp_path / "source.wav")
    told = ";FFMETADATA1\n" + "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={end}\ntitle={title}\n"
        for start, end, title in ((0, 1500, "Über"), (1500, 4000, "Two"))
    )
    save(tmp_path / "chapters.txt", told.encode())
    options = ("-f", "ffmetadata", "-i", str(tmp_path / "chapters.txt"), "-map_metadata", "1", "-c:a", "aac")
    (tmp_path / "music").mkdir()
    book = ffmpeg(tmp_path / "music" / name, *options, *(["-f", "ipod"] if name.endswith("b") else []), source=source)
    save(tmp_path / "music" / "broken.m4b", b"no sound")
    table = tmp_path / "tags.jsonl"
    assert names(listing.find(tmp_path / "music"), tmp_path / "music") == sorted([name, "broken.m4b"])
    summary = tag_library(tmp_path / "music", table, "tiny", chapters=True, workers=1)
    assert (summary.tagged, summary.failed) == (2, 1)
    parts = {path: row for path, row in rows(table).items() if row["start_s"] is not None}
    assert [row["title"] for row in parts.values()] == ["Über", "Two"]
    assert next(iter(parts)) == f"{book}#t=0,1.5"
    assert [row["duration_s"] for row in parts.values()] == pytest.approx([1.5, 2.5], abs=0.15)  # AAC pads frames


# === Playlists ===


def test_playlists_of_all_kinds(tmp_path):
    (tmp_path / "a & b").mkdir()
    first, second = sound(tmp_path / "a & b" / "Töne.wav"), sound(tmp_path / "two.wav")
    save(
        tmp_path / "x.pls",
        "[playlist]\r\nFile1=a & b\\Töne.wav\r\nTitle1=x\r\nFile2=two.wav\r\nfile3=no.wav\r\n".encode(),
    )
    xspf = f"""<?xml version="1.0" encoding="UTF-8"?><playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList>
      <track><location>a%20&amp;%20b/T%C3%B6ne.wav</location></track><track><location>file://{second}</location></track>
      <track><location> no.wav </location></track></trackList></playlist>"""
    save(tmp_path / "x.xspf", xspf.encode())
    save(tmp_path / "x.m3u8", "#EXTM3U\na & b/Töne.wav\n#EXTINF:1,x\ntwo.wav\nno.wav\n".encode())
    for name in ("x.pls", "x.xspf", "x.m3u8"):
        found = [listed.path for listed in listing.find(tmp_path / name).files]
        assert found == [str(first), str(second), str(tmp_path / "no.wav")], name
        summary = tag_library(tmp_path / name, tmp_path / f"{name}.jsonl", "tiny", workers=1)
        assert (summary.tagged, summary.failures) == (2, {"unreadable": 1})
    save(tmp_path / "bad.xspf", b"<playlist>")
    with pytest.raises(LibraryError, match="is not XML"):
        listing.find(tmp_path / "bad.xspf")


def test_playlists_are_read_again(tmp_path):
    """By ourselves and by ffprobe, from another folder; parts have their times."""
    folder = tmp_path / "lists"
    folder.mkdir()
    song, odd = sound(tmp_path / "Töne.wav"), sound(folder / "#1.wav")
    found = [Found(str(song), 0.5, {}), Found(f"{odd}#t=1.5,3", 1.5, {}, None, "A\nB", 1.5)]
    found += [Found("/a\nb.wav", 1.0, {}), Found("/caf\\xe9.wav", 1.0, {})]
    left_out = write_m3u(found, folder / "out.m3u8")
    assert left_out == ["/a\nb.wav", "/caf\\xe9.wav"]
    lines = (folder / "out.m3u8").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["#EXTM3U", "#EXTINF:0,Töne", "../Töne.wav"]
    assert lines[3:] == ["#EXTINF:2,A B", "#EXTVLCOPT:start-time=1.5", "#EXTVLCOPT:stop-time=3", "./#1.wav"]
    assert [listed.path for listed in listing.find(folder / "out.m3u8").files] == [str(song), str(odd)]
    with pytest.raises(LibraryError, match=r"must end in \.m3u8 or \.m3u"):
        write_m3u(found, folder / "out.txt")
    with pytest.raises(LibraryError, match="cannot be written"):
        write_m3u(found, tmp_path / "nowhere" / "out.m3u8")


# === Searching ===


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    pytest.importorskip("duckdb"), pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("library")
    sounds(folder / "music", 5)
    write_sound(folder / "music" / "album.flac")
    save(folder / "music" / "album.cue", CUE.encode())
    tag_library(folder / "music", folder / "tags.parquet", "tiny", embeddings=True, workers=1)
    return folder


def test_like_and_unlike(library):
    tagger = kmt.load("tiny")
    first, second, third = (library / "music" / f"00{number}.wav" for number in (1, 2, 3))

    def unit(path):
        embedding = np.asarray(tagger.embed(path), "float64")
        return embedding / np.linalg.norm(embedding)

    for like, unlike in ((first, second), ([first, second], third), (None, first), ([first, third], None)):
        aim = sum((unit(path) for path in np.atleast_1d(like)), 0.0) / max(np.size(like), 1) if like else 0.0
        aim = aim - (unit(unlike) if unlike else 0.0)
        aim = aim / np.linalg.norm(aim)
        found = search(library / "tags.parquet", like=like, unlike=unlike, tagger=tagger)
        assert len(found) == 8
        for one in found:
            if one.start_s is None:
                # Embeddings have 6 digits in the table, and differences of like sounds are short.
                assert one.similarity == pytest.approx(float(unit(one.path) @ aim), abs=1e-3)
    with pytest.raises(LibraryError, match="like and unlike name the same audio"):
        search(library / "tags.parquet", like=first, unlike=first, tagger=tagger)


def test_the_command(library, monkeypatch):
    monkeypatch.chdir(library)
    words = ["search", "tags.parquet", "duration_s < 10", "--like", "music/001.wav", "--unlike", "music/003.wav"]
    result = CliRunner().invoke(main, [*words, "--m3u", "out.m3u8", "-n", "4"], catch_exceptions=False)
    assert result.exit_code == 0 and "Wrote out.m3u8." in result.stderr
    shown = [line.split()[1] for line in result.stdout.splitlines()]
    played = [line for line in (library / "out.m3u8").read_text().splitlines() if not line.startswith("#")]
    assert len(played) == 4 and [segments.file_of(path) for path in shown] == [str(library / line) for line in played]
    words = ["search", "tags.parquet", "title = 'Second'", "--json"]
    (row,) = map(json.loads, CliRunner().invoke(main, words).stdout.splitlines())
    assert (row["title"], row["start_s"], row["path"].endswith("#t=1.2,3")) == ("Second", 1.2, True)
    result = CliRunner().invoke(main, ["search", "tags.parquet", "--m3u", "x.txt"])
    assert result.exit_code == 2 and "must end in .m3u8 or .m3u" in result.stderr
    if shutil.which("ffprobe"):  # a player's own reader, from the folder of the list
        command = ["ffprobe", "-v", "error", "-show_entries", "format=duration", played[0]]
        assert b"duration=" in subprocess.run(command, check=True, capture_output=True).stdout


def test_tables_from_before_there_were_parts(library, tmp_path):
    import duckdb

    old = tmp_path / "old.parquet"
    duckdb.sql(f"COPY (SELECT * EXCLUDE (title, start_s) FROM '{library}/tags.parquet') TO '{old}'")
    assert len(search(old, "duration_s > 0")) == 8 and search(old, "title = ''")[0].title == ""
