"""Importing the package is cheap: no backend, nothing printed."""

import os
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.smoke

HEAVY = ("tensorflow", "keras", "jax", "torch", "librosa", "matplotlib", "sklearn", "huggingface_hub", "requests")


def _run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    "use",
    ["", "kmt.list_models()", "kmt.model_info('musicnn_mtt')", "import keras_musictag.cli", "dir(kmt)"],
)
def test_naming_models_imports_nothing_heavy(use):
    code = f"import keras_musictag as kmt\n{use}\nimport sys\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = _run(code)
    assert result.stdout.strip() == "[]"
    assert result.stderr == ""


def test_import_takes_less_than_0_3_seconds():
    # Measured 0.03 s; the best of three, because a busy machine can delay any one of them.
    code = "import time; t = time.perf_counter(); import keras_musictag; print(time.perf_counter() - t)"
    assert min(float(_run(code).stdout) for _ in range(3)) < 0.3


def test_every_public_name_exists():
    import keras_musictag as kmt

    assert sorted(kmt.__all__) == dir(kmt)
    for name in kmt.__all__:
        assert getattr(kmt, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'taggger'"):
        _ = kmt.taggger


def test_help_answers_before_any_backend_could_load():
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "keras_musictag.cli", "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "KERAS_BACKEND": "no-such-backend"},
    )  # fmt: skip
    assert "taggram" in result.stdout
    assert time.perf_counter() - started < 3


def test_the_commands_spare_the_garbage_collector_the_modules_of_keras():
    code = (
        "import gc; from keras_musictag.cli.common import import_backend; import_backend()\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    )
    enabled, frozen = _run(code).stdout.split()
    assert (enabled, frozen) == ("True", "True")
