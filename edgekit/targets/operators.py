"""What edgekit's own operators are called, in graphs and in every runtime that knows them."""

from __future__ import annotations

from typing import Final

DOMAIN: Final = "edgekit"
LOOKUP: Final = "CodebookLookup"
LOOKUP_VERSION: Final = "1"  # of the plugin, as TensorRT asks for it
LOOKUP_NODE: Final = "codebook_lookup"  # the node's name, and what its expanded body begins with
HEAD: Final = "VQSAHead"  # the lookup and all that comes after it as one operator, for OpenVINO
