"""Make a tagger for each vocabulary of a student that learned several: python zoo/split_vocabularies.py RUN.

A student of teachers with different tags has them all, written `teacher/tag` (see `training.teacher_targets`). Written
is a folder `RUN/TEACHER` for each vocabulary: the same network, with the outputs and the tags of that vocabulary alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import keras_musictag as kmt


def split(tagger: kmt.Tagger) -> dict[str, kmt.Tagger]:
    """A tagger for each vocabulary, by the name of its first teacher.

    Raises:
        ValueError: the tagger has one vocabulary only.
    """
    columns: dict[str, list[int]] = {}
    for index, tag in enumerate(tagger.tags):
        teacher, slash, _ = tag.partition("/")
        if not slash:
            raise ValueError(f"{tagger!r} has one vocabulary: its tag {tag!r} names no teacher.")
        columns.setdefault(teacher, []).append(index)
    return {teacher: with_outputs(tagger, indices, teacher) for teacher, indices in columns.items()}


def with_outputs(tagger: kmt.Tagger, indices: list[int], teacher: str) -> kmt.Tagger:
    """The same network with some of its outputs."""
    tags = tuple(tagger.tags[index].removeprefix(f"{teacher}/") for index in indices)
    about = {name: getattr(tagger.spec, name) for name in ("description", "trained_on", "training_data")}
    head = [np.take(array, indices, axis=-1) for array in tagger.core.get_layer("head").get_weights()]
    return with_head(tagger, head, name=f"{tagger.spec.name}-{teacher}", tags=tags, **about)


def with_head(tagger: kmt.Tagger, head: list[np.ndarray], **changes: Any) -> kmt.Tagger:
    """The same network with another head, of kernel and bias `head`; `changes` to the spec name its tags."""
    made = kmt.Tagger(tagger.spec.retrained(**changes), pretrained=False)
    for layer in made.core.layers:
        layer.set_weights(head if layer.name == "head" else tagger.core.get_layer(layer.name).get_weights())
    return made


def main() -> None:
    """Write the taggers."""
    parser = argparse.ArgumentParser(description="Make a tagger for each vocabulary of a student of several.")
    parser.add_argument("run", type=Path, help="folder of the trained tagger")
    given = parser.parse_args()
    for teacher, tagger in split(kmt.load(given.run)).items():
        print(tagger.save(given.run / teacher))


if __name__ == "__main__":
    main()
