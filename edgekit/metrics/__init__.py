"""Errors under corruption, how sure they are, and what codes say."""
