"""Helpers that know nothing of music: argument checks, files, tables."""
