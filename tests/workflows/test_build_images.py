"""The images that a build leaves in its bundle, for the report, and a build that leaves none."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.bundle.store import open_bundle
from edgekit.parity.document import read_parity
from edgekit.parity.examples import EXAMPLES, read_examples
from edgekit.workflows.build import build
from tests.training.training_data import CLASSES, QUIET
from tests.workflows.small_build import settings


@pytest.mark.usefixtures("cache")
def test_a_bundle_has_images_for_its_page_unless_told_otherwise(
    model: Path, tmp_path: Path
) -> None:
    for images in (True, False):
        config = settings(model, tmp_path / str(images), bench=False, images=images)
        (outcome,) = build(config, QUIET)
        bundle = open_bundle(outcome.path)
        page = (bundle.folder / "report.html").read_text()
        assert (EXAMPLES in bundle.manifest.files) is images
        assert ("--no-images" in bundle.manifest.rebuild) is not images
        assert page.count("<img") == (8 if images else 0)
        if images:
            examples = read_examples(bundle, read_parity(bundle))
            assert examples is not None
            for cell in examples.cells:
                assert {one.label for one in cell.examples} <= set(CLASSES)
                assert len({one.image for one in cell.examples}) == 2
            assert len(page) < 2_000_000
