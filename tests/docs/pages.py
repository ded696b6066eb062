"""The pages of the documentation, taken apart."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    \S.*\n)+", re.MULTILINE)
_EDGEKIT = re.compile(r"(?:^|[|;&] *|\$\(|[A-Z_]+=\S+ |-m )edgekit(?= |$)")


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page)


def shell_blocks(page: str) -> list[str]:
    """Blocks of commands: those in no named language, or that of a shell, and indented ones."""
    fenced = [text for _, language, text in _FENCE.findall(page) if language in ("", "sh", "bash")]
    return fenced + _INDENTED.findall(prose(page))


def commands(text: str) -> list[list[str]]:
    """The words after `edgekit` in every command line of a page's blocks."""
    lines = []
    for block in shell_blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            rest = line.strip().removeprefix("$ ")
            rest = re.split(r" {4,}(?=[^-\s])", rest)[0]  # a remark beside an example of --help
            while match := _EDGEKIT.search(rest):
                rest = rest[match.end() :]
                if words := until_the_next_command(rest):
                    lines.append(words)
    return lines


def until_the_next_command(rest: str) -> list[str]:
    lexer = shlex.shlex(rest, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;<>()"):
            if word[0] in "<>" and words[-1:] == ["2"]:  # as in `2> file`
                words.pop()
            break
        words.append(word)
    return words


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


def outputs(page: str) -> list[str]:
    """Blocks in no named language; most are what a command printed."""
    return [text for _, language, text in _FENCE.findall(page) if not language]
