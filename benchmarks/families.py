"""The table of docs/families.md: what INT8 does to trained models of many families.

    python benchmarks/families.py --work /tmp/families --data cifar10.npz
    python benchmarks/families.py --work /tmp/families --data cifar10.npz --only vit_tiny
    python benchmarks/families.py --work /tmp/families --table

Each family is trained as a VQ-SA model on pairs of clean and corrupted CIFAR-10 images, exported,
calibrated with the shipped recipe and judged on test images, clean and under all 15 corruptions,
severities in rotation, paired with its own float model: in OpenVINO on this machine's CPU, and in
ONNX Runtime in the forms for ONNX Runtime and for TensorRT. The latter is calculated as it is
written, every 8-bit value in float, which is what exact 32-bit sums give; so is the former where
a CPU has no VNNI, and ONNX Runtime's 16-bit sums would overflow.

Every step is a process on one CPU, and as many run at a time as there are CPUs; what is finished
in --work is not repeated. --work/rows.jsonl gets a line for each family, form and dialect.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from families_plan import (
    FAMILIES,
    FORMS,
    JUDGED,
    QUICK,
    Family,
    Settings,
    calibration_for,
    dialect_for,
    steps,
)
from families_schedule import run_all

if TYPE_CHECKING:
    import onnx

    from edgekit.data.transforms import Preprocessing
    from edgekit.runtime.answers import Answers

_BATCH = 16  # images an inference


def do_step(settings: Settings, name: str) -> None:
    """Carry out a step in this process."""
    kind, *rest = name.split(":")
    if kind == "data":
        import families_training as training

        part = {"train": training.prepare_training, "test": training.prepare_judging}[rest[0]]
        (settings.work / "data").mkdir(parents=True, exist_ok=True)
        sizes = training.Sizes(settings.train, settings.test, settings.views, settings.calibration)
        part(settings.data, settings.work / "data", sizes, len(os.sched_getaffinity(0)))
        return
    family = next(family for family in (*FAMILIES, QUICK) if family.name == rest[0])
    settings.folder(family).mkdir(parents=True, exist_ok=True)
    if kind == "train":
        _train(settings, family)
    elif kind == "export":
        _export(settings, family)
    elif kind == "calibrate":
        _calibrate(settings, family, rest[1])
    else:
        _answer(settings, family, *rest[1:])


def _one_thread() -> None:
    """Keep ONNX Runtime to this step's CPU: it counts those of the machine."""
    import onnxruntime

    make = onnxruntime.SessionOptions

    def options() -> Any:
        made = make()
        made.intra_op_num_threads = 1
        return made

    onnxruntime.SessionOptions = options


def _train(settings: Settings, family: Family) -> None:
    import families_training as training
    import torch

    plan = training.Training(
        family.backbone, settings.epochs, settings.pairs, family.lr, family.weights
    )
    figures = training.train(
        plan,
        settings.work / "data",
        settings.folder(family),
        torch.device(settings.device),
        settings.seconds * family.work,
    )
    print(json.dumps({"family": family.name, **figures}))


def _export(settings: Settings, family: Family) -> None:
    import families_training  # noqa: F401 - registers a backbone

    from edgekit.export.exporter import export_onnx
    from edgekit.model.checkpoint import load_checkpoint

    folder = settings.folder(family)
    loaded = load_checkpoint(folder / "model.safetensors")
    report = export_onnx(loaded.model, loaded.card, folder / "float.onnx")
    document = {
        "preprocessing": loaded.card.preprocessing.to_dict(),
        "codewords": loaded.card.vqsa.codebook_size,
        "export": report.agreement.describe(),
    }
    (folder / "float.json").write_text(json.dumps(document))


def _calibrate(settings: Settings, family: Family, made: str) -> None:
    import onnx

    from edgekit.core.console import Console
    from edgekit.quantize.calibrate import calibrate
    from edgekit.quantize.float_scope import float_scope
    from edgekit.quantize.recipes import read_recipe

    folder = settings.folder(family)
    shipped = replace(read_recipe("default"), images=settings.calibration)
    recipe = replace(shipped, **FORMS[made.removesuffix("-halved")])
    graph = onnx.load(folder / "float.onnx")
    kept = float_scope(graph, recipe)
    if recipe != shipped and kept == float_scope(graph, shipped):
        (folder / f"{made}.json").write_text(json.dumps({"same": True}))
        return
    data = settings.work / "data"
    images, held_out = np.load(data / "calibration.npy"), np.load(data / "held-out.npy")
    dialect = dialect_for("openvino" if made.endswith("-halved") else "tensorrt")
    model, report = calibrate(
        graph, images, held_out, _preprocessing(folder), recipe, dialect, Console(verbosity=-1)
    )
    onnx.save(model, folder / f"{made}.onnx")
    operations = {node.name: node.op_type for node in graph.graph.node}
    reasons = Counter(f"{rule}: {operations[node]}" for node, rule in kept.items())
    document = {**asdict(report), "reasons": reasons}
    (folder / f"{made}.json").write_text(json.dumps(document))


def _preprocessing(folder: Path) -> Preprocessing:
    from edgekit.data.transforms import Preprocessing

    return Preprocessing.from_dict(json.loads((folder / "float.json").read_text())["preprocessing"])


def _answer(settings: Settings, family: Family, form: str, dialect: str | None = None) -> None:
    import onnx

    from edgekit.graph.legalize import legalize
    from edgekit.quantize.engine import answers

    folder = settings.folder(family)
    pixels = np.load(settings.work / "data" / "test.npy", mmap_mode="r")
    flat = pixels.reshape(-1, *pixels.shape[2:])
    if dialect is None:
        said, name = _onnxruntime(onnx.load(folder / "float.onnx"), flat, folder), form
    else:
        name, made = f"{form}-{dialect}", calibration_for(form, dialect)
        if "same" in json.loads((folder / f"{made}.json").read_text()):
            np.savez(folder / f"{name}.npz")
            return
        graph = legalize(onnx.load(folder / f"{made}.onnx"), dialect_for(dialect))
        if dialect == "openvino":
            said = answers(graph, flat, _preprocessing(folder))
        else:
            exact = dialect == "tensorrt" or dialect_for("openvino").saturates
            said = _onnxruntime(graph, flat, folder, exact=exact)
    assert said.code is not None
    np.savez(folder / f"{name}.part.npz", logits=said.logits, code=said.code)
    (folder / f"{name}.part.npz").replace(folder / f"{name}.npz")


def _onnxruntime(
    graph: onnx.ModelProto, flat: Any, folder: Path, *, exact: bool = False
) -> Answers:
    """Answers in ONNX Runtime; ``exact``: 8-bit values are calculated with in float."""
    import onnxruntime

    from edgekit.runtime.answers import Answers, join

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    preprocessing = _preprocessing(folder)
    parts = []
    for start in range(0, len(flat), _BATCH):
        images = preprocessing.normalize(flat[start : start + _BATCH])
        logits, code = session.run(["logits", "code"], {"images": images})
        parts.append(Answers(logits, code, None))
    return join(parts)


def rows(settings: Settings, family: Family) -> Iterator[dict[str, Any]]:
    """A family's figures, as far as it is done."""
    from edgekit.data.corruptions import BENCHMARK15
    from edgekit.metrics.codes import code_counts
    from edgekit.quantize.probe import Probe, difference
    from edgekit.runtime.answers import Answers

    folder, data = settings.folder(family), settings.work / "data"
    if not (folder / "float.npz").exists():
        return
    with np.load(data / "test-labels.npz") as stored:
        labels, cells = stored["labels"], stored["cells"]
    pixels = np.load(data / "test.npy", mmap_mode="r")
    probe = Probe(pixels, labels, cells, BENCHMARK15, _preprocessing(folder))

    def load(name: str) -> Answers:
        with np.load(folder / f"{name}.npz") as stored:
            return Answers(stored["logits"], stored["code"], None)

    reference = load("float")
    plain = difference(probe, reference, reference)
    codewords = json.loads((folder / "float.json").read_text())["codewords"]
    assert reference.code is not None
    for form, dialect in JUDGED:
        if not (folder / f"{form}-{dialect}.npz").exists():
            continue
        report = json.loads((folder / f"{calibration_for(form, dialect)}.json").read_text())
        if "same" in report:
            continue
        said = load(f"{form}-{dialect}")
        found = difference(probe, reference, said)
        assert found.corruption_change is not None
        assert found.clean_change is not None
        assert found.code_all is not None
        error = np.square(said.logits - reference.logits).mean()
        yield {
            "family": family.name,
            "form": form,
            "dialect": dialect_for(dialect).name,
            "images": len(labels),
            "views": pixels.shape[1],
            "codewords": codewords,
            "codewords_used": int((code_counts(reference.code, codewords) > 0).sum()),
            "float_clean_error": plain.clean_error,
            "float_corruption_error": plain.corruption_error,
            "clean_error": found.clean_error,
            "corruption_error": found.corruption_error,
            "clean_change": asdict(found.clean_change),
            "corruption_change": asdict(found.corruption_change),
            "codes_equal": asdict(found.code_all),
            "top1_equal": float((said.logits.argmax(1) == reference.logits.argmax(1)).mean()),
            "relative_rms": float(np.sqrt(error / np.square(reference.logits).mean())),
            "quantized": report["quantized"],
            "kept_float": report["not_quantized"],
            "reasons": report["reasons"],
            "calibration_seconds": report["seconds"],
        }


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line for each family, form and dialect."""
    lines = [
        "| family | recipe | dialect | clean error % | corruption error % | its change, points "
        "| codes equal % | top-1 equal % | relative RMS | codes used | INT8 / float layers |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        change, code = row["corruption_change"], row["codes_equal"]
        lines.append(
            f"| {row['family']} | {row['form']} | {row['dialect']} "
            f"| {row['float_clean_error']:.1f} → {row['clean_error']:.1f} "
            f"| {row['float_corruption_error']:.1f} → {row['corruption_error']:.1f} "
            f"| {change['estimate']:+.2f} [{change['lower']:.2f}, {change['upper']:.2f}] "
            f"| {100 * code['estimate']:.1f} | {100 * row['top1_equal']:.1f} "
            f"| {row['relative_rms']:.3f} | {row['codewords_used']} of {row['codewords']} "
            f"| {row['quantized']} / {len(row['kept_float'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for models and results")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as .npz (docs/data.md)")
    names = [family.name for family in FAMILIES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--trainers", type=int, default=6, help="trainings at a time on a GPU")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a family's training")
    parser.add_argument("--pairs", type=int, default=128, help="of images in a step of training")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="stop then, as far as it is")
    parser.add_argument("--quick", action="store_true", help="a tiny network, to see that it runs")
    parser.add_argument("--table", action="store_true", help="print what is finished, run nothing")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (512, 80, 4, 64) if arguments.quick else (16000, 400, 15, 300)
    settings = Settings(
        arguments.work,
        arguments.data,
        arguments.device,
        arguments.seconds,
        4 if arguments.quick else 60,
        arguments.pairs,
        *sizes,
    )
    if arguments.step:
        _one_thread()
        do_step(settings, arguments.step)
        return
    families = [family for family in FAMILIES if family.name in arguments.only]
    if arguments.quick:
        families = [QUICK]
    if not arguments.table:
        command = [sys.executable, *sys.argv]
        arguments.work.mkdir(parents=True, exist_ok=True)
        todo = list(steps(settings, families, command))
        run_all(todo, arguments.trainers, arguments.work, arguments.limit)
    found = [row for family in families for row in rows(settings, family)]
    (arguments.work / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in found))
    print(table(found))


if __name__ == "__main__":
    main()
