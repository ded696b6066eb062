"""Errors under corruption, their confidence intervals, and codes."""
