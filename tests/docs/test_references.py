"""The reference pages are what the commands and docstrings say now."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize("name", ["cli_reference", "api_reference"])
def test_the_page_is_up_to_date(name: str) -> None:
    module = importlib.import_module(f"tools.{name}")
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), f"python -m tools.{name}"
