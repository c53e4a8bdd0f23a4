"""The page docs/models.md, from the specs: `python benchmarks/models_page.py [--check]`.

Its figures are those of the cards (`zoo/<model>/README.md`), of which it shows the parts that help to choose.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from zoo_table import ORDER, table

import keras_musictag as kmt
from keras_musictag.models.cards import model_card
from keras_musictag.utils.files import write_atomically

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
SECTIONS = ("Input", "Training data and licences", "Evaluation", "Limits")
HEAD = """# Models

<!-- python benchmarks/models_page.py; do not edit by hand -->

{table}

`keras-musictag info NAME` prints the whole card of a model: also its latency, whom to cite, and all tags.
`keras-musictag validate` checks every model against what its spec claims. Models of your own:
[add a model](add-a-model.md).
"""


def page() -> str:
    """Markdown of the overview and a section per model."""
    return "\n".join([HEAD.format(table=table()), *map(section, ORDER)])


def section(name: str) -> str:
    """What the card says first, and the sections that help to choose, one level down."""
    body = model_card(kmt.model_info(name)).split("---\n", 2)[2]
    first, *rest = body.split("\n## ")
    summary = first.split("\n", 3)[3].strip()
    parts = [part for part in rest if part.split("\n", 1)[0] in SECTIONS]
    return "\n\n".join([f"## {name}", summary, *(f"### {part.strip()}" for part in parts)]) + "\n"


def main() -> None:
    """Rewrite the page, or fail if it is not current."""
    parser = argparse.ArgumentParser(description="Write docs/models.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if the page is not current")
    check = parser.parse_args().check
    new = page()
    current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == new
    if check and not current:
        sys.exit("docs/models.md is not current. Run: python benchmarks/models_page.py")
    if not current:
        write_atomically(PAGE, new.encode())


if __name__ == "__main__":
    main()
