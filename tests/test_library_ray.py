"""Libraries on a Ray cluster: two processes on this machine, some of which are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ray_files
import soundfile
from audio_files import posix
from click.testing import CliRunner
from library_files import sound, sounds

import keras_musictag as kmt
from keras_musictag.apps.library import (
    LibraryError,
    parquet_parts,
    ray_engine,
    storage,
    tag_library,
    tag_on_ray,
)
from keras_musictag.apps.library import (
    local_engine as run,
)
from keras_musictag.cli import main

pytestmark = posix
ray = pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def cluster():
    hook = {"worker_process_setup_hook": ray_files.in_actors}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.path.dirname(__file__))
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": 50, "runtime_env": hook}
        ray.init("local", num_cpus=2, num_gpus=0, **options)
        yield ray
        ray.shutdown()


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model that is only in the actors and here."""
    monkeypatch.setattr("keras_musictag.loading.load", lambda name: ray_files.tagger())
    (tmp_path / "actors").mkdir()
    return str(tmp_path / "actors" / "model")


def read(folder):
    """Rows by path, but for the time; each path once."""
    rows = parquet.read_table(folder).to_pylist()
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows)
    for row in rows:
        assert row.pop("tagged_at")
    return found


def tag(*args, **options):
    return tag_on_ray(*args, **{"actors": 2, "workers": 1, **options})


def test_the_same_rows_as_on_one_machine(cluster, model, tmp_path, monkeypatch):
    music = tmp_path / "music"
    sounds(music, 40)
    (music / "broken.mp3").write_bytes(b"no sound")
    sound(music / "segfault.wav")
    os.mkfifo(music / "pipe.wav")
    os.symlink("nowhere", music / "link.wav")
    summary = tag(music, tmp_path / "tags", model, top=3)
    assert str(summary).startswith(f"{tmp_path}/tags: 44 files, 40 tagged now") and summary.failed == 4
    assert len(list((tmp_path / "actors").iterdir())) == 2
    monkeypatch.setattr(run, "network", ray_files.network)
    monkeypatch.setattr("keras_musictag.apps.library.pool._STREAM", "ray_files:noted")
    tag_library(music, tmp_path / "tags.parquet", ray_files.tagger(), top=3, workers=1)
    assert read(tmp_path / "tags") == read(tmp_path / "tags.parquet")


def test_a_killed_actor_costs_its_files_in_flight(cluster, model, tmp_path, monkeypatch, caplog):
    music = tmp_path / "music"
    files = sounds(music, 60)
    (music / "broken.mp3").write_bytes(b"no sound")
    record, heard = run.Run._record, []

    def kill(self, done):
        heard.append(done)
        if len(heard) == 12:
            first = min((tmp_path / "actors").iterdir(), key=lambda path: path.stat().st_mtime)
            os.kill(int(first.stem), signal.SIGKILL)
        record(self, done)

    monkeypatch.setattr(run.Run, "_record", kill)
    monkeypatch.setattr(ray_engine, "_SHARD_SIZES", (40, 40))
    summary = tag(music, tmp_path / "tags", model)
    assert summary.tagged == 60 and summary.failures == {"unsupported": 1}
    rows = read(tmp_path / "tags")
    assert {str(path) for path in files} == {path for path, row in rows.items() if row["tags"]}
    assert "An actor died" in caplog.text
    # A batch is 24 windows of a second, and a file three: what was done twice waited for its batch, or was in work.
    assert 61 <= len((music / "decoded.log").read_text().splitlines()) < 61 + 16


def test_a_file_that_kills_actors(cluster, model, tmp_path):
    sounds(tmp_path / "music", 5)
    soundfile.write(tmp_path / "music" / "loud.wav", np.full(16_000, 0.99), 16_000)
    summary = tag(tmp_path / "music", tmp_path / "tags", model)
    assert summary.tagged == 5 and summary.failures == {"crash": 1}
    assert (
        "was being tagged when 3 actors died" in read(tmp_path / "tags")[str(tmp_path / "music" / "loud.wav")]["error"]
    )


def test_what_is_done_is_not_done_again(cluster, model, tmp_path, monkeypatch):
    music, out = tmp_path / "music", tmp_path / "tags"
    files = sounds(music, 8)
    (music / "broken.wav").write_bytes(b"no sound")
    tag(music, out, model, actors=1)
    before = read(out)
    with monkeypatch.context() as patched:
        patched.setattr(ray_engine, "_connected", lambda _: pytest.fail("nothing to do"))
        assert tag(music, out, model, actors=1).skipped == 9
    os.utime(files[0], (1e9, 1e9))
    sound(files[1], 2.25)
    summary = tag(music, out, model, actors=1)
    assert (summary.tagged, summary.skipped, summary.changed) == (0, 8, 1)
    before[str(files[0])]["mtime"] = 1e9
    assert read(out) == before
    files[2].unlink()
    assert tag(music, out, model, actors=1, update=True).tagged == 1
    after = read(out)
    assert after[str(files[1])]["duration_s"] == 2.25 and len(after) == 9
    with pytest.raises(LibraryError, match="8 rows of another model or other settings"):
        tag(music, out, model, actors=1, top=1)
    assert tag(music, out, model, actors=1, top=1, resume=False).tagged == 7
    assert {len(row["tags"] or "x") for row in read(out).values()} == {1}


RUN = """
import sys
import ray, ray_files
from keras_musictag.apps.library import parquet_parts, tag_on_ray
parquet_parts._SECONDS = 0.0
ray_files.without_keras(lambda name: ray_files.tagger())
ray.init(address=sys.argv[1], log_to_driver=False, runtime_env={"worker_process_setup_hook": ray_files.in_actors})
tag_on_ray(sys.argv[2], sys.argv[3], sys.argv[4], workers=1)
"""


def test_a_killed_run_goes_on(cluster, model, tmp_path):
    music, out = tmp_path / "music", tmp_path / "tags"
    sounds(music, 40)
    for number in range(6):
        sound(music / f"slow{number}.wav", 1.5 + number)
    command = [sys.executable, "-c", RUN, ray.get_runtime_context().gcs_address, str(music), str(out), model]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not list(out.glob("part-*")):
        time.sleep(0.01)
    process.kill()
    said, _ = process.communicate()
    (out / f".{next(out.glob('part-*')).name}.{'0' * 32}.part").write_bytes(b"half a part")
    kept = read(out)
    assert 0 < len(kept) < 46, said.decode()
    summary = tag(music, out, model)
    assert (summary.tagged, summary.skipped) == (46 - len(kept), len(kept))
    assert len(read(out)) == 46 and not list(out.glob(".*"))


# === Elsewhere ===


def test_files_and_rows_elsewhere(cluster, model, tmp_path):
    music, url = tmp_path / "music", f"file://{tmp_path}/music"
    music.mkdir()
    files = sounds(music / "a folder", 5)
    (music / ".hidden.wav").touch()
    (music / "notes.txt").touch()
    (music / "broken #1.mp3").write_bytes(b"no sound")
    os.mkfifo(music / "pipe.wav")
    summary = tag(url, f"file://{tmp_path}/tags", model)
    assert summary.out == f"file://{tmp_path}/tags" and summary.tagged == 5
    assert summary.failures == {"unsupported": 1, "not a file": 1}
    rows = read(tmp_path / "tags")
    assert set(rows) == {f"file://{path}" for path in [*files, music / "broken #1.mp3", music / "pipe.wav"]}
    for path in files:
        row = rows[f"file://{path}"]
        assert (row["size"], row["mtime"]) == (path.stat().st_size, path.stat().st_mtime)
    assert rows[f"file://{music}/broken #1.mp3"]["error"].startswith(f"'file://{music}/broken #1.mp3' ")
    assert tag(url, f"file://{tmp_path}/tags", model).skipped == 5 + 1
    assert tag([f"file://{files[0]}", files[1]], tmp_path / "two", model).tagged == 2


def test_what_cannot_be_copied(tmp_path):
    jobs = [run.Job(f"file://{tmp_path}/gone.wav"), run.Job(str(sound(tmp_path / "here.wav")))]
    with storage.Copies([*jobs, run.Job(f"file://{jobs[1].path}")]) as copies:
        here, copy = copies.jobs()
        assert here == jobs[1] and Path(copy.path).read_bytes() == Path(here.path).read_bytes()
        said = copies.returned([storage.Done(copy, storage.Ended("failed", error=f"{copy.path!r} is odd."))])
        assert not os.path.exists(copy.path)
    odd, gone = said
    assert odd.job.path == f"file://{here.path}" and odd.ended.error == f"'file://{here.path}' is odd."
    assert gone.job == jobs[0] and gone.ended.kind == "unreadable" and "(FileNotFoundError: " in gone.ended.error


def test_times_of_storages():
    when = {"mtime": 1e9}, {"LastModified": "2001-09-09T01:46:40+00:00"}, {"updated": "2001-09-09T01:46:40Z"}
    assert {storage._modified(info) for info in when} == {1e9}
    assert np.isnan(storage._modified({"size": 3}))


def row_of(path, **fields):
    return kmt.apps.library.LibraryRow(
        **{"path": path, "sha256": "0", "tagged_at": "2026-01-01T00:00:00+00:00", **fields}
    )


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_parts(scheme, tmp_path, monkeypatch):
    out = f"{scheme}://{tmp_path}/parts"
    revision = run.Revision.of(ray_files.tagger(), None, 0.0, False)
    monkeypatch.setattr(parquet_parts, "_ROWS", 2)
    rows = [row_of(f"/{number}.wav", tags={"guitar": 0.5}, **revision.fields()) for number in range(5)]
    first = parquet_parts.Parts(out, revision)
    for row in rows:
        first.append(row)
        first.sync()
    first.finish()
    filesystem, root = storage.open_url(out)
    assert len(filesystem.ls(root)) == 3
    second = parquet_parts.Parts(out, revision)
    assert list(second.entries) == [row.path for row in rows] and second.entries["/1.wav"].current
    second.append(row_of("/0.wav", tags={"guitar": 0.25}, **revision.fields()))
    second.touch("/4.wav", 3, 1.0)
    second.finish(drop=["/2.wav", "/3.wav"])
    assert len(filesystem.ls(root)) == 3  # the part of /2 and /3 is gone, that of /0 is new
    third = parquet_parts.Parts(out, revision)
    assert sorted(third.entries) == ["/0.wav", "/1.wav", "/4.wav"] and third.entries["/4.wav"].mtime == 1.0
    assert not parquet_parts.Parts(out, revision, fresh=True).entries and not filesystem.ls(root)


# === What is wrong ===


def test_outputs_that_cannot_be(model, tmp_path):
    sounds(tmp_path / "music", 1)
    with pytest.raises(LibraryError, match=r"a folder of Parquet files; got '.*tags\.csv'"):
        tag(tmp_path / "music", tmp_path / "tags.csv", model)
    (tmp_path / "tags").mkdir()
    (tmp_path / "tags" / "mine.parquet").touch()
    with pytest.raises(LibraryError, match=r"holds mine\.parquet, which is no part of a library"):
        tag(tmp_path / "music", tmp_path / "tags", model)
    (tmp_path / "tags" / "mine.parquet").rename(tmp_path / "tags" / "part-00001-00000000-00000.parquet")
    with pytest.raises(LibraryError, match=r"part-.*cannot be read \(ArrowInvalid: .*its files are then tagged again"):
        tag(tmp_path / "music", tmp_path / "tags", model)
    (tmp_path / "file").touch()
    with pytest.raises(LibraryError, match=r"cannot be written or read in .*file \(FileExistsError"):
        tag(tmp_path / "music", tmp_path / "file", model)
    with (
        kmt.apps.library.journal.OutputLock(tmp_path / "new"),
        pytest.raises(LibraryError, match="Another run is writing"),
    ):
        tag(tmp_path / "music", tmp_path / "new", model)


def test_sources_that_cannot_be(model, tmp_path):
    with pytest.raises(LibraryError, match=r"'nosuch://x' cannot be opened: .*install what it needs"):
        tag("nosuch://x", tmp_path / "tags", model)
    with pytest.raises(LibraryError, match="does not exist or has no files"):
        tag(f"file://{tmp_path}/nowhere", tmp_path / "tags", model)
    with pytest.raises(LibraryError, match=r"'/.*/nowhere' does not exist"):
        tag(tmp_path / "nowhere", tmp_path / "tags", model)


def test_numbers_and_missing_packages(model, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="gpus must be a number of at least 0; got -1"):
        tag(tmp_path, tmp_path / "tags", model, gpus=-1)
    with pytest.raises(ValueError, match="actors must be a whole number of at least 1; got 0"):
        tag(tmp_path, tmp_path / "tags", model, actors=0)
    for package in ("ray", "fsspec", "pyarrow.parquet"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, package, None)
            with pytest.raises(kmt.errors.MissingExtraError, match=r"keras_musictag\[ray\]"):
                tag(tmp_path, tmp_path / "tags", model)


def test_actors_that_cannot_be(cluster, model, tmp_path):
    sounds(tmp_path / "music", 1)
    with pytest.raises(LibraryError, match=r"takes 3 CPUs \(workers\) and 0 GPUs \(gpus\): it has 2 and 0"):
        tag(tmp_path / "music", tmp_path / "tags", model, actors=None, workers=3)
    with pytest.raises(LibraryError, match=r"and 0\.5 GPUs"):
        tag(tmp_path / "music", tmp_path / "tags", model, actors=None, gpus=0.5)
    with pytest.raises(LibraryError, match="differs from the model where the run was started"):
        tag(tmp_path / "music", tmp_path / "tags", f"{model} other")
    with pytest.raises(LibraryError, match="3 actors died before they loaded"):
        tag(tmp_path / "music", tmp_path / "tags", f"{model} dies")


# === The command ===


def test_command(cluster, tmp_path):
    def command(*args):
        return CliRunner().invoke(main, ["library", "-m", "tiny", *map(str, args)], catch_exceptions=False)

    sounds(tmp_path / "music", 3)
    result = command(tmp_path / "music", "-o", tmp_path / "ray", "--engine", "ray", "--workers", 2, "--embeddings")
    assert result.exit_code == 0 and "3 files, 3 tagged now" in result.stdout, result.output
    command(tmp_path / "music", "-o", tmp_path / "here.parquet", "--embeddings", "--workers", 1)
    ours, theirs = read(tmp_path / "ray"), read(tmp_path / "here.parquet")
    assert json.dumps(list(ours.values())) == json.dumps([theirs[path] for path in ours])
    result = command(tmp_path / "music", "-o", tmp_path / "ray", "--actors", 2)
    assert result.exit_code == 2 and "--actors and --gpus are for --engine ray" in result.stderr
    result = command(tmp_path / "music", "-o", tmp_path / "ray", "--engine", "ray", "--write-tags", 2)
    assert result.exit_code == 2 and "--write-tags works on this machine only" in result.stderr
