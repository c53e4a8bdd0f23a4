"""The undo file: every byte comes back, whatever stopped the run, and what somebody changed since is not touched."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from audio_files import encode, m4a, save, signal
from player_files import KINDS, TAGS, sound_files, write

import keras_musictag as kmt
from keras_musictag.apps.library import LibraryError, WriteOptions, tag_library, undo_file, undo_files, undo_library

pytest.importorskip("mutagen")


def content(folder):
    """Name -> content and time of change of the sounds of a folder."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def music(tmp_path):
    folder = tmp_path / "music"
    folder.mkdir()
    for number, name in enumerate(("MP3", "FLAC", "OGG")):
        save(folder / f"{number}.{name.lower()}", encode(signal(0.4, seed=number), file_format=name))
    return folder


def test_all_formats(tmp_path):
    folder = tmp_path / "music"
    folder.mkdir()
    made = sound_files(folder, seconds=5.0)
    for path in folder.iterdir():
        path.chmod(0o640)
        os.utime(path, ns=(1_234_567_890_123_456_789, 1_234_567_890_123_456_789))
    before = content(folder)
    result = write(made.values(), tmp_path / "undo.jsonl")
    assert len(result.written) == len(made)
    lines = (tmp_path / "undo.jsonl").read_bytes().splitlines()
    assert max(map(len, lines)) < 3_000  # tags, not sound: a WAV of 480,000 bytes is among them
    undone = undo_files(tmp_path / "undo.jsonl")
    assert str(undone) == f"{len(made)} files restored; 0 had their old content, 0 cannot be restored."
    assert content(folder) == before and (folder / "a.flac").stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / "undo.jsonl").exists()


def test_five_hundred_files(tmp_path):
    sounds = [
        encode(signal(0.1, seed=seed), file_format=name) for seed, name in enumerate(("MP3", "FLAC", "OGG", "WAV"))
    ]
    sounds.append(m4a(signal(0.1)))
    for number in range(500):
        ending = ("mp3", "flac", "ogg", "wav", "m4a")[number % 5]
        save(tmp_path / f"{number:03}.{ending}", sounds[number % 5])
    paths = sorted(tmp_path.iterdir())
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    result = write(paths, tmp_path / "undo.jsonl")
    assert len(result.written) == 500
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() != digest for path, digest in before.items())
    assert len(undo_files(tmp_path / "undo.jsonl").restored) == 500
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths} == before


def test_several_changes_of_a_file(music, tmp_path):
    before = content(music)
    for tags in (TAGS, {"pop": 1.0}, {"happy": 1.0, "pop": 0.9}):
        write(music.iterdir(), tmp_path / "undo", WriteOptions(replace=True), tags)
    assert len((tmp_path / "undo").read_bytes().splitlines()) == 9
    assert len(undo_files(tmp_path / "undo").restored) == 3 and content(music) == before


def test_what_was_changed_since_is_left_alone(music, tmp_path):
    before = content(music)
    write(music.iterdir(), tmp_path / "undo")
    with (music / "1.flac").open("ab") as file:
        file.write(b"\0")
    (music / "2.ogg").unlink()
    changed = (music / "1.flac").read_bytes()
    undone = undo_files(tmp_path / "undo")
    assert {Path(path).name: reason for path, reason in undone.refused.items()} == {
        "1.flac": "it was changed since tags were written into it",
        "2.ogg": "No such file or directory",
    }
    assert (music / "1.flac").read_bytes() == changed and content(music)["0.mp3"] == before["0.mp3"]
    save(music / "1.flac", changed[:-1])  # what the undo file still knows
    assert [Path(path).name for path in undo_files(tmp_path / "undo").restored] == ["1.flac"]
    assert content(music)["1.flac"] == before["1.flac"]
    assert len((tmp_path / "undo").read_bytes().splitlines()) == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("undoing", [False, True])
def test_a_run_that_was_killed(music, tmp_path, monkeypatch, after, undoing):
    """Between the note and the change, or just after it: the same call goes on, and all bytes come back."""
    before, seen = content(music), []
    if undoing:
        write(music.iterdir(), tmp_path / "undo")
    replace = Path.replace

    def stop_at_second(path, target):
        seen.append(target)
        if len(seen) != 2 or after:
            replace(path, target)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        undo_files(tmp_path / "undo") if undoing else write(sorted(music.iterdir()), tmp_path / "undo")
    monkeypatch.undo()
    if not undoing:
        with (tmp_path / "undo").open("ab") as file:
            file.write(b'{"path": "/half')  # and a kill in the middle of a line
        again = write(sorted(music.iterdir()), tmp_path / "undo")
        assert (len(again.written), again.unchanged) == ((1, 2) if after else (2, 1))
    undo_files(tmp_path / "undo")
    assert content(music) == before


def test_no_change_without_a_note(music, tmp_path, monkeypatch):
    before = content(music)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(undo_file.UndoFile, "append", full)
    result = write(music.iterdir(), tmp_path / "undo")
    assert content(music) == before and not result.written
    assert all("No space left on device" in reason for reason in result.refused.values())


def test_other_files(tmp_path):
    save(tmp_path / "undo", b'{"path": "x"}\n')
    with pytest.raises(LibraryError, match=r"is not an undo file \(line 1\)"):
        undo_files(tmp_path / "undo")
    with pytest.raises(LibraryError, match=r"The undo file .* does not exist"):
        undo_files(tmp_path / "none")
    with pytest.raises(LibraryError, match=r"the rows of none\.parquet"):
        undo_library(tmp_path / "none.parquet")


def test_edits(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(300):
        old = rng.integers(0, 3, rng.integers(0, 400)).astype("uint8").tobytes()
        at, until = sorted(rng.integers(0, len(old) + 1, 2))
        put = rng.integers(0, 3, rng.integers(0, 300)).astype("uint8").tobytes()
        new = bytearray(old[:at] + put + old[until:])
        for place in rng.integers(0, len(new), 5) if new else ():
            new[place] ^= 1
        save(tmp_path / "old", old), save(tmp_path / "new", bytes(new))
        made = undo_file.edits(str(tmp_path / "new"), str(tmp_path / "old"))
        with (tmp_path / "new").open("rb") as source, (tmp_path / "again").open("wb") as target:
            undo_file._apply(source, made, target)
        assert (tmp_path / "again").read_bytes() == old


# === With a table ===


@pytest.mark.parametrize("out", ["tags.jsonl", "tags.csv"])
def test_rows_too(music, tmp_path, out):
    tagger = kmt.load("tiny")
    (music / "link.mp3").symlink_to(music / "0.mp3")
    shutil.copy(music / "1.flac", music / "copy.flac")
    table = tmp_path / out
    tag_library(music, table, tagger, workers=1)
    before, rows = content(music), table.read_bytes()
    options = {"workers": 1, "write_tags": WriteOptions(min_prob=0.0), "dry_run": False}
    summary = tag_library(music, table, tagger, **options)
    assert len(summary.written.written) == 4 and not summary.written.refused and summary.changed == 0
    assert content(music) != before
    again = tag_library(music, table, tagger, **options)
    assert (again.skipped, again.changed, again.written.unchanged) == (5, 0, 5)
    undone = undo_library(table)
    assert len(undone.restored) == 4 and content(music) == before
    assert sorted(table.read_bytes().splitlines()) == sorted(rows.splitlines())
    last = tag_library(music, table, tagger, workers=1)
    assert (last.skipped, last.tagged, last.changed) == (5, 0, 0)


def test_rows_of_a_run_that_was_killed(music, tmp_path, monkeypatch):
    """A file has its new content, and the row that says so was not written: the next run knows it all the same."""
    from keras_musictag.apps.library.journal import Journal

    table = tmp_path / "tags.jsonl"
    options = {"workers": 1, "write_tags": WriteOptions(min_prob=0.0), "dry_run": False}
    tag_library(music, table, "tiny", workers=1)
    before = content(music)
    append = Journal.append

    def stop(journal, row):
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", stop)
    with pytest.raises(KeyboardInterrupt):
        tag_library(music, table, "tiny", **options)
    monkeypatch.setattr(Journal, "append", append)
    summary = tag_library(music, table, "tiny", **options)
    assert (summary.skipped, summary.changed) == (3, 0)
    assert (len(summary.written.written), summary.written.unchanged) == (2, 1)
    undo_library(table)
    assert content(music) == before
    digests = {json.loads(line)["sha256"] for line in table.read_bytes().splitlines()}
    assert digests == {hashlib.sha256(data).hexdigest() for data, _ in before.values()}


def test_kinds_of_the_model(music, tmp_path):
    import dataclasses

    tiny = kmt.model_info("tiny")
    kinds = dict(zip(tiny.tags, ("genre", "mood", "instrument", "genre", "mood"), strict=True))
    assert set(kinds.values()) <= set(KINDS.values())
    tagger = kmt.load("tiny")
    tagger.spec = dataclasses.replace(tagger.spec, kinds=kinds)
    options = WriteOptions(min_prob=0.0, kinds=["mood"], comment="{mood}")
    summary = tag_library(music, tmp_path / "tags.jsonl", tagger, workers=1, write_tags=options)
    assert {change.field for some in summary.written.written.values() for change in some} == {"mood", "comment"}
