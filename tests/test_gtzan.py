"""GTZAN on a miniature: the fault-filtered split, both kinds of files, the excerpt that cannot be read."""

import collections
import re
import shutil
import sys

import pytest
from published_miniatures import GENRES, gtzan_folder, sound

from keras_musictag.datasets import DataError, gtzan

module = sys.modules["keras_musictag.datasets.loaders.gtzan"]  # as an attribute of the package it is the function
FULL = module.filtered_split()
# Of the published split the first to train, validate and test of each genre, and the unreadable one.
SMALL = {
    next(name for name, split in FULL.items() if name.startswith(genre) and split == wanted): wanted
    for genre in GENRES
    for wanted in ("train", "valid", "test")
} | {"jazz/jazz.00054": "train"}
SIZES = {"train": 11, "valid": 10, "test": 10}


@pytest.fixture(autouse=True)
def small_split(monkeypatch):
    monkeypatch.setattr(module, "filtered_split", lambda: SMALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return gtzan_folder(tmp_path_factory.mktemp("made"), SMALL)


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "gtzan")
    return tmp_path / "gtzan"


def test_what_was_published():
    """Counts by split and by genre of the lists in jordipons/sklearn-audio-transfer-learning."""
    assert collections.Counter(FULL.values()) == module.info.splits["fault-filtered"]
    assert module.info.splits["fault-filtered"] == {"train": 443, "valid": 197, "test": 290}
    by_genre = collections.Counter(name.partition("/")[0] for name, split in FULL.items() if split == "test")
    assert by_genre == dict(zip(GENRES, (31, 31, 30, 29, 27, 27, 27, 30, 26, 32), strict=True))
    assert FULL["jazz/jazz.00054"] == "train" and FULL["rock/rock.00090"] == "test"
    assert FULL["blues/blues.00000"] == "valid"
    assert all(name.split("/")[1].startswith(name.split("/")[0] + ".") for name in FULL)
    assert "Kereliuk" in module.info.citation and "none is stated" in module.info.licence


@pytest.mark.parametrize("suffix", [".au", ".wav"])
@pytest.mark.parametrize("below", [".", "genres", "Data/genres_original"])
def test_the_split(tmp_path, suffix, below):
    folder = gtzan_folder(tmp_path, SMALL, suffix, below)
    manifest = gtzan(folder)
    assert manifest.tags == GENRES and manifest.split_sizes() == SIZES
    first = manifest[0]
    name = next(iter(SMALL))
    assert first.path == folder / below / f"{name}{suffix}"
    assert (first.tags, first.split, first.group) == (("blues",), "train", "")
    assert first.source == "gtzan:blues.00029" and first.where == "gtzan_filtered.txt:1"
    assert manifest.targets().sum(0).tolist() == [3, 3, 3, 3, 3, 4, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not RIFF" * 1000, r"jazz/jazz.00054 is left out: .*jazz.00054.wav"),
        (b"", r"jazz/jazz.00054 is left out: the file is empty \(0 bytes\)\."),
        (None, r"jazz/jazz.00054 is left out: it is missing\."),
    ],
)
def test_the_unreadable_excerpt_is_left_out_and_reported(folder, caplog, content, said):
    path = folder / "genres/jazz/jazz.00054.wav"
    assert len(gtzan(folder)) == 31 and not caplog.messages
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert gtzan(folder).split_sizes() == SIZES | {"train": 10}
    assert len(caplog.messages) == 1 and re.match(said, caplog.messages[0])


def test_an_empty_file_does_not_hide_a_good_one(folder):
    (folder / "genres/jazz/jazz.00054.wav").write_bytes(b"")
    sound(folder / "genres/jazz/jazz.00054.au")
    assert len(gtzan(folder)) == 31


def test_missing_files_are_reported(folder, caplog):
    shutil.rmtree(folder / "genres/rock")
    (folder / "genres/blues/blues.00029.wav").write_bytes(b"")
    expected = (
        r"^GTZAN is not complete: 3 of 30 files in .*/genres are missing \(by folder rock: 3; first rock/rock.000\d\d"
        r"\); 1 of 30 files in .* are empty \(0 bytes\) \(by folder blues: 1; first blues/blues.00029\)\. Get genres"
    )
    with pytest.raises(DataError, match=expected):
        gtzan(folder)
    assert gtzan(folder, partial=True).split_sizes() == {"train": 9, "valid": 9, "test": 9}
    assert "GTZAN is not complete: 3 of 30" in caplog.text


def test_a_wrong_folder(folder, tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not a folder\. Get genres.tar.gz"):
        gtzan(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no folders blues to rock; it has: gtzan\. Did you mean .*/gtzan\?"):
        gtzan(tmp_path)
    with pytest.raises(DataError, match=r"jazz has no folders .*; it has: jazz.*Did you mean .*/genres\?"):
        gtzan(folder / "genres/jazz")
    (tmp_path / "other" / "rock").mkdir(parents=True)
    with pytest.raises(DataError, match=r"other has no folders blues to rock; it has: rock\. "):
        gtzan(tmp_path / "other")


def test_the_audio_passes_validation(folder):
    report = gtzan(folder).validate(decode=True, min_rows=1)
    assert report.passed and report.ok.split_sizes() == SIZES
