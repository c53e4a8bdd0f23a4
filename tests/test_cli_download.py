"""`keras-musictag download`: weights fetched ahead, and a folder of them for machines without internet."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from hub_server import Fault
from weight_files import CONTENT, NAME, OTHER, files_in, rot, spec_of

import keras_musictag as kmt
from keras_musictag.models import registry
from keras_musictag.models.fetching import fetch_weights


@pytest.fixture
def zoo(https, monkeypatch):
    """A registry of four: one with its weights, one without any, two at the loopback server."""
    https.files["second.h5"] = OTHER
    names = {
        "first": spec_of(),
        "second": spec_of("https://weights.example/files/second.h5", OTHER),
        "bare": dataclasses.replace(spec_of(), weights=None),
    }
    specs = {name: dataclasses.replace(spec, name=name) for name, spec in names.items()}
    specs["tiny"] = kmt.model_info("tiny")
    monkeypatch.setattr(registry, "_specs", specs)
    return specs


def test_named_models_are_fetched_once(https, cache, zoo):
    result = run("download", "first")
    assert result.exit_code == 0 and result.stdout.split() == ["first", "0.3", "MB", "downloaded"]
    assert fetch_weights(zoo["first"]).read_bytes() == CONTENT
    assert run("download", "first").stdout.split()[3:] == ["already", "here"]
    assert https.requests == [f"GET /files/{NAME}"]
    rot(fetch_weights(zoo["first"]))
    assert run("download", "first").stdout.split()[3:] == ["downloaded"]


def test_all_and_what_models_says(https, zoo):
    before = {line.split()[0]: line for line in run("models").stdout.splitlines()}
    assert "to download, 0.3 MB" in before["first"] and "none yet" in before["bare"] and "included" in before["tiny"]
    result = run("download", "--all")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["first", "second", "tiny"]
    assert "comes with the model" in result.stdout
    after = {line.split()[0]: line for line in run("models").stdout.splitlines()}
    assert "  downloaded  " in after["first"] and "  downloaded  " in after["second"]


def test_a_folder_for_machines_without_internet(https, cache, zoo, tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    result = run("download", "--all", "--to", folder)
    assert result.exit_code == 0
    assert f"export KERAS_MUSICTAG_MIRROR={folder}" in result.stderr
    assert files_in(folder) == [NAME, "second.h5"]

    monkeypatch.setenv("KERAS_MUSICTAG_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", str(folder))
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    https.requests.clear()
    assert fetch_weights(zoo["second"]) == folder / "second.h5"
    result = run("download", "--all")  # from the mirror into the cache, to do without the mirror afterwards
    assert result.stdout.count("copied from the mirror") == 2
    monkeypatch.delenv("KERAS_MUSICTAG_MIRROR")
    assert fetch_weights(zoo["second"]).read_bytes() == OTHER
    assert https.requests == []


def test_two_files_of_one_name_in_one_folder(https, zoo, tmp_path):
    https.files["elsewhere/model.h5"] = OTHER
    spec = spec_of("https://weights.example/files/elsewhere/model.h5", OTHER)
    zoo["second"] = dataclasses.replace(spec, name="second")
    folder = tmp_path / "mirror"
    for _ in range(2):
        assert run("download", "--all", "--to", folder).exit_code == 0
        assert files_in(folder) == [NAME, f"second/{NAME}"]


def test_what_fails_does_not_keep_the_others_from_coming(https, zoo, tmp_path):
    https.faults[NAME] = Fault(status=404)
    result = run("download", "first", "bare", "nothing", "second", "--to", tmp_path / "mirror")
    assert result.exit_code == 1
    assert [line.split(None, 1)[1].strip() for line in result.stdout.splitlines()] == [
        "failed", "failed", "failed", "0.3 MB  downloaded"
    ]  # fmt: skip
    assert (
        "first: model.h5, the weights of 'first', could not be downloaded: weights.example answered 404"
        in result.stderr
    )
    assert "bare: There are no weights for 'bare' yet" in result.stderr
    assert "nothing: Unknown model 'nothing'" in result.stderr
    assert files_in(tmp_path / "mirror") == ["second.h5"]


def test_json(zoo, tmp_path):
    rows = [
        json.loads(line) for line in run("download", "first", "tiny", "--json", "--to", tmp_path).stdout.splitlines()
    ]
    assert rows[0] == {"model": "first", "state": "downloaded", "file": str(tmp_path / NAME), "bytes": 300_000}
    assert rows[1]["state"] == "comes with the model"
    assert hashlib.sha256(Path(rows[0]["file"]).read_bytes()).hexdigest() == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("arguments", [(), ("first", "--all")])
def test_which_models_must_be_said_in_one_way(arguments):
    result = run("download", *arguments)
    assert result.exit_code == 2 and "Name the models to download, or give --all" in result.stderr


def test_a_folder_that_cannot_be_written(zoo, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("download", "first", "--to", tmp_path / "file" / "mirror")
    assert result.exit_code == 1 and "cannot be written" in result.stderr and "Choose another folder" in result.stderr


def test_every_published_model_without_internet(published_weights, cache, monkeypatch):
    """The whole way: fetched from a mirror, then neither mirror nor network, then not even the published files."""
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    assert run("download", "--all").exit_code == 0
    monkeypatch.delenv("KERAS_MUSICTAG_MIRROR")
    names = [name for name in kmt.list_models(pretrained=True) if kmt.model_info(name).weights.kind == "https"]
    assert len(names) >= 4
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype("float32")
    for name in names:
        assert all(0 <= p <= 1 for p in kmt.load(name).tag(noise, sr=16_000).values())
    shutil.rmtree(cache / "weights")
    kmt.load(names[-1])
    assert len(files_in(cache)) == len(names)  # one converted file each
