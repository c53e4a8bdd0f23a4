"""The bundled clip, and the script that makes it."""

import importlib.util
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import keras_musictag as kmt
from keras_musictag.audio.demo import SECTIONS

pytestmark = pytest.mark.smoke

NAMES = [section.name for section in SECTIONS]
ZOO = Path(__file__).parents[1] / "zoo"


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ZOO / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


midi = load_script("midi")


# === The clip ===


def test_clip_is_a_short_unclipped_stereo_file():
    samples, sr = soundfile.read(kmt.demo_clip())
    assert sr == 44_100 and samples.shape[1] == 2
    assert len(samples) / sr == pytest.approx(SECTIONS[-1].offset + SECTIONS[-1].duration, abs=0.01)
    assert 0.5 < np.abs(samples).max() < 0.95
    assert kmt.demo_clip().stat().st_size < 200_000


def test_sections_follow_each_other():
    for section, following in itertools.pairwise(SECTIONS):
        assert section.offset + section.duration < following.offset


# Measured with musicnn_mtt: violin 0.72, classical 0.61, strings 0.61; guitar 0.84; techno 0.99, electronic 0.88.
HEARD = (
    {"violin": 0.5, "classical": 0.5, "strings": 0.5},
    {"guitar": 0.7},
    {"techno": 0.9, "electronic": 0.7, "synth": 0.5, "beat": 0.5},
)


@pytest.mark.parametrize(("section", "expected"), list(zip(SECTIONS, HEARD, strict=True)), ids=NAMES)
def test_a_published_tagger_hears_each_section(section, expected, published_weights):
    tags = kmt.load("musicnn_mtt").tag(kmt.demo_clip(), offset=section.offset, duration=section.duration)
    assert next(iter(tags)) == next(iter(expected))
    for tag, least in expected.items():
        assert tags[tag] >= least, tag


# Measured with musicnet_crnn: strings 0.44, violin 0.44, classical 0.37; guitar 0.56; techno 0.75, electronic 0.46.
@pytest.mark.parametrize(
    ("section", "first"), list(zip(SECTIONS, ("strings", "guitar", "techno"), strict=True)), ids=NAMES
)
def test_the_default_model_hears_each_section(section, first):
    tags = kmt.load("musicnet_crnn").tag(kmt.demo_clip(), offset=section.offset, duration=section.duration)
    assert next(iter(tags)) == first and tags[first] > 0.4


def test_sections_are_seen_in_a_taggram(published_weights):
    tags = kmt.load("musicnn_mtt").taggram(kmt.demo_clip(), hop_seconds=1.0)
    for section, best in zip(SECTIONS, ("violin", "guitar", "techno"), strict=True):
        end = section.offset + section.duration
        inside = (tags.starts >= section.offset - 0.2) & (tags.starts + tags.window_seconds <= end + 0.1)
        assert inside.sum() >= 3
        assert {tags.tags[column] for column in tags.probabilities[inside].argmax(axis=1)} == {best}


# === The scripts ===


def test_midi_files_are_what_the_format_says(tmp_path):
    part = midi.Part(40, [(1.0, midi.pitch("A4"), 0.5, 90), (0.0, midi.pitch("C#4"), 1.0, 80)], volume=99, pan=10)
    midi.write_midi(tmp_path / "a.mid", [part], 120)
    data = (tmp_path / "a.mid").read_bytes()
    assert data[:14] == b"MThd" + bytes([0, 0, 0, 6, 0, 1, 0, 2]) + (480).to_bytes(2, "big")
    assert b"\xff\x51\x03" + (500_000).to_bytes(3, "big") in data  # microseconds per beat
    track = data[data.rindex(b"MTrk") + 8 :]
    assert track.startswith(bytes([0, 0xC0, 40, 0, 0xB0, 7, 99, 0, 0xB0, 10, 10, 0, 0x90, 61, 80]))
    # 479 ticks later the first note ends, one tick before the second one begins; 479 is 0x83 0x5f.
    assert bytes([0x83, 0x5F, 0x80, 61, 64, 1, 0x90, 69, 90]) in track
    assert track.endswith(b"\xff\x2f\x00")


def test_parts_get_channels_of_their_own_and_drums_the_tenth(tmp_path):
    parts = [midi.Part(0, [(0.0, 60, 1.0, 90)]), midi.Part(midi.DRUMS, [(0.0, 36, 1.0, 90)], kit=25)]
    midi.write_midi(tmp_path / "a.mid", parts, 120)
    data = (tmp_path / "a.mid").read_bytes()
    assert bytes([0x90, 60, 90]) in data and bytes([0xC9, 25]) in data and bytes([0x99, 36, 90]) in data


def test_rendering_without_a_sound_font_says_what_to_install(tmp_path):
    if shutil.which("fluidsynth") is None:
        pytest.skip("fluidsynth is not installed")
    with pytest.raises(FileNotFoundError, match=r"There is no sound font .*apt-get install fluid-soundfont-gm"):
        midi.render([], 120, tmp_path / "none.sf2")


def test_rendering_without_fluidsynth_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="fluidsynth is not installed; on Debian: apt-get install fluidsynth"):
        midi.render([], 120, tmp_path / "none.sf2")


def test_clip_is_what_the_script_makes(tmp_path):
    script = load_script("demo_clip")
    if shutil.which("fluidsynth") is None or not script.SOUNDFONT.is_file():
        pytest.skip("fluidsynth or its sound font is not installed")
    out = tmp_path / "out.ogg"
    done = subprocess.run(
        [sys.executable, str(ZOO / "demo_clip.py"), str(out)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    made, bundled = (kmt.audio.load(path, target_sr=16_000) for path in (out, kmt.demo_clip()))
    # Two renderings on one machine are equal; other versions of FluidSynth may round and reverberate differently.
    assert made.shape == bundled.shape and np.corrcoef(made, bundled)[0, 1] > 0.98
