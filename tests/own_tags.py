"""Sounds of three kinds, as people have them: a folder per tag. `tiny` tells them apart after seconds."""

import numpy as np
import soundfile

from keras_musictag.datasets import Manifest, Row

TAGS = ("beep", "hiss", "tick")
RATE = 16_000


def own_tags(folder, per_tag=8, seconds=1.2, seed=0):
    """Write `<folder>/<tag>/<number>.wav`; returns their manifest, in which each artist has two sounds of each kind."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(RATE * seconds)) / RATE
    rows = []
    for tag in TAGS:
        (folder / tag).mkdir(parents=True, exist_ok=True)
        for number in range(per_tag):
            sound = {
                "beep": 0.4 * np.sin(2 * np.pi * rng.uniform(300, 2000) * t),
                "hiss": 0.1 * rng.standard_normal(t.size),
                "tick": 0.8 * (np.arange(t.size) % round(RATE * rng.uniform(0.1, 0.3)) < 20),
            }[tag]
            path = folder / tag / f"{number}.wav"
            soundfile.write(path, sound + 0.003 * rng.standard_normal(t.size), RATE)
            rows.append(Row(path=path, tags=(tag,), group=f"artist {number // 2}"))
    return Manifest(tuple(rows), TAGS)
