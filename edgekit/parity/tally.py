"""Adds up block after block what a comparison needs; memory grows by a byte per cell and image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.parity.cells import Cells
from edgekit.parity.codes import (
    MARGIN_QUANTILES,
    code_agreement,
    code_counts,
    code_usage,
    margin_histogram,
    margin_summary,
)
from edgekit.parity.metrics import CellErrors, kl_divergence, predicted_classes, wrong
from edgekit.parity.stats import Interval, agreement_interval
from edgekit.parity.sweep import BlockPair


@dataclass
class Tally:
    """Sums over images; index 0 of an axis of length V = 1 + cells is the clean variant."""

    cells: Cells
    labeled: bool
    codebook_size: int  # 0: no codebook
    images: int = 0
    computed: int = 0
    difference: list[NDArray[np.int8]] = field(default_factory=list)  # [B, C, S] a block
    wrong: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # [V] a model
    same_class: list[NDArray[np.float64]] = field(default_factory=list)  # [B, V] a block
    same_code: list[NDArray[np.float64]] = field(default_factory=list)  # [B, V] a block
    divergence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # [V] sums
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # [N] a model
    margins: NDArray[np.int64] | None = None

    def add(self, block: BlockPair) -> NDArray[np.int8]:
        """Take in a block; returns its paired differences [B, C, S] (zeros without labels)."""
        images, variants = block.reference.logits.shape[:2]
        names = self.cells.names()
        both = {"reference": block.reference, "candidate": block.candidate}
        classes = {
            who: np.stack(
                [
                    predicted_classes(answers.logits[:, v], model=who, cell=names[v])
                    for v in range(variants)
                ],
                axis=1,
            )
            for who, answers in both.items()
        }
        shape = (images, len(self.cells.corruptions), len(self.cells.severities))
        difference = np.zeros(shape, np.int8)
        if self.labeled:
            errors = {
                who: np.stack(
                    [wrong(found[:, v], block.labels, cell=names[v]) for v in range(variants)],
                    axis=1,
                )
                for who, found in classes.items()
            }
            for who, found in errors.items():
                self.wrong[who] = self.wrong.get(who, np.zeros(variants, np.int64)) + found.sum(0)
            gained = errors["candidate"].astype(np.int8) - errors["reference"].astype(np.int8)
            difference = gained[:, 1:].reshape(shape)
        self.difference.append(difference)
        self.same_class.append((classes["reference"] == classes["candidate"]).astype(np.float64))
        self._add_divergence(block)
        self._add_codes(block)
        self.images += images
        self.computed += block.computed
        return difference

    def _add_divergence(self, block: BlockPair) -> None:
        flat = [
            a.logits.reshape(-1, a.logits.shape[-1]) for a in (block.reference, block.candidate)
        ]
        sums = kl_divergence(*flat).reshape(block.reference.logits.shape[:2]).sum(axis=0)
        self.divergence = sums if self.images == 0 else self.divergence + sums

    def _add_codes(self, block: BlockPair) -> None:
        one, two = block.reference.code, block.candidate.code
        if one is None or two is None:
            return
        images, variants = one.shape[:2]
        flat = [codes.reshape(images * variants, -1) for codes in (one, two)]
        self.same_code.append(code_agreement(*flat).reshape(images, variants))
        for who, codes in (("reference", one), ("candidate", two)):
            found = code_counts(codes, self.codebook_size)
            self.counts[who] = self.counts.get(who, np.zeros_like(found)) + found
        if block.reference.margin is not None:
            histogram = margin_histogram(np.maximum(block.reference.margin, 0), one, two)
            self.margins = histogram if self.margins is None else self.margins + histogram

    def differences(self) -> NDArray[np.int8]:
        """Candidate wrong minus reference wrong: [images, C, S]."""
        return np.concatenate(self.difference)

    def clean_error(self, who: str) -> float:
        """Fraction of clean images that a model gets wrong."""
        return float(self.wrong[who][0] / self.images)

    def errors(self, who: str) -> CellErrors:
        """Error fraction of every cell."""
        found = (self.wrong[who][1:] / self.images).reshape(len(self.cells.corruptions), -1)
        return {
            name: dict(zip(self.cells.severities, row.tolist(), strict=True))
            for name, row in zip(self.cells.corruptions, found, strict=True)
        }

    def code_interval(self) -> Interval | None:
        """Agreement of the codes over the corrupted cells, clustered by image."""
        if not self.same_code:
            return None
        return agreement_interval(np.concatenate(self.same_code)[:, 1:].mean(axis=1))

    def agreement(self) -> dict[str, Any]:
        """Top-1 agreement, divergence and codes, as plain values for the report."""
        same = np.concatenate(self.same_class)
        divergence = self.divergence / self.images
        document: dict[str, Any] = {
            "top1_agreement": {
                "clean": float(same[:, 0].mean()),
                "corrupted": _interval(agreement_interval(same[:, 1:].mean(axis=1))),
            },
            "kl_nats": {
                "clean": float(divergence[0]),
                "corrupted": float(divergence[1:].mean()),
            },
            "codes": None,
        }
        interval = self.code_interval()
        if interval is not None:
            codes = np.concatenate(self.same_code)
            document["codes"] = {
                "clean_agreement": float(codes[:, 0].mean()),
                "corrupted_agreement": _interval(interval),
                "usage": {who: _usage(counts) for who, counts in self.counts.items()},
                "margins": None if self.margins is None else _margins(self.margins),
            }
        return document


def _interval(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "lower": interval.lower, "upper": interval.upper}


def _usage(counts: NDArray[np.int64]) -> dict[str, float]:
    usage = code_usage(counts)
    return {"size": usage.size, "used": usage.used, "perplexity": usage.perplexity}


def _margins(histogram: NDArray[np.int64]) -> dict[str, Any]:
    summary = margin_summary(histogram)
    return {
        "quantiles": list(MARGIN_QUANTILES),
        "agreeing": {"count": summary.agreeing, "margins": summary.agreeing_quantiles},
        "flipped": {"count": summary.flipped, "margins": summary.flipped_quantiles},
    }
