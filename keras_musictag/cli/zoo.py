"""The commands `models`, `info` and `validate`."""

from __future__ import annotations

import sys

import click

from ..models.registry import list_models, model_info
from ..models.spec import ModelSpec
from ..utils.tables import Table, console, echo, on_terminal
from .common import import_backend, main, model_arguments, print_json, suggest
from .completers import complete_name


@main.command(short_help="List models.")
@click.argument("pattern", default="*")
@click.option("--pretrained", is_flag=True, help="Only models that have weights.")
@click.option("--json", "as_json", is_flag=True, help="Print specs as JSON, one per line.")
def models(pattern: str, pretrained: bool, as_json: bool) -> None:
    """List models whose name matches PATTERN (e.g. "*cnn*").

    Columns: data set of the tags, licence, parameters, size of the weights, time to tag a window of audio, and whether
    the weights are on this machine.
    """
    names = list_models(pattern, pretrained=pretrained)
    if as_json:
        for name in names:
            print_json(model_info(name).to_dict())
        return
    if not names:
        click.echo(f"No model matches {pattern!r}.", err=True)
        return
    specs = [model_info(name) for name in names]
    machines: list[str] = []  # machines on which times were measured, in the order of the footnotes
    rows = [
        (
            spec.name, spec.vocabulary.title, spec.license, f"{spec.claims.get('parameters', 0):,}", _megabytes(spec),
            _milliseconds(spec, machines), _where_weights_are(spec), spec.description,
        )
        for spec in specs
    ]  # fmt: skip
    titles = ("name", "tags of", "licence", "parameters", "size", "time", "weights", "description")
    echo(Table(titles, rows, "<<<>>><<", header=False))
    if machines:
        click.echo("\ntime: to tag one window of audio in memory with Keras, median of many calls", err=True)
    for number, machine in enumerate(machines, 1):
        click.echo(f"[{number}] {machine}", err=True)
    click.echo("\nDetails: keras-musictag info NAME", err=True)


def _megabytes(spec: ModelSpec) -> str:
    return f"{spec.weights.size / 1e6:.1f} MB" if spec.weights and spec.weights.size else ""


def _milliseconds(spec: ModelSpec, machines: list[str]) -> str:
    """Return the median latency from a waveform, with the number of its footnote; add a new machine to `machines`."""
    timed = next((each for each in spec.latency if (each.scope, each.batch) == ("waveform", 1)), None)
    if timed is None:
        return ""
    machine = f"{timed.machine}, {timed.threads} threads, {timed.date}"
    if machine not in machines:
        machines.append(machine)
    return f"{timed.median_ms:.0f} ms [{machines.index(machine) + 1}]"


def _where_weights_are(spec: ModelSpec) -> str:
    """Return where the weights of a model are, in a word or two."""
    from ..models.conversion import is_here  # imports NumPy

    if spec.weights is None:
        return "none yet"
    if spec.weights.kind == "file":
        return "included"
    size = f", {spec.weights.size / 1e6:.1f} MB" if spec.weights.size else ""
    return "downloaded" if is_here(spec) else f"to download{size}"


@main.command()
@click.argument("name", shell_complete=complete_name)
@click.option("--json", "as_json", is_flag=True, help="Print the spec as JSON.")
def info(name: str, as_json: bool) -> None:
    """Print the spec of model NAME."""
    from ..models.cards import model_card

    spec = model_info(name)
    if as_json:
        click.echo(spec.to_json(), nl=False)
        return
    card = model_card(spec).split("---\n", 2)[2].lstrip()
    if on_terminal():
        from rich.markdown import Markdown

        console().print(Markdown(card))
    else:
        click.echo(card, nl=False)
    if spec.weights:
        suggest("tag", "SONG", *model_arguments(name))


@main.command()
@click.argument("names", nargs=-1, shell_complete=complete_name)
@click.option("--no-weights", is_flag=True, help="Check architecture and preprocessing only, without fetching weights.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per model.")
def validate(names: tuple[str, ...], no_weights: bool, as_json: bool) -> None:
    """Check that models match their specs: layers, shapes, parameters, preprocessing, weights.

    Without NAMES, every registered model is checked. Exit code 1 if a check fails.
    """
    from ..tagging.validation import validate as check_model

    import_backend()
    failures = 0
    for name in names or list_models():
        checks = check_model(name, weights=not no_weights)
        failures += sum(not check.passed for check in checks)
        if as_json:
            print_json({"model": name, "checks": [vars(check) for check in checks]})
            continue
        click.echo(name)
        for check in checks:
            verdict = "ok  " if check.passed else "FAIL"
            detail = f"{check.actual}" if check.passed else f"expected {check.expected}, found {check.actual}"
            click.echo(f"  {verdict} {check.name}: {detail}")
        if model_info(name).weights is None:
            click.echo("  --   weights: none yet")
    if failures:
        click.echo(f"Failed checks: {failures}.", err=True)
        sys.exit(1)
