"""Does a model keep its spec's promises? Each check builds or runs the real thing and compares.

Used by `keras-musictag validate` and by the tests of the zoo.
"""

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
    """One promise.

    Attributes:
        name: what was checked.
        expected: what the spec says.
        actual: what was found.
        passed: whether they agree.
    """

    name: str
    expected: Any
    actual: Any
    passed: bool


def validate(name: str, *, weights: bool = True) -> list[Check]:
    """Check a registered model against its spec.

    Args:
        name: of the model.
        weights: also fetch the weights, if there are any, and assign them strictly.

    Returns:
        One `Check` per promise: architecture, input shape, tag count, all parameters, trainable parameters, reduction
        against the baseline, preprocessing, probabilities, and weights. A promise that the spec does not make is
        not checked.

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
        checks.append(_equal("layers", dict(claims["layers"]), _widths(core, claims["layers"])))
    if "input_shape" in claims:
        checks.append(_equal("input shape", list(claims["input_shape"]), list(core.input_shape[1:])))
    if "num_tags" in claims:
        checks.append(_equal("tags", claims["num_tags"], len(spec.tags)))
        checks.append(_equal("outputs", claims["num_tags"], core.output_shape[-1]))
    if "parameters" in claims:
        checks.append(_equal("parameters", claims["parameters"], core.count_params()))
    if "trainable_parameters" in claims:
        checks.append(_equal("trainable parameters", claims["trainable_parameters"], _trainable(core)))
    if "reduction" in claims:
        checks.append(_reduction(core, claims["reduction"]))
    checks += _run(tagger)
    if weights and spec.weights is not None:
        checks.append(_weights(spec))
    return checks


def _equal(name: str, expected: Any, actual: Any) -> Check:
    return Check(name, expected, actual, expected == actual)


def _trainable(core: keras.Model) -> int:
    return sum(math.prod(variable.shape) for variable in core.trainable_variables)


def _widths(core: keras.Model, kinds: Iterable[str]) -> dict[str, list[int]]:
    """Filters or units of every layer of some kinds, in order: `{"GRU": [86, 32]}`."""
    widths: dict[str, list[int]] = {kind: [] for kind in kinds}
    for layer in core.layers:
        if type(layer).__name__ in widths:
            widths[type(layer).__name__].append(getattr(layer, "filters", None) or layer.units)
    return widths


def _reduction(core: keras.Model, claim: Any) -> Check:
    """Parameters saved against another zoo model, in whole percent."""
    other = registry.model_info(claim["against"])
    baseline = NetworkTagger(other, pretrained=False).core
    percent = round(100 * (1 - core.count_params() / baseline.count_params()))
    return _equal(f"% fewer parameters than {other.name}", claim["percent"], percent)


def _run(tagger: NetworkTagger) -> list[Check]:
    """One window of noise through preprocessing and network."""
    from keras import ops

    spec = tagger.spec
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, spec.window_samples)).astype("float32")
    front_end = next(layer for layer in tagger.model.layers if layer.name == "log_mel_spectrogram")
    features = tuple(front_end.compute_output_shape(noise.shape))
    probabilities = ops.convert_to_numpy(tagger.model(noise))
    sound = bool(np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1)
    return [
        _equal("waveform to log-mel", (1, *spec.input_shape), features),
        Check("probabilities", "finite, 0 to 1", f"{probabilities.min():.3f} to {probabilities.max():.3f}", sound),
    ]


def _weights(spec: ModelSpec) -> Check:
    try:
        NetworkTagger(spec)
    except MusicTagError as error:
        return Check("weights", "fetched, verified, assigned", str(error), False)
    return Check("weights", "fetched, verified, assigned", "fetched, verified, assigned", True)
