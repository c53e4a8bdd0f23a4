"""Registry of models (name -> spec) and architectures (name -> builder).

Entries come from:

* the zoo of the package (`zoo/<model>/spec.json`), read without importing Keras;
* `@register_model` on a builder function;
* the entry-point group `keras_musictag.models` of installed plug-ins. Entry points are loaded on the first look-up, and
  their modules call `register_model` or `register_zoo`.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import importlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import SpecError, UnknownModelError
from .architectures import ARCHITECTURES
from .spec import SPEC_FILE, ModelSpec

if TYPE_CHECKING:
    import keras

    Builder = Callable[..., keras.Model]

_log = logging.getLogger(__name__)

DEFAULT_MODEL = "musicnet_crnn"  # default of the command line
ENTRY_POINT_GROUP = "keras_musictag.models"

_specs: dict[str, ModelSpec] = {}
_builders: dict[str, Builder] = {}

_F = TypeVar("_F", bound=Callable[..., Any])


# === Registration ===


def register_model(builder: _F | None = None, *, spec: ModelSpec | Path | str | None = None) -> Any:
    """Register a function that builds a `keras.Model` as an architecture, and optionally a model with it.

    The function's name becomes the name of the architecture. The function is called as
    `builder(num_tags=..., input_shape=(mels, frames), name=..., **spec.config)` and must return a model from log-mel
    `(batch, mels, frames)` to probabilities `(batch, num_tags)` whose last trainable layer is named `"head"`.

    Args:
        builder: the function, if used as a decorator without arguments.
        spec: a `ModelSpec`, or the folder of its `spec.json`, to register as a model.

    Raises:
        SpecError: the spec has another architecture, or the name of the model or the architecture is taken.

    Example:
        >>> import keras_musictag as kmt
        >>> @kmt.register_model
        ... def one_layer(num_tags=50, *, input_shape=(96, 187), name="one_layer"):
        ...     import keras
        ...     flat = keras.layers.Flatten()
        ...     head = keras.layers.Dense(num_tags, "sigmoid", name="head")
        ...     return keras.Sequential([keras.Input(input_shape), flat, head], name=name)
        >>> kmt.build_model("one_layer", num_tags=3, input_shape=(8, 10)).count_params()
        243
    """

    def register(function: _F) -> _F:
        name = function.__name__
        _load_zoo()  # so that a name of the zoo is reported as taken here
        known = _builders.get(name)
        if name in ARCHITECTURES and not function.__module__.startswith(f"{__package__}.architectures."):
            raise SpecError(f"The architecture name {name!r} is reserved by keras_musictag. Rename your function.")
        if known is not None and (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
            raise SpecError(
                f"The architecture {name!r} is already registered by {known.__module__}. Rename your function."
            )
        if spec is not None:
            entry = spec if isinstance(spec, ModelSpec) else ModelSpec.from_folder(spec)
            if entry.architecture != name:
                raise SpecError(f"The spec {entry.name!r} must have architecture {name!r}; got {entry.architecture!r}.")
            _add_spec(entry)
        _builders[name] = function
        return function

    return register if builder is None else register(builder)


def register_zoo(folder: Path | str) -> None:
    """Register every `<folder>/<model>/spec.json`.

    Raises:
        SpecError: a spec is invalid or its name is taken.
    """
    _load_zoo()
    for path in sorted(Path(folder).glob(f"*/{SPEC_FILE}")):
        _add_spec(ModelSpec.from_folder(path.parent))


def _add_spec(spec: ModelSpec) -> None:
    known = _specs.get(spec.name)
    if known is not None and known != spec:
        raise SpecError(f"Another model is already registered as {spec.name!r}. Change the name in the spec.")
    _specs[spec.name] = spec


# === Look-up ===


def zoo_folder() -> Path:
    """Return the folder of the zoo: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return package / "zoo" if (package / "zoo").is_dir() else package.parent / "zoo"


@functools.cache
def _load_zoo() -> None:
    for path in sorted(zoo_folder().glob(f"*/{SPEC_FILE}")):
        _add_spec(ModelSpec.from_folder(path.parent))


@functools.cache
def _load_all() -> None:
    """Load the zoo and all installed plug-ins, once."""
    import importlib.metadata  # a fifth of the time of the command line's start

    _load_zoo()
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry_point.load()
        except Exception as error:
            # A faulty plug-in must not make the other models unavailable.
            _log.warning("The plug-in %s (%s) could not be loaded: %r", entry_point.name, entry_point.value, error)


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """List the names of the registered models, sorted.

    Args:
        pattern: shell-style wildcard, e.g. `"*cnn*"`.
        pretrained: only models that have weights.

    Example:
        >>> list_models("musicnn_*")
        ['musicnn_msd', 'musicnn_mtt']
    """
    _load_all()
    names = [name for name, spec in _specs.items() if spec.weights or not pretrained]
    return sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))


def model_info(name: str) -> ModelSpec:
    """Return the spec of a registered model.

    Raises:
        UnknownModelError: no model has this name; the message suggests similar ones.

    Example:
        >>> model_info("musicnn_mtt").audio.sr
        16000
    """
    _load_all()
    if name not in _specs:
        raise UnknownModelError(_unknown("model", name, _specs))
    return _specs[name]


def get_builder(architecture: str) -> Builder:
    """Return the function registered for an architecture.

    Raises:
        UnknownModelError: the architecture is not registered.
    """
    _load_all()
    if architecture not in _builders and architecture in ARCHITECTURES:
        importlib.import_module(f"{__package__}.architectures.{architecture}")
    if architecture not in _builders:
        hint = " If it comes from a plug-in, install or import that first."
        raise UnknownModelError(_unknown("architecture", architecture, {*_builders, *ARCHITECTURES}) + hint)
    return _builders[architecture]


def build_model(architecture: str, *, taps: Sequence[str] = (), **config: Any) -> keras.Model:
    """Build a registered architecture with fresh weights: `get_builder(architecture)(**config)`.

    Args:
        architecture: name of the architecture.
        taps: names of layers whose statistics are additional inputs of the head, see `layer_statistics.with_taps`.
        config: arguments of the builder.

    Raises:
        UnknownModelError: the architecture is not registered.
        SpecError: a tap is not a layer of the network, or a builder's argument is invalid.
    """
    model = get_builder(architecture)(**config)
    if not taps:
        return model
    from .layer_statistics import with_taps

    return with_taps(model, taps)


def _unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Return a message that suggests similar names and lists the known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    question = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"Unknown {kind} {name!r}.{question} Known: {', '.join(names) or 'none'}."
