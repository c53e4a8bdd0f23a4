"""Make the bundled demo clip: python -m keras_musictag.audio.demo.synthesise [out.ogg].

Eight bars in A minor at 128 beats per minute, composed for this package and synthesised from formulas and seeded noise:
two bars of plucked guitar, two of flute and strings, four of drums, synth bass and a sequenced synth, and a last chord.
The sections differ so much that a taggram of the clip shows them.

Conventions: an instrument takes frequency in Hz, duration in seconds, velocity in [0, 1] and a source of noise, and
returns one note, float64 `(samples,)` at `SR`; the score is in beats; the clip is float32 `(samples, 2)`.

The string is that of Karplus & Strong, "Digital Synthesis of Plucked-String and Drum Timbres", 1983.
"""

from __future__ import annotations

import os

import numpy as np

from . import demo_clip

SR = 44_100  # Hz
BEAT = 60 / 128  # seconds
BEATS = 32  # eight bars of four
TAIL = 1.3  # seconds for the last chord and the room to ring out
PEAK = 0.8  # of full scale, so that the encoder's overshoot does not clip
COMPRESSION = 0.58  # Vorbis: libsndfile's 0 is the best quality, 1 the smallest file
_BLOCK = 5 * SR  # samples; libsndfile overflows its stack when it encodes minutes of Vorbis in one call

Note = tuple[float, float, float, float]  # start in beats, Hz (0 for drums), length in beats, velocity

_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


# === Score ===

# A word is a quaver; `:` gives another length in beats, `+` makes a chord.
GUITAR = "A2 E3 A3 C4 E4 C4 B3 A3  F2 C3 F3 A3 C4 A3 F3 E4"
FLUTE = "E5:1.5 D5:0.5 C5:1 G5:1  G#5:1 B5:1.5 A5:0.5 G#5:1"
STRINGS = "C3+G3+C4+E4:4  E3+B3+E4+G#4:4"
CLOSE = "A2:0.06 E3:0.06 A3:0.06 C4:0.06 E4:0.06 A4:0.06"

# A line is a bar, whose pitches take turns; in a rhythm a character is a semiquaver, a digit its velocity in tenths.
BASS = ("A1", "A1", "F1", "G1")
SEQUENCE = ("A3 E4 A4 C5 A4 E4", "A3 E4 B4 C5 B4 E4", "F3 C4 A4 C5 A4 C4", "G3 D4 B4 D5 B4 D4")
BASS_RHYTHM, SEQUENCE_RHYTHM = "..9.7.96..9.7.97", "9669669669669669"
KICK, CLAP, HIHAT = "9...9...9...9...", "....7.......7...", "2.6.2.6.2.6.2.64"


def frequency(pitch: str) -> float:
    """Equal-tempered frequency in Hz of a pitch such as `"G#3"`.

    Example:
        >>> frequency("A4"), round(frequency("C4"), 2)
        (440.0, 261.63)
    """
    semitones = _SEMITONES[pitch[0]] + pitch.count("#") + 12 * (int(pitch[-1]) - 4) - 9
    return float(440.0 * 2 ** (semitones / 12))


def _melody(bar: int, text: str, hold: float = 0.0) -> list[Note]:
    """Notes of a text from a bar on, each held for its own length or for `hold` beats; the beats are accented."""
    notes: list[Note] = []
    start = 4.0 * bar
    for word in text.split():
        pitches, _, beats = word.partition(":")
        length = float(beats or 0.5)
        velocity = 0.95 if start % 4 == 0 else 0.75 if start % 1 == 0 else 0.65
        notes += [(start, frequency(pitch), hold or length, velocity) for pitch in pitches.split("+")]
        start += length
    return notes


def _pattern(rhythm: str, bars: tuple[str, ...] = ("",) * 4) -> list[Note]:
    """Play a rhythm in each of the last four bars; without pitches for drums."""
    notes = []
    for bar, line in enumerate(bars, 4):
        pitches = [frequency(pitch) for pitch in line.split()] or [0.0]
        for i, character in enumerate(rhythm):
            if character != ".":
                notes.append((4 * bar + i / 4, pitches[i % len(pitches)], 0.25, int(character) / 10))
    return notes


# === Instruments ===


def _clock(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * SR)) / SR


def _fade(note: np.ndarray, attack: float, release: float) -> np.ndarray:
    """Raised-cosine edges, in seconds: a note that begins or ends at once clicks."""
    for edge, seconds in ((note, attack), (note[::-1], release)):
        size = min(len(note), max(1, round(seconds * SR)))
        edge[:size] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(size) / size)
    return note


def _sawtooth(hz: float, phase: np.ndarray, brightness: np.ndarray | float) -> np.ndarray:
    """Harmonics `k` up to 9 kHz of amplitude `exp(-k * hz / brightness) / k`; phase in cycles, brightness in Hz."""
    total = np.zeros(len(phase))
    for k in range(1, int(9000 / hz) + 1):
        total += np.exp(-k * hz / brightness) / k * np.sin(2 * np.pi * k * phase)
    return total


def guitar(hz: float, seconds: float, velocity: float, rng: np.random.Generator) -> np.ndarray:
    """Plucked nylon string: a burst of noise goes round a delay line and loses its treble on the way.

    The loop is `y[n] = g ((b + d) / 2 y[n-N-1] + (1 - b) y[n-N] + (b - d) / 2 y[n-N+1])`: at low frequencies a delay of
    N + d samples, so that every pitch is in tune, and a loss of `(b - d**2) w**2 / 2`.
    """
    period, b = SR / hz, 0.5
    size = round(period)
    d = period - size
    gain = 10 ** (-3 / (hz * 2.0))  # -60 dB after 2 s, besides the loss of treble
    k = np.arange(size // 2 + 1)  # DFT bins of one turn are the string's harmonics
    # A finger is soft, the more so the gentler it plucks; at 1/8 of the string it leaves out every eighth harmonic.
    amplitude = np.exp(-k * hz / (800 + 1800 * velocity)) * np.sin(np.pi * k / 8)
    burst = np.fft.irfft(amplitude * np.exp(2j * np.pi * rng.uniform(0, 1, len(k))), size)
    y = np.zeros(round(seconds * SR) + size + 1)
    y[1 : size + 1] = 0.35 * burst / burst.std()
    step = size - 1  # so the newest sample that a block needs is the one just before it
    for n in range(size + 1, len(y), step):
        past = y[n - size - 1 : min(n + step, len(y)) - size + 1]
        y[n : n + step] = gain * ((b + d) / 2 * past[:-2] + (1 - b) * past[1:-1] + (b - d) / 2 * past[2:])
    return _fade(velocity * y[size + 1 :], 0.001, 0.08)


def flute(hz: float, seconds: float, velocity: float, rng: np.random.Generator) -> np.ndarray:
    """Few harmonics, some breath, and a vibrato of 5.2 Hz that comes in late and swells the tone as well."""
    t = _clock(seconds + 0.06)
    vibrato = 0.006 * np.clip((t - 0.15) / 0.3, 0, 1) * np.sin(2 * np.pi * 5.2 * t)
    phase = np.cumsum(hz * (1 + vibrato)) / SR
    tone = sum(a * np.sin(2 * np.pi * k * phase) for k, a in enumerate((1.0, 0.35, 0.2, 0.06, 0.03), 1))
    breath = np.convolve(rng.uniform(-1, 1, len(t)), np.hanning(12) / 6, "same")
    return _fade(velocity * (1 + 20 * vibrato) * (tone + 0.05 * breath), 0.05, 0.07)


def strings(hz: float, seconds: float, velocity: float, rng: np.random.Generator) -> np.ndarray:
    """Five players, sawtooths a few cents apart, each with a vibrato of its own."""
    t = _clock(seconds + 0.3)
    total = np.zeros(len(t))
    for cents in (-7, -3, 0, 4, 8):
        vibrato = 0.005 * np.sin(2 * np.pi * (rng.uniform(4.8, 6.2) * t + rng.uniform(0, 1)))
        phase = rng.uniform(0, 1) + np.cumsum(hz * 2 ** (cents / 1200) * (1 + vibrato)) / SR
        total += _sawtooth(hz, phase, 5000.0)
    return _fade(velocity * total / 5, 0.3, 0.35)


def bass(hz: float, seconds: float, velocity: float, rng: np.random.Generator) -> np.ndarray:
    """Sawtooth through a low-pass that closes quickly."""
    t = _clock(seconds)
    return _fade(velocity * _sawtooth(hz, hz * t, 250 + 1400 * np.exp(-t / 0.06)), 0.003, 0.03)


def synth(hz: float, seconds: float, velocity: float, rng: np.random.Generator) -> np.ndarray:
    """Two detuned sawtooths through a low-pass that closes, the harder the note the wider open."""
    t = _clock(1.6 * seconds)
    cutoff = 700 + 5000 * velocity * np.exp(-t / 0.07)
    tone = _sawtooth(hz, hz * 1.004 * t, cutoff) + _sawtooth(hz, hz * 0.996 * t + 0.3, cutoff)
    return _fade(velocity * tone * np.exp(-t / 0.12), 0.002, 0.03)


def kick(hz: float, seconds: float, velocity: float, rng: np.random.Generator) -> np.ndarray:
    """Sine that falls from 210 to 48 Hz within a tenth of a second."""
    t = _clock(0.32)
    phase = np.cumsum(48 + 162 * np.exp(-t / 0.028)) / SR
    return _fade(velocity * np.sin(2 * np.pi * phase) * np.exp(-t / 0.13), 0.0005, 0.05)


def clap(hz: float, seconds: float, velocity: float, rng: np.random.Generator) -> np.ndarray:
    """Noise around 1.5 kHz in three bursts, 11 ms apart, of which the last dies away slowly."""
    t = _clock(0.25)
    bursts = ((0.0, 0.006), (0.011, 0.006), (0.022, 0.06))  # start and decay time in seconds
    hands = sum(np.exp(-np.maximum(t - start, 0) / decay) * (t >= start) for start, decay in bursts)
    band = np.hanning(20) / 4 * np.cos(2 * np.pi * 1500 / SR * np.arange(20))
    noise = np.convolve(rng.uniform(-1, 1, len(t)), band, "same")
    return _fade(velocity * noise * hands, 0.0005, 0.05)


def hihat(hz: float, seconds: float, velocity: float, rng: np.random.Generator) -> np.ndarray:
    """Noise differentiated twice, which leaves the treble."""
    t = _clock(0.12)
    return _fade(velocity * np.diff(rng.uniform(-1, 1, len(t) + 2), 2) * np.exp(-t / 0.03) / 4, 0.0005, 0.02)


# === Mix ===

# Instrument, notes, gain, pan from -1 (left) to 1 (right), share sent to the reverb.
TRACKS = (
    (guitar, _melody(0, GUITAR, 2.5) + _melody(8, CLOSE, 2.5), 0.75, -0.15, 0.25),
    (flute, _melody(2, FLUTE), 0.2, 0.25, 0.5),
    (strings, _melody(2, STRINGS), 0.08, 0.0, 0.5),
    (bass, _pattern(BASS_RHYTHM, BASS), 0.35, 0.0, 0.0),
    (synth, _pattern(SEQUENCE_RHYTHM, SEQUENCE), 0.17, 0.2, 0.25),
    (kick, _pattern(KICK), 0.75, 0.0, 0.0),
    (clap, _pattern(CLAP), 0.5, -0.1, 0.3),
    (hihat, _pattern(HIHAT), 0.2, 0.2, 0.05),
)


def _reverb(mono: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Convolve `(samples,)` with decaying noise, another one for each ear: `(samples, 2)`."""
    t = _clock(0.8)
    room = rng.uniform(-1, 1, (len(t), 2)) * (np.exp(-t / 0.16) * np.minimum(t / 0.01, 1))[:, None]
    for shift in (1, 2, 4):  # a moving average of eight samples: walls swallow treble
        room = (room + np.roll(room, shift, axis=0)) / 2
    size = 1 << (len(mono) + len(t) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(mono, size)[:, None] * np.fft.rfft(room, size, axis=0), size, axis=0)
    return np.asarray(wet[: len(mono)] / np.sqrt((room**2).sum(axis=0)))


def synthesise() -> np.ndarray:
    """Play the score: float32 `(samples, 2)` at `SR` with a peak of `PEAK`, always the same."""
    rng = np.random.default_rng(0)
    samples = round((BEATS * BEAT + TAIL) * SR)
    dry, send = np.zeros((samples, 2)), np.zeros(samples)
    for play, notes, gain, pan, room in TRACKS:
        line = np.zeros(samples)
        for start, hz, beats, velocity in notes:
            note = play(hz, beats * BEAT, velocity, rng)
            at = round(start * BEAT * SR)
            line[at : at + len(note)] += note[: samples - at]
        angle = np.pi / 4 * (1 + pan)  # constant power
        dry += gain * np.sqrt(2) * line[:, None] * np.array([np.cos(angle), np.sin(angle)])
        send += gain * room * line
    mix = np.tanh(dry + _reverb(send, rng))
    mix = np.stack([_fade(ear, 0.0, 0.3) for ear in mix.T], axis=1)
    return np.asarray(PEAK * mix / np.abs(mix).max(), "float32")


def write(path: str | os.PathLike[str], waveform: np.ndarray) -> None:
    """Write a waveform `(samples, channels)` at `SR` as Ogg Vorbis."""
    import soundfile

    options = {"format": "OGG", "subtype": "VORBIS", "compression_level": COMPRESSION}
    with soundfile.SoundFile(path, "w", SR, waveform.shape[1], **options) as file:
        for at in range(0, len(waveform), _BLOCK):
            file.write(waveform[at : at + _BLOCK])


if __name__ == "__main__":
    import sys

    import click

    out = sys.argv[1] if len(sys.argv) > 1 else os.fspath(demo_clip())
    write(out, synthesise())
    click.echo(f"{out}: {os.path.getsize(out) / 1000:.0f} kB")
