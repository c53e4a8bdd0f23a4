"""Live tags on the page, without a browser: pieces of a recording in, the newest row out."""

import time

import numpy as np
import pytest
import soundfile

import keras_musictag as kmt
from keras_musictag.apps.serving.live_tagging import LiveTagging
from keras_musictag.apps.serving.tagging_service import TaggingService


@pytest.fixture
def piece(tmp_path):
    soundfile.write(tmp_path / "piece.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 24_000), 48_000)
    return str(tmp_path / "piece.wav")


def until(said, add):
    """What `add` gives as soon as it says something."""
    deadline = time.monotonic() + 60
    while said not in (shown := add()):
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    return shown


def test_rows_come_and_go_with_the_session(piece):
    live = LiveTagging(TaggingService(["tiny"]))
    assert "Listening: 0 s recorded" in live.add("me", piece, "tiny")
    shown = until("<h3>tiny, ", lambda: live.add("me", piece, "tiny"))
    tags = kmt.load("tiny").names
    assert all(f'<span class="tag">{tag}</span>' in shown for tag in tags)
    assert "Listening" in live.add("you", piece, "tiny")  # has a sound of their own
    thread = live._sessions["me"]._thread
    live.end("me"), live.end("you")
    thread.join(60)
    assert not thread.is_alive()
    assert "Listening" in live.add("me", piece, "tiny")  # begins again
    live.end_all()


def test_what_goes_wrong_is_shown(piece, tmp_path):
    live = LiveTagging(TaggingService(["tiny"]))
    assert 'class="problem">This server has no model &#x27;&lt;b&gt;&#x27;' in live.add("me", piece, "<b>")
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    assert "is not a sound file" in live.add("me", str(tmp_path / "broken.wav"), "tiny")
