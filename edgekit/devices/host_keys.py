"""Options of ssh that would let anyone impersonate a device, however they are spelled.

ssh takes the first value it is given, and `edgekit.devices.ssh` gives the strict ones first, so
most of these would have no effect; they are refused so that nobody believes they do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

# ssh's own options: those that take an argument, and all others (ssh.c, OpenSSH 9).
_WITH_ARGUMENT: Final = frozenset("BDEFIJLOPQRSWbceilmopw")
_NO_FILE: Final = frozenset({"", "none", "/dev/null"})
# What an option must be, in ssh's lower case, to keep unknown hosts out.
_STRICT: Final = {
    "stricthostkeychecking": frozenset({"yes", "true", "ask"}),
    "nohostauthenticationforlocalhost": frozenset({"no", "false"}),
    "verifyhostkeydns": frozenset({"no", "false"}),
    "knownhostscommand": frozenset({"none"}),
}


def weakening(options: Sequence[str]) -> str | None:
    """The first of ssh's arguments that weakens the check of host keys, as given; or None."""
    for given, text in _settings(options):
        name, value = _parts(text)
        if name in _STRICT and value.lower() not in _STRICT[name]:
            return given
        if name == "userknownhostsfile" and set(value.lower().split()) <= _NO_FILE:
            return given
    return None


def _parts(text: str) -> tuple[str, str]:
    """``Name=value``, ``name value``, with quotes or without -> name in lower case, value."""
    match = re.match(r"[\s\"]*([A-Za-z]*)[\s\"]*=?(.*)", text, re.DOTALL)
    assert match is not None
    return match[1].lower(), match[2].strip(" \t\r\n\"'=")


def _settings(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every ``-o``: the argument it is part of, and its text."""
    rest = iter(options)
    for argument in rest:
        if not argument.startswith("-"):
            continue
        for place, letter in enumerate(argument[1:], start=2):
            if letter in _WITH_ARGUMENT:
                inline = argument[place:]
                text = inline or next(rest, "")
                if letter == "o":
                    yield (argument if inline else f"{argument} {text}"), text
                break
