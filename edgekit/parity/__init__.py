"""Parity: does the compiled artifact keep the float model's robustness?"""
