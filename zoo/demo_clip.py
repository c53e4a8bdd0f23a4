"""Compose and render the demo clip that comes with the package: python zoo/demo_clip.py [OUT.ogg].

Three sections that anybody tells apart: a violin with strings, a solo classical guitar, and techno. The notes were
written for this project; FluidSynth plays them with FluidR3 GM, a sound font under the MIT licence (see NOTICE).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import soundfile
from midi import DRUMS, Note, Part, pitch, render

from keras_musictag.audio.demo import SECTIONS, demo_clip

SR = 44_100  # Hz
SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
PEAK = 0.8  # of full scale, so that the encoder's overshoot does not clip
COMPRESSION = 0.85  # Vorbis: libsndfile's 0 is the best quality, 1 the smallest file
_BLOCK = 5 * SR  # samples; libsndfile overflows its stack when it encodes minutes of Vorbis in one call

GUITAR, SYNTH_BASS, VIOLIN, STRINGS, SAW = 24, 38, 40, 48, 81  # General MIDI programs from 0 on
KICK, CLAP, CLOSED_HAT, OPEN_HAT = 36, 39, 42, 46  # keys of the drum channel
FADE = 0.6  # seconds, at the end of each


def line(text: str, velocity: int, step: float) -> list[Note]:
    """Melody: pitches `step` beats apart; `:n` makes one n steps long."""
    notes: list[Note] = []
    now = 0.0
    for word in text.split():
        name, _, steps = word.partition(":")
        length = step * float(steps or 1)
        notes.append((now, pitch(name), length * 0.95, velocity))
        now += length
    return notes


def strings() -> np.ndarray:
    """Two bars in D minor: a solo violin over a string orchestra."""
    melody = line("A5:4 G5:2 F5:2 G5:4 Bb5:4 A5:2 G5:2 F5:2 E5:2 D5:10", 95, 0.25)
    chords = ("D3 A3 D4 F4 A4", "G2 Bb3 D4 G4 Bb4", "A2 A3 C#4 E4 A4", "D3 A3 D4 F4 A4")
    orchestra = [(2.0 * i, pitch(name), 1.95, 80) for i, chord in enumerate(chords) for name in chord.split()]
    parts = [Part(STRINGS, orchestra, volume=80), Part(VIOLIN, melody)]
    return render(parts, 72, SOUNDFONT, sr=SR, room=0.6, reverb=0.5)


def guitar() -> np.ndarray:
    """Four bars in E minor: broken chords on a nylon-string guitar, each string ringing on, and a last chord."""
    chords = ("E2 B2 G3 B3 E4 G4", "C3 E3 G3 C4 E4 A4", "A2 E3 A3 C4 E4 A4", "B2 F#3 A3 B3 D#4 F#4")
    notes: list[Note] = []
    for chord in chords:
        keys = [pitch(name) for name in chord.split()]
        for place, string in enumerate((0, 2, 3, 4, 5, 4, 3, 2)):
            velocity = 92 if place == 0 else 78 if string == 5 else 66
            notes.append((len(notes) * 0.5, keys[string], 2.5, velocity))
    notes += [(16 + 0.05 * i, pitch(name), 4.0, 80) for i, name in enumerate(("E2", "B2", "E3", "G3", "B3", "E4"))]
    return render([Part(GUITAR, notes, volume=110)], 168, SOUNDFONT, sr=SR, room=0.4, reverb=0.3)


def techno() -> np.ndarray:
    """Four bars at 132 beats per minute: four on the floor, off-beat hats, a bass and a sequenced synth."""
    drums: list[Note] = []
    bass: list[Note] = []
    lead: list[Note] = []
    for bar in range(4):
        root = ("A1", "A1", "F1", "G1")[bar]
        names = ("A3 E4 A4 C5", "A3 E4 B4 C5", "F3 C4 A4 C5", "G3 D4 B4 D5")[bar].split()
        sequence = [pitch(name) for name in names]
        for beat in range(4):
            at = 4.0 * bar + beat
            drums += [(at, KICK, 0.25, 127), (at + 0.5, OPEN_HAT, 0.25, 80)]
            drums += [(at + quarter / 4, CLOSED_HAT, 0.2, 60) for quarter in (1, 3)]
            if beat % 2:
                drums.append((at, CLAP, 0.25, 100))
            bass += [(at + quarter / 4, pitch(root), 0.2, 100) for quarter in (2, 3)]
            turned = sequence[beat:] + sequence[:beat]
            lead += [(at + step / 4, key, 0.2, 85 if step else 95) for step, key in enumerate(turned)]
    parts = [
        Part(DRUMS, drums, volume=127, kit=25),
        Part(SYNTH_BASS, bass, volume=110),
        Part(SAW, lead, volume=75, pan=80),
    ]
    return render(parts, 132, SOUNDFONT, sr=SR, gain=0.5, room=0.1, reverb=0.1)


def fade(samples: np.ndarray, seconds: float) -> np.ndarray:
    """Raised-cosine fade at the end."""
    size = round(seconds * SR)
    samples = samples.copy()
    samples[-size:] *= (0.5 + 0.5 * np.cos(np.pi * np.arange(size) / size))[:, None]
    return samples


def compose() -> np.ndarray:
    """The clip: float32 `(samples, 2)` at `SR` with a peak of `PEAK`."""
    clip = np.zeros((round((SECTIONS[-1].offset + SECTIONS[-1].duration) * SR), 2), "float32")
    for section, play in zip(SECTIONS, (strings, guitar, techno), strict=True):
        samples = fade(play()[: round(section.duration * SR)], FADE)
        begin = round(section.offset * SR)
        clip[begin : begin + len(samples)] = samples * PEAK / np.abs(samples).max()
    return clip


def write(path: str | os.PathLike[str], waveform: np.ndarray) -> None:
    """Write a waveform `(samples, channels)` at `SR` as Ogg Vorbis."""
    options = {"format": "OGG", "subtype": "VORBIS", "compression_level": COMPRESSION}
    with soundfile.SoundFile(path, "w", SR, waveform.shape[1], **options) as file:
        for at in range(0, len(waveform), _BLOCK):
            file.write(waveform[at : at + _BLOCK])


def main() -> None:
    """Write the clip."""
    parser = argparse.ArgumentParser(description="Compose and render the demo clip of the package.")
    parser.add_argument("out", nargs="?", type=Path, default=demo_clip())
    out = parser.parse_args().out
    write(out, compose())
    print(f"{out}: {os.path.getsize(out) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
