"""Notes to sound: Standard MIDI files written from lists of notes, and played by FluidSynth with a sound font.

Conventions: a note is (start in beats, MIDI pitch, length in beats, velocity 1 to 127); a part has a General MIDI
program, 0 to 127, or `DRUMS`, and notes; sound is float32 `(samples, 2)`.
"""

from __future__ import annotations

import dataclasses
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

TICKS = 480  # per beat
DRUMS = -1
_DRUM_CHANNEL = 9
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}

Note = tuple[float, int, float, int]


@dataclasses.dataclass(frozen=True)
class Part:
    """One instrument.

    Attributes:
        program: General MIDI program from 0 on, or `DRUMS`.
        notes: what it plays.
        volume: MIDI volume, 0 to 127.
        pan: 0 (left) to 127 (right).
        kit: program of the drum channel, with `DRUMS`.
    """

    program: int
    notes: Sequence[Note]
    volume: int = 100
    pan: int = 64
    kit: int = 0


def pitch(name: str) -> int:
    """MIDI number of a pitch such as `"G#3"`.

    Example:
        >>> pitch("A4"), pitch("C4")
        (69, 60)
    """
    return _SEMITONES[name[0]] + name.count("#") - name.count("b") + 12 * (int(name[-1]) + 1)


def write_midi(path: Path, parts: Sequence[Part], beats_per_minute: float) -> None:
    """Write a Standard MIDI file of format 1: a tempo track and one track per part."""
    tempo = round(60e6 / beats_per_minute)  # microseconds per beat
    tracks = [_track([(0, b"\xff\x51\x03" + tempo.to_bytes(3, "big"))])]
    free = [channel for channel in range(16) if channel != _DRUM_CHANNEL]
    for number, part in enumerate(parts):
        channel = _DRUM_CHANNEL if part.program == DRUMS else free[number % len(free)]
        program = part.kit if part.program == DRUMS else part.program
        events = [
            (0, bytes([0xC0 | channel, program])),
            (0, bytes([0xB0 | channel, 7, part.volume])),
            (0, bytes([0xB0 | channel, 10, part.pan])),
        ]
        for start, key, length, velocity in part.notes:
            events.append((round(start * TICKS), bytes([0x90 | channel, key, velocity])))
            events.append((round((start + length) * TICKS) - 1, bytes([0x80 | channel, key, 64])))
        tracks.append(_track(events))
    path.write_bytes(struct.pack(">4sIHHH", b"MThd", 6, 1, len(tracks), TICKS) + b"".join(tracks))


def _track(events: list[tuple[int, bytes]]) -> bytes:
    """Chunk of a track from (tick, message) pairs; at the same tick, notes end before others begin."""
    body, now = bytearray(), 0
    for tick, message in sorted(events, key=lambda event: (event[0], event[1][0] & 0xF0 != 0x80, event[1][0] < 0xB0)):
        body += _variable_length(tick - now) + message
        now = tick
    body += _variable_length(TICKS) + b"\xff\x2f\x00"
    return struct.pack(">4sI", b"MTrk", len(body)) + bytes(body)


def _variable_length(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | (value & 0x7F))
    return bytes(reversed(digits))


def render(
    parts: Sequence[Part],
    beats_per_minute: float,
    soundfont: Path,
    *,
    sr: int = 44_100,
    gain: float = 0.5,
    room: float = 0.2,
    reverb: float = 0.3,
) -> np.ndarray:
    """Play parts with FluidSynth.

    Args:
        parts: instruments and their notes.
        beats_per_minute: tempo.
        soundfont: SF2 or SF3 file.
        sr: sample rate of the result.
        gain: of the synthesiser; keep it low enough not to clip.
        room: size of the room, 0 to 1.
        reverb: level of the room, 0 to 1; 0 switches it off.

    Returns:
        float32 array `(samples, 2)`, up to where the last note has died away.

    Raises:
        FileNotFoundError: FluidSynth or the sound font is missing.
    """
    if shutil.which("fluidsynth") is None:
        raise FileNotFoundError("fluidsynth is not installed; on Debian: apt-get install fluidsynth.")
    if not soundfont.is_file():
        raise FileNotFoundError(f"There is no sound font {soundfont}; on Debian: apt-get install fluid-soundfont-gm.")
    with tempfile.TemporaryDirectory() as folder:
        midi, wave = Path(folder, "notes.mid"), Path(folder, "sound.wav")
        write_midi(midi, parts, beats_per_minute)
        settings = {
            "synth.reverb.active": int(reverb > 0),
            "synth.reverb.room-size": room,
            "synth.reverb.level": reverb,
            "synth.chorus.active": 0,
            "synth.dynamic-sample-loading": 1,
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        command = ["fluidsynth", "-q", "-n", "-i", "-g", str(gain), "-r", str(sr), "-T", "wav", "-O", "float", *options]
        subprocess.run([*command, "-F", wave, soundfont, midi], check=True, capture_output=True)
        samples, _ = soundfile.read(wave, dtype="float32", always_2d=True)
    heard = np.flatnonzero(np.abs(samples).max(axis=1) > 1e-4)
    return samples[: heard[-1] + 1] if len(heard) else samples[:0]
