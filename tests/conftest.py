"""What several test files share. Development data is optional: tests that need it skip where it is absent."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from hub_server import HubServer
from interrupts import usual_ctrl_c
from weight_files import CONTENT, NAME, answer_https

import keras_musictag as kmt
from keras_musictag.utils import transfers

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config):
    # TensorFlow and JAX warn about themselves at import; everything after that is an error (see pyproject.toml).
    import warnings

    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.ops.zeros((1,))


def pytest_collection_modifyitems(items):
    """Timings first: they want a process in which nothing else has run yet."""
    items.sort(key=lambda item: item.get_closest_marker("speed") is None)


@pytest.fixture(autouse=True)
def private_environment(monkeypatch, tmp_path):
    """No test sees the user's caches or settings."""
    for name in ("KERAS_MUSICTAG_MIRROR", "KERAS_MUSICTAG_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_MUSICTAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transfers, "_PAUSE", 0.001)


@pytest.fixture(scope="session")
def reference_clips():
    """The two example clips of musicnn."""
    clips = sorted((SHARED / "reference").glob("*.mp3"))
    if not clips:
        pytest.skip("development data is not here")
    return clips


@pytest.fixture
def published_weights(monkeypatch):
    """A mirror with the four published weight files."""
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("development data is not here")
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", str(folder))
    return folder


@pytest.fixture
def sine():
    """Three seconds of 440 Hz at 16 kHz."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)).astype("float32")


@pytest.fixture
def noise():
    """4.4 s of noise at 16 kHz."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, 70_000).astype("float32")


@pytest.fixture(scope="module")
def tiny():
    return kmt.load("tiny")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports of `tiny`: `exported(format, precision, input)`."""
    from tiny_exports import TinyExports  # imports Keras, which pytest_configure does first

    return TinyExports(tmp_path_factory.mktemp("exports"))


@pytest.fixture
def ctrl_c():
    """The usual answer to Ctrl-C, also where the tests run in the background."""
    with usual_ctrl_c():
        yield


# === A loopback server of weight files ===


@pytest.fixture
def server():
    """Serves one weight file, and speaks the Hub's protocol."""
    with HubServer() as server:
        server.files[NAME] = CONTENT
        yield server


@pytest.fixture
def https(server, monkeypatch):
    """The same server, as https://weights.example."""
    answer_https(server, monkeypatch)
    return server


@pytest.fixture
def cache():
    """Where this test's downloads go."""
    return Path(os.environ["KERAS_MUSICTAG_CACHE"])
