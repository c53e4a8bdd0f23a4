"""Probing: compare base models on labelled data."""

from .base_choice import choose_base
from .runner import probe

__all__ = ["choose_base", "probe"]
