"""Taggers: what they return, the runtimes that run them, and export to other runtimes."""
