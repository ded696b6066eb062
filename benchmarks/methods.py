"""The tables of docs/methods.md: training with and without each method, on the same images.

    EDGEKIT_CIFAR10=cifar10-jpeg.npz python benchmarks/methods.py --work /tmp/methods

For every seed a frozen EfficientNet-Lite0 gets a head, and then learns with it for a few epochs:
plainly, and with each method. The last checkpoint of each is judged on test images. A difference
is between two runs of one seed, its interval Student's over the seeds: it covers weights and
order, not another draw of images. EDGEKIT_CIFAR10 is explained in training_results.py; without
it, `--data builtin:fashion-mnist`. Finished runs in --work are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student

from edgekit.core.console import Console
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.datasets import open_dataset
from edgekit.data.pool import Pool
from edgekit.data.splits import split_dataset, stratified_sample
from edgekit.model.checkpoint import load_checkpoint
from edgekit.training.config import TrainConfig
from edgekit.training.determinism import reproducible
from edgekit.training.distributed import World
from edgekit.training.evaluation import Tally, choices
from edgekit.training.initial_weights import starting_point
from edgekit.training.losses import Learner
from edgekit.training.methods.base import create_methods
from edgekit.training.results import Evaluation
from edgekit.training.run import run_training
from edgekit.training.validation import Group, image_groups
from edgekit.training.views import ViewLoader

CPU = torch.device("cpu")
# Small on purpose: minutes of one processor. The 15 benchmark corruptions are not seen.
BASE = TrainConfig(
    image_size=48,
    train_images=600,
    validation_images=10,
    variants=1,
    seen="extra4",
    batch_size=16,
    finetune_epochs=2,
    finetune_lr=0.002,
    workers=0,
    threads=1,
    save_every=600.0,
)
METHODS: dict[str, dict[str, float]] = {
    "none": {},
    "preserve": {"preserve": 1.0},
    "denoise": {"denoise": 10.0},
}


def settings(data: str, work: Path, method: str, seed: int) -> TrainConfig:
    """A run's settings; features of the frozen backbone are shared by all."""
    return dataclasses.replace(
        BASE,
        data=data,
        seed=seed,
        out=work / f"{method}-{seed}",
        cache=work / "features",
        **METHODS[method],  # type: ignore[arg-type] # fields that are floats
    )


def test_groups(data: str, images: int) -> list[Group]:
    """Test images, clean and under the 15 benchmark corruptions, corrupted once for all runs."""
    preprocessing = starting_point(dataclasses.replace(BASE, data=data), Console()).preprocessing
    dataset = open_dataset(data)
    rows = stratified_sample(dataset, images, indices=split_dataset(dataset).test)
    with Pool(dataset, ViewLoader(preprocessing), 0) as pool:
        return list(image_groups(rows, BENCHMARK15, preprocessing, pool, World()))


@torch.inference_mode()
def judge(checkpoint: Path, groups: Sequence[Group]) -> Evaluation:
    """The errors of a checkpoint, which is a plain model whatever trained it."""
    model = load_checkpoint(checkpoint).model.eval()
    tally = Tally(BENCHMARK15, BASE.codebook_size)
    with reproducible(0, BASE.threads):
        for group in groups:
            output = model(torch.from_numpy(group.pixels))
            tally.add(group.labels, group.severities, choices(output, 1 + len(BENCHMARK15)))
    return tally.result(World(), CPU)


def result(config: TrainConfig, groups: Sequence[Group], console: Console) -> Evaluation:
    """Train and judge, unless that is done."""
    path = config.out / "test.json"
    if not path.exists():
        console.info(f"== {config.out.name}")
        run_training(config, console)
        path.write_text(json.dumps(judge(config.out / "last.safetensors", groups).to_dict()))
    return Evaluation(**json.loads(path.read_text()))


def table(results: dict[str, list[Evaluation]]) -> str:
    """Markdown: means over the seeds, in percent, and differences with 95% intervals."""
    lines = [
        "| method | clean error | change | mean corruption error | change |",
        "|---|" + 4 * "---|",
    ]
    plain = results["none"]
    for method, evaluations in results.items():
        cells = []
        for errors in (_clean, _corrupted):
            values = [errors(one) for one in evaluations]
            cells.append(f"{np.mean(values):.1f}")
            differences = [v - errors(p) for v, p in zip(values, plain, strict=True)]
            cells.append("—" if method == "none" else _interval(differences))
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _clean(evaluation: Evaluation) -> float:
    return 100 * evaluation.clean_error


def _corrupted(evaluation: Evaluation) -> float:
    return 100 * (evaluation.mean_corruption_error or 0.0)


def _interval(differences: Sequence[float]) -> str:
    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        return f"{mean:+.1f}"
    half = float(student.ppf(0.975, count - 1) * np.std(differences, ddof=1) / count**0.5)
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def step_costs(repeats: int = 12) -> dict[str, float]:
    """Processor time of one step of training, in milliseconds: the median, methods in turn."""
    learners: dict[str, Learner] = {}
    spent: dict[str, list[float]] = {method: [] for method in METHODS}
    for method, weights in METHODS.items():
        config = dataclasses.replace(BASE, **weights)  # type: ignore[arg-type]
        model, _ = starting_point(config, Console()).model_for(("a", "b"), config)
        model.backbone.eval()
        methods = create_methods(
            config, model, (48, 48), is_trained=True, has_head=False, freezes=False
        )
        for one in methods:
            one.attach(model)
        learners[method] = Learner(model, 0.0, methods)
    side = BASE.image_size or 0
    images = torch.randn(2 * BASE.batch_size, 3, side, side)
    labels = torch.zeros(len(images), dtype=torch.long)
    with reproducible(0, 1):
        for _ in range(repeats):
            for method, learner in learners.items():
                started = time.process_time()
                learner(images, labels, True, True).total.backward()
                spent[method].append(1000 * (time.process_time() - started))
    return {method: float(np.median(times)) for method, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and features")
    parser.add_argument("--data", default=os.environ.get("EDGEKIT_CIFAR10"), help="images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-images", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name images with --data, or CIFAR-10's file in EDGEKIT_CIFAR10")
    console, started = Console(), time.process_time()
    costs = step_costs()
    for method, milliseconds in costs.items():
        ratio = milliseconds / costs["none"]
        print(f"{method}: {milliseconds:.0f} ms of processor time a step, {ratio:.2f} times plain")
    groups = test_groups(arguments.data, arguments.test_images)
    results: dict[str, list[Evaluation]] = {method: [] for method in METHODS}
    for seed in range(arguments.seeds):
        for method in METHODS:
            config = settings(arguments.data, arguments.work, method, seed)
            results[method].append(result(config, groups, console))
        print(f"\nseeds: {seed + 1}\n\n{table(results)}", flush=True)
    print(f"\n{time.process_time() - started:.0f} s of processor time")


if __name__ == "__main__":
    main()
