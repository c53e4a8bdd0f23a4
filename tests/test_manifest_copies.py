"""The same sound twice: in two splits, in one table, under two names; and no split has it on both sides."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from keras_musictag.datasets import DataError, Manifest, Row, copies
from keras_musictag.datasets.splitting import folds

SR = 8000


@pytest.fixture
def sound(tmp_path):
    """Write a second of noise by number; returns its path."""

    def write(name, number):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, SR), SR)
        return path

    return write


def check(*rows, **options):
    return Manifest(rows).validate(min_rows=0, **options)


def found(report):
    return [(problem.row, problem.kind) for problem in report.problems]


# === Which files are copies ===


def test_copies_by_content(sound, tmp_path):
    one, copy, other = sound("b.wav", 1), sound("sub/a.wav", 1), sound("c.wav", 2)
    third = tmp_path / "d.wav"
    third.symlink_to(one)
    missing, empty, empty_too = (tmp_path / name for name in ("missing.wav", "e.wav", "f.wav"))
    empty.touch()
    empty_too.touch()
    paths = [other, copy, one, third, missing, empty, empty_too, tmp_path, Path("/x/nul\0.wav")]
    assert copies.copies(paths) == {one: one, third: one, copy: one}
    assert copies.copies([one, one, other]) == copies.copies([]) == {}


def test_files_that_agree_in_part_are_read_to_the_end(tmp_path, monkeypatch):
    content = bytearray(np.random.default_rng(0).bytes(200_000))
    names = ["a", "b", "c", "d", "e"]
    for name, (at, size) in zip(names, [(0, 0), (50_000, 0), (10, 0), (199_999, 0), (10, 1)], strict=True):
        changed = bytearray(content[: len(content) - size])
        changed[at if name != "a" else 0] ^= name != "a"
        (tmp_path / name).write_bytes(changed)
    digested = []
    digest = copies.sha256_of
    monkeypatch.setattr(copies, "sha256_of", lambda path: digested.append(path.name) or digest(path))
    assert copies.copies(tmp_path / name for name in names) == {}
    assert sorted(digested) == ["a", "b"], "c and d differ in what is read first, e in size"


def test_a_file_that_is_written_again_is_no_copy_any_more(sound, tmp_path):
    one, two = sound("a.wav", 1), sound("b.wav", 1)
    assert len(copies.copies([one, two])) == 2
    soundfile.write(two, np.random.default_rng(5).uniform(-0.5, 0.5, SR), SR)
    os.utime(two, ns=(1, 1))
    assert copies.copies([one, two]) == {}


def test_a_file_that_cannot_be_read(sound, monkeypatch):
    one, two = sound("a.wav", 1), sound("b.wav", 1)

    def fail(*args):
        raise PermissionError("no")

    for name in ("_sample_of", "sha256_of"):
        with monkeypatch.context() as context:
            context.setattr(copies, name, fail)
            assert copies.copies([one, two]) == {}


# === What validation says ===


def test_the_same_part_of_a_file_listed_twice(sound):
    a, b, c = (sound(f"{number}.wav", number) for number in range(3))
    rows = [
        Row(path=a, tags=("rock", "loud")),
        Row(path=a, tags=("loud", "rock")),
        Row(path=b, tags=("rock",)),
        Row(path=b, tags=("pop",)),
        Row(path=b, tags=("pop",)),
        Row(path=c, tags=("rock",), duration=0.5),
        Row(path=c, tags=("pop",), start=0.5),
    ]
    report = check(*rows)
    assert found(report) == [(1, "listed twice"), *((row, "contradiction") for row in (2, 3, 4))]
    assert [problem.reason for problem in report.problems[:3]] == [
        "row 0 has the same part and tags; remove one of them",
        "row 3 has other tags for it ('pop'; here 'rock'); put all its tags into one row, or remove the wrong row",
        "row 2 has other tags for it ('rock'; here 'pop'); put all its tags into one row, or remove the wrong row",
    ]
    assert report.ok.rows == (rows[0], *rows[5:])
    with pytest.raises(DataError, match=r"7 rows: 3 fine, 4 problems \(3 contradiction, 1 listed twice\)"):
        check(*rows, strict=True)


def test_soft_targets_that_contradict(sound):
    rows = (Row(path=sound("a.wav", 1), targets=(0.5, 0.1)), Row(path=sound("a.wav", 1), targets=(0.5, 0.2)))
    report = Manifest(rows, ("a", "b")).validate(min_rows=0)
    assert found(report) == [(0, "contradiction"), (1, "contradiction")]
    assert "row 1 has other tags for it (soft targets; here soft targets)" in str(report)


def test_copies_without_a_split_are_noted(sound):
    a, copy, other = sound("rock/a.wav", 1), sound("rock/b.wav", 1), sound("pop/c.wav", 2)
    report = check(*(Row(path=path, tags=(path.parent.name,)) for path in (a, copy, other)))
    assert report.passed
    assert report.notes == (f"copies of other files: 1, e.g. {copy} of {a}; grouped_split() keeps copies in one split",)
    wrong = sound("pop/d.wav", 1)
    report = check(*(Row(path=path, tags=(path.parent.name,)) for path in (a, copy, other, wrong)))
    assert report.passed and report.notes[0].startswith("copies of other files: 2, ")
    assert report.notes[1] == f"copies with different tags: 1, e.g. {copy} and {a}; one of them may be wrong"


def test_a_copy_that_is_left_out_is_not_noted(sound):
    a, copy = sound("a.wav", 1), sound("b.wav", 1)
    report = check(Row(path=copy, tags=("x",)), Row(path=a), Row(path=a))
    assert found(report) == [(1, "no tags"), (2, "no tags")] and report.notes == ()
    report = check(Row(path=copy, tags=("x",), split="train"), Row(path=a, tags=("x",), split="test"))
    assert found(report)[0] == (0, "duplicate") and report.notes == ()


# === What splits do ===


def pairs(sound, count=12):
    """Each sound twice, under names that are far apart; half of them by artists who have others too."""
    rows = []
    for number in range(count):
        for half in ("a", "z"):
            group = f"{half} {number // 3}" if number % 2 else ""
            rows.append(Row(path=sound(f"{half}{number}.wav", number), tags=("x",), group=group))
    return Manifest(tuple(rows))


def sides(manifest, split_of):
    by_content = {}
    for row, side in zip(manifest, split_of, strict=True):
        by_content.setdefault(row.path.name[1:], set()).add(side)
    return list(by_content.values())


def test_copies_stay_in_one_split(sound):
    manifest = pairs(sound)
    for seed in range(5):
        split = manifest.grouped_split({"train": 0.6, "test": 0.4}, seed=seed)
        assert all(len(names) == 1 for names in sides(split, [row.split for row in split]))
        assert split.validate(min_rows=0).passed
        assert all(len(numbers) == 1 for numbers in sides(manifest, folds(manifest, 3, seed=seed)))
    alone = manifest.grouped_split({"train": 0.5, "test": 0.5}, by=lambda row: str(row.path))
    assert any(len(names) == 2 for names in sides(alone, [row.split for row in alone])), "by= decides alone"
    assert not alone.validate(min_rows=0).passed


def test_files_that_are_not_there_are_split_all_the_same():
    rows = tuple(Row(path=Path(f"/nowhere/{number}.wav"), tags=("x",)) for number in range(10))
    assert Manifest(rows).grouped_split((0.8, 0.1, 0.1)).split_sizes() == {"train": 8, "valid": 1, "test": 1}
