"""References and streams with known distributions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.field.reference import Cell, FieldReference

CODES, BINS, CLASSES = 12, 2, 4
Floats = NDArray[np.float64]


def clean_distribution() -> Floats:
    """Of the symbols, on clean images."""
    codes = np.linspace(1, 8, CODES)
    return np.repeat(codes, BINS) / codes.sum() / BINS


def foggy_distribution() -> Floats:
    """Other codewords, and small margins."""
    codes = np.linspace(8, 1, CODES)
    return (codes[:, None] * [1.5, 0.5]).ravel() / codes.sum() / BINS


def cell(name: str, severity: int, distribution: Floats, images: int, seed: int) -> Cell:
    """Images drawn from a distribution, a fifth of the clean and half of the others wrong."""
    counts = np.random.default_rng(seed).multinomial(images, distribution)
    symbols = np.flatnonzero(counts)
    wrong = images // 2 if name else images // 5
    return Cell(
        name, severity, images, wrong, tuple(symbols.tolist()), tuple(counts[symbols].tolist())
    )


def reference(seed: int = 0, images: int = 200) -> FieldReference:
    """A lab with fog and snow; class = codeword modulo classes."""
    clean, foggy = clean_distribution(), foggy_distribution()
    snowy = np.roll(clean, 6)
    normal = cell("", 0, clean, images, seed)
    codes: dict[int, int] = {}
    for symbol, count in zip(normal.symbols, normal.counts, strict=True):
        codes[symbol // BINS] = codes.get(symbol // BINS, 0) + count
    return FieldReference(
        kind="code",
        size=CODES,
        classes=CLASSES,
        edges=(0.1,),
        normal=normal,
        clean=cell("", 0, clean, images, seed + 1000),
        cells=(
            cell("fog", 3, foggy, images, seed + 2000),
            cell("snow", 5, snowy, images, seed + 3000),
        ),
        joint=tuple((code % CLASSES, code, count) for code, count in sorted(codes.items())),
    )


def stream(distribution: Floats, count: int, random: np.random.Generator) -> list[int]:
    """Symbols."""
    return [int(symbol) for symbol in random.choice(len(distribution), count, p=distribution)]
