"""Files of all formats with tags of other programs, and what three programs read after ours have been added.

`python tests/player_files.py` prints the table of docs/library.md.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from audio_files import encode, ffmpeg, m4a, save, signal

from keras_musictag.apps.library import WriteOptions
from keras_musictag.apps.library.write_back import FileToWrite, TagWriter
from keras_musictag.models.vocabulary import Vocabulary

KINDS = {"rock": "genre", "pop": "genre", "sad": "mood", "happy": "mood", "flute": "instrument"}
VOCABULARY = Vocabulary.of(tuple(KINDS), KINDS)
TAGS = {"rock": 0.9, "pop": 0.8, "flute": 0.75, "sad": 0.7, "happy": 0.6}
WRITTEN = {"genre": ["rock", "pop"], "mood": ["sad", "happy"], "comment": ["rock, pop | sad, happy"]}
PROGRAMS = ("mutagen", "TagLib", "ffprobe")

# What ffprobe calls a field.
_PROBED = {"genre": ("genre",), "mood": ("mood", "tmoo", "wm/mood"), "comment": ("comment",)}


def sound_files(folder, seconds=1.0):
    """A file of each format, without tags of ours: label -> path."""
    y = signal(seconds, rate=48_000)
    made = {
        "AIFF": save(folder / "a.aiff", encode(y, 48_000, "AIFF")),
        "FLAC": save(folder / "a.flac", encode(y, 48_000, "FLAC")),
        "FLAC, ID3v2 before it": folder / "id3.flac",
        "M4A": save(folder / "a.m4a", m4a(y, 48_000)),
        "MP3, ID3v2.3": save(folder / "23.mp3", encode(y, 48_000, "MP3")),
        "MP3, ID3v2.4": save(folder / "24.mp3", encode(y, 48_000, "MP3")),
        "MP3, ID3v2.3, ID3v1 and APE": save(folder / "all.mp3", encode(y, 48_000, "MP3")),
        "MP3, APE only": save(folder / "ape.mp3", encode(y, 48_000, "MP3")),
        "MP3, APE and ID3v1": save(folder / "ape1.mp3", encode(y, 48_000, "MP3")),
        "MP3, ID3v1 only": save(folder / "v1.mp3", encode(y, 48_000, "MP3")),
        "Ogg Vorbis": save(folder / "a.ogg", encode(y, 48_000, "OGG")),
        "Opus": save(folder / "a.opus", encode(y, 48_000, "OGG", "OPUS")),
        "WAV": save(folder / "a.wav", encode(y, 48_000, "WAV")),
    }
    if shutil.which("ffmpeg"):
        made["WavPack"] = ffmpeg(folder / "a.wv", source=made["WAV"])
        made["WMA"] = ffmpeg(folder / "a.wma", source=made["WAV"])
    _add_foreign_tags(made)
    return made


def _add_foreign_tags(made):
    id3, apev2 = importlib.import_module("mutagen.id3"), importlib.import_module("mutagen.apev2")
    mutagen = importlib.import_module("mutagen")
    old = id3.ID3()
    old.add(id3.TIT2(encoding=1, text=["Ж"]))
    old.add(id3.TYER(encoding=0, text=["1999"]))
    old.add(id3.COMM(encoding=0, lang="eng", desc="iTunNORM", text=["0000"]))
    old.add(id3.APIC(encoding=0, mime="image/png", type=3, desc="", data=b"picture"))
    for label in ("MP3, ID3v2.3", "MP3, ID3v2.3, ID3v1 and APE"):
        old.save(made[label], v2_version=3)
    for label in ("MP3, ID3v2.3, ID3v1 and APE", "MP3, APE and ID3v1", "MP3, APE only"):
        tags = apev2.APEv2()
        tags["Title"], tags["REPLAYGAIN_TRACK_GAIN"] = "x", "-6.5 dB"
        tags.save(made[label])
    for label in ("MP3, ID3v2.3, ID3v1 and APE", "MP3, APE and ID3v1", "MP3, ID3v1 only"):
        with made[label].open("ab") as file:
            file.write(b"TAG" + b"title".ljust(30, b"\0") * 3 + b"1999" + b"Comment".ljust(30, b"\0") + b"\xff")
    flac = mutagen.File(made["FLAC"])
    flac["artist"], flac["Foreign"] = ["one", "two"], "field"
    flac.save()
    head = b"ID3\x03\0\0\0\0\0\x0c" + b"TIT2\0\0\0\2\0\0\0x"
    save(made["FLAC, ID3v2 before it"], head + made["FLAC"].read_bytes())


def write(paths, undo_file, options=None, tags=TAGS):
    """Write tags into files; returns `WriteBack`."""
    options = options or WriteOptions(comment="{genre} | {mood}")
    with TagWriter(VOCABULARY, options, undo_file) as writer:
        for path in paths:
            writer.write(FileToWrite(str(path), tags))
        return writer.result


# === Reading back ===


def read_back(path, program):
    """Field -> values that a program reads; `None` if it is not installed."""
    return {"mutagen": _mutagen, "TagLib": _taglib, "ffprobe": _ffprobe}[program](path)


def _mutagen(path):
    opened = importlib.import_module("mutagen").File(path)
    if type(opened).__name__ == "MP3" and b"APETAGEX" in path.read_bytes() and not path.read_bytes().startswith(b"ID3"):
        opened = importlib.import_module("mutagen.apev2").APEv2File(path)
    names = {
        "genre": ("TCON", "GENRE", "\xa9gen", "WM/Genre"),
        "mood": ("TMOO", "MOOD", "----:com.apple.iTunes:MOOD", "WM/Mood"),
        "comment": ("COMM", "COMMENT", "\xa9cmt", "Description"),
    }
    values = {field: [_values(opened.tags, name) for name in some] for field, some in names.items()}
    return {field: next(filter(None, some), []) for field, some in values.items()}


def _values(tags, name):
    if hasattr(tags, "getall"):
        frames = [frame for frame in tags.getall(name) if not getattr(frame, "desc", "")]
        return [text for frame in frames for text in getattr(frame, "genres", frame.text)]
    try:
        found = tags.get(name) or []
    except ValueError:  # Vorbis comments have no such names
        return []
    return [value.decode() if isinstance(value, bytes) else str(value) for value in found]


def _taglib(path):
    try:
        taglib = importlib.import_module("taglib")
    except ImportError:
        return None
    with taglib.File(os.fspath(path)) as file:
        return {field: list(file.tags.get(field.upper(), [])) for field in WRITTEN}


def _ffprobe(path):
    if shutil.which("ffprobe") is None:
        return None
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", os.fspath(path)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    tags = {}
    for part in (*told.get("streams", ()), told["format"]):
        tags |= {name.lower(): value for name, value in part.get("tags", {}).items()}
    found = {}
    for field, names in _PROBED.items():
        text = next((tags[name] for name in names if name in tags), "")
        found[field] = [text] if field == "comment" else [value for value in text.split(";") if value]
    return found


def how_much(path, program, field):
    """`all`, `first` or `none` of the values that were written, as a program reads them; `None` without it."""
    found = read_back(path, program)
    if found is None:
        return None
    values, ours = found.get(field, []), WRITTEN[field]
    if sorted(values[-len(ours) :]) == sorted(ours):  # TagLib has those of WMA in another order
        return "all"
    return "first" if values and values[0] in ours else "none"


def table(made):
    """Lines of the table format x field x program, of files that were written to."""
    lines = ["| format | genre | mood | comment |", "| --- | --- | --- | --- |"]
    for label, path in made.items():
        cells = []
        for field in WRITTEN:
            told = {program: how_much(path, program, field) for program in PROGRAMS}
            parts = [program + (" (first)" if much == "first" else "") for program, much in told.items()]
            cells.append(", ".join(part for part, much in zip(parts, told.values(), strict=True) if much != "none"))
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    files = sound_files(folder)
    result = write(files.values(), folder / "undo.jsonl")
    assert not result.refused, result.refused
    sys.stdout.write("\n".join(table(files)) + "\n")
    shutil.rmtree(folder)
