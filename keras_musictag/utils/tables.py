"""Tables as aligned plain text, Markdown, or Rich tables that fit the width of a terminal.

Output for people is a sequence of blocks: strings and `Table`s. `echo` prints them as plain text to pipes and files, or
if `NO_COLOR` or `TERM=dumb` is set, else with Rich.
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
_FOLDABLE = 16  # characters; longer words, such as paths, may be broken across lines


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        titles: column titles.
        rows: cells, converted to strings; line breaks become spaces.
        align: `"<"` or `">"` per column; the last one also applies to all further columns. Cells of right-aligned
            columns, which hold numbers, are folded only if one of them does not fit beside the key columns.
        keys: number of columns at the left that identify a row. They are repeated if the terminal is too narrow and the
            columns are divided among several tables.
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
        """Return aligned plain text without trailing spaces."""
        lines = self._cells()[0 if self.header else 1 :]
        widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
        return "\n".join((" " * _GAP).join(map(self._padded, line, widths, self._sides())).rstrip() for line in lines)

    def markdown(self) -> str:
        """Return a Markdown table; pipes in cells are escaped."""
        head, *body = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in self._cells())
        lines = [head, ["---:" if side == ">" else "---" for side in self._sides()], *body]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def fitted(self, room: int) -> Iterator[rich.table.Table]:
        """Yield one Rich table that is `room` characters wide, or several among which the columns are divided."""
        columns, sides = list(zip(*self._cells(), strict=True)), self._sides()
        natural = [max(map(_width, column)) for column in columns]
        least = [_least(column, side) for column, side in zip(columns, sides, strict=True)]
        for chosen in self._groups(least, room):
            gaps = _GAP * (len(chosen) - 1)
            widths = _shared([natural[c] for c in chosen], [least[c] for c in chosen], room - gaps)
            yield _rich([columns[c] for c in chosen], widths, [sides[c] for c in chosen])

    def _cells(self) -> list[list[str]]:
        """Return the titles, followed by the rows."""
        return [[_line(cell) for cell in row] for row in (self.titles, *self.rows)]

    def _sides(self) -> str:
        return self.align.ljust(len(self.titles), self.align[-1])

    @staticmethod
    def _padded(cell: str, width: int, side: str) -> str:
        space = " " * (width - _width(cell))
        return space + cell if side == ">" else cell + space

    def _groups(self, least: Sequence[int], room: int) -> Iterator[list[int]]:
        """Yield groups of column numbers that fit side by side, each with the key columns."""
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
    """Return blocks as plain text, one below the other."""
    return "\n".join(map(str, blocks))


def on_terminal() -> bool:
    """Return whether standard output is a terminal that supports more than plain text."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console() -> Any:
    """Return a Rich console on standard output that prints text unchanged."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)  # else "[0.90, 0.93]" is parsed as markup


def echo(*blocks: Block) -> None:
    """Print blocks to standard output."""
    import click

    if not on_terminal():
        click.echo(plain(blocks))
        return
    terminal = console()
    for block in blocks:
        if isinstance(block, Table):
            for number, table in enumerate(block.fitted(terminal.width)):
                if number:
                    terminal.print()
                terminal.print(table)
        else:
            click.echo(block)  # not wrapped by Rich, so that a copied line has no line breaks


# === Cells ===


def _line(cell: object) -> str:
    """Return a cell as one line without control characters."""
    return "".join(char if char.isprintable() else " " for char in str(cell))


def _width(text: str) -> int:
    """Return the width in terminal columns: East Asian wide characters take two, combining characters none."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _least(column: Sequence[str], side: str) -> int:
    """Return the minimum width of a column: numbers are not folded, text folds between words and in long words."""
    folded = column if side == "<" else column[:1]
    longest = max((_width(word) for cell in folded for word in cell.split()), default=1)
    return min(longest, _FOLDABLE) if side == "<" else max(longest, *map(_width, column[1:]), 1)


def _shared(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Narrow the widest columns until all fit: first down to `least`, then, if that is not enough, down to 1."""
    widths = list(natural)
    for floors in (least, [1] * len(widths)):
        while sum(widths) > room:
            reducible = [column for column, width in enumerate(widths) if width > floors[column]]
            if not reducible:
                break
            widths[max(reducible, key=widths.__getitem__)] -= 1
    return widths


def _rich(columns: Sequence[Sequence[str]], widths: Sequence[int], sides: Sequence[str]) -> rich.table.Table:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    # Columns are two spaces apart: one of padding, and one in place of the vertical line of other boxes.
    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for number, ((title, *_), width, side) in enumerate(zip(columns, widths, sides, strict=True)):
        style = "" if number else "cyan"
        table.add_column(
            Text(title), width=width, justify="right" if side == ">" else "left", overflow="fold", style=style
        )
    for cells in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table
