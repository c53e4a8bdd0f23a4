"""benchmarks/latency.py times what it says it times, and writes it where cards find it."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import keras_musictag as kmt
from keras_musictag.audio import reading as audio
from keras_musictag.models import registry
from keras_musictag.models.windows import cut

CHECKOUT = Path(__file__).parents[1]
_script = importlib.util.spec_from_file_location("latency", CHECKOUT / "benchmarks" / "latency.py")
latency = importlib.util.module_from_spec(_script)
_script.loader.exec_module(latency)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    shutil.copytree(registry.zoo_folder() / "tiny", tmp_path / "tiny")
    monkeypatch.setattr(registry, "zoo_folder", lambda: tmp_path)
    monkeypatch.setattr(latency, "zoo_folder", lambda: tmp_path)
    return tmp_path


def test_each_starting_point_is_measured():
    measured = latency.measure(["tiny"], 3, "a command")
    assert [entry.scope for entry in measured["tiny"]] == ["log_mel", "waveform", "file"]
    for entry in measured["tiny"]:
        assert (entry.batch, entry.repetitions, entry.command) == (1, 3, "a command")
        assert entry.machine and entry.threads >= 1 and entry.backend.startswith("Keras 3")


@pytest.mark.parametrize("name", ["tiny", "musicnet_crnn", "musicnn_mtt"])
def test_a_call_is_one_window(name, tmp_path):
    tagger = kmt.load(name, weights=None)
    calls = latency.calls_of(tagger, tmp_path / "clip.flac")
    clip, rate = calls["waveform"].args
    from_file = audio.load(tmp_path / "clip.flac", target_sr=rate)
    assert len(from_file) == len(clip) == (tagger.spec.window.frames - 1) * tagger.spec.mel.hop_length
    assert [len(batch.starts) for batch in cut([from_file], tagger.spec)] == [1]
    assert calls["log_mel"].args[0].shape == (1, *tagger.spec.input_shape)


def test_figures_are_written_to_the_spec_and_the_card(zoo):
    result = CliRunner().invoke(latency.main, ["tiny", "--repetitions", "30", "--write"])
    assert result.exit_code == 0, result.output
    assert "tiny" in result.output and "Cards written: tiny." in result.output
    before, after = (kmt.ModelSpec.from_folder(folder / "tiny") for folder in (CHECKOUT / "zoo", zoo))
    assert dataclasses.replace(after, latency=before.latency) == before
    entries = json.loads((zoo / "tiny" / "spec.json").read_text())["latency"]
    assert [entry["scope"] for entry in entries] == ["log_mel", "waveform", "file"]
    assert entries[0]["command"] == "python benchmarks/latency.py tiny --repetitions 30 --write"
    assert f"{entries[2]['median_ms']:.2f}" in (zoo / "tiny" / "README.md").read_text()


def test_too_few_calls_are_not_written(zoo):
    result = CliRunner().invoke(latency.main, ["tiny", "--repetitions", "29", "--write"])
    assert result.exit_code == 2 and "--write needs at least 30 repetitions; got 29." in result.output


def test_only_models_of_the_zoo_are_written(zoo):
    result = CliRunner().invoke(latency.main, ["example_mean", "--write"])
    assert result.exit_code == 2 and "Name a model of the zoo" in result.output
