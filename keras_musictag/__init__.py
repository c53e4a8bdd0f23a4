"""keras_musictag: music auto-tagging models for Keras 3.

    import keras_musictag as kmt
    kmt.load("musicnet_crnn").tag("song.mp3", top=5)

Importing the package imports neither Keras nor a backend; names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .utils.lazy import lazy_attributes

__version__ = "0.1.0"

# Public name -> module that defines it.
_EXPORTS = {
    "AudioSpec": "models.spec",
    "MelSpec": "models.spec",
    "ModelSpec": "models.spec",
    "WeightsSource": "models.spec",
    "WindowSpec": "models.spec",
    "Latency": "models.facts",
    "TrainingData": "models.facts",
    "build_model": "models.registry",
    "list_models": "models.registry",
    "model_info": "models.registry",
    "register_model": "models.registry",
    "register_zoo": "models.registry",
    "TagResult": "tagger",
    "Tagger": "tagger",
    "load": "loading",
    "untrained": "loading",
    "Taggram": "tagging.taggram_result",
    "TaggramRow": "tagging.taggram_result",
    "MusicTagError": "errors",
    "demo_clip": "audio.demo",
    "Recipe": "apps.recipes",
    "plan_recipe": "apps.recipes",
    "run_recipe": "apps.recipes",
    "train": "training.supervised",
    "distil": "training.distillation",
    "FineTuneSpec": "training.finetuning",
    "fine_tune": "training.finetuning",
    "evaluate": "evaluation.measuring",
    "choose_base": "apps.probing",
    "probe": "apps.probing",
    "tag_library": "apps.library",
    "validate": "tagging.validation",
}
# Public module -> where it is.
_MODULES = {
    "audio": "audio",
    "datasets": "datasets",
    "errors": "errors",
    "layers": "models.layers",
    "metrics": "evaluation.metrics",
    "models": "models",
    "plots": "plots",
}

__all__ = ["__version__", *_EXPORTS, *_MODULES]


__getattr__, __dir__ = lazy_attributes(
    __name__,
    {name: f".{module}" for name, module in _EXPORTS.items()} | {name: f".{m}:" for name, m in _MODULES.items()},
    also=["__version__"],
)


if TYPE_CHECKING:  # the same names, for type checkers
    from . import audio as audio
    from . import datasets as datasets
    from . import errors as errors
    from . import models as models
    from . import plots as plots
    from .apps.library import tag_library as tag_library
    from .apps.probing import choose_base as choose_base
    from .apps.probing import probe as probe
    from .apps.recipes import Recipe as Recipe
    from .apps.recipes import plan_recipe as plan_recipe
    from .apps.recipes import run_recipe as run_recipe
    from .audio.demo import demo_clip as demo_clip
    from .errors import MusicTagError as MusicTagError
    from .evaluation import metrics as metrics
    from .evaluation.measuring import evaluate as evaluate
    from .loading import load as load
    from .loading import untrained as untrained
    from .models import layers as layers
    from .models.facts import Latency as Latency
    from .models.facts import TrainingData as TrainingData
    from .models.registry import build_model as build_model
    from .models.registry import list_models as list_models
    from .models.registry import model_info as model_info
    from .models.registry import register_model as register_model
    from .models.registry import register_zoo as register_zoo
    from .models.spec import AudioSpec as AudioSpec
    from .models.spec import MelSpec as MelSpec
    from .models.spec import ModelSpec as ModelSpec
    from .models.spec import WeightsSource as WeightsSource
    from .models.spec import WindowSpec as WindowSpec
    from .tagger import Tagger as Tagger
    from .tagger import TagResult as TagResult
    from .tagging.taggram_result import Taggram as Taggram
    from .tagging.taggram_result import TaggramRow as TaggramRow
    from .tagging.validation import validate as validate
    from .training.distillation import distil as distil
    from .training.finetuning import FineTuneSpec as FineTuneSpec
    from .training.finetuning import fine_tune as fine_tune
    from .training.supervised import train as train
