"""Completion with the Tab key. It runs at every key press, so it imports nothing heavy."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from ..models.registry import list_models, model_info, zoo_folder


def complete_model(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete names of models, and folders."""
    names = [name for name in list_models() if name.startswith(incomplete)]
    return [
        CompletionItem(incomplete, type="dir"),
        *(CompletionItem(name, help=model_info(name).description) for name in names),
    ]


def complete_name(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete names of models."""
    return complete_model(_ctx, _parameter, incomplete)[1:]


def complete_scored(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete names of models, files and folders."""
    return [CompletionItem(incomplete, type="file"), *complete_name(_ctx, _parameter, incomplete)]


def complete_file(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete files and folders."""
    return [CompletionItem(incomplete, type="file")]


def complete_recipe(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete recipes of the zoo, and files."""
    zoo = zoo_folder()
    names = (path.relative_to(zoo).with_suffix("").as_posix() for path in sorted(zoo.glob("*/*.toml")))
    return [
        CompletionItem(incomplete, type="file"),
        *(CompletionItem(name) for name in names if name.startswith(incomplete)),
    ]


def complete_dataset(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete names of published data sets."""
    from ..datasets.catalogue import ENTRIES

    names = [(entry.name(version), entry) for entry in ENTRIES.values() for version in entry.versions]
    return [CompletionItem(name, help=entry.info.name) for name, entry in names if name.startswith(incomplete)]
