"""The command group, and what commands share: options, checks of paths, loading of models.

Modules with commands import `main` and add their commands to it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import AudioError, MusicTagError
from ..models.registry import DEFAULT_MODEL, list_models
from ..models.vocabulary import KINDS
from ..tagging.runtimes import FILE_RUNTIMES, runtimes
from ..utils.backend import backend_version, configured_backend, installed_version
from .completers import complete_model
from .standard_error import LOG_LEVEL, QUIET, progress_only, stderr_on_failure

if TYPE_CHECKING:
    from ..tagger import Tagger
    from ..tagging.base_tagger import BaseTagger


STOPPED = 130  # exit code after Ctrl-C
STDOUT = Path("-")  # stands for standard output


class UsageProblem(click.ClickException):
    """An error in the command itself, not in a file: exit code 2."""

    exit_code = 2


class CommandGroup(click.Group):
    """Commands, imported from the modules of this folder on demand; prints errors of this package as one line."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or `None`; import only the module of the same name, if there is one."""
        if cmd_name not in self.commands:
            self._import_modules(cmd_name)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        self._import_modules()
        return super().list_commands(ctx)

    def _import_modules(self, wanted: str | None = None) -> None:
        names = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
        modules = [name for name in names if not name.startswith("_")]
        for module in [wanted] if wanted in modules else modules:
            importlib.import_module(f"{__package__}.{module}")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit with 1 or 2 on an error of this package."""
        try:
            return super().invoke(ctx)
        except AudioError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:  # `... | head`: click ends quietly
            raise
        except (MusicTagError, ImportError, OSError, ValueError) as error:
            raise UsageProblem(str(error)) from error


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        backend = configured_backend()
        found = {"keras": installed_version("keras"), backend: backend_version(backend)}
        versions = [f"{name} {version or 'not installed'}" for name, version in found.items()]
        versions += [f"{name} {version}" for name, entry in FILE_RUNTIMES.items() if (version := entry.version())]
        click.echo(f"keras_musictag {__version__} ({', '.join(versions)}, Python {sys.version.split()[0]})")
        ctx.exit()


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show versions."
)
def main() -> None:
    """Tag music with Keras models: audio file in, tags with probabilities out.

    \b
    keras-musictag demo                      tag the bundled clip
    keras-musictag tag *.mp3 --top 5         tag your own files
    keras-musictag taggram song.mp3          tags over time
    keras-musictag library DIR -o tags.csv   tag everything in a folder
    keras-musictag serve                     tag audio on a web page
    keras-musictag models                    list the models
    keras-musictag download --all            download all weights, for use without internet
    keras-musictag benchmark MODEL           measure the speed on this machine
    keras-musictag finetune MODEL -d DATA    fine-tune on your own tags
    keras-musictag evaluate MODEL -d DATA    measure the accuracy on labelled data
    keras-musictag completion                set up the Tab key
    """  # noqa: D301 (click's mark is the character \\b, so the string must not be raw)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # print "?" for characters that cannot be encoded
            stream.reconfigure(errors="replace")


# === Options that several commands share ===

model_option = click.option(
    "--model",
    "-m",
    default=DEFAULT_MODEL,
    show_default=True,
    shell_complete=complete_model,
    help="Model name, saved folder, or hf://org/repo@revision.",
)
kind_option = click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Keep only tags of this kind; repeatable."
)
format_option = click.option(
    "--format",
    "-f",
    "output",
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    show_default=True,
    help="Output format.",
)
json_option = click.option("--json", "output", flag_value="json", help="Same as --format json.")
csv_option = click.option("--csv", "output", flag_value="csv", help="Same as --format csv.")
json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
offset_option = click.option("--offset", type=click.FloatRange(min=0), default=0.0, help="Seconds to skip at start.")
duration_option = click.option("--duration", type=click.FloatRange(min=0, min_open=True), help="Seconds to use.")


def _check_json_path(_ctx: click.Context, _option: click.Parameter, path: Path | None) -> Path | None:
    if path not in (None, STDOUT):
        check_output("--json", path, (".json",))
    return path


json_file_option = click.option(
    "--json",
    "json_file",
    metavar="[FILE]",
    is_flag=False,
    flag_value=str(STDOUT),
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_check_json_path,
    help="Write the result to FILE as JSON; without FILE, print it instead of the tables.",
)


# === Output ===


def print_json(value: object) -> None:
    """Print one JSON object as a line on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))


def suggest(*command: str | Path, always: bool = False, also: str = "") -> None:
    """Print a suggestion for the next command on standard error.

    Args:
        command: words after `keras-musictag`; quoted for the shell if necessary.
        always: print it even if standard error is not a terminal.
        also: text to append.
    """
    if always or sys.stderr.isatty():
        words = ("keras-musictag", *(printable(word) if isinstance(word, Path) else word for word in command))
        click.echo(f"next: {shlex.join(words)}{also}", err=True)


def suggest_tagging(folder: Path) -> None:
    """Suggest how to use a saved tagger."""
    name = loadable(folder)
    suggest("tag", "SONG", "--model", name, always=True, also=f", or keras_musictag.load({name!r})")


def model_arguments(model: str) -> tuple[str, ...]:
    """Return `--model NAME`, or nothing for the default model."""
    return () if model == DEFAULT_MODEL else ("--model", model)


# === Paths ===


def printable(path: Path) -> str:
    """Return a path as text; replace bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def loadable(folder: Path) -> str:
    """Return a folder as an argument for `load`: with the prefix `./` if a model has the same name."""
    return f"./{folder}" if str(folder) in list_models() else printable(folder)


def check_output(option: str, path: Path, suffixes: tuple[str, ...]) -> None:
    """Check before the work starts that an output file can be written.

    Raises:
        UsageProblem: the name has another ending, or the folder does not exist or is read-only.
    """
    endings = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}" if len(suffixes) > 1 else suffixes[0]
    folder = path.absolute().parent
    if path.suffix.lower() not in suffixes:
        raise UsageProblem(f"{option} {path}: the name must end in {endings}.")
    if not folder.is_dir():
        raise UsageProblem(f"{option} {path}: the folder {folder} does not exist.")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise UsageProblem(f"{option} {path} cannot be written: {'it is a folder' if path.is_dir() else 'read-only'}.")


def check_plot(path: Path) -> None:
    """Check before the work starts that a figure can be drawn and saved."""
    check_output("--plot", path, (".png", ".svg", ".pdf"))
    from ..plots import new_axes

    new_axes(1, 1)


# === Thresholds ===


class Probability(click.ParamType):  # type: ignore[type-arg]
    """A probability, or the word auto."""

    name = "PROBABILITY|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Convert a number from 0 to 1, or the word auto."""
        return "auto" if value == "auto" else float(click.FloatRange(0, 1).convert(value, param, ctx))


threshold_option = click.option(
    "--threshold",
    "-t",
    type=Probability(),
    default=0.0,
    help="Minimum probability of a tag; auto: the threshold that fine-tuning stored for each tag.",
)
unsure_option = click.option(
    "--unsure", is_flag=True, help="With --threshold auto: give no tag if none reaches its threshold."
)


def check_unsure(unsure: bool, threshold: float | str) -> None:
    """Raise if `--unsure` is given without `--threshold auto`."""
    if unsure and threshold != "auto":
        raise UsageProblem("--unsure needs --threshold auto.")


# === Loading ===


runtime_option = click.option(
    "--runtime",
    type=click.Choice(["auto", *runtimes()]),
    help="Runtime for the network; auto: the fastest installed  [default: keras; for an export, auto]",
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Number of CPU threads  [default: all cores]"
)


def load_tagger(model: str) -> Tagger:
    """Load the tagger named by `--model`."""
    import_backend()
    from ..loading import load

    return load(model)


def load_tagger_on(model: str, runtime: str | None = None, threads: int | None = None) -> BaseTagger:
    """Load the tagger named by `--model` on the runtime named by `--runtime`; an export imports no Keras."""
    import_backend_for([model], runtime)
    from ..loading import load

    with progress_only():
        tagger = load(model, runtime=runtime, threads=threads)
    if runtime == "auto":
        click.echo(f"{model} runs on {tagger.runtime}.", err=True)
    return tagger


def import_backend_for(models: Iterable[str], runtime: str | None = None) -> None:
    """Import Keras as `import_backend` does, but only if one of the models runs on it."""
    from ..tagging.exported import is_export

    os.environ.setdefault(LOG_LEVEL, QUIET)  # in case a model has to be exported first
    if runtime in (None, "keras") and not all(map(is_export, models)):
        import_backend()


def import_backend() -> None:
    """Import Keras without the notices that TensorFlow prints about drivers and instruction sets."""
    os.environ.setdefault(LOG_LEVEL, QUIET)
    with stderr_on_failure(), _kept_objects():
        import keras  # noqa: F401


@contextlib.contextmanager
def _kept_objects() -> Iterator[None]:
    """Spare the garbage collector the objects that a block makes; the first time, also all others when Python ends.

    TensorFlow's modules are a million objects, none of them garbage. To look at them again and again, while they are
    imported and once more at the end, takes 2 s of the 5 s from the shell to tags.
    """
    if "keras" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
    atexit.register(gc.freeze)
