"""Tags in the files' own metadata: right, and never at the cost of the sound."""

import dataclasses
import errno
import json
import os
import shutil
import sys

import numpy as np
import pytest
import soundfile
from audio_files import encode, m4a, save, signal
from library_files import sound, sounds

import keras_musictag as kmt
from keras_musictag.apps.library import WriteOptions, tag_fields, tag_library
from keras_musictag.errors import MissingExtraError

mutagen = pytest.importorskip("mutagen")


ONE, TWO = (WriteOptions(most=most, min_prob=0.0) for most in (1, 2))


@pytest.fixture
def music(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sounds(tmp_path / "music", 2)
    return tmp_path / "music"


def tag(music, tiny, **options):
    return tag_library(music, "tags.jsonl", tiny, **{"workers": 1, "write_tags": TWO, **options})


def rows():
    with open("tags.jsonl", encoding="utf-8") as file:
        return {row["path"].rpartition(os.sep)[2]: row for row in map(json.loads, file)}


def field(path):
    return tag_fields.open_tags(str(path)).get("musictag")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def other_sound(path):
    soundfile.write(path, np.zeros(100) + 0.1, 16_000, format="WAV")
    mutagen.wave.WAVE(path).add_tags()
    return path


def test_nothing_is_written_unless_asked_for(music, tiny):
    before = content(music)
    summary = tag(music, tiny)
    assert content(music) == before
    assert "Tags would be written to 2 files; 0 need no change, 0 cannot be written." in str(summary)
    names = list(rows()["000.wav"]["tags"])[:2]
    (change,) = summary.written.written[rows()["000.wav"]["path"]]
    assert (change.field, change.before, list(change.after)) == ("musictag", (), names)
    assert str(change) == f"  + musictag: {names[0]}; {names[1]}"
    assert summary.written.undo_file is None and sorted(os.listdir()) == [".tags.jsonl.lock", "music", "tags.jsonl"]


def test_every_format(music, tiny):
    y = signal(rate=48_000)
    for name in ("mp3", "flac", "ogg", "aiff"):
        save(music / f"a.{name}", encode(y, 48_000, name.upper()))
    save(music / "a.opus", encode(y, 48_000, "OGG", "OPUS"))
    save(music / "b.m4a", m4a(y, 48_000))
    before = {name: kmt.audio.load(music / name, target_sr=16_000) for name in sorted(os.listdir(music))}
    summary = tag(music, tiny, dry_run=False)
    assert len(summary.written.written) == len(before) == 8 and not summary.written.refused
    assert "Tags written to 8 files" in str(summary)
    for name, row in rows().items():
        status = (music / name).stat()
        assert field(music / name) == list(row["tags"])[:2]
        assert (row["size"], row["mtime"]) == (status.st_size, status.st_mtime)
        np.testing.assert_array_equal(kmt.audio.load(music / name, target_sr=16_000), before[name])
    again = tag(music, tiny, dry_run=False)
    assert (again.skipped, again.tagged, again.changed, again.written.unchanged) == (8, 0, 0, 8)
    fresh = tag(music, tiny, resume=False)
    assert fresh.written.unchanged == 8  # the tags of the sound are the same, and so is its field
    other = tag(music, tiny, write_tags=dataclasses.replace(ONE, replace=True), dry_run=False)
    assert len(other.written.written) == 8 and field(music / "a.mp3") == list(rows()["a.mp3"]["tags"])[:1]


def test_what_is_there_stays(music, tiny):
    id3 = pytest.importorskip("mutagen.id3")
    soundfile.write(music / "old.mp3", 0.3 * np.sin(0.1 * np.arange(32_000)), 16_000)
    tags = id3.ID3()
    tags.add(id3.TIT2(encoding=1, text=["Ж"]))
    tags.add(id3.TYER(encoding=0, text=["1999"]))
    tags.add(id3.APIC(encoding=0, mime="image/png", type=3, desc="", data=b"picture"))
    tags.save(music / "old.mp3", v2_version=3)
    (music / "old.mp3").chmod(0o640)
    flac = music / "new.flac"
    soundfile.write(flac, 0.3 * np.sin(0.1 * np.arange(32_000)), 16_000)
    opened = mutagen.File(flac)
    opened["artist"] = ["one", "two"]
    opened.save()
    os.symlink(flac, music / "link.flac")
    tag(music, tiny, dry_run=False)
    kept = id3.ID3(music / "old.mp3", translate=False)
    assert kept.version == (2, 3, 0) and kept["TYER"].text == ["1999"] and kept["TIT2"].text == ["Ж"]
    assert kept["APIC:"].data == b"picture" and field(music / "old.mp3")
    assert os.name == "nt" or (music / "old.mp3").stat().st_mode & 0o777 == 0o640
    assert mutagen.File(flac)["artist"] == ["one", "two"] and field(flac)
    assert (music / "link.flac").is_symlink()


def test_files_that_are_left_as_they_are(music, tiny, monkeypatch):
    for name in ("au.au", "changed.wav", "linked.wav"):
        soundfile.write(music / name, 0.3 * np.sin(0.1 * np.arange(32_000)), 16_000)
    (music / "broken.wav").write_bytes(b"no sound")
    os.link(music / "linked.wav", music.parent / "other.wav")
    tag(music, tiny, write_tags=None)
    sound(music / "changed.wav")
    before = content(music)
    summary = tag(music, tiny, dry_run=False)
    reasons = {path.rpartition(os.sep)[2]: reason for path, reason in summary.written.refused.items()}
    assert "mutagen does not know its format" in reasons.pop("au.au")
    assert "changed since it was tagged" in reasons.pop("changed.wav")
    assert "hard links" in reasons.pop("linked.wav")
    assert not reasons and len(summary.written.written) == 2
    after = content(music)
    assert {name for name in before if before[name] != after[name]} == {"000.wav", "001.wav"}
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("1.wav"))
    assert set(tag(music, tiny, write_tags=dataclasses.replace(ONE, replace=True)).written.refused.values()) >= {
        "it or its folder is read-only"
    }


@pytest.mark.parametrize("fails", ["disk", "mutagen", "sound", "replace", "stop"])
def test_originals_are_restored(music, tiny, monkeypatch, fails):
    tag(music, tiny)
    before, known = content(music), rows()

    def fail(*_, **__):
        raise KeyboardInterrupt if fails == "stop" else OSError(errno.ENOSPC, "No space left on device")

    if fails == "disk":
        monkeypatch.setattr(shutil, "copyfileobj", fail)
    elif fails in ("mutagen", "stop"):  # in the middle of the copy
        monkeypatch.setattr("mutagen.wave.WAVE.save", lambda opened, **_: (os.truncate(opened.filename, 9), fail()))
    elif fails == "sound":  # the copy has the right field, and is another sound
        save = mutagen.wave.WAVE.save
        monkeypatch.setattr("mutagen.wave.WAVE.save", lambda opened, **_: save(opened, other_sound(opened.filename)))
    else:
        monkeypatch.setattr("pathlib.Path.replace", fail)
    if fails == "stop":
        with pytest.raises(KeyboardInterrupt):
            tag(music, tiny, dry_run=False)
    else:
        summary = tag(music, tiny, dry_run=False)
        reason = {"sound": "its audio would change"}.get(fails, "No space left on device")
        assert [reason in said for said in summary.written.refused.values()] == [True, True]
    monkeypatch.undo()
    assert content(music) == before  # nor is anything else left there
    monkeypatch.chdir(music.parent)
    assert rows() == known


def test_without_mutagen(music, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "mutagen", None)
    with pytest.raises(MissingExtraError, match=r"Writing tags into files needs .*keras_musictag\[tags\]"):
        tag(music, tiny)


def test_no_tags_at_all(music, tiny):
    with pytest.raises(ValueError, match="most must be a whole number of at least 1; got 0"):
        tag(music, tiny, write_tags=WriteOptions(most=0))
