"""The command `push`: upload a tagger to the Hugging Face Hub."""

from __future__ import annotations

import click

from .common import load_tagger, main, suggest
from .completers import complete_model


@main.command(short_help="Upload a tagger to the Hugging Face Hub.")
@click.argument("model", shell_complete=complete_model)
@click.argument("repo")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--branch", metavar="NAME", help="Branch to commit to, created if missing  [default: main]")
@click.option("--message", "-m", metavar="TEXT", help="Commit message  [default: names the model]")
@click.option("--new", is_flag=True, help="Fail if the repository exists.")
def push(model: str, repo: str, private: bool, branch: str | None, message: str | None, new: bool) -> None:
    """Upload MODEL, a saved folder or a name, to REPO (org/repo) on the Hugging Face Hub, in one commit.

    Uploads what `load` needs: the spec, the weights, and a card made from the spec. Log in first (`hf auth login`, or
    HF_TOKEN), with a token that may write. Prints the address to give to `load` or --model.

    \b
    keras-musictag push ./mine ann/my-tagger --private
    """  # noqa: D301
    address = load_tagger(model).push_to_hub(
        repo, private=private, branch=branch, commit_message=message, exist_ok=not new
    )
    click.echo(address)
    suggest("tag", "SONG", "--model", address)
