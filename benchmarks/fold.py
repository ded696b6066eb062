"""What the fold saves: latency of the VQ-SA head before and after, in one run.

    python benchmarks/fold.py [--quick] [--json]

Before: the head as trained, token-major, three K/Q/V products, TopK lookup. After: the folded head,
with tables and with projected codewords. All run in OpenVINO in float32, in turn (A B C A B C ...).
Between two calls a buffer larger than the last-level cache is read, because in a real network the
backbone has just evicted the head's weights. "between" is the head without lookup and classifier:
the part that the fold changes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import openvino as ov
import torch
from torch import Tensor, nn

from edgekit.model.config import VQSAConfig
from edgekit.model.fold import FoldedHead, fold_head
from edgekit.model.vqsa import VQSAHead

EVICT_BYTES = 256 << 20
# Read once a call, which is what batch 1 pays for; tables and codebook rows are single rows.
WEIGHT_BYTES = {"before": 5, "tables": 3, "projected": 3}  # x D^2 x 4 bytes


class Before(nn.Module):
    """The head as trained; the lookup's argmax spelled as TopK, which OpenVINO runs faster."""

    def __init__(self, head: VQSAHead) -> None:
        super().__init__()
        lookup = fold_head(head).lookup
        self.register_buffer("rows", lookup.codebook)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        code = (x @ self.get_buffer("rows").T).topk(1, dim=1).indices.squeeze(1)
        assert self.head.codebook is not None
        q = nn.functional.embedding(code, self.head.codebook.embeddings)
        logits: Tensor = self.head.classifier(self.head.combine(q, x))
        return logits


class After(nn.Module):
    def __init__(self, head: FoldedHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        rows = self.head.lookup.codebook
        code = (x @ rows.T).topk(1, dim=1).indices.squeeze(1)
        q = nn.functional.embedding(code, rows) * nn.functional.embedding(code, self.head.norm)
        logits: Tensor = self.head.classifier(self.head.combine(x, q, code))
        return logits


class BeforeBetween(Before):
    """What lies between lookup and classifier, on a codeword already found."""

    def forward(self, x: Tensor, q: Tensor) -> Tensor:  # type: ignore[override]
        return self.head.combine(q, x)


class AfterBetween(After):
    def forward(self, x: Tensor, q: Tensor, code: Tensor) -> Tensor:  # type: ignore[override]
        return self.head.combine(x, q, code)


class Case(NamedTuple):
    width: int
    codewords: int
    batch: int


def compiled(module: nn.Module, inputs: tuple[Tensor, ...], threads: int) -> Callable[[], object]:
    model = ov.convert_model(module.eval(), example_input=inputs)
    for port, value in zip(model.inputs, inputs, strict=True):
        port.get_node().set_partial_shape(ov.PartialShape(list(value.shape)))
    model.validate_nodes_and_infer_types()
    request = (
        ov.Core()
        .compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
        .create_infer_request()
    )
    for index, value in enumerate(inputs):
        request.set_input_tensor(index, ov.Tensor(value.numpy()))
    infer: Callable[[], object] = request.infer
    return infer


def medians(runs: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Milliseconds of every call, taken in turn with cold caches."""
    evict = np.zeros(EVICT_BYTES // 8)
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds + 3):
        for index, run in enumerate(runs):
            evict.sum()
            start = time.perf_counter()
            run()
            if turn >= 3:
                times[index].append(1e3 * (time.perf_counter() - start))
    return times


def measure(case: Case, rounds: int, threads: int) -> dict[str, float | int]:
    torch.manual_seed(0)
    head = VQSAHead(case.width, 1000, VQSAConfig(codebook_size=case.codewords)).eval()
    x = torch.randn(case.batch, case.width).relu()
    tables, projected = fold_head(head), fold_head(head, tables=False)
    with torch.no_grad():
        code = tables.lookup(x)[0]
        assert head.codebook is not None
        q = nn.functional.embedding(code, head.codebook.embeddings).clone()
        whole = [
            compiled(Before(head), (x,), threads),
            compiled(After(tables), (x,), threads),
            compiled(After(projected), (x,), threads),
        ]
        between = [
            compiled(BeforeBetween(head), (x, q), threads),
            compiled(AfterBetween(tables), (x, q, code), threads),
            compiled(AfterBetween(projected), (x, q, code), threads),
        ]
    times = medians(whole + between, rounds)
    middle = [statistics.median(values) for values in times]

    def ratio(a: int, b: int) -> float:
        pairs = [one / other for one, other in zip(times[a], times[b], strict=True)]
        return statistics.median(pairs)

    square = case.width**2
    return {
        "width": case.width,
        "codewords": case.codewords,
        "batch": case.batch,
        "before_ms": middle[0],
        "tables_ms": middle[1],
        "projected_ms": middle[2],
        "speedup_tables": ratio(0, 1),
        "speedup_projected": ratio(0, 2),
        "between_before_ms": middle[3],
        "between_tables_ms": middle[4],
        "between_projected_ms": middle[5],
        "between_speedup_tables": ratio(3, 4),
        "between_speedup_projected": ratio(3, 5),
        "weight_mb_before": WEIGHT_BYTES["before"] * square * 4 / 1e6,
        "weight_mb_after": WEIGHT_BYTES["tables"] * square * 4 / 1e6,
        # Multiply-adds of a call: K, Q, V on two tokens and the 2D x D fuse, against 3 D^2.
        "mmac_before": case.batch * 8 * square / 1e6,
        "mmac_tables": case.batch * 3 * square / 1e6,
        "mmac_projected": case.batch * 6 * square / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="D = 2048, N = 1000 only")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    widths = [2048] if options.quick else [512, 1280, 2048]
    sizes = [1000] if options.quick else [1000, 10000]
    cases = [Case(d, n, b) for d in widths for n in sizes for b in (1, 8)]
    results = [measure(case, options.rounds, threads) for case in cases]
    if options.json:
        print(json.dumps({"threads": threads, "results": results}, indent=2))
        return
    print(f"OpenVINO {ov.__version__.split('-')[0]}, {platform.machine()}, {threads} threads, f32,")
    print("cold caches; milliseconds are medians, speed-ups are medians of paired ratios")
    print(
        "   D     N  B | head: before  tables  projected   x      x  |"
        " between: before  tables  projected   x      x  | weights MB  MMAC"
    )
    for r in results:
        print(
            f"{r['width']:4} {r['codewords']:5} {r['batch']:2} |"
            f" {r['before_ms']:12.3f} {r['tables_ms']:7.3f} {r['projected_ms']:10.3f}"
            f" {r['speedup_tables']:5.2f} {r['speedup_projected']:5.2f} |"
            f" {r['between_before_ms']:15.3f} {r['between_tables_ms']:7.3f}"
            f" {r['between_projected_ms']:10.3f} {r['between_speedup_tables']:5.2f}"
            f" {r['between_speedup_projected']:5.2f} |"
            f" {r['weight_mb_before']:.0f} -> {r['weight_mb_after']:.0f}"
            f"  {r['mmac_before']:.0f} -> {r['mmac_tables']:.0f}/{r['mmac_projected']:.0f}"
        )


if __name__ == "__main__":
    main()
