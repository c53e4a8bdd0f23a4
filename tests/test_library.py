"""`tag_library`: what rows say, which files are tagged again, and what is refused."""

import csv
import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from audio_files import posix
from library_files import sound, sounds

import keras_musictag as kmt
from keras_musictag.apps.library import LibraryError, journal, pool, tag_library
from keras_musictag.errors import MissingExtraError


@pytest.fixture
def music(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sounds(tmp_path / "music", 5)
    return tmp_path / "music"


def read(path):
    """File name -> row of a JSONL output; each may be there once."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    by_name = {row["path"].rpartition(os.sep)[2]: row for row in rows}
    assert len(by_name) == len(rows)
    return by_name


def tag(music, tiny, out="tags.jsonl", **options):
    return tag_library(music, out, tiny, **{"workers": 1, **options})


# === Rows ===


def test_rows_say_what_the_tagger_says(music, tiny, tmp_path):
    summary = tag(music, tiny, embeddings=True, workers=2)
    assert (summary.files, summary.tagged, summary.failed, summary.skipped) == (5, 5, 0, 0)
    assert "5 files, 5 tagged now" in str(summary)
    for name, row in read(tmp_path / "tags.jsonl").items():
        expected = tiny.tag(music / name)
        assert list(row["tags"]) == list(expected)
        np.testing.assert_allclose(list(row["tags"].values()), list(expected.values()), atol=2e-6)  # 6 digits
        # 6 digits, and sums of windows in another order: 1.3e-6 at most in 40 files
        np.testing.assert_allclose(row["embedding"], tiny.embed(music / name), atol=5e-6)
        status = (music / name).stat()
        assert (row["size"], row["mtime"]) == (status.st_size, status.st_mtime)
        assert row["duration_s"] == pytest.approx(0.2 + int(name[:3]) % 7)
        assert (row["model"], row["weights_sha256"]) == ("tiny", tiny.weights_sha256)
        assert (row["error"], row["error_kind"], row["tags_kept"]) == ("", "", "all")


def test_formats_hold_the_same(music, tiny, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    (music / "broken.mp3").write_bytes(b"no sound" * 100)
    for name in ("tags.jsonl", "tags.csv", "tags.parquet"):
        tag(music, tiny, name, embeddings=True)
    expected = read(tmp_path / "tags.jsonl")
    with open("tags.csv", newline="", encoding="utf-8") as file:
        cells = {os.path.basename(row["path"]): row for row in csv.DictReader(file)}
    table = {os.path.basename(row["path"]): row for row in parquet.read_table("tags.parquet").to_pylist()}
    assert set(cells) == set(table) == set(expected)
    for name, row in expected.items():
        for column in ("sha256", "model", "spec_digest", "error", "error_kind"):
            assert cells[name][column] == table[name][column] == row[column]
        assert float(cells[name]["mtime"]) == table[name]["mtime"] or name == "broken.mp3"
        assert json.loads(cells[name]["tags"] or "null") == row["tags"]
        assert json.loads(cells[name]["embedding"] or "null") == row["embedding"]
        tags = table[name]["tags"]
        assert (tags is None) == (row["tags"] is None)
        if tags is not None:
            assert [tag for tag, _ in tags] == list(row["tags"])
            np.testing.assert_allclose([p for _, p in tags], list(row["tags"].values()), rtol=1e-6)  # float32
            np.testing.assert_allclose(table[name]["embedding"], row["embedding"], rtol=1e-6)
        assert table[name]["tagged_at"].tzinfo is not None


def test_top_and_threshold(music, tiny, tmp_path):
    tag(music, tiny, top=2)
    assert {len(row["tags"]) for row in read(tmp_path / "tags.jsonl").values()} == {2}
    tag(music, tiny, "other.jsonl", top=3, threshold=0.5)
    for row in read(tmp_path / "other.jsonl").values():
        assert row["tags_kept"] == "top 3, >= 0.5" and all(p >= 0.5 for p in row["tags"].values())


def test_kinds(music, tmp_path):
    tag(music, "musicnet_crnn", top=2, kinds={"tempo", "genre"})
    for row in read(tmp_path / "tags.jsonl").values():
        assert row["tags_kept"] == "genre, tempo, top 2" and len(row["tags"]) == 2
        assert set(row["tags"]) <= set(kmt.load("musicnet_crnn").tag(music / "000.wav", kinds={"tempo", "genre"}))
    with pytest.raises(LibraryError, match="rows of another model or other settings"):
        tag(music, "musicnet_crnn", top=2, kinds={"genre"})
    with pytest.raises(ValueError, match="Unknown kinds of tags: colour"):
        tag(music, "musicnet_crnn", "other.jsonl", kinds={"colour"})
    with pytest.raises(ValueError, match="The kinds of this model's tags are not known"):
        tag(music, "tiny", "other.jsonl", kinds={"genre"})
    assert not (tmp_path / "other.jsonl").exists()


# === Files that cannot be tagged ===


@posix
def test_every_odd_file_is_a_row(music, tiny, tmp_path):
    (music / "empty.mp3").touch()
    (music / "text.flac").write_text("no sound")
    (music / "cut.wav").write_bytes((music / "003.wav").read_bytes()[:20_000])
    sound(music / "short.wav", 0.005)
    (music / "cover.jpg").write_bytes(b"no sound, and not called one")
    (music / ".hidden.wav").touch()
    (music / "gone.wav").symlink_to(music / "nowhere")
    (music / "self.wav").symlink_to(music / "self.wav")
    (music / "up").symlink_to(music)
    (music / "deep").mkdir()
    (music / "deep" / "top").symlink_to(tmp_path)
    os.mkfifo(music / "pipe.wav")
    os.truncate(sound(music / "sparse.wav"), 2**28)
    summary = tag(music, tiny, timeout=60)
    kinds = {name: row["error_kind"] for name, row in read(tmp_path / "tags.jsonl").items() if row["error"]}
    assert kinds == {
        "empty.mp3": "too short", "text.flac": "unsupported", "cut.wav": "truncated", "short.wav": "too short",
        "gone.wav": "unreadable", "self.wav": "link loop", "up": "link loop", "top": "link loop",
        "pipe.wav": "not a file",
    }  # fmt: skip
    assert summary.failed == 9 and summary.tagged == 6
    assert "Failed: 3 link loop, 2 too short, 1 not a file" in str(summary)


@posix
def test_names_that_are_no_utf8(music, tiny, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    name = os.fsencode(music) + b"/caf\xe9 \xf0.wav"
    shutil.copy(music / "001.wav", name)
    with open(os.fsencode(music) + b"/bad\xff.wav", "wb") as file:
        file.write(b"no sound")
    assert tag(music, tiny).tagged == 6
    rows = read(tmp_path / "tags.jsonl")
    assert rows["caf\\xe9 \\xf0.wav"]["tags"] == rows["001.wav"]["tags"]
    assert rows["bad\\xff.wav"]["error_kind"] == "unsupported"
    assert tag(music, tiny).skipped == 7
    tag(music, tiny, "tags.parquet")
    tag(music, tiny, "tags.csv")
    assert parquet.read_table("tags.parquet").num_rows == 7


def test_a_folder_that_cannot_be_read(music, tiny, tmp_path, monkeypatch):
    sounds(music / "locked", 2)
    scan = os.scandir

    def refuse(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert tag(music, tiny).failures == {"unreadable": 1}
    assert "Permission denied" in read(tmp_path / "tags.jsonl")["locked"]["error"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(music / "locked")
    summary = tag(music, tiny)
    assert summary.failed == 0 and "locked" not in read(tmp_path / "tags.jsonl")


@posix
def test_decoders_that_crash_or_hang_cost_one_file(music, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_STREAM", "library_files:misbehave")
    kinds = {
        "segfault": "crash", "late": "crash", "exit": "crash", "hang": "timeout", "memory": "memory",
        "bug": "decoder", "grows": "changed",
    }  # fmt: skip
    for name in kinds:
        sound(music / f"{name}.wav", 30.0 if name == "late" else 0.5)
    summary = tag(music, tiny, workers=2, timeout=2)
    rows = read(tmp_path / "tags.jsonl")
    assert {name: rows[f"{name}.wav"]["error_kind"] for name in kinds} == kinds
    assert "(SIGSEGV)" in rows["segfault.wav"]["error"] and "exit code 7" in rows["exit.wav"]["error"]
    assert "more than 2 s" in rows["hang.wav"]["error"] and "no such box" in rows["bug.wav"]["error"]
    assert rows["segfault.wav"]["sha256"] and rows["late.wav"]["tags"] is None
    assert summary.tagged == 5
    # What was the moment's fault is tried again, what was the file's is not, unless it is asked for.
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    again = tag(music, tiny)
    assert (again.tagged, again.failures) == (6, {"decoder": 1})
    assert tag(music, tiny, update=True).failed == 0


@posix
def test_a_crash_is_not_blamed_on_the_next_file(music, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_STREAM", "library_files:misbehave")
    sound(music / "spoils.wav")
    sound(music / "then.wav", 40.0)
    summary = tag(music, tiny)
    assert (summary.tagged, summary.failed) == (7, 0)
    row, expected = read(tmp_path / "tags.jsonl")["then.wav"], tiny.tag(music / "then.wav")
    assert row["duration_s"] == 40.0  # and the windows before the crash do not count
    np.testing.assert_allclose([row["tags"][name] for name in expected], list(expected.values()), atol=2e-6)


def test_a_timeout_is_not_blamed_on_the_next_file(music, tiny, tmp_path, monkeypatch):
    exactly = pool._Worker._read_exactly

    def late(worker, length):
        body = exactly(worker, length)
        if b'"decoded"' in body and not (tmp_path / "late").exists():  # killed right after its last byte
            (tmp_path / "late").touch()
            worker._late = True
            worker._process.kill()
        return body

    monkeypatch.setattr(pool._Worker, "_read_exactly", late)
    assert tag(music, tiny).failures == {"timeout": 1}
    assert read(tmp_path / "tags.jsonl")["000.wav"]["error_kind"] == "timeout"


# === Again ===


def test_what_is_done_is_not_done_again(music, tiny, tmp_path, monkeypatch):
    tag(music, tiny)
    before = (tmp_path / "tags.jsonl").read_bytes()
    sounds(music, 7)  # writes the same five again, and two more
    monkeypatch.setattr(kmt.apps.library.local_engine, "network", lambda *_: pytest.fail("nothing to compute"))
    (music / "005.wav").unlink(), (music / "006.wav").unlink()
    summary = tag(music, tiny)
    assert (summary.skipped, summary.tagged) == (5, 0)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    rows = read(tmp_path / "tags.jsonl")
    assert rows["003.wav"]["mtime"] == (music / "003.wav").stat().st_mtime  # noted, so that it need not be read again
    assert json.loads(before.splitlines()[0])["tags"] == rows["000.wav"]["tags"]
    sounds(music, 7)
    assert (tag(music, tiny).tagged, len(read(tmp_path / "tags.jsonl"))) == (2, 7)


def test_only_update_replaces_rows(music, tiny, tmp_path):
    (music / "broken.wav").write_bytes(b"no sound")
    tag(music, tiny)
    before = read(tmp_path / "tags.jsonl")
    sound(music / "001.wav", 2.0, 0.5)
    sound(music / "broken.wav")
    summary = tag(music, tiny)
    assert (summary.changed, summary.tagged, summary.skipped, summary.failed) == (1, 1, 4, 0)  # the mended one
    assert "1 files have changed" in str(summary)
    assert read(tmp_path / "tags.jsonl")["001.wav"] == before["001.wav"]
    summary = tag(music, tiny, update=True)
    assert (summary.changed, summary.tagged, summary.skipped) == (0, 1, 5)
    after = read(tmp_path / "tags.jsonl")
    assert after["001.wav"]["sha256"] != before["001.wav"]["sha256"]
    assert {name: after[name] for name in before if name[0] == "0" and name != "001.wav"} == {
        name: before[name] for name in before if name[0] == "0" and name != "001.wav"
    }


def test_a_file_that_is_gone_keeps_its_row(music, tiny, tmp_path):
    tag([music, music / "002.wav"], tiny)
    (music / "002.wav").unlink()
    (tmp_path / "list.txt").write_text("music/002.wav\n")
    assert tag(["list.txt", music], tiny).skipped == 5
    assert len(read(tmp_path / "tags.jsonl")) == 5


def test_another_model_is_refused(music, tiny, tmp_path):
    tag(music, tiny)
    with pytest.raises(LibraryError, match=r"5 rows of another model or other settings than tiny .*update=True"):
        tag(music, tiny, top=3)
    with pytest.raises(LibraryError, match="with embeddings"):
        tag(music, tiny, embeddings=True)
    assert tag(music, tiny, top=3, update=True).tagged == 5
    assert {len(row["tags"]) for row in read(tmp_path / "tags.jsonl").values()} == {3}
    assert tag(music, tiny, resume=False).tagged == 5


def test_weights_must_be_in_a_file(music):
    with pytest.raises(LibraryError, match="weights of 'tiny' were not loaded from a file"):
        tag(music, kmt.load("tiny", weights=None))


@pytest.mark.parametrize("rubbish", [b"\0" * 4096, b"\0" * 100 + b"\n", b'{"path": "/cut o'])
def test_what_a_crash_leaves_behind_is_passed_over(music, tiny, tmp_path, rubbish):
    tag(music, tiny)
    lines = (tmp_path / "tags.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "tags.jsonl").write_bytes(b"".join(lines[:2]) + rubbish)
    assert tag(music, tiny).tagged == 3
    assert [line for line in (tmp_path / "tags.jsonl").read_bytes().splitlines(keepends=True)][:2] == lines[:2]
    assert len(read(tmp_path / "tags.jsonl")) == 5


# === Outputs ===


@pytest.mark.parametrize("content", ["my notes\nof today\n", '{"title": "notes"}\n', "[1, 2]\n", '"text"\n'])
def test_other_files_are_not_written_to(music, tiny, tmp_path, content):
    (tmp_path / "notes.jsonl").write_text(content)
    with pytest.raises(LibraryError, match="does not hold rows of a library"):
        tag(music, tiny, "notes.jsonl")
    (tmp_path / "notes.csv").write_text(content)
    with pytest.raises(LibraryError, match=r"exists, but notes.csv.rows.jsonl, which lists the files done, does not"):
        tag(music, tiny, "notes.csv")
    assert (tmp_path / "notes.csv").read_text() == (tmp_path / "notes.jsonl").read_text() == content


def test_outputs_that_cannot_be(music, tiny, tmp_path, monkeypatch):
    for out, message in (
        ("tags.xlsx", r"must end in .jsonl, .csv or .parquet; got .*tags.xlsx"),
        ("no/tags.csv", "folder .*no' of the output does not exist"),
        ("dir.csv", "is a folder"),
    ):
        (tmp_path / "dir.csv").mkdir(exist_ok=True)
        with pytest.raises(LibraryError, match=message):
            tag(music, tiny, out)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"Writing Parquet.*keras_musictag\[parquet\]"):
        tag(music, tiny, "tags.parquet")


def test_a_full_disk_keeps_what_is_done(music, tiny, tmp_path, monkeypatch):
    class Full:
        """A file on a disk that has room for two and a half lines."""

        def __init__(self, file):
            self._file, self._room = file, 1500

        def write(self, data):
            if self._room == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self._file.write(data[: self._room])
            self._room -= written
            return written

        def __getattr__(self, name):
            return getattr(self._file, name)

    init = journal.Journal.__init__

    def fill(self, *args, **options):
        init(self, *args, **options)
        self._file = Full(self._file)

    monkeypatch.setattr(journal.Journal, "__init__", fill)
    with pytest.raises(LibraryError, match=r"No space left on device.*The rows of \d files are kept"):
        tag(music, tiny)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    kept = len(read(tmp_path / "tags.jsonl"))
    assert 1 <= kept < 5
    assert tag(music, tiny).skipped == kept
    assert len(read(tmp_path / "tags.jsonl")) == 5


def test_a_disk_too_full_for_the_table(music, tiny, tmp_path, monkeypatch):
    tag(music, tiny, "tags.csv")
    before = (tmp_path / "tags.csv").read_bytes()
    sounds(music, 6)

    def full(rows, file):
        file.write(b"path,")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kmt.apps.library.output, "_write_csv", full)
    with pytest.raises(LibraryError, match=r"tags.csv cannot be written \(No space left.*All rows are in"):
        tag(music, tiny, "tags.csv")
    assert (tmp_path / "tags.csv").read_bytes() == before
    assert not list(tmp_path.glob(".*part"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert tag(music, tiny, "tags.csv").skipped == 6
    assert len((tmp_path / "tags.csv").read_text().splitlines()) == 7


def test_unfinished_files_of_killed_runs_are_removed(music, tiny, tmp_path):
    left = [f".tags.csv.{'0f' * 16}.part", f".tags.csv.rows.jsonl.{'0f' * 16}.part"]
    other = f".tags.csv.csv.{'0f' * 16}.part"
    for name in (*left, other):
        (tmp_path / name).touch()
    tag(music, tiny, "tags.csv")
    assert {path.name for path in tmp_path.glob(".*")} == {".tags.csv.lock", other}


def test_two_runs_on_one_output(music, tiny, tmp_path):
    with journal.OutputLock(tmp_path / "tags.csv"):
        with pytest.raises(LibraryError, match=r"Another run is writing .*tags.csv"):
            tag(music, tiny, "tags.csv")
        assert tag(music, tiny, "other.csv").tagged == 5
    hold = "import sys, time; from pathlib import Path; from keras_musictag.apps.library.journal import OutputLock\n"
    hold += "with OutputLock(Path('tags.csv').absolute()): print('locked', flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"locked\n"
        with pytest.raises(LibraryError, match="Another run"):
            tag(music, tiny, "tags.csv")
        owner.kill()
    assert tag(music, tiny, "tags.csv").tagged == 5
