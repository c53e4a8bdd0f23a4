"""`keras-musictag library`: what it prints, and its exit codes."""

import json

import command_line
import pytest
from library_files import sounds

import keras_musictag as kmt


@pytest.fixture
def music(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sounds(tmp_path / "music", 3)
    return tmp_path / "music"


def run(*args):
    return command_line.run("library", "-m", "tiny", *args)


def test_library(music, tmp_path):
    result = run("music", "--out", "tags.jsonl", "--top", 2, "--workers", 1)
    assert result.exit_code == 0, result.stderr
    assert "tags.jsonl: 3 files, 3 tagged now" in result.stdout and "0 failed" in result.stdout
    (music / "broken.mp3").write_bytes(b"no sound")
    for _ in range(2):  # also when nothing is left to do
        result = run("music", "--out", "tags.jsonl", "--top", 2, "--workers", 1)
        assert result.exit_code == 1 and "Failed: 1 unsupported." in result.stdout
    rows = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert [len(row["tags"] or ()) for row in rows] == [2, 2, 2, 0]
    result = run("music", "--out", "tags.jsonl")
    assert result.exit_code == 2 and "(update=True, --update)" in result.stderr
    assert run("music", "--out", "tags.jsonl", "--update", "--threshold", 0.5).exit_code == 1
    assert run("music/001.wav", "--out", "tags.jsonl", "--no-resume", "--embeddings", "--timeout", 60).exit_code == 0


def test_a_library_on_another_runtime_is_of_the_same_model(music, tmp_path):
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    one = ("music/001.wav", "--out", "tags.jsonl", "--workers", 1)
    assert "1 tagged now" in run(*one, "--runtime", "onnxruntime").stdout
    assert "1 files, 0 tagged now" in run(*one).stdout
    (row,) = map(json.loads, (tmp_path / "tags.jsonl").read_text().splitlines())
    assert row["tags"] == pytest.approx(kmt.load("tiny").tag(music / "001.wav"), abs=1e-4)


def test_write_tags(music):
    pytest.importorskip("mutagen")
    write = ("music", "--out", "tags.jsonl", "--top", 2, "--write-tags", "--most", 1, "--min-prob", 0)
    before = {path.name: path.read_bytes() for path in music.iterdir()}
    result = run(*write)
    assert "000.wav\n  + musictag: " in result.stdout and "Tags would be written to 3 files" in result.stdout
    assert "Dry run: no file was changed. To write the tags, add --no-dry-run." in result.stderr
    assert {path.name: path.read_bytes() for path in music.iterdir()} == before
    (music / "001.wav").unlink()
    (music / "001.wav").hardlink_to(music / "002.wav")
    before["001.wav"] = before["002.wav"]
    result = run(*write, "--update", "--no-dry-run")
    assert "Tags written to 1 files; 0 need no change, 2 cannot be written." in result.stdout and not result.exit_code
    assert "002.wav: left as it is: it has other names" in result.stderr
    assert "tags.jsonl.undo.jsonl" in result.stderr
    assert (music / "000.wav").read_bytes() != before["000.wav"]
    result = run("--out", "tags.jsonl", "--undo")
    assert result.stdout == "1 files restored; 0 had their old content, 0 cannot be restored.\n"
    assert {path.name: path.read_bytes() for path in music.iterdir()} == before
    assert "The undo file" in run("--out", "tags.jsonl", "--undo").stderr
    body = json.loads(run(*write, "--no-dry-run", "--json").stdout)
    assert [change["field"] for change in body["written"]["written"][str(music / "000.wav")]] == ["musictag"]
    (music / "000.wav").write_bytes(before["000.wav"] + b"\0")
    result = run("--out", "tags.jsonl", "--undo", "--json")
    assert result.exit_code == 1 and "it was changed since tags were written into it" in result.stderr
    assert json.loads(result.stdout)["restored"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--most", 2], "--most can only be used with --write-tags. Add it."),
        (["--write-kind", "mood"], "--write-kind can only be used with --write-tags. Add it."),
        (["--write-tags", "--only-missing", "--replace"], "choose one"),
        (["--write-tags", "--write-kind", "mood"], "kinds of this model's tags are not known"),
        (["--write-tags", "--comment", "{mood}"], "a comment cannot have {mood}. Write {tags}"),
        (["--write-tags", "--comment", "{moods}"], "The comment '{moods}' has {moods}; a comment may have {tags}, {ge"),
        (["--write-tags", "--comment", "{mood"], "is not a template"),
    ],
)
def test_what_cannot_be_written(music, words, message):
    result = run("music", "--out", "tags.jsonl", *words)
    assert result.exit_code == 2 and message in result.stderr


def test_no_sources(music):
    assert "Missing DIR" in run("--out", "tags.jsonl").stderr


def test_what_is_wrong_with_the_command(music):
    assert "does not exist" in run("nowhere", "--out", "tags.csv").stderr
    result = run("music", "--out", "tags.txt")
    assert result.exit_code == 2 and "must end in .jsonl, .csv or .parquet" in result.stderr


def test_ctrl_c(music, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(kmt.apps.library, "tag_library", stop)
    result = run("music", "--out", "tags.csv")
    assert result.exit_code == 130 and "Run the command again to resume." in result.stderr
