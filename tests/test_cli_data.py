"""`keras-musictag data`: what is listed, said and checked; and `--data NAME:FOLDER`."""

import dataclasses
import json
import sys

import command_line
import pytest
from published_miniatures import gtzan_folder, jamendo_folder

import keras_musictag.datasets  # noqa: F401 (registers the modules that the next lines look up)
from keras_musictag.cli.data_options import load_data
from keras_musictag.datasets import DataError, Manifest, catalogue
from keras_musictag.errors import MusicTagError

gtzan_module = sys.modules["keras_musictag.datasets.loaders.gtzan"]
jamendo_module = sys.modules["keras_musictag.datasets.loaders.jamendo"]
SMALL = {"blues/blues.00029": "train", "rock/rock.00049": "valid", "jazz/jazz.00054": "train", "pop/pop.00006": "test"}


@pytest.fixture
def gtzan(tmp_path, monkeypatch):
    """The current folder has a miniature in `gtzan`."""
    monkeypatch.setattr(gtzan_module, "filtered_split", lambda: SMALL)
    monkeypatch.chdir(tmp_path)
    return gtzan_folder(tmp_path / "gtzan", SMALL)


def run(*args):
    return command_line.run("data", *args)


# === list and info ===


def test_list():
    result = run("list")
    assert result.exit_code == 0
    starts = [line.split()[0] for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert starts == ["magnatagatune", "jamendo", "gtzan", "emotify"]
    rows = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    assert [row["key"] for row in rows] == starts
    assert rows[1]["versions"] == ["jamendo", "jamendo-1", "jamendo-2", "jamendo-3", "jamendo-4"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("magnatagatune", ["download_magnatagatune(folder)", "3 GB", "18,706 train, 1,825 valid, 5,329 test"]),
        ("magnatagatune", ["magnatagatune-clean:FOLDER", "15,247 train", "CC-BY-NC-SA-3.0", "ISMIR 2009"]),
        ("jamendo", ["mtg-jamendo-dataset", "156 GB", "jamendo-4:FOLDER  54,380 in all", "CC-BY-NC-SA-4.0"]),
        ("gtzan", ["genres.tar.gz", "1.2 GB", "gtzan:FOLDER  443 train, 197 valid, 290 test", "Kereliuk"]),
        ("emotify", ["emotifymusic.zip", "363 MB", "emotify-votes:FOLDER  400 in all", "no official split"]),
    ],
)
def test_info(name, said):
    result = run("info", name)
    text = " ".join(result.stdout.split())
    assert result.exit_code == 0
    for part in said:
        assert " ".join(part.split()) in text
    for label in ("home page", "to obtain", "size", "--data", "licence", "to cite"):
        assert any(line.startswith(label + " ") for line in result.stdout.splitlines())
    assert json.loads(run("info", name, "--json").stdout)["licence"]


@pytest.mark.parametrize("entry", catalogue.ENTRIES.values(), ids=catalogue.ENTRIES)
def test_every_data_set_says_all_there_is_to_say(entry):
    assert entry.info.obtain and entry.info.size and entry.info.url.startswith("http")
    assert entry.name(entry.versions[0]) == entry.key
    for version in entry.versions:
        assert catalogue.find(f"{entry.key}-{version}") == (entry, version)
        with pytest.raises(DataError, match=r"nowhere is not a folder\. .{20}"):
            entry.load("nowhere", version)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gtzn",
            r"There is no data set 'gtzn'\. Did you mean gtzan\? There are magnatagatune, jamendo, gtzan, emotify",
        ),
        ("imagenet", r"There is no data set 'imagenet'\. There are magnatagatune"),
        ("jamendo-7", r"MTG-Jamendo top 50 has no version '7'\. Write jamendo, jamendo-1, "),
        ("gtzan-", r"GTZAN has no version ''\. Write gtzan\."),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(DataError, match=message):
        catalogue.find(name)
    result = run("info", name)
    assert result.exit_code == 2 and result.stdout == ""


# === check ===


def test_check(gtzan):
    result = run("check", "gtzan", "gtzan", "--decode")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "GTZAN, fault-filtered split: 2 train, 1 valid, 1 test"
    assert lines[1].startswith("10 tags: blues, classical")
    assert lines[2].startswith("4 rows: 4 fine, ")


def test_check_of_a_broken_sound_and_a_part(gtzan):
    (gtzan / "genres/blues/blues.00029.wav").write_bytes(b"x" * 1000)
    result = run("check", "gtzan", "gtzan", "--json")
    assert result.exit_code == 1
    facts = json.loads(result.stdout)
    assert (facts["title"], facts["usable"]) == ("GTZAN, fault-filtered split", 3)
    assert facts["splits"] == {"train": 2, "valid": 1, "test": 1}
    assert "blues.00029" in facts["problems"][0]
    (gtzan / "genres/rock/rock.00049.wav").unlink()
    result = run("check", "gtzan", "gtzan")
    assert result.exit_code == 2 and "1 of 3 files" in result.stderr and result.stdout == ""
    result = run("check", "gtzan", "gtzan", "--partial", "--manifest", "part.csv")
    assert result.exit_code == 1
    assert Manifest.load("part.csv").split_sizes() == {"train": 1, "test": 1}


def test_check_of_what_is_not_there(gtzan):
    result = run("check", "gtzan", "nowhere")
    assert result.exit_code == 2 and "nowhere is not a folder. Get genres.tar.gz" in result.stderr
    result = run("check", "gtzan", "gtzan", "--manifest", "part.txt")
    assert result.exit_code == 2 and "the name must end in .csv or .jsonl" in result.stderr


# === --data NAME:FOLDER ===


def test_data_by_name(gtzan, monkeypatch):
    manifest, title, grouped_by = load_data("gtzan:gtzan")
    assert (len(manifest), title, grouped_by) == (4, "GTZAN, fault-filtered split", "")
    folder = jamendo_folder(gtzan.parent / "mtg", splits=(0, 3))
    splits = {str(split): {"all": 8} for split in range(5)}
    monkeypatch.setattr(jamendo_module, "info", dataclasses.replace(jamendo_module.info, splits=splits))
    manifest, title, grouped_by = load_data(f"jamendo-3:{folder}")
    assert (len(manifest), title, grouped_by) == (8, "MTG-Jamendo top 50, split 3", "artist")
    assert load_data(f"jamendo:{folder}")[1] == "MTG-Jamendo top 50, split 0"


def test_emotify_by_name(monkeypatch):
    calls = []
    monkeypatch.setattr(catalogue, "emotify", lambda *args, **kwargs: calls.append((args, kwargs)) or Manifest((), ()))
    assert load_data("emotify:x")[1] == "Emotify, emotions, split by artist with seed 0"
    assert load_data("emotify-genre:x")[1] == "Emotify, genre, split by artist with seed 0"
    assert calls == [(("x", "emotions"), {"partial": False}), (("x", "genre"), {"partial": False})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gtzan:", r"'gtzan:' names no folder\. Write gtzan:FOLDER"),
        ("jamendo-9:x", r"has no version '9'\. Write jamendo, "),
        ("gtzna:x", r"There is no data set 'gtzna'\. Did you mean gtzan\?"),
        ("emotify:nowhere", r"nowhere is not a folder\. Get data.csv"),
        ("C:/nowhere", r"A manifest must be a folder of folders or a file"),
    ],
)
def test_data_by_name_that_cannot_be(text, message):
    with pytest.raises(MusicTagError, match=message):
        load_data(text)
