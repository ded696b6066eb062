"""The tables of docs/results.md: VQ-SA's head beside plain training on the same images.

    python benchmarks/training_results.py --work /tmp/results
    python benchmarks/training_results.py --work /tmp/results --only fashion-mnist --table
    python benchmarks/training_results.py --work /shared/results --on ray:head:6379
    python benchmarks/training_results.py --work /tmp/quick --quick      # does it run?

CIFAR-10 is taken from the .npz file that EDGEKIT_CIFAR10 names (`train_jpeg`, `train_offsets`,
`train_labels`, the same for `test_`, and `classes`); without it that part is skipped. Runs that
are finished in --work are not repeated, and features of the frozen backbone are shared between
them, so an interrupted script goes on where it stopped. On Ray every training is a task.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tasks import Task, add_options, run_all, run_script

from edgekit.core.console import Console
from edgekit.core.files import write_text
from edgekit.data.base import labels, subset
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.datasets import open_dataset
from edgekit.data.loading import default_workers
from edgekit.data.pool import Pool
from edgekit.data.splits import split_dataset, stratified_sample
from edgekit.model.checkpoint import load_checkpoint
from edgekit.model.config import OutputForm
from edgekit.training.config import TrainConfig
from edgekit.training.determinism import reproducible
from edgekit.training.distributed import World
from edgekit.training.evaluation import evaluate_features, evaluation_views
from edgekit.training.feature_cache import FeatureCache, FrozenNetwork, usable_rows
from edgekit.training.results import Evaluation
from edgekit.training.run import run_training
from edgekit.training.stop_signal import StopSignal
from edgekit.training.validation import evaluate_images, image_groups
from edgekit.training.views import ViewLoader

SEEDS = (0, 1, 2)
RESULT = "test.json"
TRAIN_IMAGES, TEST_IMAGES = 3000, 1000
QUICK_TEST_IMAGES = 16
CPU = torch.device("cpu")
BASE = TrainConfig(
    image_size=96, train_images=TRAIN_IMAGES, validation_images=300, threads=1, save_every=600.0
)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row of a table: what it is called, and its settings."""

    name: str
    config: TrainConfig
    seeds: tuple[int, ...] = SEEDS


def main_variants() -> Iterator[Variant]:
    """Every head on the same images, for both sets of seen corruptions."""
    clean = dataclasses.replace(BASE, head="none", pairing="clean", seen="none")
    yield Variant("clean images only, no codebook", clean)
    for seen in ("benchmark15", "extra4"):
        heads: tuple[tuple[OutputForm, str], ...] = (
            ("none", "paired, no codebook"),
            ("replace", "paired, VQ, replace"),
            ("concat", "paired, VQ, concat"),
            ("attention", "paired, VQ-SA, attention"),
        )
        for head, name in heads:
            config = dataclasses.replace(BASE, head=head, seen=seen)
            yield Variant(name, config)


def ablations() -> Iterator[Variant]:
    """What might move VQ-SA, one change at a time."""
    base = dataclasses.replace(BASE, seen="benchmark15")
    for name, changes in (
        ("attention starts at random, as released", {"attention_start": "random"}),
        ("codebook of 32", {"codebook_size": 32}),
        ("spatial quantization", {"quantize": "spatial"}),
        ("15 epochs, no codebook", {"epochs": 15, "head": "none"}),
        ("15 epochs", {"epochs": 15}),
        ("codebook of 1000", {"codebook_size": 1000}),
        ("backbone learns for 1 more epoch, no codebook", {"finetune_epochs": 1, "head": "none"}),
        ("backbone learns for 1 more epoch", {"finetune_epochs": 1}),
        ("residual form, codebook from epoch 2", {"head": "residual", "quantizer_start": 1}),
        ("codebook by moving average", {"codebook_update": "ema"}),
        ("codebook at random, no k-means", {"kmeans": False}),
        ("sampled pairing, as released", {"pairing": "sampled"}),
    ):
        # What moved it most is worth more than one seed.
        seeds = SEEDS if "finetune_epochs" in changes else SEEDS[:1]
        yield Variant(name, dataclasses.replace(base, **changes), seeds)


def tasks(
    variants: Sequence[Variant], data: str, work: Path, test_images: int, console: Console
) -> list[Task]:
    """A task for every variant and seed. The first ones compute the features that others share."""
    found: list[Task] = []
    first: dict[tuple[object, ...], str] = {}  # by what the features of training images depend on
    for variant in variants:
        for seed, result in zip(variant.seeds, _results(variant, work), strict=True):
            config = dataclasses.replace(
                variant.config, data=data, seed=seed, out=result.parent, cache=work / "features"
            )
            name = f"{work.name}/{result.parent.name}"
            features = (config.seen, config.quantize, config.pairing == "clean")
            after = {found[0].name} if found else set()  # those of test images, the same for all
            after |= {first[features]} if features in first else set()
            first.setdefault(features, name)
            make = partial(train_and_test, config, test_images, console)
            found.append(Task(name, result, make, after=tuple(after)))
    return found


def train_and_test(config: TrainConfig, test_images: int, console: Console) -> None:
    """Train, and judge the best checkpoint on test images."""
    run_training(config, console)
    evaluation = test(config, test_images, console)
    write_text(config.out / RESULT, json.dumps(evaluation.to_dict()))


def test(config: TrainConfig, images: int, console: Console) -> Evaluation:
    """All 15 benchmark corruptions on test images, severities in rotation."""
    loaded = load_checkpoint(config.out / "best.safetensors")
    model, preprocessing = loaded.model, loaded.card.preprocessing
    dataset = open_dataset(config.data)
    rows = stratified_sample(dataset, images, indices=split_dataset(dataset).test)
    with StopSignal() as stop, reproducible(0, config.threads):
        if config.finetune_epochs:
            with Pool(dataset, ViewLoader(preprocessing), default_workers()) as pool:
                groups = image_groups(rows, BENCHMARK15, preprocessing, pool, World())
                return evaluate_images([model], groups, BENCHMARK15, CPU, World())[0]
        assert config.cache is not None
        held_out = subset(dataset, rows)
        cache = FeatureCache(
            config.cache,
            held_out,
            FrozenNetwork(model.backbone, preprocessing, config.quantize, CPU),
            default_workers(),
        )
        views = evaluation_views(np.arange(len(rows)), BENCHMARK15)
        stores = cache.stores(list(views.values()), "test features", console, stop)
        codebook = model.head.codebook
        with torch.inference_mode():
            return evaluate_features(
                model.head,
                dict(zip(views, stores, strict=True)),
                labels(held_out),
                usable_rows(stores),
                None if codebook is None else len(codebook.usage),
                CPU,
                World(),
            )


def table(title: str, rows: Sequence[tuple[Variant, list[Evaluation]]]) -> str:
    """Markdown: percent, mean and (largest - smallest) / 2 over the seeds."""
    lines = [
        f"**{title}**",
        "",
        "| training | seen | clean error | mean corruption error | codes used (perplexity) "
        "| same code clean and corrupted |",
        "|---|---|---|---|---|---|",
    ]
    for variant, results in rows:
        clean = [100 * result.clean_error for result in results]
        corrupted = [100 * (result.mean_corruption_error or 0) for result in results]
        codes, same = "—", "—"
        if results[0].code_perplexity is not None:
            used = np.mean([result.used_codes or 0 for result in results])
            spread = np.mean([result.code_perplexity or 0 for result in results])
            codes = f"{used:.0f} of {variant.config.codebook_size} ({spread:.0f})"
            same = f"{100 * np.mean([result.code_agreement or 0 for result in results]):.0f}%"
        lines.append(
            f"| {variant.name} | {variant.config.seen} | {_spread(clean)} | {_spread(corrupted)} "
            f"| {codes} | {same} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    middle = f"{np.mean(values):.1f}"
    return middle if len(values) == 1 else f"{middle} ± {(max(values) - min(values)) / 2:.1f}"


def main() -> list[str]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and features")
    parser.add_argument("--only", choices=("fashion-mnist", "cifar10", "ablations"))
    parser.add_argument("--table", action="store_true", help="print what is finished, run nothing")
    parser.add_argument(
        "--quick", action="store_true", help="few images and runs, in a --work of its own"
    )
    add_options(parser)
    arguments = parser.parse_args()
    console = Console()
    of_tasks = Console(verbosity=-1) if arguments.on else console  # nobody sees what they print
    cifar = os.environ.get("EDGEKIT_CIFAR10")
    parts = [
        ("fashion-mnist", "builtin:fashion-mnist", list(main_variants())),
        ("cifar10", cifar, list(main_variants())),
        ("ablations", "builtin:fashion-mnist", list(ablations())),
    ]
    chosen: list[tuple[str, Path, list[Variant]]] = []
    waiting: list[Task] = []
    for name, data, variants in parts:
        if arguments.only not in (None, name):
            continue
        if data is None:
            console.warn("EDGEKIT_CIFAR10 names no file: CIFAR-10 is skipped")
            continue
        if arguments.quick:
            variants = [quick(variant) for variant in variants[:3]]
        work = arguments.work / ("cifar10" if name == "cifar10" else "fashion-mnist")
        chosen.append((name, work, variants))
        images = QUICK_TEST_IMAGES if arguments.quick else TEST_IMAGES
        waiting += tasks(variants, data, work, images, of_tasks)
    failed = [] if arguments.table else run_all(waiting, arguments.on, arguments.cpus, console)
    for name, work, variants in chosen:
        rows = []
        for variant in variants:
            found = _results(variant, work)
            if all(path.exists() for path in found):
                read = [Evaluation(**json.loads(path.read_text())) for path in found]
                rows.append((variant, read))
        print(table(name, rows), end="\n\n", flush=True)
    return failed


def quick(variant: Variant) -> Variant:
    """The same in seconds; what it finds means nothing."""
    config = dataclasses.replace(
        variant.config, train_images=64, validation_images=16, epochs=2, codebook_size=8
    )
    return Variant(variant.name, config, variant.seeds[:1])


def _results(variant: Variant, work: Path) -> list[Path]:
    """Where each seed's evaluation is kept."""
    slug = f"{variant.config.seen}-{variant.name}".replace(" ", "-").replace(",", "")
    return [work / f"{slug}-{seed}" / RESULT for seed in variant.seeds]


if __name__ == "__main__":
    run_script(main)
