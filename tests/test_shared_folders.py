"""Folders that several calls use, and caches that cannot be written."""

import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import platformdirs
import pytest

import keras_musictag as kmt
from keras_musictag.tagging.runtimes import is_installed
from keras_musictag.training.finetuning import FineTuneSpec
from keras_musictag.training.finetuning import fine_tune_run as fitting
from keras_musictag.training.finetuning.labelled_data import FineTuneError
from keras_musictag.training.run_folder import run_folder
from keras_musictag.utils import files
from keras_musictag.utils.locks import locked

SR = 16_000
QUICK = {"validation": None, "progress": False, "settings": FineTuneSpec(stages="head")}


@pytest.fixture
def labelled(tmp_path):
    """Eight sounds of two tags, in a folder per tag."""
    import soundfile

    rng, times = np.random.default_rng(0), np.arange(2 * SR) / SR
    for tag in ("tone", "noise"):
        (tmp_path / "labelled" / tag).mkdir(parents=True)
        for number in range(4):
            tone, noise = 0.3 * np.sin(2 * np.pi * (400 + 100 * number) * times), rng.normal(0, 0.1, len(times))
            soundfile.write(tmp_path / "labelled" / tag / f"{number}.wav", tone if tag == "tone" else noise, SR)
    return tmp_path / "labelled"


# === Locks ===


def test_a_lock_is_held_by_one_and_removed(tmp_path):
    path = tmp_path / "run" / ".lock"
    with locked(path) as first, locked(path) as second:
        assert first and not second
        other = "import sys, pathlib; from keras_musictag.utils.locks import locked\n"
        other += "with locked(pathlib.Path(sys.argv[1])) as held: print(held)"
        command = [sys.executable, "-c", other, str(path)]
        assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip() == "False"
    assert not path.exists()
    with locked(path) as again:
        assert again


ABOUT = {"base": "b", "data": "d", "single_label": True, "settings": {"seed": 0}}
OPTIONS = {"file": "fine-tuning.json", "error": FineTuneError}


def test_the_same_run_twice_gets_a_folder_each(tmp_path):
    options = {**OPTIONS, "cache": tmp_path}
    with run_folder(None, ABOUT, **options) as first, run_folder(None, ABOUT, **options) as second:
        assert first != second and first.is_dir() and second.is_dir()
    with run_folder(None, ABOUT, **options) as again:  # what a killed run has left is gone on with
        assert again == first


def test_a_folder_belongs_to_one_call(tmp_path):
    refused = pytest.raises(FineTuneError, match=r"Another call is training in .*Wait until it has ended")
    with run_folder(tmp_path, ABOUT, **OPTIONS), refused, run_folder(tmp_path, ABOUT, **OPTIONS):
        pass
    other = {**ABOUT, "data": "e", "settings": {"seed": 1}}
    refused = pytest.raises(FineTuneError, match=r"holds a run with other data, seed 0 instead of 1\. Choose another")
    with refused, run_folder(tmp_path, other, **OPTIONS):
        pass
    # What to delete: with a tagger in the folder all of it, since what no run is known to have made is not replaced.
    for whole in (False, True):
        if whole:
            (tmp_path / "spec.json").write_text("{}")
        delete = tmp_path if whole else tmp_path / "run"
        with pytest.raises(FineTuneError) as raised, run_folder(tmp_path, other, **OPTIONS):
            pass
        assert str(raised.value).endswith(f"or delete {delete} to start over.")
        shutil.rmtree(delete)
        with run_folder(tmp_path, other, **OPTIONS):
            pass
        shutil.rmtree(tmp_path)
        with run_folder(tmp_path, ABOUT, **OPTIONS):
            pass


def test_two_fine_tunings_of_the_same_data_at_once(labelled, monkeypatch):
    both, made = threading.Barrier(2), fitting.new_tagger

    def wait(*args):  # until the other one has its folder too
        both.wait(60)
        return made(*args)

    monkeypatch.setattr(fitting, "new_tagger", wait)
    taggers = []

    def work():
        taggers.append(kmt.load("tiny").fine_tune(labelled, **QUICK))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * SR) / SR)
    one, another = (tagger.tag(sound, sr=SR) for tagger in taggers)
    assert one == another and max(one, key=one.get) == "tone"
    assert list(files.cache_folder().glob("fine-tuning/*")) == []


# === Homes that cannot be written ===


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """A user's cache folder that lies below a file; folder for temporary files."""
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "temporary").mkdir()
    monkeypatch.delenv("KERAS_MUSICTAG_CACHE")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "temporary"))
    files._temporary_cache.cache_clear()
    yield tmp_path / "temporary"
    files._temporary_cache.cache_clear()


def test_a_temporary_cache_with_one_warning(homeless, caplog):
    folder = files.cache_folder()
    assert folder.parent == homeless and files.cache_folder() == folder and files.cached_path("a").parent == folder
    assert caplog.text.count("cannot be written") == 1
    assert f"{folder} is used as the cache. Set KERAS_MUSICTAG_CACHE" in caplog.text
    if os.name == "posix":
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name != "posix", reason="others' rights are written so on POSIX alone")
def test_no_cache_that_others_can_write(homeless):
    planted = homeless / f"keras_musictag-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    assert files.cache_folder() not in (planted, Path(platformdirs.user_cache_dir()))
    files._temporary_cache.cache_clear()
    planted.rmdir()
    planted.symlink_to(homeless.parent)
    assert files.cache_folder() != planted


def test_a_cache_that_can_only_be_read_is_read(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_MUSICTAG_CACHE")
    monkeypatch.setattr(files, "_user_cache", lambda: tmp_path / "given")
    (tmp_path / "given" / "weights" / "a").mkdir(parents=True)
    monkeypatch.setattr(files, "is_writable", lambda folder: False)
    monkeypatch.setattr(files, "_temporary_cache", lambda unusable: tmp_path / "temporary")
    assert files.cached_path("weights", "a") == tmp_path / "given" / "weights" / "a"
    assert files.cached_path("weights", "b") == tmp_path / "temporary" / "weights" / "b"


def test_a_folder_that_was_named_is_not_replaced(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("KERAS_MUSICTAG_CACHE", str(tmp_path / "file" / "cache"))
    assert files.cache_folder() == tmp_path / "file" / "cache"


def test_everything_works_without_a_home(homeless, labelled, caplog):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    caplog.set_level(logging.WARNING)
    sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * SR) / SR)
    exported = kmt.load("tiny", runtime="onnxruntime")
    assert exported.tag(sound, sr=SR, top=1).keys() == {"tone"}
    assert kmt.load("tiny").fine_tune(labelled, **QUICK).tag(sound, sr=SR, top=1).keys() == {"tone"}
    (cache,) = homeless.glob("keras_musictag-*")
    assert {"exports", "log-mels"} <= {path.name for path in cache.iterdir()}
    assert caplog.text.count("cannot be written") == 1


HOMELESS = """
import numpy as np, keras_musictag as kmt
sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
for runtime in ("onnxruntime", "keras"):
    print(list(kmt.load("tiny", runtime=runtime).tag(sound, sr=16_000, top=1)))
"""


def without_a_home(tmp_path, *command):
    """Run Python as a user whose home cannot be written."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir(mode=0o555)
    temporary.mkdir()
    command = [sys.executable, *map(str, command)]
    if hasattr(os, "getuid") and os.getuid() == 0:  # root may write anywhere, unless it gives that up
        if not shutil.which("setpriv"):
            pytest.skip("root needs setpriv (util-linux) to give up writing anywhere")
        command = ["setpriv", "--bounding-set=-dac_override", *command]
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary)}
    for name in ("KERAS_MUSICTAG_CACHE", "XDG_CACHE_HOME", "TF_CPP_MIN_LOG_LEVEL"):
        environment.pop(name, None)
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count(f"{home}/.cache/keras_musictag cannot be written") == 1
    return done


def test_a_user_whose_home_cannot_be_written(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    assert without_a_home(tmp_path, "-c", HOMELESS).stdout.splitlines() == ["['tone']", "['tone']"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_commands_of_such_a_user(tmp_path, labelled, runtime):
    if not is_installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    command = ("tag", labelled / "tone" / "0.wav", "--model", "tiny", "--runtime", runtime, "--top", 1, "--csv")
    done = without_a_home(tmp_path, "-m", "keras_musictag.cli", *command)
    others = [line for line in done.stderr.splitlines() if "atplotlib" not in line]  # which warns of its own cache
    assert ",tone," in done.stdout and len(others) == 1
