"""Beside other programs, and with rows of another machine."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner
from library_files import sounds

import keras_musictag as kmt
from keras_musictag.apps.library import LibraryError, pool, spare_resources, tag_library
from keras_musictag.cli import main

linux = pytest.mark.skipif(sys.platform != "linux", reason="cores and loads as Linux has them")


def rows(table):
    return {os.path.basename(row["path"]): row for row in map(json.loads, table.read_text().splitlines())}


@pytest.mark.parametrize("other", ["other.jsonl", "other.parquet"])
def test_rows_of_another_table(tmp_path, other, monkeypatch):
    if other.endswith("parquet"):
        pytest.importorskip("pyarrow")
    there, here = tmp_path / "there", tmp_path / "here"
    sounds(there, 3)
    tag_library(there, tmp_path / other, "tiny", embeddings=True, workers=1)
    shutil.copytree(there, here)
    (here / "000.wav").rename(here / "renamed.wav")
    sounds(here, 1)
    shutil.copy(here / "001.wav", here / "new.wav")
    with (here / "new.wav").open("r+b") as file:  # the same size, another content
        file.seek(100)
        file.write(b"\1\2\3\4")
    options = {"embeddings": True, "workers": 1}
    (here / "000.wav").unlink()
    summary = tag_library(here, tmp_path / "tags.jsonl", "tiny", imports=[tmp_path / other], **options)
    assert (summary.files, summary.imported, summary.tagged) == (4, 3, 1)
    assert "3 rows were imported from other tables." in str(summary)
    tag_library(there, tmp_path / "there.jsonl", "tiny", **options)
    was, now = rows(tmp_path / "there.jsonl"), rows(tmp_path / "tags.jsonl")
    for name, old in (("renamed.wav", "000.wav"), ("001.wav", "001.wav"), ("002.wav", "002.wav")):
        for column in ("tags", "embedding", "sha256", "duration_s", "model"):
            assert now[name][column] == was[old][column]
        assert now[name]["mtime"] == (here / name).stat().st_mtime
    again = tag_library(here, tmp_path / "tags.jsonl", "tiny", imports=[tmp_path / other], **options)
    assert (again.skipped, again.imported, again.tagged) == (4, 0, 0)


def test_tables_without_such_rows(tmp_path):
    sounds(tmp_path / "music", 1)
    tag_library(tmp_path / "music", tmp_path / "other.jsonl", "tiny", top=1, workers=1)
    for name, said in (("other.jsonl", "has no rows of tiny .*, tags all, without"), ("x.csv", "can be imported from")):
        with pytest.raises(LibraryError, match=said):
            tag_library(tmp_path / "music", tmp_path / "tags.jsonl", "tiny", imports=[tmp_path / name], workers=1)
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(LibraryError, match="was not written by tag_library"):
        tag_library(tmp_path / "music", tmp_path / "tags.jsonl", "tiny", imports=[tmp_path / "x.jsonl"], workers=1)


@linux
def test_cores_and_priority():
    code = (
        "import os, threading; from keras_musictag.apps.library import spare_resources\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "spare_resources.limit_cores(1); spare_resources.lower_priority(7)\n"
        "print([len(os.sched_getaffinity(int(t))) for t in os.listdir('/proc/self/task')],\n"
        "      {os.getpriority(os.PRIO_PROCESS, int(t)) for t in os.listdir('/proc/self/task')},\n"
        "      os.popen('nice').read().strip())\n"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + 7, 19)
    assert set(told.partition("]")[0].strip("[").split(", ")) == {"1"} and told.endswith(f"{{{nice}}} {nice}\n")


@linux
def test_what_others_do(monkeypatch):
    clock, seconds = [0.0], [(10.0, 4.0)]
    monkeypatch.setattr(spare_resources.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(spare_resources, "_cpu_seconds", lambda: seconds[0])
    others = spare_resources.OtherPrograms(1.0)
    for now, counted, busy in ((2.0, (16.0, 8.0), False), (2.5, (99.0, 8.0), False), (4.0, (21.0, 8.0), True)):
        clock[0], seconds[0] = now, counted
        assert others.busy() is busy
    monkeypatch.undo()
    before = spare_resources._cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        time.sleep(0.5)
        everybody, own = spare_resources._cpu_seconds()
        child.kill()
    assert everybody - before[0] >= own - before[1] - 0.1 and own > before[1] + 0.05  # our child's time is ours


def test_pausing_and_stopping(tmp_path):
    """Nothing is begun while others are busy; then all is, and a stop in between does not hang."""
    paths = sounds(tmp_path / "music", 2)
    spec = kmt.model_info("tiny")
    jobs = [pool.Job(str(path)) for path in paths]
    quiet = threading.Event()
    with pool.DecodeWorkers(spec, 1, 60, lambda: not quiet.is_set()) as workers:
        threading.Timer(0.5, quiet.set).start()
        begun = time.monotonic()
        outcomes = [message.outcome for _, message in workers.run(jobs) if isinstance(message, pool.Ended)]
        assert outcomes == ["decoded"] * 2 and time.monotonic() - begun >= 0.5
    with pool.DecodeWorkers(spec, 1, 60, lambda: True) as workers:
        events = workers.run(jobs)
        seen = []
        reader = threading.Thread(target=lambda: seen.extend(events), daemon=True)
        reader.start()
        time.sleep(0.3)
        begun = time.monotonic()
    assert time.monotonic() - begun < 30 and not seen  # waits a second at most
    workers._events.put(None)
    reader.join()


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sounds(tmp_path / "music", 1)
    called = []
    monkeypatch.setattr(spare_resources, "limit_cores", lambda count: called.append(count))
    monkeypatch.setattr(spare_resources, "lower_priority", lambda by: called.append(by))
    words = ["library", "-m", "tiny", "music", "-o", "a.jsonl", "--workers", "1", "--max-cores", "1", "--nice"]
    assert CliRunner().invoke(main, words, catch_exceptions=False).exit_code == 0 and called == [1, 10]
    words = ["library", "-m", "tiny", "music", "-o", "b.jsonl", "--import", "a.jsonl"]
    assert "1 rows were imported" in CliRunner().invoke(main, words, catch_exceptions=False).stdout
    for option in (["--nice"], ["--runtime", "auto"]):
        words = ["library", "-m", "tiny", "music", "-o", "b", "--engine", "ray", *option]
        assert "work on this machine only" in CliRunner().invoke(main, words).stderr
