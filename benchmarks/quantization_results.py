"""The tables of docs/quantization-results.md: what INT8 costs, recipe by recipe.

    python benchmarks/quantization_results.py --work /tmp/quantization
    python benchmarks/quantization_results.py --work /tmp/quantization --only cifar10
    python benchmarks/quantization_results.py --work /tmp/quantization --table
    python benchmarks/quantization_results.py --work /shared/quantization --on ray:head:6379
    python benchmarks/quantization_results.py --work /tmp/quick --quick      # does it run?

Three models a data set, trained alike but for the seed (with the settings of the built-in model;
all have the same split, and so the same calibration images). Judged on 1,000 test images, clean
and with all 15 corruptions, severities in rotation, paired with the float model. Both dialects run
in OpenVINO on this machine's CPU: the *openvino* graph as NNCF writes it, the *tensorrt* one as it
is legalized.

Latencies are taken on an otherwise idle machine, with --latency: all forms of the first seed's
model in turn, in one run. Rows that differ in numbers only are one graph, and none of these forms.

CIFAR-10 is taken from the .npz file that EDGEKIT_CIFAR10 names; without it that part is skipped.
What is finished in --work is not repeated: one JSON file for each row and seed. On Ray every
training, calibration and fine-tuning, with its judgment, is a task.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from quantization_rows import RECIPES, ROWS, Row
from tasks import Task, add_options, run_all, run_script

from edgekit.bench.interleaved import time_in_turns
from edgekit.core.console import Console
from edgekit.core.files import write_text
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.loading import default_workers
from edgekit.graph.legalize import legalize
from edgekit.metrics.intervals import Interval, agreement_interval, mean_interval
from edgekit.quantize.engine import answers, compile_graph
from edgekit.quantize.probe import Probe, difference, load_probe
from edgekit.quantize.recipes import read_recipe
from edgekit.quantize.results import interval_text
from edgekit.runtime.answers import Answers
from edgekit.steps.artifacts import Exported
from edgekit.steps.build_data import open_data
from edgekit.steps.calibration import Calibration, calibrate, choose_calibration_images
from edgekit.steps.context import Context
from edgekit.steps.float_model import export, obtain_checkpoint
from edgekit.steps.options import DataOptions, SourceOptions
from edgekit.targets import dialects as known
from edgekit.training.builtin_model import BUILTIN
from edgekit.training.run import run_training

SEEDS = (0, 1, 2)
TEST_IMAGES = 1000
QUICK_IMAGES = 16
QUICK_ROWS = ("plain", "biases-corrupted")
DIALECTS = ("openvino", "tensorrt")
FORMS = ("all-int8", "default", "controlled")  # recipes that differ in which layers are in INT8


@dataclasses.dataclass(frozen=True)
class Bench:
    """One data set's part of the work."""

    name: str
    data: str
    work: Path
    console: Console
    test_images: int
    quick: bool

    def recipe(self, name: str) -> str:
        """What a command would be given as ``--recipe``."""
        path = self.work / "recipes" / f"{name}.toml"
        return str(path) if path.exists() else name

    @property
    def images(self) -> DataOptions:
        """The images, split as the training splits them."""
        return DataOptions(self.data, seed=0, skip_bad=False)

    def checkpoint(self, seed: int) -> Path:
        """The model trained with ``seed``, now or before."""
        out = self.work / f"model-{seed}"
        best = out / "best.safetensors"
        if not (out / "done").exists():
            config = dataclasses.replace(
                BUILTIN, data=self.data, seed=seed, out=out, cache=self.work / "features"
            )
            if self.name == "cifar10":
                config = dataclasses.replace(config, train_images=5000)
            if self.quick:
                config = dataclasses.replace(
                    config, train_images=64, validation_images=16, epochs=2, codebook_size=8
                )
            run_training(config, self.console)
            write_text(out / "done", "")
        return best

    @property
    def context(self) -> Context:
        """What the steps of a build want."""
        return Context(self.console, self.work / "cache")

    def exported(self, seed: int) -> Exported:
        """The float graph of the model trained with ``seed``."""
        source = SourceOptions(str(self.checkpoint(seed)))
        return export(self.context, obtain_checkpoint(self.context, source), source)


def int8_graph(bench: Bench, row: Row, seed: int, dialect: str) -> onnx.ModelProto:
    """The INT8 graph of a row as the dialect's runtime gets it."""
    if row.code_weight is None:
        exported = bench.exported(seed)
        data = open_data(bench.images, exported.card.classes)
        recipe = read_recipe(bench.recipe(row.recipe))
        chosen = choose_calibration_images(bench.console, data, recipe)
        calibration = Calibration(exported, data, chosen, known.find_dialect(dialect))
        graph = onnx.load(calibrate(bench.context, calibration).onnx)
        return legalize(graph, calibration.dialect)
    from edgekit.quantize.qat.config import FinetuneConfig
    from edgekit.workflows.finetune import finetune

    out = bench.work / f"{row.slug}-{dialect}-{seed}"
    config = FinetuneConfig(
        checkpoint=str(bench.checkpoint(seed)),
        data=bench.data,
        out=out,
        recipe=bench.recipe(row.recipe),
        dialect=dialect,
        code_weight=row.code_weight,
        epochs=row.epochs,
        threads=1,
        seed=seed,
    )
    return onnx.load(finetune(config, bench.console).onnx)


def test_images(bench: Bench, seed: int) -> Probe:
    """The judge: all 15 corruptions of every test image; corrupted once a data set."""
    exported = bench.exported(seed)
    kept = bench.work / "test-images.npz"
    if not kept.exists():
        data = open_data(bench.images, exported.card.classes)
        probe = load_probe(
            data.test(),
            exported.card.preprocessing,
            images=bench.test_images,
            views=len(BENCHMARK15),
            workers=default_workers(),
        )
        assert probe.labels is not None
        part = kept.with_suffix(".part.npz")
        np.savez(part, pixels=probe.pixels, labels=probe.labels, cells=probe.cells)
        part.replace(kept)
    with np.load(kept) as stored:
        arrays = (stored["pixels"], stored["labels"], stored["cells"])
    return Probe(*arrays, BENCHMARK15, exported.card.preprocessing)


def float_answers(bench: Bench, seed: int, probe: Probe) -> tuple[onnx.ModelProto, Answers]:
    """The float graph, and what it says (kept on disk)."""
    graph = onnx.load(bench.exported(seed).onnx)
    kept = bench.work / f"float-{seed}.npz"
    if not kept.exists():
        said = answers(graph, probe.flat(), probe.preprocessing)
        assert said.code is not None
        np.savez(kept.with_suffix(".part.npz"), logits=said.logits, code=said.code)
        kept.with_suffix(".part.npz").replace(kept)
    with np.load(kept) as stored:
        return graph, Answers(stored["logits"], stored["code"], None)


def measure(bench: Bench, row: Row, seed: int, dialect: str) -> dict[str, Any]:
    """One row's figures for one seed, out of --work if they are there."""
    slug = row.slug
    found = _kept(bench, row, dialect, seed)
    if not found.exists():
        bench.console.info(f"== {bench.name}: {row.name}, {dialect}, seed {seed}")
        start = time.monotonic()
        graph = int8_graph(bench, row, seed, dialect)
        made = time.monotonic() - start
        probe = test_images(bench, seed)
        _, reference = float_answers(bench, seed, probe)
        said = answers(graph, probe.flat(), probe.preprocessing)
        assert said.code is not None
        onnx.save(graph, bench.work / f"{slug}-{dialect}-{seed}.onnx")
        np.savez(bench.work / f"{slug}-{dialect}-{seed}.npz", logits=said.logits, code=said.code)
        result = {
            **dataclasses.asdict(difference(probe, reference, said)),
            "float": dataclasses.asdict(difference(probe, reference, reference)),
            "per_image": per_image(probe, reference, said),
            "top1_agreement": float((said.logits.argmax(1) == reference.logits.argmax(1)).mean()),
            "seconds": made,
            "bytes": len(graph.SerializeToString()),
        }
        found.parent.mkdir(exist_ok=True)
        write_text(found, json.dumps(result, indent=1))
    return dict(json.loads(found.read_text()))


def tasks(
    bench: Bench, rows: Sequence[Row], seeds: Sequence[int], dialects: Sequence[str]
) -> list[Task]:
    """Models, then test images, the float models' answers, and all rows."""
    work, first = bench.work, f"{bench.name}/model-{seeds[0]}"
    images = f"{bench.name}/test-images"
    found = []
    for seed in seeds:
        name, result = f"{bench.name}/model-{seed}", work / f"model-{seed}" / "done"
        # All models are trained on the same features.
        after = (first,) if name != first else ()
        found.append(Task(name, result, partial(bench.checkpoint, seed), after=after))
    judge = partial(test_images, bench, seeds[0])
    found.append(Task(images, work / "test-images.npz", judge, needs=(first,)))
    for seed in seeds:
        answered = f"{bench.name}/float-{seed}"
        answer = partial(answer_in_float, bench, seed)
        needs = (images, f"{bench.name}/model-{seed}")
        found.append(Task(answered, work / f"float-{seed}.npz", answer, needs=needs))
        for row in rows:
            before: tuple[str, ...] = ()
            for dialect in dialects:
                name = f"{bench.name}/{row.slug}-{dialect}-{seed}"
                make = partial(measure, bench, row, seed, dialect)
                result = _kept(bench, row, dialect, seed)
                found.append(Task(name, result, make, needs=(answered,), after=before))
                if row.code_weight is None:  # most calibrations are the same for all dialects
                    before = (name,)
    return found


def answer_in_float(bench: Bench, seed: int) -> None:
    """See `float_answers`."""
    float_answers(bench, seed, test_images(bench, seed))


def latency(bench: Bench, seconds: float) -> str:
    """Markdown: what one image takes in each form of the graph, beside the float graph's time."""
    exported = bench.exported(0)
    height, width = exported.card.preprocessing.size
    image = np.zeros((1, 3, height, width), np.float32)
    graphs = {("float", ""): exported.onnx}
    for form in FORMS:
        for dialect in DIALECTS:
            graphs[form, dialect] = bench.work / f"{form}-{dialect}-0.onnx"
    runs = {}
    for (form, dialect), path in graphs.items():
        request = compile_graph(onnx.load(path), hint="LATENCY").model.create_infer_request()
        runs[f"{form} {dialect}".strip()] = lambda request=request: request.infer({"images": image})
    ratios = time_in_turns("float", runs, seconds=seconds).ratios
    lines = [f"**{bench.name}**", "", f"| | {' | '.join(DIALECTS)} |", "|---|---|---|"]
    for form in FORMS:
        found = [ratios[f"{form} {dialect}"] for dialect in DIALECTS]
        cells = [f"{one.median:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in found]
        lines.append(f"| `{form}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def per_image(probe: Probe, reference: Answers, said: Answers) -> dict[str, list[float]]:
    """Each image's points of change of the mean corruption error, and its share of equal codes."""
    shape = probe.pixels.shape[:2]
    assert probe.labels is not None
    assert said.code is not None
    assert reference.code is not None
    wrong = [
        answers.logits.argmax(1).reshape(shape) != probe.labels[:, None]
        for answers in (reference, said)
    ]
    change = wrong[1].astype(float) - wrong[0]
    same = (reference.code == said.code).reshape(*shape, -1).mean(axis=2)
    return {
        "change": (100 * change[:, 1:].mean(axis=1)).tolist(),
        "same_code": same[:, 1:].mean(axis=1).tolist(),
    }


def pooled(results: Sequence[dict[str, Any]]) -> tuple[Interval, Interval]:
    """Change and equal codes over all seeds' models; the unit stays the image, which they share."""
    scores = [
        np.mean([r["per_image"][name] for r in results], 0) for name in ("change", "same_code")
    ]
    return mean_interval(scores[0], 100.0), agreement_interval(scores[1])


def table(bench: Bench, seeds: Sequence[int], dialects: Sequence[str]) -> str:
    """Markdown: means over the seeds, ± half of (largest - smallest)."""
    lines = [
        f"**{bench.name}**",
        "",
        "| | dialect | clean error % | mean corruption error % | change against float, points "
        "| codes equal, clean % | codes equal, corrupted % | KL | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    first = True
    for row in ROWS:
        for dialect in dialects:
            done = [seed for seed in seeds if _kept(bench, row, dialect, seed).exists()]
            if not done:
                continue
            results = [measure(bench, row, seed, dialect) for seed in done]
            name = row.name
            if len(done) < len(seeds):
                name += f" (seed {', '.join(map(str, done))})"
            if first:
                plain = [result["float"] for result in results]
                lines.append(
                    f"| float | | {_spread([p['clean_error'] for p in plain])} "
                    f"| {_spread([p['corruption_error'] for p in plain])} | | | | | "
                    f"{bench.exported(seeds[0]).onnx.stat().st_size / 1e6:.1f} |"
                )
                first = False
            change, same = pooled(results)
            lines.append(
                f"| {name} | {dialect} | {_spread([r['clean_error'] for r in results])} "
                f"| {_spread([r['corruption_error'] for r in results])} | {interval_text(change)} "
                f"| {_spread([100 * r['code_clean'] for r in results])} "
                f"| {interval_text(same, 100)[1:]} | {np.mean([r['kl'] for r in results]):.4f} "
                f"| {np.mean([r['bytes'] for r in results]) / 1e6:.1f} |"
            )
    return "\n".join(lines)


def _kept(bench: Bench, row: Row, dialect: str, seed: int) -> Path:
    return bench.work / "rows" / f"{row.slug}-{dialect}-{seed}.json"


def _spread(values: Sequence[float]) -> str:
    middle = f"{np.mean(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ± {(max(values) - min(values)) / 2:.2f}"


def main() -> list[str]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for models and results")
    parser.add_argument("--only", choices=("fashion-mnist", "cifar10"))
    parser.add_argument("--rows", nargs="+", choices=[row.slug for row in ROWS], help="only these")
    parser.add_argument("--dialects", nargs="+", choices=[*known.DIALECTS], default=DIALECTS)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of the seeds")
    parser.add_argument(
        "--images", type=int, default=TEST_IMAGES, help="test images; other numbers, other --work"
    )
    parser.add_argument("--table", action="store_true", help="print what is finished, run nothing")
    parser.add_argument("--latency", type=float, metavar="SECONDS", help="only this")
    parser.add_argument("--quick", action="store_true", help="few images and rows; own --work")
    add_options(parser)
    arguments = parser.parse_args()
    slugs = arguments.rows or (QUICK_ROWS if arguments.quick else [row.slug for row in ROWS])
    images = QUICK_IMAGES if arguments.quick else arguments.images
    # Nobody sees what tasks print on Ray.
    console = Console()
    of_tasks = Console(verbosity=-1) if arguments.on else console
    seeds = SEEDS[: arguments.seeds]
    benches: list[Bench] = []
    waiting: list[Task] = []
    cifar = os.environ.get("EDGEKIT_CIFAR10")
    for name, data in (("fashion-mnist", "builtin:fashion-mnist"), ("cifar10", cifar)):
        if arguments.only not in (None, name):
            continue
        if data is None:
            print("EDGEKIT_CIFAR10 names no file: CIFAR-10 is skipped")
            continue
        bench = Bench(name, data, arguments.work / name, of_tasks, images, arguments.quick)
        benches.append(bench)
        (bench.work / "recipes").mkdir(parents=True, exist_ok=True)
        few = f"images = {QUICK_IMAGES}\n" if arguments.quick else ""
        for recipe, text in RECIPES.items():
            (bench.work / "recipes" / f"{recipe}.toml").write_text(text + few)
        rows = [row for row in ROWS if row.slug in slugs]
        waiting += tasks(bench, rows, seeds, arguments.dialects)
    failed: list[str] = []
    if not (arguments.table or arguments.latency):
        failed = run_all(waiting, arguments.on, arguments.cpus, console)
    for bench in benches:
        if arguments.latency:
            print(latency(bench, arguments.latency), end="\n\n", flush=True)
        else:
            print(table(bench, seeds, arguments.dialects), end="\n\n", flush=True)
    return failed


if __name__ == "__main__":
    run_script(main)
