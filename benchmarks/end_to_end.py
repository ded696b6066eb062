"""What VQ-SA costs in INT8 over its bare backbone: whole models, images in, logits out.

    python benchmarks/end_to_end.py --work DIR                 # the table of docs/performance.md
    python benchmarks/end_to_end.py --work DIR --backbones resnet50 --batches 1 --rounds 200
    python benchmarks/end_to_end.py --work DIR --profile       # where the time goes, by layer

Three networks of the same backbone, quantized by the same recipe and run by OpenVINO in turn
(A B C A B C ...), so that a slow moment of the machine hits all of them:

bare        backbone, global average pooling, one linear classifier: no VQ-SA at all
decomposed  VQ-SA as trained, all of it in standard operators: what the tools do without edgekit
ours        the bundle that `edgekit build` makes: folded, with edgekit's operators

Ratios are medians of the paired ratios, with a distribution-free 95% interval. --cpu-time takes the
processor's time of all threads instead of the clock's, which leaves out what other programs take of
the processor, though not of the memory: for a machine that is not quiet. Weights are random: they
change no shape and no kernel. What the lookup has to look at does depend on the data, so the
codebook is drawn around features of images, as a trained one lies. The calibrated networks are
kept in --work, and a second run only times: give another folder once edgekit has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import nn

from edgekit.bench.conditions import cpu_model
from edgekit.bench.interleaved import ratio
from edgekit.compilers.openvino import compile_model
from edgekit.core.console import Console
from edgekit.data.synthetic import pictures
from edgekit.data.transforms import IMAGENET, LITE0, Preprocessing
from edgekit.export.exporter import export_onnx
from edgekit.graph.variants import to_variant
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard, numbered_classes
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.native.openvino_extension import extension_path
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.recipes import Recipe
from edgekit.targets.descriptor import load_descriptor
from edgekit.targets.dialects import find_dialect

CLASSES = 1000
KINDS = ("bare", "decomposed", "ours")
PREPROCESSING = {"resnet50": IMAGENET, "efficientnet-lite0": LITE0}
CALIBRATION_IMAGES = 4
HELD_OUT_IMAGES = 16  # which corrections of the calibration they keep
WARM_UP = 8  # rounds that are not counted
PER_CLUSTER = 20  # codewords around one feature
Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Network:
    """One column group of the table: which network, whatever its form."""

    backbone: str
    quantize: str
    codewords: int

    def name(self, kind: str) -> str:
        """Folder of one of its forms; all heads share the bare backbone."""
        if kind == "bare":
            return f"{self.backbone}-bare"
        return f"{self.backbone}-{self.quantize}-{self.codewords}-{kind}"


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    network: Network
    batch: int
    threads: int


def photos(count: int, preprocessing: Preprocessing, seed: int) -> NDArray[np.uint8]:
    """Images with large and small structures, uint8 [count, height, width, 3]."""
    return pictures(count, preprocessing.size, seed)


@torch.no_grad()
def model(network: Network, bare: bool) -> VQSA:
    """A network with random weights whose activations and codebook are of a sensible size."""
    torch.manual_seed(0)
    backbone = create_backbone(network.backbone)
    settle(backbone, PREPROCESSING[network.backbone])
    config = VQSAConfig(
        codebook_size=network.codewords,
        quantize=network.quantize,  # type: ignore[arg-type]
        output="none" if bare else "attention",
    )
    made = VQSA(backbone, CLASSES, config).eval()
    if made.head.codebook is not None:
        pixels = PREPROCESSING[network.backbone].normalize(
            photos(32, PREPROCESSING[network.backbone], seed=1)
        )
        features = backbone.features(torch.from_numpy(pixels), network.quantize)  # type: ignore[arg-type]
        rows = made.head.codebook.embeddings
        rows.copy_(clustered(features.flatten(0, -2), len(rows)))
    return made


def settle(backbone: nn.Module, preprocessing: Preprocessing) -> None:
    """Give the normalization layers the statistics of some images."""
    layers = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = None  # an average over all images seen
        layer.reset_running_stats()
    backbone.train()
    backbone(torch.from_numpy(preprocessing.normalize(photos(16, preprocessing, seed=2))))
    backbone.eval()


def clustered(features: torch.Tensor, rows: int) -> torch.Tensor:
    """Rows around some of the features, half a deviation away, as trained codebooks lie."""
    centers = features[torch.randperm(len(features))[: max(1, rows // PER_CLUSTER)]]
    chosen = centers[torch.randint(len(centers), (rows,))]
    return (chosen + 0.5 * features.std(dim=0) * torch.randn(rows, features.shape[1])).relu()


def build(network: Network, kind: str, work: Path) -> Path:
    """The IR of one form of a network, calibrated; made once."""
    folder = work / network.name(kind)
    if (folder / "model.bin").exists():
        return folder / "model.xml"
    folder.mkdir(parents=True, exist_ok=True)
    preprocessing = PREPROCESSING[network.backbone]
    calibrated = folder / "int8.onnx"
    if not calibrated.exists():
        start = time.monotonic()
        made = model(network, bare=kind == "bare")
        card = ModelCard(
            network.backbone, made.head.width, numbered_classes(CLASSES), preprocessing, made.config
        )
        export_onnx(made, card, folder / "float.onnx", folded=kind == "ours", margin=kind == "ours")
        graph, report = calibrate(
            onnx.load(folder / "float.onnx"),
            photos(CALIBRATION_IMAGES, preprocessing, seed=3),
            photos(HELD_OUT_IMAGES, preprocessing, seed=4),
            preprocessing,
            Recipe(images=CALIBRATION_IMAGES),
            find_dialect(load_descriptor("cpu").dialect),
            Console(verbosity=-1),
        )
        (folder / "float.onnx").unlink()
        onnx.save(graph, calibrated)
        spent = time.monotonic() - start
        print(f"{folder.name}: {report.message()}; {spent:.0f} s in all", flush=True)
    if kind == "decomposed":
        onnx.save(to_variant(onnx.load(calibrated), "inline"), calibrated)
    compile_model(
        calibrated,
        preprocessing,
        load_descriptor("cpu"),
        folder,
        "plugin" if kind == "ours" else "inline",
    )
    return folder / "model.xml"


def compiled(path: Path, case: Case, plugin: Path, **config: object) -> ov.CompiledModel:
    """A network for a fixed batch, as a bundle's runner sets it up."""
    core = ov.Core()
    core.add_extension(str(plugin))
    network = core.read_model(path)
    height, width = PREPROCESSING[case.network.backbone].size
    network.reshape({0: [case.batch, height, width, 3]})
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": case.threads,
        **config,
    }
    return core.compile_model(network, "CPU", settings)


def runner(network: ov.CompiledModel, batches: list[NDArray[np.uint8]]) -> Run:
    """A call that infers the next of some batches; different images choose different codes."""
    request = network.create_infer_request()
    calls = 0

    def run() -> object:
        nonlocal calls
        calls += 1
        return request.infer({0: batches[calls % len(batches)]}, share_inputs=True)

    return run


def measure(
    case: Case, kinds: list[str], work: Path, plugin: Path, rounds: int, clock: Clock
) -> dict[str, object]:
    """Times of each form and the ratios between them."""
    preprocessing = PREPROCESSING[case.network.backbone]
    images = photos(8 * case.batch, preprocessing, seed=1)  # those that the codebook lies around
    batches = list(images.reshape(8, case.batch, *images.shape[1:]))
    runs = {
        kind: runner(compiled(build(case.network, kind, work), case, plugin), batches)
        for kind in kinds
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(rounds + WARM_UP):
        for kind, run in runs.items():
            start = clock()
            run()
            if turn >= WARM_UP:
                times[kind].append(1e3 * (clock() - start))
    ratios = {
        f"{one}/{other}": asdict(ratio(times[one], times[other]))
        for one, other in (("ours", "bare"), ("decomposed", "bare"), ("decomposed", "ours"))
        if one in times and other in times
    }
    return {
        **asdict(case.network),
        "batch": case.batch,
        "threads": case.threads,
        "median_ms": {kind: float(np.median(series)) for kind, series in times.items()},
        "ratios": ratios,
    }


def profile(case: Case, kinds: list[str], work: Path, plugin: Path, rounds: int) -> None:
    """Prints the layers behind the backbone's last convolution, slowest first, in microseconds."""
    preprocessing = PREPROCESSING[case.network.backbone]
    images = photos(8 * case.batch, preprocessing, seed=1)
    batches = list(images.reshape(8, case.batch, *images.shape[1:]))
    requests = {
        kind: compiled(
            build(case.network, kind, work), case, plugin, PERF_COUNT=True
        ).create_infer_request()
        for kind in kinds
    }
    spent: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    types: dict[str, str] = {}
    for turn in range(rounds):
        for kind, request in requests.items():
            request.infer({0: batches[turn % 8]}, share_inputs=True)
            for layer in request.get_profiling_info():
                micro = layer.real_time.total_seconds() * 1e6
                if micro:
                    spent[kind].setdefault(layer.node_name, []).append(micro)
                    types[layer.node_name] = f"{layer.node_type} {layer.exec_type}"
    bare = set(spent.get("bare", ()))
    for kind in kinds:
        total = sum(float(np.median(series)) for series in spent[kind].values())
        print(
            f"\n{case.network.name(kind)}, batch {case.batch}, {case.threads} threads:"
            f" {total:.0f} us"
        )
        rows = [
            (float(np.median(series)), name)
            for name, series in spent[kind].items()
            if kind == "bare" or name not in bare or "linear" in name
        ]
        for micro, name in sorted(rows, reverse=True)[: 8 if kind == "bare" else 40]:
            print(f"{micro:9.1f}  {types[name]:40} {name}")


def table(results: list[dict[str, object]]) -> str:
    """The results as Markdown."""
    lines = [
        "| backbone | quantize, N | batch | threads | bare ms | decomposed ms | ours ms |"
        " ours / bare | decomposed / bare | decomposed / ours |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        middle, ratios = result["median_ms"], result["ratios"]
        assert isinstance(middle, dict)
        assert isinstance(ratios, dict)
        times = " | ".join(f"{middle[kind]:.2f}" if kind in middle else "" for kind in KINDS)
        cells = " | ".join(
            "{median:.3f} [{low:.3f}, {high:.3f}]".format(**ratios[key]) if key in ratios else ""
            for key in ("ours/bare", "decomposed/bare", "decomposed/ours")
        )
        lines.append(
            f"| {result['backbone']} | {result['quantize']}, {result['codewords']} |"
            f" {result['batch']} | {result['threads']} | {times} | {cells} |"
        )
    return "\n".join(lines)


def words(text: str) -> list[str]:
    return text.split(",")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="keeps the calibrated networks")
    parser.add_argument("--backbones", type=words, default=list(PREPROCESSING))
    parser.add_argument("--quantize", type=words, default=["pooled", "spatial"])
    parser.add_argument("--codewords", type=numbers, default=[1000, 10_000])
    parser.add_argument("--batches", type=numbers, default=[1, 8])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--kinds", type=words, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=100, help="at batch 8 a quarter of them")
    parser.add_argument("--extension", type=Path, help="instead of the installed one")
    parser.add_argument("--build", action="store_true", help="only fill --work")
    parser.add_argument("--profile", action="store_true", help="layers instead of whole models")
    parser.add_argument("--cpu-time", action="store_true", help="instead of the clock's time")
    parser.add_argument("--json", action="store_true", help="instead of the Markdown table")
    options = parser.parse_args()
    plugin = options.extension or extension_path()
    networks = [
        Network(backbone, quantize, codewords)
        for backbone in options.backbones
        for quantize in options.quantize
        for codewords in options.codewords
    ]
    for network in networks:
        for kind in options.kinds:
            build(network, kind, options.work)
    if options.build:
        return
    cases = [
        Case(network, batch, threads)
        for network in networks
        for batch in options.batches
        for threads in options.threads
    ]
    results = []
    for case in cases:
        rounds = max(20, options.rounds // (1 if case.batch == 1 else 4))
        if options.profile:
            profile(case, options.kinds, options.work, plugin, rounds)
        else:
            clock = time.process_time if options.cpu_time else time.perf_counter
            results.append(measure(case, options.kinds, options.work, plugin, rounds, clock))
            print(table(results[-1:]).splitlines()[-1], flush=True)
    if options.profile:
        return
    timed = "processor time" if options.cpu_time else "clock time"
    about = (
        f"{timed}, OpenVINO {ov.get_version().split('-')[0]}, {cpu_model()}, {os.cpu_count()} CPUs"
    )
    if options.json:
        print(json.dumps({"machine": about, "results": results}, indent=2))
    else:
        print(f"\n{about}\n\n{table(results)}")


if __name__ == "__main__":
    main()
