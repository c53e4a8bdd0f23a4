"""The commands `data list`, `data info` and `data check`: published data sets, and checks of a local copy."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..utils.tables import Table, echo
from .common import check_output, json_flag, main, print_json, printable, suggest
from .completers import complete_dataset
from .standard_error import progress_only

if TYPE_CHECKING:
    from ..datasets.catalogue import Entry

_WIDTH = 100  # characters of a line
_LABEL = 13  # characters of a label


@main.group(short_help="List, describe and check published data sets.")
def data() -> None:
    """List, describe and check published data sets, which --data NAME:FOLDER reads.

    \b
    keras-musictag data list
    keras-musictag data info gtzan
    keras-musictag data check gtzan FOLDER
    """  # noqa: D301


@data.command("list", short_help="List data sets.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per data set.")
def list_data(as_json: bool) -> None:
    """List the data sets that --data can load by name."""
    from ..datasets.catalogue import ENTRIES

    if as_json:
        for entry in ENTRIES.values():
            print_json(_facts(entry))
        return
    rows = [(entry.key, entry.info.description) for entry in ENTRIES.values()]
    echo(Table(("name", "description"), rows, header=False))
    click.echo("\nDetails: keras-musictag data info NAME", err=True)


@data.command("info", short_help="Describe a data set: source, size, licence, citation.")
@click.argument("name", shell_complete=complete_dataset)
@json_flag
def info_data(name: str, as_json: bool) -> None:
    """Describe the data set NAME: where to get it, size, splits, licence and citation."""
    from ..datasets.catalogue import find

    entry, _ = find(name)
    if as_json:
        print_json(_facts(entry))
        return
    info, width = entry.info, min(_WIDTH, shutil.get_terminal_size((_WIDTH, 0)).columns)
    click.echo(click.wrap_text(f"{info.name}: {info.description}", width=width) + "\n")
    lines = [("home page", info.url), ("to obtain", info.obtain), ("size", info.size)]
    for number, version in enumerate(entry.versions):
        lines.append(("" if number else "--data", f"{entry.name(version)}:FOLDER  {_counts(info.splits[version])}"))
    for label, text in (*lines, ("licence", info.licence), ("to cite", info.citation)):
        click.echo(click.wrap_text(f"{label:<{_LABEL}}{text}", width=width, subsequent_indent=" " * _LABEL))
    suggest("data", "check", name, "FOLDER")


@data.command("check", short_help="Check that a data set is complete and readable.")
@click.argument("name", shell_complete=complete_dataset)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--partial", is_flag=True, help="Accept an incomplete copy; missing files are warnings.")
@click.option("--decode", is_flag=True, help="Decode every file to the end, instead of only reading its header.")
@click.option(
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Number of files checked at once."
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the valid rows to this .csv or .jsonl file.",
)
@json_flag
def check_data(
    name: str, folder: Path, partial: bool, decode: bool, workers: int, manifest: Path | None, as_json: bool
) -> None:
    """Check that FOLDER holds the data set NAME as published, and that every file can be read.

    Exit code 1 if an audio file has a problem, 2 if the data set cannot be loaded. The table that --manifest writes can
    be given to --data instead of NAME:FOLDER, for an incomplete copy too.

    \b
    keras-musictag data check jamendo-3 FOLDER
    keras-musictag data check gtzan FOLDER --decode --partial --manifest gtzan.csv
    """  # noqa: D301
    from ..datasets.catalogue import find

    if manifest is not None:
        check_output("--manifest", manifest, (".csv", ".jsonl"))
    entry, version = find(name)
    rows = entry.load(folder, version, partial=partial)
    sizes = rows.split_sizes()
    with progress_only():
        report = rows.validate(decode=decode, workers=workers, allow_untagged=True)
    if manifest is not None:
        (report.ok.to_csv if manifest.suffix == ".csv" else report.ok.to_jsonl)(manifest)
        click.echo(f"Wrote {printable(manifest)}.", err=True)
    if as_json:
        result = {
            "name": entry.name(version),
            "title": f"{entry.info.name}, {entry.version_title(version)}",
            "splits": sizes,
            "tags": len(rows.tags),
            "usable": len(report.ok),
            "problems": [str(problem) for problem in report.problems],
            "notes": list(report.notes),
        }
        print_json(result)
    else:
        click.echo(f"{entry.info.name}, {entry.version_title(version)}: {_counts(sizes)}")
        click.echo(f"{len(rows.tags)} tags: {', '.join(rows.tags)}")
        click.echo(str(report))
    if any(problem.row is not None for problem in report.problems):
        sys.exit(1)
    if not as_json:
        suggest("probe", "--data", f"{name}:{printable(folder)}", *(["--split", "train"] if "train" in sizes else []))


def _counts(sizes: Any) -> str:
    return ", ".join(f"{size:,} {'in all' if name == 'all' else name}" for name, size in sizes.items())


def _facts(entry: Entry) -> dict[str, Any]:
    facts = dataclasses.asdict(entry.info)
    return {"key": entry.key, "versions": [entry.name(version) for version in entry.versions], **facts}
