"""The documentation builds as a site: every page, link and anchor, without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"README"} | {"index"}
    assert {page.stem for page in tmp_path.glob("*.html")} - {"404"} == pages
    outside = "https://github.com/edgekit/edgekit/blob/HEAD/examples/predict.py"
    assert f'href="{outside}"' in (tmp_path / "predict.html").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    listed = [line.split()[-1] for line in navigation.splitlines() if line.endswith(".md")]
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))
