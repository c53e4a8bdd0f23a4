"""Probing: which base model suits some labelled data."""

from .base_choice import choose_base
from .runner import probe

__all__ = ["choose_base", "probe"]
