"""What a wheel takes from `zoo/`: the folder of each model, none of the scripts and tables that made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ZooHook(BuildHookInterface):
    """Specs, cards and embedded weights: an installed package loads them offline exactly as a checkout does."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add a folder per model."""
        for spec in sorted(Path(self.root, "zoo").glob("*/spec.json")):
            build_data["force_include"][str(spec.parent)] = f"keras_musictag/zoo/{spec.parent.name}"
