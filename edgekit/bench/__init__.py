"""Measures a bundle where it runs: latency, throughput, cold start, memory, sustained load, energy.

Needs NumPy and the bundle's runtime, nothing of what built the bundle; ``run.py`` is the way in.
"""
