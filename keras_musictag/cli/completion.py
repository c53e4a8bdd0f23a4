"""The command `completion`: set up completion with the Tab key."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from .common import UsageProblem, main

_PROGRAM, _VARIABLE = "keras-musictag", "_KERAS_MUSICTAG_COMPLETE"  # click derives the second from the first
_INSTALL_HINTS = {
    "bash": "to install it: echo 'eval \"$(keras-musictag completion bash)\"' >> ~/.bashrc",
    "zsh": "to install it: echo 'eval \"$(keras-musictag completion zsh)\"' >> ~/.zshrc",
    "fish": "to install it: keras-musictag completion fish > ~/.config/fish/completions/keras-musictag.fish",
}


@main.command(short_help="Set up the Tab key in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(list(_INSTALL_HINTS)), required=False)
def completion(shell: str | None) -> None:
    """Print the script that makes SHELL complete commands, options, models and files (default: your login shell).

    \b
    eval "$(keras-musictag completion bash)"
    """  # noqa: D301
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in _INSTALL_HINTS:
        raise UsageProblem(f"There is no script for the shell {shell!r}. Name one of {', '.join(_INSTALL_HINTS)}.")
    maker = get_completion_class(shell)
    assert maker is not None
    click.echo(maker(main, {}, _PROGRAM, _VARIABLE).source())
    if sys.stdout.isatty():
        click.echo(_INSTALL_HINTS[shell], err=True)
