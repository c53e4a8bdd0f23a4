"""Render scores for instruments and voices that recordings at hand hardly have: python zoo/render_scores.py OUT.

The scores come with music21 (`pip install music21`): their composers are long dead, and each encoding's terms are in
music21's corpus. FluidSynth plays each excerpt with a sound font, a room and a tempo drawn at random (seeded), and with
the instruments of `ENSEMBLES`: choirs for Palestrina, harpsichord, strings, flute, harp, sitar and others. Written are
16 kHz mono FLAC files and `OUT/index.csv` with the columns file, collection, artist, title, licence; a file that is
there is kept. Sound fonts: fluid-soundfont-gm and musescore-general-soundfont (Debian packages; MIT, parts CC0 or
public domain).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from pathlib import Path

import numpy as np
import soxr
from distillation_data import SR, write
from midi import Note, Part, render
from tqdm import tqdm

SOUNDFONTS = (
    Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    Path("/usr/share/sounds/sf3/MuseScore_General_Full.sf3"),
)
LICENCE = "composer in the public domain; encoding as music21's corpus states; sound font MIT"
RATE = 32_000  # Hz, of the synthesiser
SECONDS = (45.0, 90.0)  # range of an excerpt's length


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Who plays: General MIDI programs for the parts of a score, highest part first; the last one repeats.

    Attributes:
        name: what it is.
        corpus: names that music21's corpus is searched for.
        programs: General MIDI programs, from 0 on.
        takes: how many excerpts.
        tempo: range of a factor on 90 quarter notes per minute.
        parts: how many parts of the score play, 0 for all.
    """

    name: str
    corpus: tuple[str, ...]
    programs: tuple[int, ...]
    takes: int
    tempo: tuple[float, float] = (0.7, 1.2)
    parts: int = 0


ENSEMBLES = (
    Ensemble("choir", ("palestrina", "monteverdi", "josquin"), (52,), 24, (0.6, 1.0)),
    Ensemble("voices", ("palestrina", "bach"), (53, 52), 16, (0.6, 1.0)),
    Ensemble("harpsichord", ("bach", "handel"), (6,), 16, (0.9, 1.5)),
    Ensemble("string quartet", ("haydn", "mozart", "beethoven"), (40, 40, 41, 42), 12),
    Ensemble("cello", ("bach", "ryansMammoth"), (42,), 10, (0.6, 1.0), parts=1),
    Ensemble("violin", ("ryansMammoth", "oneills1850"), (40,), 8, (0.8, 1.4), parts=1),
    Ensemble("flute", ("oneills1850", "ryansMammoth", "airdsAirs"), (73,), 10, (0.7, 1.3), parts=1),
    Ensemble("flute and harpsichord", ("bach",), (73, 6), 6),
    Ensemble("harp", ("bach", "oneills1850"), (46,), 12, (0.7, 1.2)),
    Ensemble("guitar", ("bach", "airdsAirs"), (24,), 8, (0.7, 1.2)),
    Ensemble("sitar", ("airdsAirs", "oneills1850", "trecento"), (104,), 12, (0.7, 1.3)),
    Ensemble("organ", ("bach",), (19,), 6),
)


def parts_of(path: Path) -> list[list[Note]]:
    """Notes of each part of a score; times in quarter notes."""
    from music21 import corpus

    score = corpus.parse(path)
    if hasattr(score, "scores"):  # an Opus: the first piece
        score = score.scores[0]
    streams = list(score.parts) or [score]
    parts = []
    for stream in streams:
        notes: list[Note] = []
        for element in stream.flatten().notes:
            velocity = 96 if element.beat == 1 else 84
            length = max(0.1, float(element.quarterLength))
            notes += [(float(element.offset), p.midi, length, velocity) for p in element.pitches]
        parts.append(notes)
    return parts


def excerpt(parts: list[list[Note]], ensemble: Ensemble, rng: np.random.Generator) -> np.ndarray:
    """A stretch of the score, played; mono float32 `(samples,)` at `SR`."""
    tempo = 90 * rng.uniform(*ensemble.tempo)
    beats = rng.uniform(*SECONDS) * tempo / 60
    last = max((start + length for notes in parts for start, _, length, _ in notes), default=0.0)
    begin = rng.uniform(0, max(0.0, last - beats)) // 4 * 4
    shift = int(rng.integers(-2, 3))
    playing = []
    for number, notes in enumerate(parts[: ensemble.parts or None]):
        program = ensemble.programs[min(number, len(ensemble.programs) - 1)]
        own = [
            (start - begin, key + shift, length, int(np.clip(velocity + rng.integers(-8, 9), 1, 127)))
            for start, key, length, velocity in notes
            if begin <= start < begin + beats and 0 <= key + shift < 128
        ]
        pan = int(rng.integers(34, 95))
        playing.append(Part(program, own, volume=100, pan=pan))
    font = SOUNDFONTS[int(rng.integers(len(SOUNDFONTS)))]
    room, reverb = rng.uniform(0.2, 0.9), rng.uniform(0.1, 0.7)
    sound = render(playing, tempo, font, sr=RATE, gain=0.4, room=room, reverb=reverb)
    return np.asarray(soxr.resample(sound.mean(axis=1), RATE, SR), "float32")


def take(ensemble: Ensemble, number: int, out: Path) -> dict[str, str] | None:
    """One file and its row of the index; `None` where the score cannot be used."""
    from music21 import corpus

    rng = np.random.default_rng([number, *ensemble.name.encode()])
    paths = sorted(corpus.getComposer(ensemble.corpus[number % len(ensemble.corpus)]), key=str)
    path = paths[int(rng.integers(len(paths)))]
    file = out / f"{ensemble.name.replace(' ', '-')}-{number:02d}-{Path(path).stem}.flac"
    title = f"{Path(path).parent.name}/{Path(path).name}, {ensemble.name}"
    artist = f"{Path(path).parent.name}, rendered"
    row = {"file": file.name, "collection": "rendered scores", "artist": artist, "title": title, "licence": LICENCE}
    if not file.is_file():
        sound = excerpt(parts_of(path), ensemble, rng)
        if len(sound) < 15 * SR:
            return None
        write(file, sound * (rng.uniform(0.3, 0.9) / max(float(np.abs(sound).max()), 1e-6)))
    return row


def main() -> None:
    """Render all takes of all ensembles; scores that music21 cannot read, or that are too short, are passed over."""
    parser = argparse.ArgumentParser(description="Render scores of music21 with sound fonts.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--factor", type=float, default=1.0, help="on the number of takes")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    most = max(ensemble.takes for ensemble in ENSEMBLES)
    plan = [(e, n) for n in range(round(most * given.factor)) for e in ENSEMBLES if n < round(e.takes * given.factor)]
    rows = []
    for ensemble, number in tqdm(plan, unit="take"):
        try:
            row = take(ensemble, number, given.out)
        except Exception as error:  # music21 has no common error of its own
            tqdm.write(f"{ensemble.name} {number}: {type(error).__name__}: {error}")
            continue
        if row is not None:
            rows.append(row)
    with (given.out / "index.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file", "collection", "artist", "title", "licence"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{given.out / 'index.csv'}: {len(rows)} of {len(plan)} takes")


if __name__ == "__main__":
    main()
