"""The command `completion`: a script that makes the shell complete this command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from .common import UsageProblem, main

_PROGRAM, _VARIABLE = "keras-musictag", "_KERAS_MUSICTAG_COMPLETE"  # click derives the second from the first
_HOW = {
    "bash": "to keep it: echo 'eval \"$(keras-musictag completion bash)\"' >> ~/.bashrc",
    "zsh": "to keep it: echo 'eval \"$(keras-musictag completion zsh)\"' >> ~/.zshrc",
    "fish": "to keep it: keras-musictag completion fish > ~/.config/fish/completions/keras-musictag.fish",
}


@main.command(short_help="Set up the Tab key in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(list(_HOW)), required=False)
def completion(shell: str | None) -> None:
    """Print the script that makes SHELL complete commands, options, models and files; by default your login shell.

    \b
    eval "$(keras-musictag completion bash)"
    """  # noqa: D301
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in _HOW:
        raise UsageProblem(f"SHELL is {shell!r}, for which there is no script. Name one: {', '.join(_HOW)}.")
    maker = get_completion_class(shell)
    assert maker is not None
    click.echo(maker(main, {}, _PROGRAM, _VARIABLE).source())
    if sys.stdout.isatty():
        click.echo(_HOW[shell], err=True)
