"""The names of edgekit's own operators, in graphs and in every runtime that knows them."""

from __future__ import annotations

from typing import Final, Literal

DOMAIN: Final = "edgekit"
LOOKUP: Final = "CodebookLookup"
LOOKUP_VERSION: Final = "1"  # of the plugin, by which TensorRT finds it
LOOKUP_NODE: Final = "codebook_lookup"  # the node's name, and the prefix of its expanded body
HEAD: Final = "VQSAHead"  # the lookup and everything after it as one operator, for OpenVINO

Variant = Literal["function", "inline", "plugin"]
"""The form of the lookup in a graph; `edgekit.graph.variants` converts them."""
