"""Specs: what is refused, and that JSON keeps everything."""

import dataclasses
import json

import pytest

import keras_musictag as kmt
from keras_musictag.errors import SpecError
from keras_musictag.spec import parse_hub_uri

SHA = "0" * 64


@pytest.fixture
def data():
    return kmt.model_info("musicnn_mtt").to_dict()


@pytest.mark.parametrize("name", kmt.list_models())
def test_json_round_trip(name):
    spec = kmt.model_info(name)
    again = kmt.ModelSpec.from_dict(json.loads(spec.to_json()))
    assert again == spec
    assert again.to_json() == spec.to_json()


def test_specs_are_frozen_and_comparable():
    spec = kmt.model_info("tiny")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"
    assert spec == kmt.model_info("tiny")
    assert spec != dataclasses.replace(spec, name="other")


def test_derived_numbers():
    spec = kmt.model_info("musicnet_crnn")
    assert spec.input_shape == (96, 1366)
    assert spec.window_samples == 1365 * 256 + 512
    assert spec.window_seconds == pytest.approx(29.14, abs=0.01)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("audio", "sr"), 0, r"audio\.sr must be a whole number of at least 1000; got 0"),
        (("audio", "sr"), 16000.5, r"audio\.sr must be a whole number"),
        (("audio", "resampler"), "kaiser_best", r"audio\.resampler must be one of .*; got 'kaiser_best'"),
        (("mel", "n_mels"), True, r"mel\.n_mels must be a whole number of at least 1; got True"),
        (("mel", "fmax"), -1.0, r"mel\.fmax -1\.0 is not above fmin"),
        (("mel", "top_db"), -1, r"mel\.top_db must not be negative"),
        (("mel", "amin"), "x", r"Wrong type in mel"),
        (("mel", "colour"), 1, r"Unknown field mel\.colour\. Known: amin"),
        (("mel", "window"), "kaiser", r"mel\.window must be one of 'hann'"),
        (("mel", "htk"), "false", r"mel\.htk must be one of True, False; got 'false'"),
        (("mel", "gain"), -1, r"mel\.gain must be positive"),
        (("mel", "fmax"), 20_000.0, r"mel\.fmax 20000\.0 is above half the sample rate 16000"),
        (("window", "remainder"), "keep", r"window\.remainder must be one of 'drop', 'align'; got 'keep'"),
        (("window", "short"), "stretch", r"window\.short must be one of 'repeat', 'pad'"),
        (("weights", "sha256"), "abc", r"weights\.sha256 must be 64 lower-case hexadecimal digits; got 'abc'"),
        (("weights", "sha256"), None, r"weights\.sha256 must be 64"),
        (("weights", "uri"), "http://example.org/w.h5", r"must use https"),
        (("weights", "uri"), "../w.safetensors", r"must be a plain file name beside spec\.json"),
        (("weights", "uri"), "a/b.safetensors", r"must be a plain file name"),
        (("weights", "uri"), "/etc/passwd", r"must be a file name beside it, not a path"),
        (("weights", "uri"), "hf://org/repo", r"is not pinned: add the commit"),
        (("weights", "uri"), "hf://org/../x@1", r"A Hub address looks like"),
        (("weights", "uri"), "..", r"must be a plain file name"),
        (("weights", "uri"), "hf://org/repo@../main", r"A Hub address looks like"),
        (("weights", "uri"), "hf://org/repo@/main", r"A Hub address looks like"),
        (("weights", "uri"), "hf://../repo@main", r"A Hub address looks like"),
        (("weights", "uri"), "https://example.org/w.h5?download=1", r"must end in a plain file name"),
        (("weights", "uri"), "https://example.org/", r"must end in a plain file name"),
        (("weights", "uri"), "https://example.org/..", r"must end in a plain file name"),
        (("weights", "uri"), "https://example.org/a\\b.h5", r"must end in a plain file name"),
        (("weights", "format"), "pickle", r"weights\.format must be one of"),
    ],
)
def test_bad_fields_are_named(data, path, value, message):
    data[path[0]][path[1]] = value
    with pytest.raises(SpecError, match=message):
        kmt.ModelSpec.from_dict(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tags": []}, "has no tags"),
        ({"tags": ["a", "b", "a"]}, "lists tags twice: a"),
        ({"tags": ["a", " "]}, "has an empty tag"),
        ({"name": "../evil"}, r"name must consist of letters, digits.*got '\.\./evil'"),
        ({"architecture": "os.system"}, None),
        ({"architecture": "a b"}, "architecture must consist of"),
        ({"spec_version": 2}, "This spec is of version 2; this package reads version 1"),
        ({"metrics": [{"dataset": "x", "roc_auc": 0.9}]}, "does not say its n, source, split"),
        ({"mel": 3}, "mel must be an object; got 3"),
        ({"tags": "abcde"}, "tags must be a list; got 'abcde'"),
        ({"metrics": 5}, "metrics must be a list; got 5"),
        ({"metrics": [5]}, "A metric of 'musicnn_mtt' must be an object; got 5"),
        ({"config": []}, r"config must be an object; got \[\]"),
        ({"license": 5}, "license must be text; got 5"),
        ({"surprise": 1}, "Unknown field surprise"),
    ],
)
def test_bad_specs_are_named(data, change, message):
    data.update(change)
    if message is None:  # a well-formed name; that nothing is registered under it is the registry's business
        assert kmt.ModelSpec.from_dict(data).architecture == "os.system"
        return
    with pytest.raises(SpecError, match=message):
        kmt.ModelSpec.from_dict(data)


def test_missing_fields_are_named(data):
    del data["mel"], data["name"]
    with pytest.raises(SpecError, match="Missing field mel, name"):
        kmt.ModelSpec.from_dict(data)
    with pytest.raises(SpecError, match="must be a JSON object; got list"):
        kmt.ModelSpec.from_dict([])


def test_folders_without_a_spec(tmp_path):
    with pytest.raises(SpecError, match=r"has no spec\.json: it is not a saved tagger"):
        kmt.ModelSpec.from_folder(tmp_path)
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(SpecError, match="cannot be read as JSON"):
        kmt.ModelSpec.from_folder(tmp_path)
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(SpecError, match=r"spec\.json: Missing field"):
        kmt.ModelSpec.from_folder(tmp_path)


def test_hub_addresses():
    assert parse_hub_uri("hf://org/repo@0123abc") == ("org/repo", "0123abc")
    assert parse_hub_uri("hf://org/repo") == ("org/repo", None)
    assert parse_hub_uri("hf://org/repo@refs/pr/1") == ("org/repo", "refs/pr/1")
    for bad in ("hf://repo", "hf://org/repo/file", "org/repo", "hf://org/repo@"):
        with pytest.raises(SpecError, match="A Hub address looks like"):
            parse_hub_uri(bad)
