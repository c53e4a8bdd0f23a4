"""Keras' global settings neither change what a tagger says nor are changed by it, whenever they are set."""

import contextlib
import threading

import keras
import numpy as np
import pytest

import keras_musictag as kmt
from keras_musictag.models.keras_state import default_settings
from keras_musictag.training.finetuning import FineTuneSpec

SR = 16_000
SINE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * SR) / SR).astype("float32")
SETTINGS = pytest.mark.parametrize(
    "setting",
    ["mixed_float16", "float64", "all"],
)


def state():
    return keras.config.dtype_policy().name, keras.config.floatx(), keras.config.image_data_format()


@contextlib.contextmanager
def changed(setting):
    before = state()
    try:
        if setting in ("float64", "all"):
            keras.config.set_floatx("float64")
        if setting in ("channels_first", "all"):
            keras.config.set_image_data_format("channels_first")
        if setting != "channels_first":
            keras.config.set_dtype_policy("mixed_float16" if setting == "all" else setting)
        now = state()
        yield
        assert state() == now
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])
        keras.config.set_image_data_format(before[2])


def answers(tagger):
    return tagger.tag(SINE, sr=SR), tagger.embed(SINE, sr=SR), tagger.taggram(SINE, sr=SR).probabilities


def same(one, another):
    assert one[0] == another[0]
    np.testing.assert_array_equal(one[1], another[1])
    np.testing.assert_array_equal(one[2], another[2])


@pytest.fixture(scope="module")
def expected():
    return answers(kmt.load("tiny"))


@SETTINGS
def test_set_before_loading(setting, expected):
    with changed(setting):
        same(answers(kmt.load("tiny")), expected)


@SETTINGS
def test_set_after_loading(setting, expected):
    tagger, used = kmt.load("tiny"), kmt.load("tiny")
    answers(used)
    with changed(setting):
        same(answers(tagger), expected)
        same(answers(used), expected)


def test_what_is_trained_and_written_is_the_same_too(tmp_path, labelled):
    settings = FineTuneSpec(epochs=1, augment=False)
    options = {"validation": None, "progress": False, "settings": settings}
    expected = kmt.load("tiny").fine_tune(labelled, **options)
    with changed("all"):
        found = kmt.load("tiny").fine_tune(labelled, folder=tmp_path / "mine", **options)
        exported = found.export(tmp_path / "onnx")
    assert [v.dtype for v in found.core.variables] == [v.dtype for v in expected.core.variables]
    assert found.tag(SINE, sr=SR) == pytest.approx(expected.tag(SINE, sr=SR), abs=1e-6)
    assert exported.info.max_change < 1e-4


def test_threads_give_back_what_was_set():
    entered, leave = threading.Barrier(3), threading.Event()

    def work():
        with default_settings():
            entered.wait(10)
            leave.wait(10)

    with changed("all"):
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        entered.wait(10)
        with default_settings():
            assert state() == ("float32", "float32", "channels_last")
        leave.set()
        for thread in threads:
            thread.join()
        assert state() == ("mixed_float16", "float64", "channels_first")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Twelve sounds of two tags, in a folder per tag."""
    import soundfile

    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    for tag in ("tone", "noise"):
        (folder / tag).mkdir()
        for number in range(6):
            sound = SINE * (number + 1) / 6 if tag == "tone" else rng.normal(0, 0.1 + number / 50, 2 * SR)
            soundfile.write(folder / tag / f"{number}.wav", sound, SR)
    return folder
