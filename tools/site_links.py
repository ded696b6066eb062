"""A hook of mkdocs: links out of docs/ lead to the file on the code host.

On the code host itself they are relative; the site holds docs/ alone.
"""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, *, config: Any, **_: object) -> str:
    """Called by mkdocs for every page."""
    return _OUTSIDE.sub(rf"]({config.repo_url}/blob/HEAD/\1)", markdown)
