"""Clips that are tonal, noisy or both: two tags that `tiny`'s network learns within seconds."""

import numpy as np
import soundfile

from keras_musictag.datasets import Manifest, Row

TAGS = ("tonal", "noisy")
RATE = 16_000


def two_tags(folder, count=16, seconds=1.5, seed=0):
    """Write the clips into the folder, two per artist; returns their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    t = np.arange(round(RATE * seconds)) / RATE
    rows = []
    for i in range(count):
        tags = (TAGS[:1], TAGS[1:], TAGS, TAGS[:1])[i % 4]
        tone = 0.4 * np.sin(2 * np.pi * rng.uniform(200, 2000) * t) * ("tonal" in tags)
        soundfile.write(folder / f"{i}.wav", tone + 0.2 * rng.standard_normal(t.size) * ("noisy" in tags), RATE)
        rows.append(Row(path=folder / f"{i}.wav", tags=tags, group=f"artist {i // 2}", licence="CC0-1.0"))
    return Manifest(tuple(rows), TAGS)
