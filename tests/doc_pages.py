"""Code blocks of the documentation, and how each kind is run: what several tests of pages share."""

import contextlib
import io
import re
import shlex
import tomllib
from pathlib import Path

from click.testing import CliRunner

from keras_musictag.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page):
    """`(language, text)` of every code block of a page, in order."""
    return BLOCK.findall(text_of(page))


def pages():
    """Names of all pages that have code in some language."""
    names = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    return [name for name in names if any(language for language, _ in blocks(name))]


def commands(text):
    """The commands of a shell block as lists of words, without comments; a backslash joins lines."""
    lines = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line]


def invoke(arguments):
    """Run `keras-musictag ARGUMENTS`; returns what click's runner does."""
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, f"{shlex.join(arguments)}\n{result.output}"
    return result


def run_python(text, page, names):
    """Run a block in the names of the blocks before it; returns what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(text, page, "exec"), names)
    return out.getvalue()


def run_command(words, page):
    """Run a line of a shell block. Nothing is installed: that the package has the extras is all that is checked."""
    program, *arguments = words
    if program == "keras-musictag":
        invoke([str(Path(word).expanduser()) if word.startswith("~/") else word for word in arguments])
    elif program == "pip" and arguments[0] == "install":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extras in re.findall(r"\[(.*?)\]", " ".join(arguments)):
            assert set(extras.split(",")) <= set(known["optional-dependencies"]), words
    else:
        raise AssertionError(f"{page}: how to run {shlex.join(words)!r}? Say in NOT_RUN (test_docs.py) why it is not.")
