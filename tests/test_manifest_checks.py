"""Validation finds every bad row before training does, and a grouped split leaks nothing."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from keras_musictag.datasets import checks
from keras_musictag.datasets.manifest import DataError, Manifest, Row

SR = 8000


@pytest.fixture
def sound(tmp_path):
    """Write a second of noise, another one for each name; returns its path."""

    def write(name, seconds=1.0, content=None, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(name) * 1000 + sum(name.encode())).uniform(-0.5, 0.5, int(SR * seconds))
        soundfile.write(path, noise if content is None else content, SR, **options)
        return path

    return write


def found(report):
    """What is wrong with which row."""
    return [(problem.row, problem.kind) for problem in report.problems]


def check(*rows, tags=(), **options):
    return Manifest(rows, tags).validate(**{"min_rows": 0, **options})


# === Rows by themselves ===


def test_every_bad_row_is_found_at_once(sound, tmp_path):
    zero, text, folder = tmp_path / "zero.wav", tmp_path / "text.wav", tmp_path / "folder.wav"
    zero.touch()
    text.write_text("no sound at all " * 100)
    folder.mkdir()
    rows = [
        Row(path=sound("good.wav"), tags=("a",)),
        Row(path=tmp_path / "missing.wav", tags=("a",), where="songs.csv:3"),
        Row(path=folder, tags=("a",)),
        Row(path=zero, tags=("a",)),
        Row(path=text, tags=("a",)),
        Row(path=sound("late.wav"), tags=("a",), start=1.0),
        Row(path=sound("short.wav"), tags=("a",), start=0.5, duration=0.7),
        Row(path=sound("unknown.wav"), tags=("a", "b", "c")),
        Row(path=sound("none.wav")),
        Row(path=sound("soft.ogg"), targets=(0.0,)),
        Row(path=tmp_path / "win\\dows.wav"),
        Row(path=sound("fits.flac"), tags=("a",), start=0.5, duration=0.59),  # within the tolerated 0.1 s
    ]
    report = check(*rows, tags=("a",))
    assert found(report) == [
        (1, "missing"), (2, "folder"), (3, "zero bytes"), (4, "undecodable"), (5, "too short"), (6, "too short"),
        (7, "unknown tag"), (8, "no tags"), (9, "no tags"), (10, "no tags"), (10, "missing"),
    ]  # fmt: skip
    assert report.ok == Manifest((rows[0], rows[11]), ("a",)) and report.checked == 12 and not report.passed
    reasons = [problem.reason for problem in report.problems]
    assert reasons[0] == "there is no such file"
    assert reasons[2] == "the file is empty (0 bytes); get a complete copy"
    assert "is not a sound file that an installed decoder can read" in reasons[3]
    assert reasons[4] == "it lasts 1.00 s, but the part starts at 1.00 s"
    assert reasons[5] == "it lasts 1.00 s, but the part ends at 1.20 s"
    assert reasons[6] == "tags that the manifest does not have: 'b', 'c'"
    assert "allow_untagged=True" in reasons[7]
    assert "was the manifest made on Windows?" in reasons[10]


def test_the_summary_counts_and_shows(tmp_path):
    rows = [Row(path=tmp_path / f"{number}.wav", tags=("a",), where=f"m.csv:{number + 2}") for number in range(30)]
    lines = str(check(*rows)).splitlines()
    assert lines[0] == "30 rows: 0 fine, 30 problems (30 missing)"
    assert lines[1] == f"  row 0 (m.csv:2) {tmp_path}/0.wav: there is no such file"
    assert len(lines) == 22 and lines[-1] == "  ... and 10 more in .problems"


def test_strict_raises_the_whole_report(tmp_path, sound):
    with pytest.raises(DataError, match=r"(?s)1 rows: 0 fine, 1 problems \(1 missing\).*x.wav.*validate\(\).ok"):
        check(Row(path=tmp_path / "x.wav", tags=("a",)), strict=True)
    with pytest.raises(DataError, match=r"workers must be at least 1; got 0"):
        check(Row(path=tmp_path / "x.wav"), workers=0)
    good = Row(path=sound("a.wav"), tags=("a",))
    assert check(good, strict=True).passed
    assert str(check(good)) == "1 rows: 1 fine, 0 problems"


def test_rows_without_tags_can_be_allowed(sound):
    row = Row(path=sound("a.wav"))
    assert check(row, tags=("a",), allow_untagged=True).passed
    assert found(check(row, tags=("a",))) == [(0, "no tags")]


def test_only_decoding_finds_damage_and_silence(sound):
    whole = sound("whole.wav", 2.0)
    broken = whole.with_name("broken.wav")
    broken.write_bytes(whole.read_bytes()[: SR * 2])  # the header goes on promising 2 s
    silent = sound("silent.wav", content=np.zeros(SR))
    rows = [Row(path=path, tags=("a",)) for path in (whole, broken, silent)]
    assert check(*rows).passed
    report = check(*rows, decode=True)
    assert found(report) == [(1, "undecodable"), (2, "silent")]
    assert "truncated" in report.problems[0].reason
    part = Row(path=whole, tags=("a",), start=1.5, duration=0.8)
    for decode in (False, True):
        report = check(part, decode=decode)
        assert found(report) == [(0, "too short")]
        assert report.problems[0].reason == "it lasts 2.00 s, but the part ends at 2.30 s"
    assert found(check(Row(path=whole, tags=("a",), start=3.0), decode=True)) == [(0, "too short")]


def test_files_of_unknown_duration_are_decoded(sound, monkeypatch):
    """A WAV written to a pipe says 0 samples; formats of PyAV say nothing here."""
    monkeypatch.setattr(checks.audio, "duration_of", lambda path: None)
    path = sound("piped.wav")
    assert check(Row(path=path, tags=("a",), start=0.2, duration=0.8)).passed
    assert found(check(Row(path=path, tags=("a",), start=0.2, duration=1.8))) == [(0, "too short")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    report = check(Row(path=tmp_path / "pipe.wav", tags=("a",)), Row(path=Path("/x/nul\0.wav"), tags=("a",)))
    assert found(report) == [(0, "missing"), (1, "missing")]
    assert "not a regular file" in report.problems[0].reason and "cannot be opened" in report.problems[1].reason


# === Rows against each other ===


def test_a_copy_in_another_split_is_taken_from_training(sound):
    song, other = sound("song.wav"), sound("song2.wav")
    copy = song.with_name("copy.wav")
    copy.write_bytes(song.read_bytes())
    rows = [
        Row(path=copy, tags=("a",), split="train"),
        Row(path=other, tags=("a",), split="train"),
        Row(path=song, tags=("a",), split="valid", start=0.5),
        Row(path=song, tags=("a",), split="test", duration=0.5),
        Row(path=song, tags=("a",), split="test", start=0.5),
        Row(path=song, tags=("a",)),
    ]
    report = check(*rows)
    assert found(report) == [(0, "duplicate"), (2, "duplicate")]
    assert report.problems[0].reason == (
        "the same file is also in the split test (row 3, song.wav); remove it from train"
    )
    assert check(*report.ok).passed
    assert check(*rows[:2]).passed


def test_groups_in_two_splits_are_noted(sound):
    rows = [Row(path=sound(f"{split}.wav"), tags=("a",), split=split, group="Ann") for split in ("train", "test")]
    report = check(*rows)
    assert report.passed and len(report.notes) == 1
    assert "note: 1 of 1 groups (artists, albums) are in more than one split, e.g. 'Ann'; grouped_split()" in str(
        report
    )


# === Tags ===


def test_tags_that_cannot_be_learned(sound):
    a, b, c = (sound(f"{name}.wav") for name in "abc")
    rows = [
        Row(path=a, tags=("rock", "live"), split="train"),
        Row(path=b, tags=("rock",), split="train"),
        Row(path=c, tags=("jazz", "live"), split="valid"),
    ]
    report = check(*rows, tags=("rock", "live", "jazz", "none"), min_rows=2)
    assert found(report) == [(None, kind) for kind in ("tag everywhere", "rare tag", "tag not in train", "rare tag")]
    assert [str(problem) for problem in report.problems] == [
        "all 2 rows in train have the tag 'rock', so it cannot be learned; add rows without it, or leave the tag out",
        "the tag 'live' has 1 rows in train, fewer than 2 (min_rows); add some, or leave the tag out",
        "the tag 'jazz' is only in valid: it cannot be learned",
        "the tag 'none' has 0 rows in train, fewer than 2 (min_rows); add some, or leave the tag out",
    ]
    assert len(report.ok) == 3
    unsplit = [Row(path=row.path, tags=row.tags) for row in rows]
    assert [p.reason.split(" has ")[0] for p in check(*unsplit, min_rows=2).problems] == ["the tag 'jazz'"]
    assert len(Manifest(tuple(rows)).validate().problems) == 3  # five rows by default


def test_tags_that_differ_only_in_spelling(sound):
    rows = [
        Row(path=sound("a.wav"), tags=("Hip hop", "café")),
        Row(path=sound("b.wav"), tags=("hip  HOP", "cafe\u0301")),
    ]
    report = check(*rows, Row(path=sound("c.wav"), tags=("hip-hop",)))
    assert found(report) == [(None, "tag case"), (None, "tag case")]
    assert "'Hip hop', 'hip  HOP' differ only in how they are written; choose one" in str(report)


# === Grouped split ===


def songs(count=600, artists=60, seed=0):
    """Rows of artists of very different sizes, each with a style; one tag in a hundred rows only."""
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(3, artists + 3)  # the largest artist has about a tenth of the rows
    artist = np.sort(random.choice(artists, count, p=weights / weights.sum()))
    tags = np.array(["rock", "jazz", "folk", "pop"])
    return Manifest(
        tuple(
            Row(
                path=Path(f"/music/{number}.mp3"),
                group=f"artist {artist[number]}" if artist[number] else "",
                tags=(str(tags[artist[number] % 4]), *(["rare"] if number % 100 == 7 else [])),
            )
            for number in range(count)
        )
    )


def test_no_group_is_in_two_splits_and_no_row_is_lost():
    manifest = songs()
    split = manifest.grouped_split((0.7, 0.1, 0.2))
    sides = {}
    for row in split:
        sides.setdefault(row.group or row.path, set()).add(row.split)
    assert all(len(names) == 1 for names in sides.values())
    assert [row.path for row in split] == [row.path for row in manifest] and split.tags == manifest.tags
    assert set(split.split_sizes()) == {"train", "valid", "test"}


def test_sizes_and_tags_are_divided_about_evenly():
    for seed in range(10):
        split = songs(seed=seed).grouped_split((0.7, 0.1, 0.2), seed=seed)
        total = split.targets().sum(0)
        for name, fraction in (("train", 0.7), ("valid", 0.1), ("test", 0.2)):
            part = split.split(name)
            # Measured over 20 seeds: sizes within 0.005, tags within 0.027. An artist chosen by chance can be 0.1 off.
            assert abs(len(part) / len(split) - fraction) < 0.01
            assert abs(part.targets().sum(0) / total - fraction)[total > 50].max() < 0.04


def test_rows_without_tags_are_split_too():
    rows = [Row(path=Path(f"/{number}"), tags=("t",) if number < 10 else ()) for number in range(100)]
    split = Manifest(tuple(rows)).grouped_split((0.7, 0.1, 0.2))
    assert split.split_sizes() == {"train": 70, "valid": 10, "test": 20}
    assert [int(split.split(name).targets().sum()) for name in ("train", "valid", "test")] == [7, 1, 2]


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    manifest = songs()
    first = {row.path: row.split for row in manifest.grouped_split(seed=1)}
    assert first == {row.path: row.split for row in manifest.grouped_split(seed=1)}
    assert first == {row.path: row.split for row in Manifest(manifest.rows[::-1]).grouped_split(seed=1)}
    assert first != {row.path: row.split for row in manifest.grouped_split(seed=2)}


def test_parts_of_one_file_stay_together_and_join_their_groups():
    names = ["a", "a", "b", "c", "d", "e", "f"]
    groups = ["X", "Y", "Y", "X", "", "", ""]
    rows = [
        Row(path=Path(f"/{n}"), group=g, start=i, tags=("t",))
        for i, (n, g) in enumerate(zip(names, groups, strict=True))
    ]
    for seed in range(10):
        split = Manifest(tuple(rows)).grouped_split({"train": 0.5, "test": 0.5}, seed=seed)
        assert len({row.split for row in split[:4]}) == 1
        assert split.split_sizes() in ({"train": 4, "test": 3}, {"train": 3, "test": 4})


def test_custom_groups_and_splits_that_are_never_empty():
    rows = tuple(Row(path=Path(f"/{number}"), tags=("t",)) for number in range(9))
    split = Manifest(rows).grouped_split((0.98, 0.01, 0.01), by=lambda row: str(int(row.path.name) // 3))
    assert split.split_sizes() == {"train": 3, "valid": 3, "test": 3}
    assert Manifest(rows).grouped_split({"train": 1.0}).split_sizes() == {"train": 9}


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.5, 0.4), r"must not be negative and must add up to 1; got \{'train': 0.5, 'valid': 0.4\}"),
        ((1.5, -0.5), r"must not be negative"),
        ((0.25,) * 4, r"fractions are for train, valid, test; got 4 numbers"),
        ({"train": 0.5, "dev": 0.5}, r"fractions are for train, valid, test; got 'dev'"),
        ((0.4, 0.3, 0.3), r"3 splits need at least as many groups; the 2 rows form 2\. Use fewer splits"),
    ],
)
def test_invalid_splits(fractions, message):
    rows = tuple(Row(path=Path(f"/{number}"), tags=("t",)) for number in range(2))
    with pytest.raises(DataError, match=message):
        Manifest(rows).grouped_split(fractions)
