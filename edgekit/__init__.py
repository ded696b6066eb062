"""edgekit: robust image classifiers from checkpoint to INT8 on the edge."""

__version__ = "0.1.0"
