"""From a name, a folder or a Hub address to a `Tagger` with its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import download, registry
from .errors import UnknownModelError, WeightsUnavailableError
from .spec import SPEC_FILE, ModelSpec
from .tagger import Tagger

if TYPE_CHECKING:
    from .layers import Impl


def load(name: str | os.PathLike[str], *, weights: str | None = "pretrained", impl: Impl = "fft") -> Tagger:
    """Load a tagger.

    Args:
        name: a registered model (`list_models()`), a folder written by `Tagger.save`, or `hf://org/repo@revision`.
        weights: `"pretrained"`, or `None` for random ones; nothing else ever gives random weights.
        impl: `"fft"` or `"conv"`, how `LogMelSpectrogram` transforms.

    Returns:
        `Tagger`, ready to use.

    Raises:
        UnknownModelError: no such name or folder.
        WeightsUnavailableError: the model has no weights yet.
        WeightsError: they could not be had or do not fit (see its subclasses).
        SpecError: the folder or repository holds no valid spec.

    Example:
        >>> load("tiny")
        <Tagger tiny: 5 tags, 3,829 parameters, 32x63 log-mel at 16000 Hz, 1.0 s windows, pretrained>
    """
    if weights not in ("pretrained", None):
        raise ValueError(f"weights must be 'pretrained' or None; got {weights!r}.")
    spec = _find_spec(name)
    if weights is None:
        return Tagger(spec, pretrained=False, impl=impl)
    if spec.weights is None:
        raise WeightsUnavailableError(
            f"There are no weights for {spec.name!r} yet. {spec.weights_help or 'Train some.'} "
            f"Models that have weights: {', '.join(registry.list_models(pretrained=True))}. "
            f"For a network with random weights: load({spec.name!r}, weights=None)."
        )
    return Tagger(spec, pretrained=True, impl=impl)


def _find_spec(name: str | os.PathLike[str]) -> ModelSpec:
    text = os.fspath(name)
    if text.startswith("hf://"):
        return download.fetch_hub_spec(text)
    # A registered name means the same wherever it is used; a folder of that name is ./name.
    is_folder = isinstance(name, os.PathLike) or os.sep in text or (Path(text) / SPEC_FILE).is_file()
    if is_folder and text not in registry.list_models():
        if not Path(text).is_dir():
            raise UnknownModelError(f"There is no folder {text!r} to load a tagger from.")
        return ModelSpec.from_folder(text)
    return registry.model_info(text)
