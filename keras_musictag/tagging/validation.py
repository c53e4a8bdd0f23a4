"""Checks of a model against its spec, for `keras-musictag validate` and the tests of the zoo."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MusicTagError
from ..models import registry
from ..models.spec import ModelSpec
from .network_tagger import NetworkTagger

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: what was checked.
        expected: value in the spec.
        actual: value of the model.
        passed: whether the values agree.
    """

    name: str
    expected: Any
    actual: Any
    passed: bool


def validate(name: str, *, weights: bool = True) -> list[Check]:
    """Check a registered model against its spec by building and running it.

    Args:
        name: name of the model.
        weights: also fetch the weights, if there are any, and assign them strictly.

    Returns:
        One `Check` per claim of the spec: architecture, input shape, tag count, all parameters, trainable parameters,
        reduction against the baseline; and one each for preprocessing, probabilities and weights.

    Raises:
        UnknownModelError: no such model.

    Example:
        >>> all(check.passed for check in validate("tiny"))
        True
    """
    spec = registry.model_info(name)
    tagger = NetworkTagger(spec, pretrained=False)
    core, claims = tagger.core, spec.claims
    checks = []
    if "layers" in claims:
        checks.append(_equal("layers", dict(claims["layers"]), _layer_widths(core, claims["layers"])))
    if "input_shape" in claims:
        checks.append(_equal("input shape", list(claims["input_shape"]), list(core.input_shape[1:])))
    if "num_tags" in claims:
        checks.append(_equal("tags", claims["num_tags"], len(spec.tags)))
        checks.append(_equal("outputs", claims["num_tags"], core.output_shape[-1]))
    if "parameters" in claims:
        checks.append(_equal("parameters", claims["parameters"], core.count_params()))
    if "trainable_parameters" in claims:
        checks.append(_equal("trainable parameters", claims["trainable_parameters"], _trainable_count(core)))
    if "reduction" in claims:
        checks.append(_check_reduction(core, claims["reduction"]))
    checks += _check_outputs(tagger)
    if weights and spec.weights is not None:
        checks.append(_check_weights(spec))
    return checks


def _equal(name: str, expected: Any, actual: Any) -> Check:
    return Check(name, expected, actual, expected == actual)


def _trainable_count(core: keras.Model) -> int:
    return sum(math.prod(variable.shape) for variable in core.trainable_variables)


def _layer_widths(core: keras.Model, kinds: Iterable[str]) -> dict[str, list[int]]:
    """Return filters or units of all layers of the given types, in order: `{"GRU": [86, 32]}`."""
    widths: dict[str, list[int]] = {kind: [] for kind in kinds}
    for layer in core.layers:
        if type(layer).__name__ in widths:
            widths[type(layer).__name__].append(getattr(layer, "filters", None) or layer.units)
    return widths


def _check_reduction(core: keras.Model, claim: Any) -> Check:
    """Check the saving of parameters against another zoo model, in whole percent."""
    other = registry.model_info(claim["against"])
    baseline = NetworkTagger(other, pretrained=False).core
    percent = round(100 * (1 - core.count_params() / baseline.count_params()))
    return _equal(f"% fewer parameters than {other.name}", claim["percent"], percent)


def _check_outputs(tagger: NetworkTagger) -> list[Check]:
    """Run one window of noise through preprocessing and network."""
    from keras import ops

    spec = tagger.spec
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, spec.window_samples)).astype("float32")
    front_end = next(layer for layer in tagger.model.layers if layer.name == "log_mel_spectrogram")
    features = tuple(front_end.compute_output_shape(noise.shape))
    probabilities = ops.convert_to_numpy(tagger.model(noise))
    valid = bool(np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1)
    return [
        _equal("waveform to log-mel", (1, *spec.input_shape), features),
        Check("probabilities", "finite, 0 to 1", f"{probabilities.min():.3f} to {probabilities.max():.3f}", valid),
    ]


def _check_weights(spec: ModelSpec) -> Check:
    try:
        NetworkTagger(spec)
    except MusicTagError as error:
        return Check("weights", "fetched, verified, assigned", str(error), False)
    return Check("weights", "fetched, verified, assigned", "fetched, verified, assigned", True)
