"""The whole way of MagnaTagATune, on a miniature with the published file formats and with real sound in it.

Download, load, train with the zoo's own recipe (all but the number of steps and the size of a batch), measure on the
test split, read the card, tag.
"""

import io
import itertools
import zipfile

import numpy as np
import pytest
import soundfile
from command_line import run
from range_server import RangeServer
from test_magnatagatune import BROKEN, FULL, TOP50, miniature, small_counts  # noqa: F401 (a fixture for all tests)

import keras_musictag as kmt
from keras_musictag.datasets import download_magnatagatune


def mp3(path, seconds=2.0, rate=16_000):
    """What sounds different for each of the clips, as MP3; the three broken ones stay empty."""
    if path in BROKEN:
        return b""
    rng = np.random.default_rng(sum(path.encode()))
    t = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 3000) * t)
    file = io.BytesIO()
    soundfile.write(file, tone + 0.1 * rng.standard_normal(t.size), rate, format="MP3")
    return file.getvalue()


@pytest.fixture
def server():
    """The tables, and the archive in three parts."""
    tables, clips = miniature()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in clips:
            archive.writestr(path, mp3(path))
    data = file.getvalue()
    cuts = [0, len(data) // 3, 2 * len(data) // 3, len(data)]
    with RangeServer() as server:
        server.files = dict(tables)
        for number, (start, end) in enumerate(itertools.pairwise(cuts), 1):
            server.files[f"mp3.zip.00{number}"] = data[start:end]
        yield server


def test_from_the_server_to_tags(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = download_magnatagatune(tmp_path / "mtt", base_url=server.url)
    command = ["train", "--recipe", "musicnet_crnn/magnatagatune", "--data", data, "--out", "mine"]
    quick = ["--steps", 3, "--batch-size", 4, "--set", "training.warmup_steps=0", "--set", "training.validate_every=3"]

    plan = run(*command, "--dry-run")
    assert plan.exit_code == 0, plan.stderr
    assert "MagnaTagATune, full split: 36 train, 3 valid, 9 test clips" in plan.stdout
    assert "50: guitar, classical, slow" in plan.stdout and "steps       18,704 of 16 windows" in plan.stdout

    result = run(*command, *quick)
    assert result.exit_code == 0, result.stderr
    best, scored = result.stdout.splitlines()
    assert best.startswith("best pr_auc 0.") and best.endswith(" at step 3 of 3")
    assert "or keras_musictag.load('mine')" in result.stderr
    assert scored.startswith("mine on MagnaTagATune, full split test, 9 clips in 3 artists: ROC-AUC 0.")

    tagger = kmt.load(tmp_path / "mine")
    assert tagger.tags == TOP50 and tagger.spec.claims == kmt.model_info("musicnet_crnn").claims
    (metric,) = tagger.spec.metrics
    assert (metric["dataset"], metric["split"], metric["n"]) == ("MagnaTagATune", "test, full split", FULL["test"])
    assert f"ROC-AUC {metric['roc_auc']:.4f} " in scored and metric["roc_auc_low"] <= metric["roc_auc"]
    (used,) = tagger.spec.training_data
    assert (used.role, used.n, used.licence) == ("labelled", FULL["train"], "CC-BY-NC-SA-1.0")
    card = (tmp_path / "mine" / "README.md").read_text()
    assert (
        "| MagnaTagATune | test, full split | 9 | " in card
        and "MagnaTagATune, full split, 36 clips with labels" in card
    )

    tagged = run("tag", data / "d" / "ann-album-01-first-0-29.mp3", "-m", "mine", "--top", 3)
    assert tagged.exit_code == 0 and len(tagged.stdout.splitlines()) == 4
    measured = run("evaluate", "mine", "--data", f"magnatagatune:{data}", "--bootstrap", 0, "--cache", "cache/log-mels")
    assert f" {metric['roc_auc']:.3f} " in measured.stdout
