"""Tag the first section of the bundled clip with each model of the zoo: `python benchmarks/examples.py [MODEL...]`.

The five most probable tags go, for the card, into `zoo/MODEL/spec.json`. Weights that are not here yet are fetched.
"""

from __future__ import annotations

import sys

import keras_musictag as kmt
from keras_musictag.audio.demo import SECTIONS
from keras_musictag.models.cards import update_zoo
from keras_musictag.models.registry import zoo_folder


def main() -> None:
    """Tag the clip with each model and write its spec and its card."""
    for name in sys.argv[1:] or sorted(path.parent.name for path in zoo_folder().glob("*/spec.json")):
        tags = kmt.load(name).tag(kmt.demo_clip(), duration=SECTIONS[0].duration, top=5)
        update_zoo(name, example={tag: round(probability, 3) for tag, probability in tags.items()})


if __name__ == "__main__":
    main()
