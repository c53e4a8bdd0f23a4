"""Put weights that a recipe made into the zoo: `python zoo/embed.py OUT musicnet_crnn --dtype float16`.

Embedded weights are in float16 where that saves megabytes and changes no probability by more than `TOLERANCE`; they
are computed with in float32 all the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

import keras_musictag as kmt
from keras_musictag.audio import reading as audio
from keras_musictag.models.cards import update_zoo
from keras_musictag.models.registry import zoo_folder
from keras_musictag.models.spec import WEIGHTS_FILE, WeightsSource
from keras_musictag.models.weights import load_weights
from keras_musictag.utils.files import sha256_of, write_atomically

TOLERANCE = 2e-3


def largest_change(original: Path, rounded: Path, name: str) -> float:
    """Largest difference of any probability of the bundled clip, at ten levels and in noise."""
    spec, rng = kmt.model_info(name), np.random.default_rng(0)
    clip = audio.load(kmt.demo_clip(), target_sr=spec.audio.sr)
    sounds = [10 ** (-level / 20) * clip for level in range(0, 30, 3)]
    sounds.append(clip + 0.1 * rng.standard_normal(len(clip)).astype("float32"))
    tagger = kmt.load(name, weights=None)
    outputs = []
    for path in (original, rounded):
        load_weights(tagger.core, path)
        found = [tagger.tag(sound, spec.audio.sr) for sound in sounds]
        outputs.append([[tags[tag] for tag in spec.vocabulary.names] for tags in found])
    return float(np.abs(np.subtract(*outputs)).max())


def main() -> None:
    """Embed."""
    parser = argparse.ArgumentParser(description="Put the weights of a trained tagger into the zoo.")
    parser.add_argument("tagger", type=Path, help="folder written by a recipe or Tagger.save")
    parser.add_argument("name", help="zoo model that they become the weights of")
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float32")
    parser.add_argument("--trained-on", required=True, help="one sentence for the spec")
    given = parser.parse_args()
    source, target = given.tagger / WEIGHTS_FILE, zoo_folder() / given.name / WEIGHTS_FILE
    # Kernels alone: biases and batch norms' statistics are few, and far from 0 in decibels.
    kernels = {key: value.astype(given.dtype) for key, value in load_file(source).items() if value.ndim > 1}
    arrays = load_file(source) | kernels
    rounded = given.tagger / f"{given.dtype}-{WEIGHTS_FILE}"
    write_atomically(rounded, save(arrays, metadata={"format": "keras_musictag"}))
    change = largest_change(source, rounded, given.name)
    if change > TOLERANCE:
        raise SystemExit(f"{given.dtype} changes probabilities by up to {change:.1e}, more than {TOLERANCE:g}.")
    write_atomically(target, rounded.read_bytes())
    weights = WeightsSource(uri=WEIGHTS_FILE, sha256=sha256_of(target), size=target.stat().st_size)
    update_zoo(
        given.name, weights=weights, weights_help="", trained_on=given.trained_on, license="Apache-2.0", metrics=()
    )
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, probabilities changed by at most {change:.1e}")


if __name__ == "__main__":
    main()
