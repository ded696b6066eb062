"""The exported graphs of tests/export."""

from tests.export.conftest import authors, lite0, small

__all__ = ["authors", "lite0", "small"]
