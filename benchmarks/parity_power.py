"""How far parity's statistics can be trusted, and how many images a verdict takes.

    python benchmarks/parity_power.py            # about five minutes on one core
    python benchmarks/parity_power.py --runs 50  # a quick look

Everything is simulated from `edgekit.metrics.simulation`, where the true delta is known. The tables
are those of docs/parity-statistics.md. A run draws images with replacement from 20,000 simulated
ones, whose mean is therefore the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekit.data.corruption_grid import sample_severities
from edgekit.metrics.confidence_sequence import (
    SequentialDelta,
    fewest_images_to_pass,
    score_bound,
    sequential_scores,
)
from edgekit.metrics.corruption_error import BENCHMARK_CORRUPTIONS
from edgekit.metrics.intervals import (
    PairedErrors,
    cell_weights,
    corruption_deltas,
    corruption_weights,
    delta_interval,
    mean_interval,
)
from edgekit.metrics.simulation import PairedModel
from edgekit.metrics.verdicts import verdict
from edgekit.parity.gates import ALPHA, SAMPLE_CONFIDENCE

SEVERITIES = (1, 2, 3, 4, 5)
ALL, SOME = 5, 2  # severities of each corruption that an image goes through: all, and by default
POPULATION = 20_000
WEIGHTS = cell_weights(BENCHMARK_CORRUPTIONS, SEVERITIES, "none")
FULL_SET = 50_000

CLUSTERED: dict[str, Any] = {"noise_image_share": 0.8, "fragile_factor": 10.0}
COVERAGE_MODELS = {
    "1% differ, no loss": PairedModel((0.0,) * 15, 0.035),
    "3% differ, no loss": PairedModel((0.0,) * 15, 0.107),
    "3% differ, no loss, clustered": PairedModel((0.0,) * 15, 0.095, **CLUSTERED),
    "2.4% differ, a loss of 1 point": PairedModel((0.03,) * 15, 0.08),
    "5% differ, uneven loss": PairedModel(tuple(np.linspace(0, 0.1, 15)), 0.15),
}
SAME = COVERAGE_MODELS["3% differ, no loss"]
SAME_CLUSTERED = COVERAGE_MODELS["3% differ, no loss, clustered"]


def simulated(model: PairedModel, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([model.draw(rng, 2000) for _ in range(POPULATION // 2000)])


def drawn_cells(images: int, levels: int, rng: np.random.Generator) -> np.ndarray:
    """Which cells each image goes through: bool [images, C, S]."""
    bits = rng.integers(0, 2**64, (images, 20), np.uint64)
    return sample_severities(bits, len(SEVERITIES), levels)


def evaluations(images: float, levels: int) -> float:
    """Inferences of one model for so many images, each with its clean one."""
    return images * (1 + 15 * levels)


def table(title: str, header: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def coverage(runs: int) -> Iterator[tuple[object, ...]]:
    for name, model in COVERAGE_MODELS.items():
        difference = simulated(model)
        truth = float((WEIGHTS * difference.mean(axis=0)).sum())
        each = corruption_weights(BENCHMARK_CORRUPTIONS, SEVERITIES, "none")
        truths = (each * difference.mean(axis=0)).sum(axis=1)
        for images in (200, 1000, 5000):
            rng = np.random.default_rng(images)
            below = above = joint = 0
            width = 0.0
            for _ in range(runs):
                sample = difference[rng.integers(0, POPULATION, images)]
                paired = PairedErrors(sample, BENCHMARK_CORRUPTIONS, SEVERITIES, "none")
                interval = delta_interval(paired)
                below += truth < interval.lower
                above += truth > interval.upper
                width += (interval.upper - interval.lower) / 2 / runs
                deltas = corruption_deltas(paired).intervals.values()
                joint += all(i.lower <= t <= i.upper for i, t in zip(deltas, truths, strict=True))
            covered = 1 - (below + above) / runs
            yield (
                name,
                images,
                f"{covered:.1%}",
                f"{below / runs:.1%} / {above / runs:.1%}",
                f"± {width:.2f}",
                f"{joint / runs:.1%}",
            )


def first_verdict(
    scores: np.ndarray, tolerance: float, alpha: float = ALPHA, batch: int = 50
) -> tuple[str, int]:
    """Outcome of a sequence and images used, looking after every batch."""
    monitor = SequentialDelta(tolerance, alpha, bound=score_bound(WEIGHTS))
    state = monitor.state()
    for start in range(0, len(scores), batch):
        state = monitor.update(scores[start : start + batch])
        if state.decided:
            break
    return state.outcome, state.images


def procedure(
    difference: np.ndarray, levels: int, tolerance: float, rng: np.random.Generator
) -> tuple[str, str, float]:
    """What a comparison of these images does: outcome, what decided, and its evaluations."""
    images = len(difference)
    measured = drawn_cells(images, levels, rng)
    scores = sequential_scores(difference, WEIGHTS, measured)
    outcome, used = first_verdict(scores, tolerance)
    if outcome != "undecided":
        return outcome, "early", evaluations(used, levels)
    if levels < ALL:
        paired = PairedErrors(difference, BENCHMARK_CORRUPTIONS, SEVERITIES, "none", measured)
        outcome = verdict(delta_interval(paired, SAMPLE_CONFIDENCE), tolerance).outcome
        if outcome != "undecided":
            return outcome, "sample", evaluations(images, levels)
    everything = mean_interval(sequential_scores(difference, WEIGHTS), 100.0)
    return verdict(everything, tolerance).outcome, "all", evaluations(images, ALL)


def peeking(scores: np.ndarray, tolerance: float, batch: int) -> str:
    for stop in range(batch, len(scores) + 1, batch):
        outcome = verdict(mean_interval(scores[:stop], 100.0), tolerance).outcome
        if outcome != "undecided":
            return outcome
    return "undecided"


def false_verdicts(runs: int) -> Iterator[tuple[object, ...]]:
    images, batch = 2000, 50
    loss = simulated(PairedModel((0.02,) * 15, 0.08))
    clustered = simulated(PairedModel((0.02,) * 15, 0.095, **CLUSTERED))
    lost = np.zeros((POPULATION, 15, 5), np.int8)
    lost[: POPULATION // 200] = 1
    cases = {
        "all cells": (loss, ALL),
        "2 of 5 severities": (loss, SOME),
        "2 of 5 severities, clustered": (clustered, SOME),
        "1 image in 200 lost completely": (lost, SOME),
    }
    for name, (difference, levels) in cases.items():
        rng = np.random.default_rng(2)
        tolerance = float((WEIGHTS * difference.mean(axis=0)).sum())
        early = {"pass": 0, "fail": 0, "undecided": 0}
        ended, peeked = dict(early), dict(early)
        for _ in range(runs):
            drawn = difference[rng.integers(0, POPULATION, images)]
            outcome, by, _ = procedure(drawn, levels, tolerance, rng)
            early[outcome if by == "early" else "undecided"] += 1
            ended[outcome] += 1
            peeked[peeking(sequential_scores(drawn, WEIGHTS), tolerance, batch)] += 1
        yield (
            name,
            *(
                f"{100 * found['pass'] / runs:.1f}% / {100 * found['fail'] / runs:.1f}%"
                for found in (early, ended, peeked)
            ),
        )


def images_to_verdict(runs: int) -> Iterator[tuple[object, ...]]:
    cases: list[tuple[str, PairedModel, float]] = [
        ("no loss", SAME, 0.25),
        ("no loss", SAME, 0.5),
        ("no loss", SAME, 1.0),
        ("no loss", SAME, 2.0),
        ("no loss, clustered", SAME_CLUSTERED, 0.5),
        ("loss of 0.25", PairedModel((0.0075,) * 15, 0.107), 0.5),
        ("loss of 1", PairedModel((0.03,) * 15, 0.107), 0.5),
        ("loss of 3", PairedModel((0.095,) * 15, 0.107), 0.5),
        ("loss of 15", PairedModel((0.5,) * 15, 0.107), 0.5),
    ]
    for name, model, tolerance in cases:
        difference = simulated(model)
        truth = float((WEIGHTS * difference.mean(axis=0)).sum())
        for levels in (ALL, SOME, 1):
            rng = np.random.default_rng(3)
            measured = drawn_cells(POPULATION, levels, rng)
            scores = sequential_scores(difference, WEIGHTS, measured)
            found = [
                first_verdict(scores[rng.integers(0, POPULATION, FULL_SET)], tolerance)
                for _ in range(max(runs // 10, 10))
            ]
            counts = np.asarray([images for _, images in found])
            outcomes = [outcome for outcome, _ in found]
            usual = max(set(outcomes), key=outcomes.count)
            cost = evaluations(float(np.median(counts)), levels)
            yield (
                f"{name} ({truth:+.2f})",
                tolerance,
                levels,
                f"{scores.std():.1f}",
                f"{usual} {outcomes.count(usual) / len(found):.0%}",
                f"{np.median(counts):,.0f}",
                f"{np.quantile(counts, 0.9):,.0f}",
                f"{cost:,.0f}",
                f"{evaluations(FULL_SET, ALL) / cost:,.0f} x",
            )


def set_sizes(runs: int) -> Iterator[tuple[object, ...]]:
    """The whole procedure by size of the set."""
    for name, model in (("usual", SAME), ("clustered", SAME_CLUSTERED)):
        difference = simulated(model)
        spread = sequential_scores(difference, WEIGHTS).std()
        for images in (200, 500, 1000, 2000, 5000, 10_000, 50_000):
            rng = np.random.default_rng(4)
            decided = {"early": 0, "sample": 0, "all": 0}
            passed = 0
            shares = []
            repeats = max(runs // 10, 10)
            for _ in range(repeats):
                drawn = difference[rng.integers(0, POPULATION, images)]
                outcome, by, cost = procedure(drawn, SOME, 0.5, rng)
                if outcome == "pass":
                    passed += 1
                    decided[by] += 1
                shares.append(cost / evaluations(images, ALL))
            decidable = (1.96 + 1.28) * spread / np.sqrt(images)
            yield (
                name,
                f"{images:,}",
                f"{decided['early'] / repeats:.0%}",
                f"{decided['sample'] / repeats:.0%}",
                f"{passed / repeats:.0%}",
                f"{1 - np.mean(shares):.0%}",
                f"{decidable:.2f}",
            )


def stopped_corruptions(runs: int) -> Iterator[tuple[object, ...]]:
    """Do the simultaneous intervals still hold where the run stopped itself?"""
    each = corruption_weights(BENCHMARK_CORRUPTIONS, SEVERITIES, "none")
    for name, model in (
        ("no loss", SAME),
        ("loss of 1", PairedModel((0.03,) * 15, 0.107)),
        ("uneven loss", COVERAGE_MODELS["5% differ, uneven loss"]),
    ):
        difference = simulated(model)
        truths = (each * difference.mean(axis=0)).sum(axis=1)
        for levels in (ALL, SOME):
            rng = np.random.default_rng(5)
            joint, half = 0, 0.0
            repeats = max(runs // 2, 10)
            for _ in range(repeats):
                drawn = difference[rng.integers(0, POPULATION, 6000)]
                measured = drawn_cells(len(drawn), levels, rng)
                scores = sequential_scores(drawn, WEIGHTS, measured)
                _, used = first_verdict(scores, 0.5)
                paired = PairedErrors(
                    drawn[:used], BENCHMARK_CORRUPTIONS, SEVERITIES, "none", measured[:used]
                )
                deltas = list(corruption_deltas(paired).intervals.values())
                joint += all(i.lower <= t <= i.upper for i, t in zip(deltas, truths, strict=True))
                half += float(np.mean([(i.upper - i.lower) / 2 for i in deltas])) / repeats
            yield name, levels, f"{joint / repeats:.1%}", f"± {half:.1f}"


def sample_coverage(runs: int) -> Iterator[tuple[object, ...]]:
    """The interval of the look at the sample, whose confidence is 99%."""
    for name, model in COVERAGE_MODELS.items():
        difference = simulated(model)
        truth = float((WEIGHTS * difference.mean(axis=0)).sum())
        for images in (200, 1000, 2000):
            rng = np.random.default_rng(6)
            below, above = 0, 0
            for _ in range(runs):
                drawn = difference[rng.integers(0, POPULATION, images)]
                measured = drawn_cells(images, SOME, rng)
                paired = PairedErrors(drawn, BENCHMARK_CORRUPTIONS, SEVERITIES, "none", measured)
                interval = delta_interval(paired, SAMPLE_CONFIDENCE)
                below += truth < interval.lower
                above += truth > interval.upper
            covered = 1 - (below + above) / runs
            yield name, images, f"{covered:.1%}", f"{below / runs:.1%} / {above / runs:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs for each row")
    runs = parser.parse_args().runs
    print("Fewest images for a pass:")
    for tolerance in (0.25, 0.5, 1.0, 2.0):
        print(f"  tolerance {tolerance}: {fewest_images_to_pass(tolerance, alpha=ALPHA):,}")
    table(
        "Coverage of the 95% intervals",
        ("data", "images", "ΔmCE", "missed below / above", "half width", "all 15 at once"),
        coverage(runs),
    )
    table(
        "Wrong verdicts when the loss is exactly at the tolerance (pass / fail), 40 looks",
        ("data", "early stopping", "and the last looks at 2,000", "peeking at the 95% interval"),
        false_verdicts(runs),
    )
    table(
        "Images until the verdict",
        (
            "truth (points)",
            "tolerance",
            "severities",
            "sd of a score",
            "verdict",
            "median",
            "90%",
            "evaluations",
            "less than 50,000 x 76",
        ),
        images_to_verdict(runs),
    )
    table(
        "The whole procedure by size of the set, no loss, tolerance 0.5",
        (
            "data",
            "images",
            "early pass",
            "by the sample",
            "pass",
            "work saved",
            "tolerance that 90% of full runs pass",
        ),
        set_sizes(runs),
    )
    table(
        "Simultaneous intervals where the run stopped itself",
        ("truth", "severities", "all 15 covered", "half width"),
        stopped_corruptions(runs),
    )
    table(
        "Coverage of the 99% interval of a sample, 2 of 5 severities",
        ("data", "images", "ΔmCE", "missed below / above"),
        sample_coverage(runs),
    )


if __name__ == "__main__":
    main()
