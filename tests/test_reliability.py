"""Clocks that jump, and processes that meet: what docs/reliability.md promises and no other test file shows."""

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
from audio_files import encode, posix, save, signal
from library_files import sound, sounds, start
from weight_files import CONTENT, NAME, spec_of

import keras_musictag as kmt
from keras_musictag.apps.library import tag_library
from keras_musictag.datasets.log_mel_cache import FeatureCache
from keras_musictag.models import fetching as download

CHECKOUT = Path(__file__).parents[1]
TIMES = {"2100": 4_102_444_800, "1970": 0, "1960": -315_619_200}


# === Clocks ===


def test_files_of_the_future_and_of_long_ago(tmp_path):
    music, out, tiny = tmp_path / "music", tmp_path / "tags.jsonl", kmt.load("tiny")
    music.mkdir()
    for pitch, (name, seconds) in enumerate(TIMES.items()):
        os.utime(sound(music / f"{name}.wav", 1.0, 0.1 + 0.1 * pitch), (seconds, seconds))
    assert tag_library(music, out, tiny, workers=1).tagged == 3
    assert {Path(row["path"]).stem: row["mtime"] for row in map(json.loads, out.read_text().splitlines())} == TIMES
    assert tag_library(music, out, tiny, workers=1).skipped == 3
    for name in TIMES:  # the clock was set; contents are the same
        os.utime(music / f"{name}.wav", (1e9, 1e9))
    summary = tag_library(music, out, tiny, workers=1)
    assert (summary.tagged, summary.skipped) == (0, 3)
    os.utime(sound(music / "2100.wav", 1.0, 0.5), (5e8, 5e8))  # newer, though it says older
    assert tag_library(music, out, tiny, workers=1).changed == 1
    assert tag_library(music, out, tiny, workers=1, update=True).tagged == 1


def test_a_clock_that_went_back_between_two_runs(tmp_path, monkeypatch):
    sounds(tmp_path / "music", 2)
    out, tiny = tmp_path / "tags.jsonl", kmt.load("tiny")
    tag_library(tmp_path / "music", out, tiny, workers=1)
    ahead = re.sub(r'"tagged_at": "\d{4}', '"tagged_at": "2100', out.read_text())
    out.write_text(ahead)
    assert tag_library(tmp_path / "music", out, tiny, workers=1).skipped == 2
    assert out.read_text() == ahead


def test_the_index_of_features_trusts_no_file_of_the_future(tmp_path):
    path, times = tmp_path / "a.wav", (TIMES["2100"], TIMES["2100"])
    cache = FeatureCache(tmp_path / "features", kmt.model_info("tiny"))
    os.utime(save(path, encode(signal(0.5, 16_000, seed=1), 16_000)), times)
    first = np.array(cache.get(path))
    os.utime(save(path, encode(signal(0.5, 16_000, seed=2), 16_000)), times)  # same size, same time
    assert not np.array_equal(cache.get(path), first)


def test_unfinished_downloads_of_the_future_stay_and_do_no_harm(https):
    part = download._cache_path(spec_of().weights).with_name(f".{NAME}.0123.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:100])
    os.utime(part, (TIMES["2100"], TIMES["2100"]))
    path = download.fetch_weights(spec_of())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == spec_of().weights.sha256
    assert part.exists()  # it might be another process'


# === Processes that meet ===


@posix
def test_of_two_runs_at_once_one_is_refused(tmp_path):
    sounds(tmp_path / "music", 12)
    out = tmp_path / "tags.jsonl"
    runs = [start(tmp_path / "music", out, before=3.0) for _ in range(2)]
    said = [(*run.communicate(timeout=100), run.returncode) for run in runs]
    (refused,) = (errors for _, errors, code in said if code)
    assert f"Another run is writing {out}" in refused
    paths = [json.loads(line)["path"] for line in out.read_text().splitlines()]
    assert len(paths) == len(set(paths)) == 12


# === The page ===


def test_the_page_names_tests_that_exist():
    page = (CHECKOUT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", page)
    assert len(named) > 20
    for file, test in named:
        source = (CHECKOUT / "tests" / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in source, f"{file} has no {test}"


def test_the_page_has_the_figures_of_the_fuzz_run():
    page = (CHECKOUT / "docs" / "reliability.md").read_text(encoding="utf-8")
    result = json.loads((CHECKOUT / "benchmarks" / "results" / "fuzz.json").read_text())
    assert result["problems"] == []
    for figure in (f"{result['cases']:,} files", result["date"], result["command"], f"seed {result['seed']}"):
        assert str(figure) in page
    for kind, counts in result["outcomes"].items():
        tagged = counts.get("tagged", 0)
        assert f"| {kind} | {sum(counts.values())} | {tagged} |" in page, kind


def test_the_page_has_the_figures_of_the_run_over_thousands_of_files():
    page = (CHECKOUT / "docs" / "reliability.md").read_text(encoding="utf-8")
    result = json.loads((CHECKOUT / "benchmarks" / "results" / "library.json").read_text())
    assert result["problems"] == [] and len(result["kills_after_rows"]) == 10 and result["ray"]
    figures = (
        result["command"],
        result["date"],
        f"{result['files']:,} files",
        f"{result['broken']} broken",
        f"{result['sound_hours']:g} hours",
        f"{result['seconds']:g} s",
        f"{result['files_per_second']:g} files a second",
        f"{100 * result['cores_busy']:.0f} %",
        ", ".join(f"{rows:,}" for rows in result["kills_after_rows"]),
        f"{result['ray']['seconds']:g} s",
        f"{result['ray']['killed_after_seconds']:g} s",
    )
    for figure in figures:
        assert figure in page
