"""The bundled clip, and the script that makes it."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

import keras_musictag as kmt
from keras_musictag.audio.demo import synthesise as script


@pytest.fixture(scope="module")
def waveform():
    return script.synthesise()


def _correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def test_clip_is_a_short_unclipped_stereo_file():
    samples, sr = soundfile.read(kmt.demo_clip())
    assert sr == 44_100 and samples.shape[1] == 2
    assert 14 < len(samples) / sr < 20
    assert 0.5 < np.abs(samples).max() < 0.95
    assert kmt.demo_clip().stat().st_size < 250_000


def test_clip_is_what_the_script_makes(waveform):
    samples, _ = soundfile.read(kmt.demo_clip())
    assert samples.shape == waveform.shape
    # As a tagger hears it, mono at 16 kHz. Vorbis costs 0.0007 of it [m], and 0.0013 of the full band in stereo [m].
    heard = [
        kmt.audio.load(kmt.demo_clip(), target_sr=16_000),
        kmt.audio.load(waveform.T, script.SR, target_sr=16_000),
    ]
    assert _correlation(*heard) > 0.999
    assert _correlation(samples, waveform) > 0.998


def test_synthesis_is_reproducible(waveform):
    np.testing.assert_array_equal(script.synthesise(), waveform)
    assert waveform.dtype == "float32" and np.abs(waveform).max() == np.float32(script.PEAK)


def test_script_writes_a_file(tmp_path, waveform):
    out = tmp_path / "out.ogg"
    command = [sys.executable, "-W", "error", "-m", "keras_musictag.audio.demo.synthesise", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    samples, _ = soundfile.read(out)
    assert _correlation(samples, waveform) > 0.998


# One FFT bin is 1.3 cents of the lowest pitch, and the guitar, flute and bass are within 0.4 cents [m]. The strings and
# the synth are detuned by up to 8 and 7 cents, on purpose.
CENTS = {"guitar": 1, "flute": 1, "bass": 1, "strings": 9, "synth": 8}


@pytest.mark.parametrize("instrument", [script.guitar, script.flute, script.strings, script.bass, script.synth])
@pytest.mark.parametrize("pitch", ["A2", "G#3", "E5"])
def test_instruments_are_in_tune(instrument, pitch):
    hz = script.frequency(pitch)
    note = instrument(hz, 2.0, 0.8, np.random.default_rng(0))
    size = 1 << 19  # 0.08 Hz a bin
    spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), size))
    bins = np.arange(len(spectrum)) * script.SR / size
    near = np.abs(bins / hz - 1) < 0.05
    found = bins[near][spectrum[near].argmax()]
    cents = 1200 * np.log2(found / hz)
    assert abs(cents) < CENTS[instrument.__name__], cents


def test_reverb_begins_at_once_and_ends():
    click = np.zeros(2 * script.SR)
    click[1000] = 1.0
    wet = script._reverb(click, np.random.default_rng(0))
    assert wet.shape == (2 * script.SR, 2)
    assert np.abs(wet[:1000]).max() < 1e-9 and np.abs(wet[1000 + script.SR :]).max() < 1e-9
    np.testing.assert_allclose((wet**2).sum(axis=0), 1.0, rtol=1e-6)  # as loud as what goes in


def test_sections_are_heard_by_a_published_tagger(published_weights):
    tags = kmt.load("musicnn_mtt").taggram(kmt.demo_clip(), hop_seconds=1.0)
    best = [tags.tags[column] for column in tags.probabilities.argmax(axis=1)]
    assert best[0] == "guitar"
    assert best[4] in ("flute", "classical")
    assert set(best[7:]) == {"techno"}
