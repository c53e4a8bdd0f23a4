"""keras_musictag: music auto-tagging models for Keras 3.

    import keras_musictag as kmt
    kmt.load("musicnet_crnn").tag("song.mp3", top=5)

Importing the package imports neither Keras nor a backend; names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module that defines it.
_EXPORTS = {
    "AudioSpec": "spec",
    "MelSpec": "spec",
    "ModelSpec": "spec",
    "WeightsSource": "spec",
    "WindowSpec": "spec",
    "Latency": "facts",
    "TrainingData": "facts",
    "build_model": "registry",
    "list_models": "registry",
    "model_info": "registry",
    "register_model": "registry",
    "register_zoo": "registry",
    "TagResult": "tagger",
    "Tagger": "tagger",
    "load": "loading",
    "Taggram": "taggram",
    "MusicTagError": "errors",
    "demo_clip": "demo",
    "Recipe": "recipes",
    "train": "supervised",
    "distil": "distillation",
    "FineTuneSpec": "finetuning",
    "fine_tune": "finetuning",
    "evaluate": "tagger_evaluation",
    "probe": "probing",
    "tag_library": "library",
    "validate": "validation",
}
_MODULES = ("audio", "datasets", "errors", "layers", "metrics", "models", "plots")

__all__ = ["__version__", *_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in _EXPORTS:
        value = getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    elif name in _MODULES:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, for completion."""
    return sorted(__all__)


if TYPE_CHECKING:  # the same names, for type checkers
    from . import audio as audio
    from . import datasets as datasets
    from . import errors as errors
    from . import layers as layers
    from . import metrics as metrics
    from . import models as models
    from . import plots as plots
    from .demo import demo_clip as demo_clip
    from .distillation import distil as distil
    from .errors import MusicTagError as MusicTagError
    from .facts import Latency as Latency
    from .facts import TrainingData as TrainingData
    from .finetuning import FineTuneSpec as FineTuneSpec
    from .finetuning import fine_tune as fine_tune
    from .library import tag_library as tag_library
    from .loading import load as load
    from .probing import probe as probe
    from .recipes import Recipe as Recipe
    from .registry import build_model as build_model
    from .registry import list_models as list_models
    from .registry import model_info as model_info
    from .registry import register_model as register_model
    from .registry import register_zoo as register_zoo
    from .spec import AudioSpec as AudioSpec
    from .spec import MelSpec as MelSpec
    from .spec import ModelSpec as ModelSpec
    from .spec import WeightsSource as WeightsSource
    from .spec import WindowSpec as WindowSpec
    from .supervised import train as train
    from .tagger import Tagger as Tagger
    from .tagger import TagResult as TagResult
    from .tagger_evaluation import evaluate as evaluate
    from .taggram import Taggram as Taggram
    from .validation import validate as validate
