"""Exports of `tiny`, each made once for all tests of a file, and packages as if they were not installed."""

import importlib.util

import keras

import keras_musictag as kmt

TENSORFLOW = keras.backend.backend() == "tensorflow"
FORMATS = ("onnx", "openvino", *(("litert", "saved_model") if TENSORFLOW else ()))


class TinyExports:
    """`exports(format, precision, input)` gives an `Export` of `tiny`."""

    def __init__(self, folder):
        self._folder, self._made = folder, {}
        self._tiny = kmt.load("tiny")

    def __call__(self, format="onnx", precision="float32", input="waveform"):
        key = (format, precision, input)
        if key not in self._made:
            path = self._folder / "-".join(key)
            self._made[key] = self._tiny.export(path, format=format, precision=precision, input=input)
        return self._made[key]


def hide(monkeypatch, *packages):
    """Let packages be as if they were not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name in packages else found(name, *args)
    )
