"""Which models exist: names -> specs, and architectures -> builders.

Three ways in, one list out:

* the zoo that comes with the package (`zoo/<model>/spec.json`), read without importing Keras;
* `@register_model` on a builder function, for code of your own;
* the entry-point group `keras_musictag.models`, for installed plug-ins: each entry point is loaded the first time a
  name is looked up, and what it does on import is call `register_model` or `register_zoo`.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import importlib
import logging
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import SpecError, UnknownModelError
from .architectures import ARCHITECTURES
from .spec import SPEC_FILE, ModelSpec

if TYPE_CHECKING:
    import keras

    Builder = Callable[..., keras.Model]

_log = logging.getLogger(__name__)

DEFAULT_MODEL = "musicnet_crnn"  # what the command line tags with unless told otherwise
ENTRY_POINT_GROUP = "keras_musictag.models"

_specs: dict[str, ModelSpec] = {}
_builders: dict[str, Builder] = {}

_F = TypeVar("_F", bound=Callable[..., Any])


# === Registering ===


def register_model(builder: _F | None = None, *, spec: ModelSpec | Path | str | None = None) -> Any:
    """Register a function that builds a `keras.Model`, and optionally a model made with it.

    The function's name becomes the architecture's. It is called as
    `builder(num_tags=..., input_shape=(mels, frames), name=..., **spec.config)` and returns a model from log-mel
    `(batch, mels, frames)` to probabilities `(batch, num_tags)` whose last trainable layer is named `"head"`.

    Args:
        builder: the function, when used as a bare decorator.
        spec: a `ModelSpec`, or the folder of its `spec.json`, to register under `spec.name` as well.

    Raises:
        SpecError: the spec names another architecture, or its name or architecture is taken by something else.

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
        _load_zoo()  # so that whoever comes second gets the error
        known = _builders.get(name)
        if name in ARCHITECTURES and not function.__module__.startswith(f"{__package__}.architectures."):
            raise SpecError(
                f"The architecture name {name!r} belongs to keras_musictag; name your function differently."
            )
        if known is not None and (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
            raise SpecError(f"The architecture {name!r} is already registered by {known.__module__}.")
        if spec is not None:
            entry = spec if isinstance(spec, ModelSpec) else ModelSpec.from_folder(spec)
            if entry.architecture != name:
                raise SpecError(f"The spec {entry.name!r} is of architecture {entry.architecture!r}, not {name!r}.")
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
        raise SpecError(f"A different model is already registered as {spec.name!r}.")
    _specs[spec.name] = spec


# === Looking up ===


def zoo_folder() -> Path:
    """Folder of the built-in zoo: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return package / "zoo" if (package / "zoo").is_dir() else package.parent / "zoo"


@functools.cache
def _load_zoo() -> None:
    for path in sorted(zoo_folder().glob(f"*/{SPEC_FILE}")):
        _add_spec(ModelSpec.from_folder(path.parent))


@functools.cache
def _load_all() -> None:
    """Fill the registry once: the built-in zoo, then every installed plug-in."""
    _load_zoo()
    for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry_point.load()
        except Exception as error:
            # Somebody else's package must not take the zoo down; it is named so that it can be mended.
            _log.warning("The plug-in %s (%s) could not be loaded: %r", entry_point.name, entry_point.value, error)


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of the registered models, sorted.

    Args:
        pattern: shell-style wildcard, e.g. `"*cnn*"`.
        pretrained: only models that have weights.

    Example:
        >>> list_models("musicnn_*")
        ['musicnn_msd', 'musicnn_mtt']
    """
    _load_all()
    return sorted(
        name for name, spec in _specs.items() if fnmatch.fnmatchcase(name, pattern) and (spec.weights or not pretrained)
    )


def model_info(name: str) -> ModelSpec:
    """The spec of a registered model.

    Raises:
        UnknownModelError: no such name; the message offers near ones.

    Example:
        >>> model_info("musicnn_mtt").audio.sr
        16000
    """
    _load_all()
    if name not in _specs:
        raise UnknownModelError(_unknown("model", name, _specs))
    return _specs[name]


def get_builder(architecture: str) -> Builder:
    """The function registered for an architecture.

    Raises:
        UnknownModelError: no such architecture.
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
        architecture: its name.
        taps: layers whose statistics the head sees too, see `taps.with_taps`; any architecture can have some.
        config: arguments of the builder.

    Raises:
        UnknownModelError: no such architecture.
        SpecError: a tap that is not a layer of the network.
    """
    model = get_builder(architecture)(**config)
    if not taps:
        return model
    from .taps import with_taps

    return with_taps(model, taps)


def _unknown(what: str, name: object, known: Iterable[str]) -> str:
    """`Unknown model 'x'. Did you mean 'y'? Known: ...`."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    question = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"Unknown {what} {name!r}.{question} Known: {', '.join(names) or 'none'}."
