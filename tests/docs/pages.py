"""The pages of the documentation, taken apart."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    \S.*\n)+", re.MULTILINE)


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page)


def shell_blocks(page: str) -> list[str]:
    """Blocks of commands: those in no named language, or that of a shell, and indented ones."""
    fenced = [text for _, language, text in _FENCE.findall(page) if language in ("", "sh", "bash")]
    return fenced + _INDENTED.findall(prose(page))


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as a code host makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found
