"""The tables of a recipe: their settings, and checks whose errors name the invalid key."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from ...datasets.augment import Augmentation, check_mixup
from ...datasets.opening import DataSettings
from ...errors import MusicTagError
from ...training.loop import TrainingSpec


class RecipeError(MusicTagError, ValueError):
    """A recipe cannot be run; the message names the invalid key."""


# === Tables ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """The table `[batches]`.

    Attributes:
        batch_size: windows per step.
        mixup: probability that a window is mixed with another.
    """

    batch_size: int = 16
    mixup: float = 0.0

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size!r}.")
        check_mixup(self.mixup, "power")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The table `[network]`: changes to the network for training.

    Attributes:
        dropout: factor on the network's dropout rates.
        bn_momentum: momentum of the batch norms' moving statistics.
    """

    dropout: float = 1.0
    bn_momentum: float = 0.95

    def __post_init__(self) -> None:
        """Validate the settings."""
        if not self.dropout >= 0:  # also rejects NaN
            raise ValueError(f"dropout must be 0 or more; got {self.dropout!r}.")
        if not 0 <= self.bn_momentum < 1:
            raise ValueError(f"bn_momentum must be at least 0 and below 1; got {self.bn_momentum!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """The table `[distillation]`: see `distillation.distil`.

    Attributes:
        hop_seconds: step between the teacher's windows; half of the window if that is longer.
        segment_weight: weight of the loss on segments of a window.
        balance: weighting of rare tags, from 0 (none) to 1 (all tags count the same).
    """

    hop_seconds: float = 1.0
    segment_weight: float = 1.0
    balance: float = 0.5

    def __post_init__(self) -> None:
        """Validate the settings."""
        if not self.hop_seconds > 0:
            raise ValueError(f"hop_seconds must be above 0; got {self.hop_seconds!r}.")
        for name in ("segment_weight", "balance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name)!r}.")


# Table -> its class, and fields that are set elsewhere.
TABLES: dict[str, tuple[type, dict[str, str]]] = {
    "data": (DataSettings, {}),
    "training": (TrainingSpec, {"seed": "at the top of the recipe"}),
    "batches": (BatchSettings, {}),
    "augment": (Augmentation, {"mixup": "in [batches]", "mixup_mode": "by the task", "mel": "by the model"}),
    "network": (NetworkSettings, {}),
    "distillation": (DistillationSettings, {}),
}
TOP = ("task", "model", "teacher", "seed")


# === Checks ===


def read_table(name: str, values: Any) -> Any:
    """Check a table and convert it to its class, except `training` and `augment`, whose defaults depend on the data."""
    kind, elsewhere = TABLES[name]
    if not isinstance(values, Mapping):
        raise RecipeError(f"[{name}] must be a table; got {values!r}.")
    for key, place in elsewhere.items():
        if key in values:
            raise RecipeError(f"{name}.{key} is set {place}. Move or remove it.")
    require_known(values, _names(kind, elsewhere), name)
    hints = typing.get_type_hints(kind)
    values = {key: as_tuple(value) for key, value in values.items()}
    for key, value in values.items():
        require_type(f"{name}.{key}", value, hints[key])
    return values if name in ("training", "augment") else attempt(name, lambda: kind(**values))


def as_tuple(value: Any) -> Any:
    """Return a list as a tuple, and anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


def _names(kind: type, elsewhere: Iterable[str]) -> list[str]:
    """Return the keys of a table: the fields of its class that are not set elsewhere."""
    return [field.name for field in dataclasses.fields(kind) if field.name not in elsewhere]


def require_known(table: Mapping[str, Any], known: Iterable[str], section: str) -> None:
    """Raise at the first unknown key, with a suggestion."""
    names = list(known)
    for key in table:
        if key in names:
            continue
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
        homes = [f"[{other}]" for other, (kind, not_here) in TABLES.items() if key in _names(kind, not_here)]
        if key in TOP:
            homes = ["the lines before the tables"]
        hint = ""
        if homes:
            hint = f" It belongs in {homes[0]}."
        elif near:
            hint = f" Did you mean {near[0]!r}?"
        where = f"{section}.{key}" if section else key
        raise RecipeError(f"The recipe has an unknown key {where}.{hint} Known here: {', '.join(names)}.")


def require_type(what: str, value: Any, hint: Any) -> None:
    """Raise unless a TOML value has the annotated type."""
    if not _fits(value, hint):
        kinds = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        choices = typing.get_args(hint)
        if typing.get_origin(hint) is Literal:
            wanted = f"one of {', '.join(map(repr, choices))}"
        elif typing.get_origin(hint) is tuple:
            wanted = "a list of names"
        else:
            names = [
                "a list of names" if typing.get_origin(kind) is tuple else kinds.get(kind)
                for kind in choices or (hint,)
            ]
            wanted = " or ".join(filter(None, names))
        raise RecipeError(f"{what} must be {wanted}; got {value!r}.")


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin is tuple:
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def attempt(table: str, make: Callable[[], Any]) -> Any:
    """Return the result of `make`; add the name of the table to its errors."""
    try:
        return make()
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise RecipeError(f"[{table}] {error}") from error
