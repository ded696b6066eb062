"""The monitor's detector on many streams at once, for `watch.py`: the same sums, 20 times as fast.

`check_batch` holds it against the real one, image by image, before any table is printed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.field.detector import KEPT, LEVELS, Detector, Experts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def alarms(experts: Experts, promise: float, symbols: Ints, chances: Floats) -> Ints:
    """Where each stream alarms; its length if it does not. Arrays are [streams, images]."""
    count, length = symbols.shape
    first = Detector.begin(experts, promise)
    counts = np.repeat(first.counts[None], count, axis=0)
    evidence = np.repeat(first.evidence[None], count, axis=0)
    learned = np.repeat(first.learned[None], count, axis=0)
    ends = np.full(count, length)
    running = np.arange(count)
    levels = np.moveaxis(experts.levels, 1, 0)[symbols].astype(
        np.int64
    )  # [streams, images, orders]
    below = np.tri(LEVELS, k=-1, dtype=np.int64)
    orders = np.arange(levels.shape[2])
    for image in range(length):
        level = levels[running, image]
        rows = np.arange(len(running))[:, None]
        before = (counts * below[level]).sum(axis=2)
        counts[rows, orders, level] += 1
        here, total = counts[rows, orders, level], counts[:, :1].sum(axis=2)
        values = (before + chances[running, image, None] * here) / total
        places = (values[:, 1:, None] >= experts.ends[:, :-1]).sum(axis=2)
        known = experts.bets[np.arange(len(experts.bets)), places[:, experts.order_of]]
        bet = np.concatenate([known, _learned(learned, values[:, 0])], axis=1)
        evidence = np.logaddexp(evidence, 0.0) + bet
        weighted = evidence + experts.log_weights
        sums = np.logaddexp.reduceat(weighted, experts.starts, axis=1).max(axis=1)
        over = sums >= first.threshold
        if over.any():
            ends[running[over]] = image
            running, counts = running[~over], counts[~over]
            evidence, learned = evidence[~over], learned[~over]
        if not len(running):
            break
    return ends


def _learned(learned: Floats, values: Floats) -> Floats:
    """The learners' bets [streams, learners]; they take in the p-values."""
    places = np.minimum((values * LEVELS).astype(np.int64), LEVELS - 1)
    rows = np.arange(len(values))
    density = LEVELS * (learned[rows, :, places] + 1) / (learned.sum(axis=2) + LEVELS)
    learned *= KEPT
    learned[rows, :, places] += 1
    return np.asarray(np.log(density))


def check_batch(experts: Experts, promise: float, symbols: Ints, chances: Floats) -> None:
    """Stop the program unless the real detector alarms at the same images."""
    for stream, found in enumerate(alarms(experts, promise, symbols, chances).tolist()):
        detector = Detector.begin(experts, promise)
        for image, symbol in enumerate(symbols[stream].tolist()):
            detector.update(symbol, float(chances[stream, image]))
            if detector.alarming:
                break
        else:
            image += 1
        if image != found:
            raise SystemExit(f"stream {stream}: alarm at {found}, the monitor's is at {image}")
