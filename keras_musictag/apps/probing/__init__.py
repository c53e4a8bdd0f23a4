"""Probing: which base model suits some labelled data."""

from .runner import probe

__all__ = ["probe"]
