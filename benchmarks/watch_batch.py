"""The monitor's detector on many streams at once, for `watch.py`: the same sums, 100 times as fast.

`check_batch` holds it against `edgekit.Monitor`, image by image, before any table is printed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from watch_answers import Watched

from edgekit.field.detector import KEPT, LEVELS, Detector, Experts
from edgekit.field.monitor import Monitor
from edgekit.field.reference import Cell
from edgekit.field.state import chance_of
from edgekit.runtime.model import Prediction

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def alarms(
    experts: Experts,
    promise: float,
    symbols: Ints,
    chances: Floats | Callable[[int], Floats],
    normal: Ints | None = None,
) -> Ints:
    """Where each stream alarms; its length if it does not. Arrays are [streams, images].

    ``chances`` may be a function that draws the numbers of so many streams, for streams that are
    long. ``normal`` are the symbols that each stream is compared with, unless the reference's.
    """
    count, length = symbols.shape
    first = Detector.begin(experts, promise)
    counts = np.repeat(first.counts[None], count, axis=0)
    if normal is not None:
        counts = np.stack([experts.count(row) for row in normal])
    # Sums instead of their logarithms, which an alarm ends long before they are too large.
    evidence = np.zeros((count, len(first.evidence)))
    learned = np.repeat(first.learned[None], count, axis=0)
    bets, weights = np.exp(experts.bets), np.exp(experts.log_weights)
    limit = np.exp(first.threshold)
    ends = np.full(count, length)
    running = np.arange(count)
    levels_of = np.ascontiguousarray(experts.levels.T.astype(np.int64))  # [symbols, orders]
    below = np.tri(LEVELS, k=-1)
    orders = np.arange(levels_of.shape[1])
    each_expert, known = np.arange(len(bets)), len(bets)
    counts = counts.astype(np.float64)  # exact, and multiplied faster
    for image in range(length):
        level = levels_of[symbols[running, image]]
        rows = np.arange(len(running))[:, None]
        before = np.einsum("sol,sol->so", counts, below[level])
        counts[rows, orders, level] += 1
        here, total = counts[rows, orders, level], counts[:, 0].sum(axis=1)[:, None]
        drawn = chances(len(running)) if callable(chances) else chances[running, image]
        values = (before + drawn[:, None] * here) / total
        places = (values[:, 1:, None] >= experts.ends[:, :-1]).sum(axis=2)
        evidence += 1
        evidence[:, :known] *= bets[each_expert, places[:, experts.order_of]]
        evidence[:, known:] *= _learned(learned, values[:, 0])
        sums = np.add.reduceat(evidence * weights, experts.starts, axis=1).max(axis=1)
        over = sums >= limit
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
    return np.asarray(density)


def check_batch(
    monitor: Watched, promise: float, streams: Ints, normal: Ints | None = None
) -> None:
    """Stop the program unless `edgekit.Monitor` alarms at the same images; rows of answers."""
    real, seeds = [], []
    for number, rows in enumerate(streams):
        reference = monitor.experts.reference
        if normal is not None:
            reference = replace(reference, normal=_cell(monitor.symbol[normal[number]]))
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state.json"
            watching = Monitor(reference, state=state, images_a_false_alarm=promise)
            watching.save()
            seeds.append(int(json.loads(state.read_text())["seed"]))
            real.append(_first_alarm(watching, monitor, rows))
    chances = [[chance_of(seed, image) for image in range(streams.shape[1])] for seed in seeds]
    own = None if normal is None else monitor.symbol[normal]
    found = alarms(monitor.experts, promise, monitor.symbol[streams], np.array(chances), own)
    if found.tolist() != real:
        raise SystemExit(f"alarms at {found.tolist()}, those of edgekit.Monitor are at {real}")
    print(f"alarms at the same images as edgekit.Monitor, promise {promise:,}: {real}", flush=True)


def _cell(symbols: Ints) -> Cell:
    """Clean images with these symbols, as a reference holds them."""
    values, counts = np.unique(symbols, return_counts=True)
    return Cell("", 0, len(symbols), None, tuple(values.tolist()), tuple(counts.tolist()))


def _first_alarm(watching: Monitor, monitor: Watched, rows: Ints) -> int:
    by_code = monitor.experts.reference.kind == "code"
    for image, row in enumerate(rows.tolist()):
        place, clear = int(monitor.place[row]), float(monitor.clearness[row])
        if by_code:
            prediction = Prediction(str(row), index=0, code=place, margin=clear)
        else:
            prediction = Prediction(str(row), index=place, probability=clear)
        if watching.update(prediction):
            return image
    return len(rows)
