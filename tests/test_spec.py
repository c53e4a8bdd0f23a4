"""Specs: what is refused, and that JSON keeps everything."""

import dataclasses
import json

import pytest

import keras_musictag as kmt
from keras_musictag.errors import SpecError
from keras_musictag.models.spec import parse_hub_uri

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
        (("mel", "fmax"), -1.0, r"mel\.fmax must be above fmin=0\.0; got -1\.0"),
        (("mel", "top_db"), -1, r"mel\.top_db must not be negative"),
        (("mel", "amin"), "x", r"Wrong type in mel"),
        (("mel", "colour"), 1, r"Unknown field mel\.colour\. Known: amin"),
        (("mel", "window"), "kaiser", r"mel\.window must be one of 'hann'"),
        (("mel", "htk"), "false", r"mel\.htk must be one of True, False; got 'false'"),
        (("mel", "gain"), -1, r"mel\.gain must be positive"),
        (("mel", "fmax"), 20_000.0, r"mel\.fmax must be at most half the sample rate 16000; got 20000\.0"),
        (("window", "remainder"), "keep", r"window\.remainder must be one of 'drop', 'align'; got 'keep'"),
        (("window", "short"), "stretch", r"window\.short must be one of 'repeat', 'pad'"),
        (("weights", "sha256"), "abc", r"weights\.sha256 must be 64 lower-case hexadecimal digits; got 'abc'"),
        (("weights", "sha256"), None, r"weights\.sha256 must be 64"),
        (("weights", "uri"), "http://example.org/w.h5", r"must use https"),
        (("weights", "uri"), "../w.safetensors", r"must be a plain file name beside spec\.json"),
        (("weights", "uri"), "a/b.safetensors", r"must be a plain file name"),
        (("weights", "uri"), "/etc/passwd", r"must be a file name beside it, not a path"),
        (("weights", "uri"), "hf://org/repo", r"is not pinned: add the commit"),
        (("weights", "uri"), "hf://org/../x@1", r"A Hub address must be"),
        (("weights", "uri"), "..", r"must be a plain file name"),
        (("weights", "uri"), "hf://org/repo@../main", r"A Hub address must be"),
        (("weights", "uri"), "hf://org/repo@/main", r"A Hub address must be"),
        (("weights", "uri"), "hf://../repo@main", r"A Hub address must be"),
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
        ({"spec_version": 2}, "The spec has version 2, but this package reads version 1"),
        ({"metrics": [{"dataset": "x", "roc_auc": 0.9}]}, "lacks n, source, split; got"),
        ({"mel": 3}, "mel must be an object; got 3"),
        ({"tags": "abcde"}, "tags must be a list; got 'abcde'"),
        ({"metrics": 5}, "metrics must be a list; got 5"),
        ({"metrics": [5]}, "A metric of 'musicnn_mtt' must be an object; got 5"),
        ({"config": []}, r"config must be an object; got \[\]"),
        ({"license": 5}, "license must be text; got 5"),
        ({"surprise": 1}, "Unknown field surprise"),
        ({"intended_use": ["x"]}, r"intended_use must be text; got \['x'\]"),
        ({"citation": 5}, "citation must be text; got 5"),
        ({"limits": "deaf"}, "limits must be a list; got 'deaf'"),
        ({"limits": ["deaf", " "]}, "Each item of limits must be non-empty text; got ' '"),
        ({"training_data": "mine"}, "training_data must be a list; got 'mine'"),
        ({"training_data": ["mine"]}, "training_data must be an object; got 'mine'"),
        ({"latency": [{"scope": "file"}]}, r"Missing field latency\.backend, batch"),
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
        with pytest.raises(SpecError, match="A Hub address must be"):
            parse_hub_uri(bad)


# === What is known of the weights ===

DATA = {"name": "Some Set", "role": "labelled", "licence": "CC0-1.0"}
LATENCY = {
    "scope": "file",
    "batch": 1,
    "median_ms": 2.5,
    "p10_ms": 2,
    "p90_ms": 4.0,
    "repetitions": 100,
    "machine": "Some CPU",
    "threads": 2,
    "backend": "Keras 3 on jax",
    "date": "2026-01-31",
    "command": "python benchmarks/latency.py x",
}
METRIC = {"dataset": "Some Set", "split": "test", "n": 12, "source": "a command"}


def test_facts_are_kept(data):
    facts = {
        "training_data": [{**DATA, "n": 3, "note": "", "url": "https://example.org"}],
        "latency": [LATENCY],
        "limits": ["No bass.", "No treble."],
        "metrics": [{**METRIC, "roc_auc": 0.9, "roc_auc_low": 0.8, "roc_auc_high": 1, "anything": [1]}],
        "intended_use": "This.",
        "citation": "@misc{x}",
    }
    spec = kmt.ModelSpec.from_dict({**data, **facts})
    written = json.loads(spec.to_json())
    assert {field: written[field] for field in facts} == facts
    assert kmt.ModelSpec.from_dict(written) == spec


def test_specs_that_say_nothing_of_the_weights_are_read(data):
    for field in ("intended_use", "limits", "training_data", "latency", "citation"):
        del data[field]
    spec = kmt.ModelSpec.from_dict(data)
    assert spec.limits == spec.training_data == spec.latency == () and spec.citation == spec.intended_use == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": " "}, r"training_data\.name must be non-empty text; got ' '"),
        ({"licence": ""}, r"training_data\.licence must be non-empty text; got ''"),
        ({"role": "test"}, r"training_data\.role must be one of 'labelled', 'unlabelled', 'teacher', .*; got 'test'"),
        ({"n": 0}, r"training_data\.n must be a whole number of at least 1; got 0"),
        ({"note": 1}, r"training_data\.note must be text; got 1"),
        ({"url": "mail me"}, r"training_data\.url must be a web address or empty; got 'mail me'"),
        ({"license": "x"}, r"Unknown field training_data\.license\. Known: licence, n"),
    ],
)
def test_bad_training_data_is_named(data, change, message):
    data["training_data"] = [{**DATA, **change}]
    with pytest.raises(SpecError, match=message):
        kmt.ModelSpec.from_dict(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scope": "disk"}, r"latency\.scope must be one of 'log_mel', 'waveform', 'file'; got 'disk'"),
        ({"batch": 0}, r"latency\.batch must be a whole number"),
        ({"machine": ""}, r"latency\.machine must be non-empty text"),
        ({"date": "31.1.2026"}, r"latency\.date must be a date such as 2026-01-31; got '31\.1\.2026'"),
        ({"date": "20260131"}, r"latency\.date must be a date"),
        ({"date": None}, r"latency\.date must be a date"),
        ({"p10_ms": 3.0}, r"0 < p10_ms <= median_ms <= p90_ms; got 3\.0, 2\.5, 4\.0"),
        ({"p90_ms": "4"}, r"latency must have 0 < p10_ms"),
        ({"p10_ms": -1}, r"latency must have 0 < p10_ms"),
        ({"p90_ms": float("nan")}, r"latency must have 0 < p10_ms"),
    ],
)
def test_bad_latency_is_named(data, change, message):
    data["latency"] = [{**LATENCY, **change}]
    with pytest.raises(SpecError, match=message):
        kmt.ModelSpec.from_dict(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": "12"}, r"metrics\.n must be a whole number of at least 1; got '12'"),
        ({"split": ""}, r"metrics\.split must be non-empty text; got ''"),
        ({"roc_auc": 90.7}, r"metrics\.roc_auc must be a number from 0 to 1; got 90\.7"),
        ({"pr_auc": True}, r"metrics\.pr_auc must be a number from 0 to 1; got True"),
        ({"correlation": -2}, r"metrics\.correlation must be a number from -1 to 1; got -2"),
        ({"teacher_roc_auc": float("nan")}, r"metrics\.teacher_roc_auc must be a number from 0 to 1; got nan"),
        ({"roc_auc": 0.9, "roc_auc_low": 0.8}, r"metrics\.roc_auc_high must be a number from 0 to 1; got None"),
        ({"pr_auc": 0.9, "pr_auc_low": 0.3, "pr_auc_high": 0.4}, r"pr_auc must lie between pr_auc_low and pr_auc_high"),
        ({"pr_auc_low": 0.3, "pr_auc_high": 0.4}, r"pr_auc must lie between .*; got None and 0\.3 to 0\.4"),
        ({"roc_auc_per_tag": [0.9]}, r"metrics\.roc_auc_per_tag must be an object from tags to scores; got \[0\.9\]"),
        ({"pr_auc_per_tag": {"rock": 9}}, r"metrics\.pr_auc_per_tag\['rock'\] must be a number from 0 to 1; got 9"),
        ({"machine": 5}, r"metrics\.machine must be text; got 5"),
        ({"date": "today"}, r"metrics\.date must be a date such as 2026-01-31; got 'today'"),
        ({"url": "x"}, r"metrics\.url must be a web address or empty; got 'x'"),
    ],
)
def test_bad_metrics_are_named(data, change, message):
    data["metrics"] = [{**METRIC, **change}]
    with pytest.raises(SpecError, match=message):
        kmt.ModelSpec.from_dict(data)


def test_facts_are_no_plain_dictionaries():
    for change, message in (
        ({"training_data": (DATA,)}, r"Each item of training_data must be a TrainingData; got \{'name'"),
        ({"limits": "deaf"}, "limits must be a tuple; got 'deaf'"),
    ):
        with pytest.raises(SpecError, match=message):
            dataclasses.replace(kmt.model_info("tiny"), **change)


@pytest.mark.parametrize("name", kmt.list_models())
def test_other_weights_inherit_no_claims(name):
    spec = kmt.model_info(name)
    new = spec.retrained(trained_on="my records")
    assert new.trained_on == "my records" and new.weights is None and new.root is None
    dropped = (
        "weights_help",
        "description",
        "license",
        "metrics",
        "intended_use",
        "limits",
        "training_data",
        "latency",
    )
    assert not any(getattr(new, field) for field in (*dropped, "citation"))
    kept = ("name", "architecture", "config", "audio", "mel", "window", "tags", "paper", "claims")
    assert all(getattr(new, field) == getattr(spec, field) for field in kept)


def test_claims_are_about_one_network():
    spec = kmt.model_info("tiny")
    assert spec.retrained(tags=("a", "b")).claims == {}
    assert spec.retrained(tags=("a", "b"), claims={"num_tags": 2}).claims == {"num_tags": 2}
    assert spec.retrained(name="other").claims == spec.claims
