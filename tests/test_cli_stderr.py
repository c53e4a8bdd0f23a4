"""What commands write to standard error: our own lines, without the messages of TensorFlow and other C libraries."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from two_tags import two_tags

from keras_musictag.tagging.runtimes import FILE_RUNTIMES, is_installed

OURS = re.compile(
    r"(next: |note: |time: |\[\d\] |Details: |Wrote |fine-tune +|data +|tags +|stages +|folder: |http://127|"
    r"  (tonal|noisy) +\d|.* runs on |(\d+%)?\|?.*\d+/\d+ \[)"
)
SECONDS = 300  # for a command, on a machine that does much else
VARIABLES = ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "KERAS_MUSICTAG_MIRROR")


def environment(**changes):
    """That of a user who has set nothing."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES} | changes


def check(text):
    strange = [line for line in re.split(r"[\r\n]+", text) if line.strip() and not OURS.match(line)]
    assert strange == []


def commands(*several, folder, **changes):
    """Run commands one after the other in one new process; returns what it wrote to standard error."""
    code = "import json, sys\nfrom keras_musictag.cli import main\n"
    code += "for command in json.loads(sys.argv[1]): main(command, standalone_mode=False)\n"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([[str(word) for word in command] for command in several])],
        capture_output=True, text=True, timeout=SECONDS, cwd=folder, env=environment(**changes),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    two_tags(folder / "music", 8).to_csv(folder / "clips.csv")
    return folder


def runtimes(*names):
    return [name for name in names if name == "keras" or is_installed(name)]


def test_commands_with_keras(clips, tmp_path):
    commands_ = [
        ("tag", "music/0.wav", "-m", "tiny"),
        ("taggram", "music/0.wav", "-m", "tiny"),
        ("models",),
        ("finetune", "tiny", "--data", "clips.csv", "--epochs", 1, "--out", tmp_path / "mine"),
        ("evaluate", tmp_path / "mine", "--data", "clips.csv", "--split", "all"),
        ("library", "music", "--out", tmp_path / "tags.csv", "--model", "tiny", "--workers", 1),
    ]
    check(commands(*commands_, folder=clips))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_other_runtimes_and_exports(clips, tmp_path, runtime):
    """Export a model and load it; then load it from the cache; then load an export of the user."""
    if not is_installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    format = FILE_RUNTIMES[runtime].formats[0]
    check(
        commands(
            ("demo", "-m", "tiny", "--runtime", runtime),
            ("tag", "music/0.wav", "-m", "tiny", "--runtime", runtime),
            ("export", "tiny", tmp_path / "export", "--format", format),
            ("taggram", "music/0.wav", "-m", tmp_path / "export", "--runtime", runtime),
            folder=clips,
        )
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent to a process as POSIX does")
def test_a_page_that_tags(clips, ctrl_c):
    model, runtime = ("tiny", runtimes("litert", "keras")[0])
    command = [sys.executable, "-m", "keras_musictag.cli", "serve", "-m", model, "--runtime", runtime]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        url = process.stderr.readline().split()[0]
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert url.startswith("http://127.0.0.1:") and rest == "" and process.returncode == 0


def test_errors_are_shown(clips):
    """Errors of Python and those that are meant, and what C libraries said before an unexpected one."""
    code = """
import os, sys
from keras_musictag.cli import common, main
if sys.argv[1] == "usage":
    main(["info", "nothing"])
with common.progress_only():
    os.write(2, b"from C\\n")
    raise RuntimeError("from Python")
"""
    for what, status, said in (("usage", 2, "Error: Unknown model 'nothing'."), ("failure", 1, "from C\nTraceback")):
        done = subprocess.run(
            [sys.executable, "-c", code, what],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            cwd=clips,
            env=environment(),
        )
        assert done.returncode == status and said in done.stderr
    assert done.stderr.endswith("RuntimeError: from Python\n")


def test_messages_that_the_user_asks_for_are_shown():
    code = """
import os
from keras_musictag.cli import common
with common.progress_only(), common.stderr_on_failure():
    os.write(2, b"from C\\n")
"""
    for level, said in (("0", "from C\n"), ("2", "from C\n"), ("3", "")):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS,
            env=environment(TF_CPP_MIN_LOG_LEVEL=level),
        )  # fmt: skip
        assert done.stderr == said


def test_the_library_leaves_the_environment_alone():
    code = """
import os
before = dict(os.environ)
import keras_musictag as kmt, keras_musictag.cli
assert dict(os.environ) == before
kmt.load("tiny")
print([os.environ.get(name) for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout in ("[None, None]\n", "['1', None]\n")  # 1 is what JAX sets when it is imported
