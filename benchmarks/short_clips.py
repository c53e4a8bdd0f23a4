"""Clips shorter than a window: is it better to repeat them or to pad them with silence?

Cuts short pieces out of songs, tags each piece both ways, and compares with the tags of a full window cut at the same
place. The policy that comes nearer goes into the spec's `window.short`.

    python benchmarks/short_clips.py FOLDER [--model musicnn_mtt]
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import numpy as np

import keras_musictag as kmt
from keras_musictag.errors import MusicTagError

_SHARES = (0.1, 0.25, 0.5, 0.75)  # of the model's window
_PLACES = (10.0, 25.0)  # seconds into the song


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", default="musicnn_mtt", show_default=True)
@click.option("--songs", default=60, show_default=True, help="How many of the folder's files to use, evenly spread.")
def main(folder: Path, model: str, songs: int) -> None:
    """Print mean absolute difference and correlation per policy and length."""
    tagger = kmt.load(model)
    policies = {
        short: kmt.Tagger(
            dataclasses.replace(tagger.spec, window=dataclasses.replace(tagger.spec.window, short=short)),
            core=tagger.core,
        )
        for short in ("repeat", "pad")
    }
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files = files[:: max(1, len(files) // songs)][:songs]
    window = tagger.spec.window_seconds
    rows: dict[tuple[str, float], list[tuple[np.ndarray, np.ndarray]]] = {}
    for path in files:
        for place in _PLACES:
            try:
                whole = _probabilities(tagger, path, place, window)
                for share in _SHARES:
                    for short, policy in policies.items():
                        piece = _probabilities(policy, path, place, share * window)
                        rows.setdefault((short, share), []).append((whole, piece))
            except MusicTagError as error:
                click.echo(f"left out: {error}", err=True)
    click.echo(f"{model}, {len(files)} songs of {folder.name}, pieces at {_PLACES} s, window {window:.2f} s")
    click.echo("policy  seconds  pieces  mean |difference|  mean correlation over tags")
    for (short, share), pairs in sorted(rows.items(), key=lambda item: (item[0][1], item[0][0])):
        difference = np.mean([np.abs(whole - piece).mean() for whole, piece in pairs])
        correlation = np.mean([np.corrcoef(whole, piece)[0, 1] for whole, piece in pairs])
        click.echo(f"{short:<6}  {share * window:7.2f}  {len(pairs):6d}  {difference:17.4f}  {correlation:.3f}")


def _probabilities(tagger: kmt.Tagger, path: Path, offset: float, duration: float) -> np.ndarray:
    tags = tagger.tag(path, offset=offset, duration=duration)
    return np.asarray([tags[tag] for tag in tagger.tags])


if __name__ == "__main__":
    main()
