"""Every page: its links lead somewhere, its commands exist, its words are those of the trade."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from edgekit.cli.main import cli
from tests.docs.pages import PAGES, ROOT, anchors, commands, prose

# Sentences that once stood here, and are not to come back.
UNWANTED = (
    "is taken up where it was by the same command",
    "none of edgekit's own sources has a privilege",
    "a key that is not let in",
    "signs of life",
    "its document comes back and is kept in the bundle here like a local one",
    "# parity as well",
    "Again, bit by bit",
    "times the first's",
    "finite and the same twice",
)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def dead_links(text: str, folder: Path) -> list[str]:
    """The relative links that lead nowhere, and those to a heading that is not there."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = folder / name
        missing = not target.exists()
        if not missing and anchor:
            missing = anchor not in anchors(target.read_text("utf-8") if name else text)
        if missing:
            dead.append(link)
    return dead


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page.read_text(encoding="utf-8"), page.parent) == []


def test_dead_links_are_noticed() -> None:
    text = "[a](#yes) [b](#no) [c](none.md) [d](parity.md#gone) [e](parity.md)\n\n# Yes\n"
    assert dead_links(text, ROOT / "docs") == ["#no", "none.md", "parity.md#gone"]


def fault(words: list[str]) -> str | None:
    """Why click would not run a command, if only because the command or an option is unknown."""
    command: click.Command = cli
    context = click.Context(command, info_name="edgekit")
    while isinstance(command, click.Group):
        if not words or words[0][0] in "-[":  # an option of the group, or a line of usage
            return None
        inner = command.get_command(context, words[0])
        if inner is None:
            return None if words[0] in ("...", "COMMAND") else f"no command {words[0]}"
        command, words = inner, words[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    try:
        command.make_parser(context).parse_args([word for word in words if word != "..."])
    except click.NoSuchOption as error:
        return f"{command.name}: {error.format_message()}"
    except click.BadOptionUsage as error:
        return f"{command.name}: {error.format_message()}"
    except click.UsageError:  # an ellipsis in place of an argument
        return None
    return None


@every_page
def test_commands_exist(page: Path) -> None:
    shown = commands(page.read_text(encoding="utf-8"))
    wrong = [f"edgekit {' '.join(words)}: {why}" for words in shown if (why := fault(words))]
    assert wrong == []


def test_wrong_commands_are_noticed() -> None:
    text = (
        "```\nedgekit bild\nls | edgekit watch a - --onse\nX=1 edgekit build --dry-run \\\n  --no\n"
        'edgekit parity a --tolerance 1 || echo "edgekit"\nedgekit device add b c  # edgekit\n```\n'
        "```python\nedgekit = 1\n```\n"
    )
    assert [bool(fault(words)) for words in commands(text)] == [True, True, True, False, False]


def test_there_are_commands_to_check() -> None:
    assert sum(len(commands(page.read_text(encoding="utf-8"))) for page in PAGES) > 150


@every_page
def test_words(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert [words for words in UNWANTED if words.lower() in text.lower()] == []
