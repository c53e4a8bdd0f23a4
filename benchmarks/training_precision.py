"""How fast is a training step in float32 and in mixed bfloat16, here, and how far are the losses apart?

    python benchmarks/training_precision.py [MODEL ...] [--batch 16]

Prints processor and versions, then for each model milliseconds per window in both precisions, and what the self-test of
`precision="auto"` says. Inputs are noise, and the losses of 60 steps are compared whether bfloat16 is faster or not.
"""

from __future__ import annotations

import argparse
import json

import numpy as np


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["musicnet_crnn"])
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()

    import keras

    import keras_musictag as kmt
    from keras_musictag.training import precision
    from keras_musictag.training.training_graph import training_graph

    print(json.dumps(precision.conditions(), indent=1))
    rng = np.random.default_rng(0)
    for name in given.models:
        tagger = kmt.load(name)
        shape = (given.batch, *tagger.spec.input_shape)
        targets = (given.batch, len(tagger.tags))
        batches = [
            (rng.normal(2, 1, shape).astype("float32"), rng.integers(0, 2, targets).astype("float32")) for _ in range(4)
        ]

        def graph(policy: str, core: keras.Model = tagger.core) -> keras.Model:
            keras.utils.set_random_seed(0)
            built = training_graph(core, precision=policy, freeze_norms=True, dropout=0.5)
            built.compile(optimizer=keras.optimizers.AdamW(1e-4, global_clipnorm=1.0), loss="binary_crossentropy")
            built.optimizer.build(built.trainable_variables)
            return built

        found = precision.compare(graph("float32"), graph("mixed_bfloat16"), batches)
        print(f"{name}, batch {given.batch}: {found.summary}")
        per = {each: getattr(found, f"{each}_ms") / given.batch for each in ("float32", "bfloat16")}
        print(f"  ms per window: float32 {per['float32']:.1f}, mixed_bfloat16 {per['bfloat16']:.1f}")
        precision.GAIN, gain = 0.0, precision.GAIN
        found = precision.compare(graph("float32"), graph("mixed_bfloat16"), batches)
        precision.GAIN = gain
        print(f"  60 steps, whatever the speed: {found.summary}")


if __name__ == "__main__":
    main()
