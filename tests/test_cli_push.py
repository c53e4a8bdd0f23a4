"""`keras-musictag push`: what it prints, and errors without tracebacks."""

import pytest
from click.testing import CliRunner
from hub_upload_server import hub_for_the_client

import keras_musictag as kmt
from keras_musictag.cli import main

# The Hub's client passes files to its HTTP library in a way that this calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    yield from hub_for_the_client(tmp_path, monkeypatch)


def push(*args):
    return CliRunner().invoke(main, ["push", *map(str, args)], catch_exceptions=False)


def test_push_prints_the_address(hub, tmp_path):
    folder = kmt.load("tiny").save(tmp_path / "mine")
    result = push(folder, "ann/mine", "--private", "--message", "First")
    commit = hub.repos["ann/mine"].refs["main"]
    assert (result.exit_code, result.stdout) == (0, f"hf://ann/mine@{commit}\n")
    assert hub.messages == ["First"] and hub.repos["ann/mine"].token == "writes"
    assert kmt.load(result.stdout.strip()).tags == kmt.load("tiny").tags


def test_a_branch_of_a_repository_that_exists(hub):
    assert push("tiny", "ann/mine").exit_code == 0
    assert push("tiny", "ann/mine", "--branch", "v2").stdout.startswith("hf://ann/mine@")
    assert set(hub.repos["ann/mine"].refs) == {"main", "v2"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("tiny", "mine"), "repo_id must be org/repo"),
        (("nothing", "ann/mine"), "nothing"),
        (("tiny", "bob/mine"), "the token has no write access to the repository"),
        (("tiny", "ann/there", "--new"), "the repository already exists"),
    ],
)
def test_what_cannot_be_pushed(hub, args, message):
    push("tiny", "ann/there")
    result = push(*args)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in result.stderr and result.stderr.startswith("Error: ")
