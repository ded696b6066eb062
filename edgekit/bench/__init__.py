"""Measures a bundle where it runs: latency, throughput, cold start, memory, sustained load, energy.

Needs NumPy and the bundle's runtime, but no build tools. The entry point is ``run.py``.
"""
