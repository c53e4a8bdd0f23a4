"""Import package attributes on first use (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lazy_attributes(
    package: str, modules: Mapping[str, str], also: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package whose public names are imported on first use.

    Args:
        package: the package's `__name__`.
        modules: public name -> relative module that defines it, such as `{"load": ".loading"}`. A value that ends in
            `:` is the module itself: `{"layers": ".models.layers:"}`.
        also: further names that `dir` lists.

    Example:
        >>> get, names = lazy_attributes("keras_musictag.audio", {"load": ".reading"})
        >>> get("load").__name__, names()
        ('load', ['load'])
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, is_module, _ = modules[name].partition(":")
        value = importlib.import_module(module, package)
        if not is_module:
            value = getattr(value, name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*modules, *also})
