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
from keras_musictag.models.vocabulary import KINDS
from keras_musictag.utils.files import write_atomically
from keras_musictag.utils.tables import Table

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
SHOWN = 4  # tags of each kind
SECTIONS = ("Input", "Training data and licences", "Evaluation", "Limits")
HEAD = """# Models

<!-- python benchmarks/models_page.py; do not edit by hand -->

{table}

`keras-musictag info NAME` prints the whole card of a model: also its latency, whom to cite, and all tags.
`keras-musictag validate` checks every model against what its spec claims. Models of your own:
[add a model](add-a-model.md). Which one to take: [which model for what](choose-a-model.md).

## Kinds of tags

Every tag of the published vocabularies has a kind. `--kind genre` (`kinds={{"genre"}}` in Python) keeps the tags of one
kind, with `tag`, `taggram` and `library`; repeat it for several. The page of `serve` has a button per kind. What each
vocabulary has:

{kinds}

Kinds are assigned by hand, in `keras_musictag/models/tags/*.kinds.tsv`, which also have the names that are shown. Mood
includes themes such as `film`; other includes, for AudioSet, all sounds that are no music. A tagger with tags of its
own says their kinds in `spec.json`: `"kinds": {{"dub": "genre"}}`.
"""


def page() -> str:
    """Markdown of the overview and a section per model."""
    return "\n".join([HEAD.format(table=table(), kinds=kinds()), *map(section, ORDER)])


def kinds() -> str:
    """Vocabularies, with numbers of tags by kind and a few of them."""
    rows = {}
    for name in ORDER:
        words = kmt.model_info(name).vocabulary
        if words.kinds is not None:
            by_kind = [[words.names[column] for column in words.columns(kinds={kind})] for kind in KINDS]
            rows[words.title] = [
                f"{len(tags)}: {' · '.join(tags[:SHOWN])}{' · ...' if len(tags) > SHOWN else ''}" if tags else ""
                for tags in by_kind
            ]
    return Table(
        ("kind", *rows), [(kind, *cells) for kind, *cells in zip(KINDS, *rows.values(), strict=True)]
    ).markdown()


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
