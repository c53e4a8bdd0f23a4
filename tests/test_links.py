"""Every link of the pages that people read leads somewhere: files, headings, and well-formed public addresses."""

import ipaddress
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "zoo").glob("*/README.md")),
]
# Whole code, in fences or in a line, has no links.
CODE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1`*$|``.+?``|`[^`\n]+`", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\]\(\s*<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\s*\)")
BARE = re.compile(r"<(https?://[^>\s]+)>|(?<![(<\"'])\b(https?://[^\s<>|)\]]+)")
REFERENCE = re.compile(r"^\[[^]]+\]:\s+(\S+)", re.MULTILINE)
# The two home pages of data sets that have no https.
PLAIN_HTTP = ("www2.projects.science.uu.nl", "millionsongdataset.com")


def links(text):
    """Addresses in Markdown: inline, by reference, in angle brackets and bare."""
    text = CODE.sub("", text)
    bare = (found[0] or found[1].rstrip(".,;:'\"") for found in BARE.findall(text))
    return [*INLINE.findall(text), *REFERENCE.findall(text), *bare]


def anchors(text):
    """Fragments that headings have, as GitHub and MkDocs make them; the second of the same name is counted."""
    without_code = re.sub(r"^(`{3,})[^\n]*\n.*?^\1`*$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", without_code))
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", without_code, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
        taken = 0
        while (candidate := f"{name}-{taken}" if taken else name) in found:
            taken += 1
        found |= {candidate, f"{name}_{taken}"} if taken else {name}
    return found


def fault(link, page, root=ROOT):
    """What is wrong with a link of a page; nothing if it is fine."""
    if "://" in link or link.startswith(("//", "mailto:", "javascript:", "data:")):
        return fault_of_address(link)
    path, _, fragment = link.partition("#")
    if not path and not fragment:
        return "is empty"
    target = (page.parent / unquote(path)).resolve() if path else page
    if not target.is_relative_to(root):
        return "leads out of the repository"
    if not target.exists():
        return "leads to no file"
    if fragment and target.suffix == ".md" and fragment not in anchors(target.read_text(encoding="utf-8")):
        return f"leads to no heading of {target.name}"
    return ""


def fault_of_address(link):
    try:
        address = urlsplit(link)
        host, port = address.hostname or "", address.port
    except ValueError as error:
        return f"is no address ({error})"
    if address.scheme != "https" and not (address.scheme == "http" and host in PLAIN_HTTP):
        return "is not https"
    if is_private(host) or port or address.username:
        return "is no public host"
    if not re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", host) or re.search(r"[\s\"<>\\^`{|}]", link):
        return "is no address"
    return ""


def is_private(host):
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal", ".lan", ".test", ".invalid")):
        return True
    try:
        return bool(ipaddress.ip_address(host))  # none of these pages has a reason to name one
    except ValueError:
        return "." not in host


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of(page):
    faults = [f"{link} {said}" for link in links(page.read_text(encoding="utf-8")) if (said := fault(link, page))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("there.md", ""),
        ("there.md#two-words", ""),
        ("there.md#two-words-1", ""),
        ("#here", ""),
        ("a%20folder", ""),
        ("there.md#three", "leads to no heading of there.md"),
        ("gone.md", "leads to no file"),
        ("../../etc/passwd", "leads out of the repository"),
        ("", "is empty"),
        ("https://example.org/x_(y)?z=1#top", ""),
        ("http://example.org", "is not https"),
        ("ftp://example.org", "is not https"),
        ("//example.org/x", "is not https"),
        ("javascript:alert(1)", "is not https"),
        ("https://localhost/x", "is no public host"),
        ("https://127.0.0.1/x", "is no public host"),
        ("https://192.168.0.1", "is no public host"),
        ("https://[::1]/", "is no public host"),
        ("https://build", "is no public host"),
        ("https://example.org:8080", "is no public host"),
        ("https://me@example.org", "is no public host"),
        ("https://exa_mple.org", "is no address"),
        ("https://[example.org", "is no address (Invalid IPv6 URL)"),
    ],
)
def test_what_is_wrong_with_a_link(tmp_path, link, said):
    page = tmp_path / "page.md"
    page.write_text("# Here\n")
    (tmp_path / "there.md").write_text("# Two `words`\n\n## Two words\n\n```\n# Three\n```\n")
    (tmp_path / "a folder").mkdir()
    assert fault(link, page, tmp_path) == said


def test_links_are_found():
    text = """[a](a.md) ![b](b.png "title") <https://c.org> [d]

[d]: d.md
https://e.org/x, and `[f](f.md)`; @x{url={https://g.org}}
```
[h](h.md)
```
"""
    assert sorted(links(text)) == ["a.md", "b.png", "d.md", "https://c.org", "https://e.org/x", "https://g.org}}"]
