"""Names, near misses, and models of other packages."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keras_musictag as kmt
from keras_musictag.errors import SpecError, UnknownModelError
from keras_musictag.models import registry

PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture
def clean_registry(monkeypatch):
    kmt.list_models()
    monkeypatch.setattr(registry, "_specs", dict(registry._specs))
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))


def test_wildcards_and_pretrained():
    assert kmt.list_models("*_cnn") == ["baseline_cnn", "large_cnn"]
    assert {"musicnn_mtt", "large_cnn"} < set(kmt.list_models("*cnn*"))
    assert kmt.list_models("*_mtt") == ["musicnn_mtt", "vgg_mtt", "won_crnn_mtt", "won_fcn_mtt", "won_musicnn_mtt"]
    assert "musicnn_mtt" in kmt.list_models(pretrained=True)
    assert all(kmt.model_info(name).weights for name in kmt.list_models(pretrained=True))


def test_did_you_mean():
    with pytest.raises(UnknownModelError, match=r"Unknown model 'musicnet_crn'\. Did you mean 'musicnet_crnn'"):
        kmt.model_info("musicnet_crn")
    with pytest.raises(LookupError, match="Known: baseline_cnn"):
        kmt.load("resnet50")
    with pytest.raises(UnknownModelError, match=r"Unknown architecture 'musicn'\. Did you mean 'musicnn'.*plug-in"):
        kmt.build_model("musicn")


def test_register_a_function_and_a_spec(clean_registry, sine):
    spec = kmt.ModelSpec(
        name="flat_3",
        architecture="flat",
        audio=kmt.AudioSpec(sr=16_000),
        mel=kmt.MelSpec(n_fft=512, hop_length=256, n_mels=8),
        window=kmt.WindowSpec(frames=20),
        tags=("a", "b", "c"),
        config={"units": 4},
    )

    @kmt.register_model(spec=spec)
    def flat(num_tags, *, input_shape, name, units):
        import keras

        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input(input_shape),
                layers.Flatten(),
                layers.Dense(units),
                layers.Dense(num_tags, "sigmoid", name="head"),
            ],
            name=name,
        )

    assert "flat_3" in kmt.list_models()
    tagger = kmt.load("flat_3", weights=None)
    assert set(tagger.tag(sine, sr=16_000)) == {"a", "b", "c"}
    assert tagger.embed(sine, sr=16_000).shape == (4,)
    with pytest.raises(SpecError, match="'flat_3' must have architecture 'other'; got 'flat'"):

        @kmt.register_model(spec=spec)
        def other():
            pass


def test_names_are_not_taken_over(clean_registry):
    with pytest.raises(SpecError, match="The architecture name 'musicnn' is reserved by keras_musictag"):

        @kmt.register_model
        def musicnn():
            pass

    other = dataclasses.replace(kmt.model_info("tiny"), architecture="musicnn")
    with pytest.raises(SpecError, match="Another model is already registered as 'tiny'"):
        registry._add_spec(other)


def test_a_refused_model_leaves_nothing_behind():
    """In a new process: registering a taken name is the first thing that happens there."""
    code = """
import dataclasses, keras_musictag as kmt
from keras_musictag.errors import SpecError
from keras_musictag.models.registry import zoo_folder
spec = dataclasses.replace(kmt.ModelSpec.from_folder(zoo_folder() / "tiny"), architecture="mine")
try:
    @kmt.register_model(spec=spec)
    def mine(): pass
except SpecError as error:
    print(error)
print(len(kmt.list_models()))
try:
    kmt.build_model("mine")
except LookupError:
    print("unknown")
"""
    lines = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0] == "Another model is already registered as 'tiny'. Change the name in the spec."
    assert int(lines[1]) >= 8 and lines[2] == "unknown"


def test_an_installed_plugin_is_listed_built_and_loaded(tmp_path):
    """The real thing: pip installs a package that has an entry point, and a new process finds its model."""
    pytest.importorskip("pip")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
         "--target", str(tmp_path / "site"), str(PLUGIN)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    code = """
import json, numpy as np, keras_musictag as kmt
from keras_musictag.errors import WeightsUnavailableError
listed = "example_mean" in kmt.list_models()
model = kmt.build_model("example_mean", num_tags=5)
tagger = kmt.load("example_mean", weights=None)
tags = tagger.tag(np.random.default_rng(0).uniform(-1, 1, 16000), sr=8000)
try:
    kmt.load("example_mean")
    refused = False
except WeightsUnavailableError:
    refused = True
checks = all(check.passed for check in kmt.validate("example_mean"))
print(json.dumps([listed, model.output_shape, sorted(tags), refused, checks]))
"""
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert json.loads(result.stdout) == [True, [None, 5], ["bright", "busy", "loud"], True, True]


def test_a_broken_plugin_does_not_take_the_zoo_down(tmp_path):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[keras_musictag.models]\nbroken = no_such_module\n")
    code = "import logging; logging.basicConfig(); import keras_musictag as kmt; print(len(kmt.list_models()))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert int(result.stdout) >= 8
    assert "The plug-in broken (no_such_module) could not be loaded" in result.stderr


def test_a_model_is_two_files(tmp_path):
    """A new architecture and its spec are found by their names; nothing else in the package changes."""
    package = Path(kmt.__file__).parent
    shutil.copytree(package, tmp_path / "keras_musictag", ignore=shutil.ignore_patterns("__pycache__", "zoo"))
    spec = json.loads((registry.zoo_folder() / "tiny" / "spec.json").read_text())
    spec |= {"name": "mean_of_frames", "architecture": "mean_of_frames", "weights": None}
    (tmp_path / "zoo" / "mean_of_frames").mkdir(parents=True)
    (tmp_path / "zoo" / "mean_of_frames" / "spec.json").write_text(json.dumps(spec))
    (tmp_path / "keras_musictag" / "models" / "architectures" / "mean_of_frames.py").write_text(
        """
import keras
from ..registry import register_model

@register_model
def mean_of_frames(num_tags=5, *, input_shape=(32, 63), name="mean_of_frames"):
    log_mel = keras.Input(input_shape, name="log_mel")
    mean = keras.layers.GlobalAveragePooling1D(data_format="channels_first")(log_mel)
    return keras.Model(log_mel, keras.layers.Dense(num_tags, "sigmoid", name="head")(mean), name=name)
"""
    )
    code = """
import sys
import keras_musictag as kmt
assert "mean_of_frames" in kmt.list_models() and "mean_of_frames" in dir(kmt.models) and "keras" not in sys.modules
print(kmt.models.mean_of_frames().count_params(), kmt.load("mean_of_frames", weights=None).core.output_shape[1])
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["165", "5"]
