"""Tables: aligned plain text, Markdown, and on a terminal Rich's, which fold cells to its width.

What is told to people is a sequence of blocks, lines of text and `Table`s. `echo` prints them: plainly where nobody
looks (a pipe, a file) or where the environment asks for it (`NO_COLOR`, `TERM=dumb`), else with Rich, which is imported
then.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.table

_GAP = 2  # spaces between columns
_FOLDABLE = 16  # characters; longer words of text, such as paths, may be broken


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        titles: of the columns.
        rows: cells; what is no text becomes it. A cell is one line: line breaks become spaces.
        align: `"<"` or `">"` per column; the last one holds for the columns after it. Cells of columns aligned to the
            right, which are numbers, are not folded as long as there is room for one of them beside the keys.
        keys: columns at the left that say what a row is of; a terminal too narrow for all columns gets several tables,
            each with these.
        header: whether plain text shows the titles.

    Example:
        >>> table = Table(("tag", "clips"), (("drums", 12), ("flute", 5)), "<>")
        >>> print(table)
        tag    clips
        drums     12
        flute      5
        >>> print(table.markdown())
        | tag | clips |
        | --- | ---: |
        | drums | 12 |
        | flute | 5 |
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[object]]
    align: str = "<"
    keys: int = 1
    header: bool = True

    def __str__(self) -> str:
        """Aligned plain text, as wide as it needs to be, without spaces at the ends of lines."""
        lines = self._cells()[0 if self.header else 1 :]
        widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
        return "\n".join((" " * _GAP).join(map(self._padded, line, widths, self._sides())).rstrip() for line in lines)

    def markdown(self) -> str:
        """The same in Markdown; pipes in cells stay what they are."""
        head, *body = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in self._cells())
        lines = [head, ["---:" if side == ">" else "---" for side in self._sides()], *body]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def fitted(self, room: int) -> Iterator[rich.table.Table]:
        """For a terminal of `room` characters: one table, or several that share the columns out."""
        columns, sides = list(zip(*self._cells(), strict=True)), self._sides()
        natural = [max(map(_width, column)) for column in columns]
        least = [_least(column, side) for column, side in zip(columns, sides, strict=True)]
        for chosen in self._groups(least, room):
            gaps = _GAP * (len(chosen) - 1)
            widths = _shared([natural[c] for c in chosen], [least[c] for c in chosen], room - gaps)
            yield _rich([columns[c] for c in chosen], widths, [sides[c] for c in chosen])

    def _cells(self) -> list[list[str]]:
        """Titles, then rows."""
        return [[_line(cell) for cell in row] for row in (self.titles, *self.rows)]

    def _sides(self) -> str:
        return self.align.ljust(len(self.titles), self.align[-1])

    @staticmethod
    def _padded(cell: str, width: int, side: str) -> str:
        space = " " * (width - _width(cell))
        return space + cell if side == ">" else cell + space

    def _groups(self, least: Sequence[int], room: int) -> Iterator[list[int]]:
        """Numbers of columns that fit side by side, the keys in every group."""
        keys = list(range(self.keys))
        group = keys
        for column in range(self.keys, len(least)):
            if group != keys and sum(least[c] + _GAP for c in [*group, column]) - _GAP > room:
                yield group
                group = keys
            group = [*group, column]
        yield group


Block = str | Table


def plain(blocks: Sequence[Block]) -> str:
    """Blocks as text, one below the other."""
    return "\n".join(map(str, blocks))


def on_terminal() -> bool:
    """Whether standard output is a terminal, and one that wants more than plain text."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console() -> Any:
    """Rich's console on standard output, which takes text as it is."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)  # "[0.90, 0.93]" is no markup


def echo(*blocks: Block) -> None:
    """Print to standard output what people are to read."""
    import click

    if not on_terminal():
        click.echo(plain(blocks))
        return
    terminal = console()
    for block in blocks:
        if isinstance(block, Table):
            for number, table in enumerate(block.fitted(terminal.width)):
                terminal.print(*([""] if number else []), table, sep="\n")
        else:
            click.echo(block)  # the terminal itself breaks lines, so that they are copied whole


# === Cells ===


def _line(cell: object) -> str:
    """On one line, and nothing that a terminal obeys."""
    return "".join(char if char.isprintable() else " " for char in str(cell))


def _width(text: str) -> int:
    """Columns of a terminal: Chinese, Japanese and Korean characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _least(column: Sequence[str], side: str) -> int:
    """How narrow a column can be: numbers stay whole, titles and text fold between words, and within long ones."""
    folded = column if side == "<" else column[:1]
    longest = max((_width(word) for cell in folded for word in cell.split()), default=1)
    return min(longest, _FOLDABLE) if side == "<" else max(longest, *map(_width, column[1:]), 1)


def _shared(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths that fit: the widest columns give way first, beyond `least` only if nothing else can."""
    widths = list(natural)
    for floors in (least, [1] * len(widths)):
        while sum(widths) > room and (wide := [c for c, width in enumerate(widths) if width > floors[c]]):
            widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _rich(columns: Sequence[Sequence[str]], widths: Sequence[int], sides: Sequence[str]) -> rich.table.Table:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    # Between columns: a space of padding, and one where other boxes have a line.
    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for number, ((title, *_), width, side) in enumerate(zip(columns, widths, sides, strict=True)):
        style = "" if number else "cyan"
        table.add_column(
            Text(title), width=width, justify="right" if side == ">" else "left", overflow="fold", style=style
        )
    for cells in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table
