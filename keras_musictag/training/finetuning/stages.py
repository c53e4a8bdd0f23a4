"""The two stages of fine-tuning: fit a linear head to embeddings, then train the whole network."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...datasets.splitting import folds
from ...errors import SpecError
from ...models.layer_statistics import STANDARDISE, tap_names
from ...tagging.network_tagger import NetworkTagger
from ..head_fitting import FittedHead, fit_head, weights_of
from ..loop import NotFiniteError, RunState, fit
from ..losses import BalancedCrossentropy
from ..training_spec import lower_learning_rate
from .labelled_data import FineTuneData, FineTuneError
from .settings import FineTuneSpec

if TYPE_CHECKING:
    import keras

    from ...datasets.log_mel_cache import FeatureCache

_MIN_PROBABILITY = 1e-6  # in a logarithm
_VALIDATION_BATCH = 8  # windows


def new_tagger(base: NetworkTagger, data: FineTuneData) -> NetworkTagger:
    """Make a tagger with the weights of `base` up to the head, taps, and a new head for the tags of the data.

    Raises:
        SpecError: clips have one tag each, and the architecture cannot end in a softmax.
    """
    config = {**base.spec.config}
    config.setdefault("taps", list(tap_names(base.core)))
    activation = "softmax" if data.exclusive else "sigmoid"
    if base.core.get_layer("head").activation.__name__ != activation:
        config["classifier_activation"] = activation
    spec = base.spec.retrained(tags=data.tags, config=config)
    try:
        tagger = base.like(spec, pretrained=False)
    except SpecError as error:
        if "classifier_activation" not in str(error):
            raise
        raise SpecError(
            f"The architecture {spec.architecture!r} has no argument classifier_activation, so it cannot choose one "
            "tag per clip. Pass single_label=False."
        ) from error
    base_layers = {layer.name: layer for layer in base.core.layers}
    for layer in tagger.core.layers:
        if layer.name in base_layers and layer.weights and layer.name not in ("head", STANDARDISE):
            layer.set_weights(base_layers[layer.name].get_weights())
    return tagger


def solve_head(
    tagger: NetworkTagger,
    data: FineTuneData,
    embeddings: np.ndarray,
    settings: FineTuneSpec,
    previous: FittedHead | None = None,
) -> FittedHead:
    """First stage: fit the head to the embeddings `(clips, features)` of the training clips, and assign its weights.

    With a `previous` head, fitted to part of the clips, its strength and factor are used.
    """
    parts = folds(data.train, settings.folds, seed=settings.seed)
    head = fit_head(
        embeddings, data.train.targets(), parts, exclusive=data.exclusive, balance=settings.balance, previous=previous
    )
    tagger.core.get_layer(STANDARDISE).set_weights([head.mean, head.variance])
    tagger.core.get_layer("head").set_weights([head.kernel, head.bias])
    return head


def train_all(
    tagger: NetworkTagger,
    data: FineTuneData,
    settings: FineTuneSpec,
    folder: str | os.PathLike[str],
    *,
    cache: FeatureCache,
    progress: bool,
) -> RunState:
    """Second stage: train the whole network in place, except batch norms; resumes a stopped run in `folder`.

    Raises:
        FineTuneError: the loss or a weight became NaN or infinite twice, the second time in float32.
    """
    from ...datasets.batches import WindowBatches

    train = data.train
    training = settings.training(len(train), data.validation is not None)
    targets = train.targets()
    clip_weights, tag_weights = weights_of(targets, data.exclusive, settings.balance)
    weighted = targets * clip_weights[:, None] if data.exclusive else targets
    batches = WindowBatches(
        train, tagger.spec, cache, batch_size=min(settings.batch_size, len(train)), steps=training.steps,
        seed=settings.seed, targets=lambda row, start, frames: weighted[row],
        augment=settings.augmentation(tagger.spec.mel), mixup=0.3 if settings.augment else 0.0,
        mixup_mode="log" if data.exclusive else "power",
    )  # fmt: skip
    # The head has no dropout in front of it: with 2,000 features and more it is stable with the network's own.
    try:
        return fit(
            tagger.core, batches, training, Path(folder),
            validate=_validation(data, tagger, cache), freeze_norms=True, dropout=0.5,
            loss="categorical_crossentropy" if data.exclusive else BalancedCrossentropy(tag_weights),
            about={name: part.digest() for name, part in data.parts.items()} | dataclasses.asdict(settings),
            progress=progress,
        )  # fmt: skip
    except NotFiniteError as error:
        rate = lower_learning_rate(settings.learning_rate, FineTuneSpec.learning_rate)
        advice = f"Choose a learning_rate of {rate:g} or less, or stages='head', which trains no network"
        if error.in_data:
            advice = "Correct the data, or choose stages='head', which trains no network"
        raise FineTuneError(
            f"Training the whole network failed twice. {error.what} {advice}. If you gave a folder, choose another, "
            "since each belongs to one run."
        ) from error


def _validation(
    data: FineTuneData, tagger: NetworkTagger, cache: FeatureCache
) -> Callable[[keras.Model], dict[str, float]]:
    from ...datasets.batches import EvaluationWindows
    from ..supervised import row_outputs

    validation = data.validation
    if validation is None:  # the last averaged weights are kept
        return lambda model: {"log_likelihood": 0.0}
    windows = EvaluationWindows(validation, tagger.spec, cache, batch_size=_VALIDATION_BATCH)
    targets = validation.targets()

    def validate(model: keras.Model) -> dict[str, float]:
        each = log_likelihoods(row_outputs(model, windows), targets, data.exclusive)
        return {"log_likelihood": float(each.mean())}

    return validate


def blend(tagger: NetworkTagger, before: list[np.ndarray], share: float) -> None:
    """Interpolate between the weights before and after training.

    Networks in between learn the new task and forget less of the old one (Wortsman et al., "Robust fine-tuning of
    zero-shot models", CVPR 2022).

    Args:
        tagger: trained tagger, changed in place.
        before: its weights before training.
        share: 0 for the weights before training, 1 for those after.
    """
    after = tagger.core.get_weights()
    tagger.core.set_weights([old + share * (new - old) for old, new in zip(before, after, strict=True)])


def log_likelihoods(probabilities: np.ndarray, targets: np.ndarray, exclusive: bool) -> np.ndarray:
    """Return the log-likelihood of the targets for each clip, `(clips,)`; the mean over tags that are not exclusive.

    Example:
        >>> log_likelihoods(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]), True).round(3)
        array([-0.693])
    """
    logs = targets * np.log(np.maximum(probabilities, _MIN_PROBABILITY))
    if not exclusive:
        logs = logs + (1 - targets) * np.log(np.maximum(1 - probabilities, _MIN_PROBABILITY))
        return np.asarray(logs.mean(axis=1))
    return np.asarray(logs.sum(axis=1))
