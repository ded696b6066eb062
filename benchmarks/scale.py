"""What a parity sweep on Ray costs beside one on this machine, in turns, in one run.

    python benchmarks/scale.py [--images N] [--rounds N] [--shards N] [--check N] [--predict]
        [--checkpoint built-in.safetensors] [--bundle build/cpu --reference float.onnx]

Four measurements, of the built-in model, which is EfficientNet-Lite0 at 96 px with a VQ-SA head:

- what the driver spends on each of 10,000 shards that nobody has to work on (goal: under 2 ms),
- how many images an hour two Ray workers do on two cores, beside the plain sweep on the same two
  cores (goal: at least 0.9 of it), and whether both give the same answers,
- processor seconds of one image: loading and corrupting, the float model, the INT8 bundle,
- what a whole comparison of --check images on Ray takes, beside what these pieces predict, and
  what the driver spends on it: on the first images, of which it answers some itself to choose the
  float model's engine, and on each later one.

--predict prints what all of ImageNet-C costs on 1, 16 and 256 cores, from these measurements.
The exit code is 0 if the answers are the same and both goals are met.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from full_sweep import full_sweep

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

IMAGENET_C = 50_000  # images, each clean and in 75 cells
CELLS = 75
FIRST = 5  # images, of which the driver answers some
LEAST_EFFICIENCY, MOST_OVERHEAD = 0.9, 2e-3


class Cost(NamedTuple):
    """Processor seconds of an image in all cells."""

    pixels: float
    reference: float
    candidate: float

    @property
    def total(self) -> float:
        return sum(self)


class Round(NamedTuple):
    """Seconds an image."""

    here: float
    ray: float
    here_cpu: float
    ray_cpu: float

    @property
    def ratio(self) -> float:
        return self.here / self.ray


class Checked(NamedTuple):
    """Processor seconds of a comparison."""

    workers: float
    first: float  # of the driver, up to image number `FIRST`
    later: float  # of the driver, on each later image


class Marked:
    """An executor that notes the driver's processor time whenever it is an image's turn."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self.marks: list[float] = []

    @property
    def cpu_seconds(self) -> float:
        return float(self.executor.cpu_seconds)

    def run(self, *arguments: Any) -> Iterator[Any]:
        with closing(self.executor.run(*arguments)) as shards:
            for shard in shards:
                self.marks.append(time.process_time())
                yield shard


class Nothing:
    """A model that answers at once, and what Ray's workers open instead of one."""

    name = source = "nothing"
    key = "nothing"
    training = "seen=none"
    classes = tuple(map(str, range(10)))

    def __init__(self, preprocessing: Any) -> None:
        self.preprocessing = preprocessing

    @property
    def opener(self) -> Any:
        return partial(Nothing, self.preprocessing)

    def run(self, images: Any) -> Any:
        import numpy as np

        from edgekit.runtime.answers import Answers

        return Answers(np.zeros((len(images), 10), np.float32), None, None)


class NoPixels:
    """Makes black images of one pixel."""

    def fingerprint(self) -> str:
        return "black"

    def __call__(self, dataset: Any, task: Any) -> Any:
        import numpy as np

        return np.zeros((len(task[1]), 1, 1, 3), np.uint8)


def main() -> int:
    options = arguments()
    os.environ["EDGEKIT_CACHE"] = str(options.folder / "cache")
    bundle, reference = options.bundle, options.reference
    if bundle is None or reference is None:
        bundle, reference = prepare(options.checkpoint, options.folder)
    from edgekit.core.console import Console
    from edgekit.parity.ray_cluster import executor_on

    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with executor_on("ray", Console(verbosity=-1)) as ray:
        cpu, wall = overhead(ray, options.shards)
        print(
            f"{options.shards:,} empty shards: {1e3 * wall:.2f} ms each, of which the driver "
            f"computes {1e3 * cpu:.2f} ms",
            flush=True,
        )
        checked = check(ray, options, bundle, reference) if options.check else None
        rounds, same = side_by_side(ray, options, bundle, reference)
    efficiency = statistics.median(found.ratio for found in rounds)
    print(f"two Ray workers beside the plain sweep: {efficiency:.2f} x its images an hour, and")
    work = statistics.median(found.here_cpu / found.ray_cpu for found in rounds)
    print(f"{work:.2f} x its images for a processor second")
    print("answers " + ("equal" if same else "DIFFER"))
    cost = cost_of_an_image(bundle, reference, options)
    print(
        f"processor seconds an image in {CELLS} cells and clean: {cost.total:.2f} (pixels "
        f"{cost.pixels:.2f}, float model {cost.reference:.2f}, bundle {cost.candidate:.2f})"
    )
    if checked is not None:
        print(f"{options.check} images in a comparison: predicted {options.check * cost.total:.0f}")
        print(f"processor seconds of workers, measured {checked.workers:.0f}; the driver spent")
        print(
            f"{checked.first:.1f} s up to image {FIRST}, "
            f"{1e3 * checked.later:.1f} ms on each later one"
        )
    if options.predict:
        predict(cost, work, None if checked is None else checked.later)
    print(f"load average after: {os.getloadavg()[0]:.1f}")
    return 0 if same and efficiency >= LEAST_EFFICIENCY and wall < MOST_OVERHEAD else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="the built-in one, where it is trained already")
    parser.add_argument("--bundle", type=Path, help="the built-in one, where it is built already")
    parser.add_argument("--reference", type=Path, help="its float ONNX file")
    parser.add_argument("--check", type=int, default=0, help="images of a whole comparison")
    parser.add_argument("--images", type=int, default=40, help="images a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--predict", action="store_true", help="ImageNet-C on many cores")
    folder = Path(tempfile.gettempdir()) / "edgekit-benchmark-scale"
    parser.add_argument("--folder", type=Path, default=folder)
    return parser.parse_args()


def prepare(checkpoint: str | None, folder: Path) -> tuple[Path, Path]:
    """The built-in bundle and its float ONNX file; kept for the next run."""
    from edgekit.core.console import Console
    from edgekit.steps.config import BuildConfig
    from edgekit.workflows.build import build

    config = BuildConfig(
        checkpoint=checkpoint,
        data="builtin:fashion-mnist",
        out=str(folder / "build"),
        bench=False,
        parity=False,
        watch=False,
    )
    bundle = build(config, Console(verbosity=-1))[0].path
    return bundle, next((folder / "cache/export").glob("*/model.onnx"))


def overhead(ray: Any, shards: int) -> tuple[float, float]:
    """The driver's processor seconds and seconds for a shard that takes a worker no time."""
    from edgekit.data.datasets import open_dataset
    from edgekit.data.transforms import IMAGENET
    from edgekit.parity.executors import Job, Shard

    model: Any = Nothing(IMAGENET)
    pixels: Any = NoPixels()
    job = Job(open_dataset("builtin:fashion-mnist"), pixels, (model,), 0)

    def empty(count: int) -> Iterator[Shard]:
        return (Shard(place, 0, (0,), ((0,),)) for place in range(count))

    for _ in ray.run(job, empty(100), lambda *_: None):  # until the workers are there
        pass
    start, before = time.perf_counter(), time.process_time()
    done = sum(1 for _ in ray.run(job, empty(shards), lambda *_: None))
    assert done == shards
    return (time.process_time() - before) / shards, (time.perf_counter() - start) / shards


def check(ray: Any, options: argparse.Namespace, bundle: Path, reference: Path) -> Checked:
    """A whole comparison on Ray, with all that the driver does."""
    from edgekit.core.console import Console
    from edgekit.parity.compare import run_comparison
    from edgekit.parity.options import ParityOptions

    marked, before, start = Marked(ray), ray.cpu_seconds, time.process_time()
    this = full_sweep(bundle, reference, options.check, 100, options.folder, marked)
    run_comparison(this, ParityOptions(full=True), Console(verbosity=-1))
    later = (marked.marks[-1] - marked.marks[FIRST - 1]) / (options.check - FIRST)
    return Checked(ray.cpu_seconds - before, marked.marks[FIRST - 1] - start, later)


def side_by_side(
    ray: Any, options: argparse.Namespace, bundle: Path, reference: Path
) -> tuple[list[Round], bool]:
    """The plain sweep's time beside Ray's, in turns; and whether both give the same answers."""
    from edgekit.parity.executors import LOCAL

    rounds, same = [], True
    for turn in range(options.rounds + 1):  # the first warms up and does not count
        seconds, found, cpu = [], [], []
        for executor in (LOCAL, ray):
            this = full_sweep(bundle, reference, options.images, turn, options.folder, executor)
            answers, times = [], []
            before = all_cpu(executor)
            for pair in this.pairs():
                times.append(time.perf_counter())
                answers.append([part.tolist() for part in (pair.reference[0], pair.candidate[0])])
            # From the fourth on: before, either engine of the float model answers everything.
            cpu.append((all_cpu(executor) - before) / options.images)
            seconds.append((times[-1] - times[4]) / (len(times) - 5))
            found.append(answers)
        same = same and found[0] == found[1]
        if turn:
            rounds.append(Round(seconds[0], seconds[1], cpu[0], cpu[1]))
            print(
                f"round {turn}: {seconds[0]:.2f} s an image here, {seconds[1]:.2f} s on Ray: "
                f"{rounds[-1].ratio:.2f} x; processor {cpu[0]:.2f} s and {cpu[1]:.2f} s",
                flush=True,
            )
    return rounds, same


def all_cpu(executor: Any) -> float:
    """Processor seconds of this process, its children that have ended, and Ray's workers."""
    times = os.times()
    here = times.user + times.system + times.children_user + times.children_system
    return here + float(executor.cpu_seconds)


def cost_of_an_image(bundle: Path, reference: Path, options: argparse.Namespace) -> Cost:
    """Processor seconds of what a worker does, in one process with one thread."""
    from edgekit.core.host import limit_threads

    limit_threads(1)
    this = full_sweep(bundle, reference, options.images, 0, options.folder)
    reference_model = this.reference
    every = tuple(range(this.make.count))
    spent: list[list[float]] = [[], [], []]
    for turn in range(6):
        marks = [time.process_time()]
        pixels = this.make(this.dataset, (turn, every))
        marks.append(time.process_time())
        reference_model.run(pixels)
        marks.append(time.process_time())
        this.candidate.run(pixels)
        marks.append(time.process_time())
        if turn > 1:  # by then it is decided which engine runs the float model
            for part, (start, end) in zip(spent, itertools.pairwise(marks), strict=True):
                part.append(end - start)
    return Cost(*map(statistics.median, spent))


def predict(cost: Cost, efficiency: float, driver: float | None) -> None:
    """All of ImageNet-C, from the measured pieces, for a driver that keeps up."""
    print("\n| cores | hours, if the driver keeps up |")
    print("|---|---|")
    for cores in (1, 16, 256):
        seconds = IMAGENET_C * cost.total / cores / min(1.0, efficiency)
        print(f"| {cores} | {seconds / 3600:.2g} |")
    if driver is not None:
        print(f"\nthe driver is busy all the time with {cost.total / driver:,.0f} workers")


if __name__ == "__main__":
    sys.exit(main())
