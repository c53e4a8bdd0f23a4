"""How much of a track should a row of a taggram hear, with a network whose window is long?

    python benchmarks/taggram_windows.py manifest.csv [--model musicnet_crnn] [--teacher musicnn_mtt]

Medleys of `--parts` pieces of `--seconds` s, each from another held-out track (rows of the split `test`), are tagged
over time with windows of several lengths, each repeated until it fills the network's. Compared are, per length:

- agreement: mean over the tags of the correlation, over all moments of all medleys, with what a teacher of 3 s windows
  hears in the piece that plays at that moment, alone;
- sections: how many of the places where pieces meet are among the as many largest changes of the taggram, within 1.5 s;
- shift: on tracks without sections, mean absolute difference between the mean row of the taggram and `tag`. A taggram
  that resolves more must not say something else.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag import audio
from keras_musictag.datasets import Manifest
from keras_musictag.evaluation.metrics import agreement
from keras_musictag.tagger import Tagger

SR = 16_000  # Hz, of the medleys
HOP = 1.0  # seconds
NEAR = 1.5  # seconds


def heard(tagger: Tagger, piece: np.ndarray) -> np.ndarray:
    """Probabilities of a piece alone, `(tags,)`."""
    tags = tagger.tag(piece, sr=SR)
    return np.asarray([tags[tag] for tag in tagger.tags])


def changes(gram: kmt.Taggram, count: int) -> list[float]:
    """Seconds of the `count` largest changes between the means of two rows before and after, at least 3 s apart."""
    rows, span = gram.probabilities, 2
    size = np.asarray(
        [
            np.abs(rows[max(0, i - span) : i].mean(axis=0) - rows[i : i + span].mean(axis=0)).sum()
            for i in range(1, len(rows))
        ]
    )
    times = (gram.times[1:] + gram.times[:-1]) / 2
    found: list[float] = []
    while len(found) < count and np.isfinite(size).any():
        best = int(np.nanargmax(size))
        found.append(float(times[best]))
        size[np.abs(times - times[best]) < 3.0] = np.nan
    return found


@click.command()
@click.argument("manifest", type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="musicnet_crnn", show_default=True)
@click.option("--teacher", default="musicnn_mtt", show_default=True)
@click.option("--source", default="emotify", show_default=True)
@click.option("--medleys", default=10, show_default=True)
@click.option("--parts", default=4, show_default=True)
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--lengths", default="3,4.5,6,9,14,29.14", show_default=True)
def main(
    manifest: Path, model: str, teacher: str, source: str, medleys: int, parts: int, seconds: float, lengths: str
) -> None:
    """Print a line per length."""
    rng = np.random.default_rng(0)
    rows = [row for row in Manifest.load(manifest, untagged=True).split("test") if row.source == source]
    student, expert = kmt.load(model), kmt.load(teacher)
    sounds, truths, singles = [], [], []
    for _ in tqdm(range(medleys), desc="pieces"):
        chosen = rng.choice(len(rows), size=parts, replace=False)
        pieces = [audio.load(rows[i].path, target_sr=SR, offset=15.0, duration=seconds) for i in chosen]
        sounds.append(np.concatenate(pieces))
        truths.append([heard(expert, piece) for piece in pieces])
        singles.append(audio.load(rows[chosen[0]].path, target_sr=SR, offset=5.0, duration=40.0))
    usual = [heard(student, sound) for sound in singles]
    click.echo("| s heard | agreement | sections found | shift |")
    click.echo("| --- | --- | --- | --- |")
    for length in [float(text) for text in lengths.split(",")]:
        own, expected, found, shifts = [], [], 0, []
        for sound, truth, single, mean in zip(sounds, truths, singles, usual, strict=True):
            # Silence around it: every moment has a row, whatever the length of the windows.
            pad = np.zeros(round(SR * length / 2), "float32")
            whole = student.taggram(np.concatenate([pad, sound, pad]), sr=SR, hop_seconds=HOP, window_seconds=length)
            places = whole.times - length / 2
            inside = (places > 0) & (places < parts * seconds)
            own.append(whole.probabilities[inside])
            expected.append(np.asarray(truth)[(places[inside] // seconds).astype(int)])
            gram = student.taggram(sound, sr=SR, hop_seconds=HOP, window_seconds=length)
            edges = seconds * np.arange(1, parts)
            found += sum(bool(np.any(np.abs(edges - at) <= NEAR)) for at in changes(gram, parts - 1))
            flat = student.taggram(single, sr=SR, hop_seconds=2 * HOP, window_seconds=length)
            shifts.append(np.abs(flat.probabilities.mean(axis=0) - mean).mean())
        agreed = agreement(np.concatenate(own), np.concatenate(expected), student.tags).correlation
        total = medleys * (parts - 1)
        click.echo(f"| {length:g} | {agreed:.3f} | {found} of {total} | {np.mean(shifts):.4f} |")


if __name__ == "__main__":
    main()
