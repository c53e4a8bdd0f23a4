"""What MkDocs needs to know of this project.

Links to modules of the package, which read well in a checkout, lead to the reference on the site; a module that the
reference does not show becomes plain text. Links to anything else outside this folder stay as they are, and
`mkdocs build --strict` refuses them.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import griffe

_LINK = re.compile(r"\[([^]]+)\]\(\.\./(keras_musictag/[\w/]+)\.(?:py|txt)\)")
_SHOWN = re.compile(r"^::: (\S+)", re.MULTILINE)


class Examples(griffe.Extension):
    """The docstrings' `Example:` is Griffe's section `Examples:`; else it would not be shown as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Rewrite the links of a page."""

    def replace(link: re.Match[str]) -> str:
        module = link[2].replace("/", ".")
        return f"[{link[1]}][{module}]" if module in _modules() else link[1]

    return _LINK.sub(replace, markdown)


@functools.cache
def _modules() -> set[str]:
    """What the reference shows."""
    pages = (Path(__file__).parent / "reference").glob("*.md")
    return {name for page in pages for name in _SHOWN.findall(page.read_text(encoding="utf-8"))}
