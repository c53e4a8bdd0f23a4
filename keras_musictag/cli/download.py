"""The command `download`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..errors import MusicTagError
from ..models.fetching import add_to_mirror, fetch_weights, find_weights, keep_in_cache
from ..models.registry import list_models
from ..models.spec import ModelSpec
from ..utils.tables import Table, echo
from .common import UsageProblem, main, print_json, printable
from .completers import complete_model


@main.command(short_help="Download weights in advance, also for machines without internet.")
@click.argument("models", nargs=-1, shell_complete=complete_model)
@click.option("--all", "all_models", is_flag=True, help="Download the weights of all registered models.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also copy the files into this folder, for KERAS_MUSICTAG_MIRROR on machines without internet.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per model.")
def download(models: tuple[str, ...], all_models: bool, folder: Path | None, as_json: bool) -> None:
    """Download and verify the weights of MODELS, which then load without internet.

    Weights that are on this machine or come with the package are not downloaded. If a download
    fails, the others go on, and the exit code is 1.
    """
    if bool(models) == all_models:
        raise UsageProblem("Name the models to download, or give --all; `keras-musictag models` lists them.")
    from ..loading import find_spec  # imports NumPy

    rows, failed = [], []
    names = models or tuple(list_models(pretrained=True))
    for number, name in enumerate(names, 1):
        if sys.stderr.isatty():
            click.echo(f"[{number}/{len(names)}] {name}", err=True)
        try:
            row = _fetch(find_spec(name), folder)
        except MusicTagError as error:
            failed.append(name)
            click.echo(f"{name}: {error}", err=True)
            row = {"state": "failed", "file": None, "bytes": None}
        rows.append({"model": name, **row})
        if as_json:
            print_json(rows[-1])
    if not as_json:
        cells = [(row["model"], _megabytes(row["bytes"]), row["state"]) for row in rows]
        echo(Table(("model", "size", "state"), cells, "<><", header=False))
    if failed:
        sys.exit(1)
    if folder is not None:
        click.echo(f"\nOn a machine without internet: export KERAS_MUSICTAG_MIRROR={printable(folder)}", err=True)


def _fetch(spec: ModelSpec, folder: Path | None) -> dict[str, str | int | None]:
    """Fetch the weights of one model, and copy them into `folder`; return what to print."""
    if spec.weights is not None and spec.weights.kind == "file":
        path = fetch_weights(spec)
        return {"state": "comes with the model", "file": None, "bytes": path.stat().st_size}
    found = find_weights(spec)
    path = keep_in_cache(spec, found or fetch_weights(spec))
    state = "copied from the mirror"
    if found is None:
        state = "downloaded"
    elif found == path:
        state = "already here"
    if folder is not None:
        path = add_to_mirror(spec, path, folder)
    return {"state": state, "file": printable(path), "bytes": path.stat().st_size}


def _megabytes(size: str | int | None) -> str:
    return f"{size / 1e6:.1f} MB" if isinstance(size, int) else ""
