"""The command `export`: write a tagger as a file for another runtime."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..models.export_files import MODEL_FILES
from .common import json_flag, load_tagger, main, print_json, printable, suggest_tagging
from .completers import complete_file, complete_model
from .data_options import DATA_HELP, load_data
from .standard_error import progress_only

if TYPE_CHECKING:
    from ..tagging.exported import Format, InputKind, Precision


@main.command(short_help="Write a model for ONNX Runtime, OpenVINO, LiteRT or TensorFlow.")
@click.argument("model", shell_complete=complete_model)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "-f",
    type=click.Choice(list(MODEL_FILES)),
    default="onnx",
    show_default=True,
    help="File format.",
)
@click.option(
    "--precision",
    "-p",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    show_default=True,
    help="Precision of the weights; with int8, of most arithmetic too.",
)
@click.option(
    "--input",
    type=click.Choice(["waveform", "log_mel"]),
    default="waveform",
    show_default=True,
    help="Input of the exported model; waveform: the preprocessing is part of it.",
)
@click.option(
    "--calibrate",
    "calibration",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Audio file for calibrating int8; repeatable.",
)
@click.option(
    "--data",
    "-d",
    metavar="DATA",
    shell_complete=complete_file,
    help=f"Labelled audio to calibrate on and to measure the AUC. {DATA_HELP}",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing export.")
@json_flag
def export(
    model: str,
    out: Path,
    format: Format,
    precision: Precision,
    input: InputKind,
    calibration: tuple[Path, ...],
    data: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write MODEL to the folder OUT, as a file that other runtimes read.

    The export is run and compared with Keras before it is kept, and the differences are printed; with --data, also that
    of the macro ROC-AUC on the split test. Calibrate int8 with audio similar to what will be tagged.

    \b
    keras-musictag export musicnet_crnn crnn.onnx
    keras-musictag export musicnet_crnn small --precision int8 --data songs.csv
    keras-musictag tag song.mp3 --model small
    """  # noqa: D301
    tagger = load_tagger(model)
    manifest, dataset = load_data(data)[:2] if data is not None else (None, "")
    with progress_only():
        result = tagger.export(
            out,
            format=format,
            precision=precision,
            input=input,
            calibration=calibration,
            data=manifest,
            dataset=dataset,
            overwrite=overwrite,
            progress=sys.stderr.isatty(),
        )
    if as_json:
        print_json({"folder": printable(result.folder), **dataclasses.asdict(result.info)})
        return
    click.echo(str(result))
    if result.info.format != "saved_model":
        suggest_tagging(result.folder)
