"""The CUDA lookup against torch on the GPU at hand: are its answers exact, and is it fast?

    python benchmarks/cuda_lookup.py                    everything
    python benchmarks/cuda_lookup.py --only check       correctness alone
    python benchmarks/cuda_lookup.py --json result.json

Compiles the kernel for this GPU with nvcc, calls it through ctypes on torch tensors, and

* check: compares every index with torch in float64: ties, odd widths, half input, codebooks up to
  100,000 rows and up to 50,176 vectors, near-duplicate rows, and what NaN and infinity give;
* worst: times inputs that leave much to score in double, as ratios to a typical one of the size;
* time: times it beside torch's product + argmax in float32, TF32 and half (--compile adds
  torch.compile), in CUDA graphs; codebooks rotate through memory, so that none is found in a cache;
* with --tensorrt-include, builds the plugin and drives its `enqueue`; with --rtx FILE, lets
  TensorRT-RTX build and run an ONNX file on this GPU, if it is one that TensorRT-RTX knows.

Exits with 1 on a wrong index.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from cuda_kernel import DOT, L2, ROOT, Kernel, Packed, compile_library


def unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, eps=0.0)


def clustered(n: int, d: int, spread: float) -> torch.Tensor:
    centers = torch.randn(max(n // 12, 1), d, device="cuda")
    picked = centers[torch.randint(len(centers), (n,), device="cuda")]
    return unit(picked + spread * torch.randn(n, d, device="cuda"))


def check_case(
    kernel: Kernel, x: torch.Tensor, codebook: torch.Tensor, metric: int, exact: bool
) -> int:
    """Wrong indices; where float64 itself cannot decide (unless ``exact``), either is right."""
    run, out = kernel.prepare(x, Packed(kernel, codebook), metric)
    for _ in range(2):  # the second time the workspace holds what the first left
        run()
    torch.cuda.synchronize()
    wrong = 0
    rows = codebook.double()
    half = rows.square().sum(dim=1) / 2 if metric == L2 else None
    for start in range(0, len(x), 2048):
        scores = x[start : start + 2048].double() @ rows.T
        if half is not None:
            scores -= half
        found = out["indices"][start : start + 2048]
        best = scores.max(dim=1).values
        if exact:
            first = (scores == best.unsqueeze(1)).int().argmax(dim=1)
            wrong += int((found != first).sum())
        else:
            given = scores.gather(1, found.unsqueeze(1)).squeeze(1)
            wrong += int((given < best - 1e-12 * best.abs().clamp(min=1e-30)).sum())
    return wrong


def check(kernel: Kernel) -> dict[str, int]:
    """Wrong indices of every case."""
    torch.manual_seed(0)
    found: dict[str, int] = {}
    sizes = [
        (1, 1, 1), (1, 1000, 2048), (2, 1000, 2048), (7, 333, 37), (8, 10_000, 2048), (9, 65, 130),
        (49, 1000, 2048), (49, 1000, 1280), (392, 10_000, 512), (1, 100_000, 2048),
        (392, 100_000, 256), (50_176, 1000, 128), (3136, 4096, 2048),
    ]  # fmt: skip
    for m, n, d in sizes:
        for metric in (DOT, L2):
            x = torch.randn(m, d, device="cuda")
            rows = torch.randn(n, d, device="cuda")
            key = f"normal m={m} n={n} d={d} metric={'l2' if metric else 'dot'}"
            found[key] = check_case(kernel, x, rows, metric, exact=False)
        small = torch.randint(-1, 2, (m, d), device="cuda").float()
        rows = torch.randint(-1, 2, (n, d), device="cuda").float()
        found[f"ties m={m} n={n} d={d}"] = check_case(kernel, small, rows, DOT, exact=True)
        near = clustered(n, d, 1e-6)
        x = near[torch.randint(n, (m,), device="cuda")] * 3
        found[f"near duplicates m={m} n={n} d={d}"] = check_case(kernel, x, near, DOT, False)
    for m, n, d in ((1, 1000, 2048), (49, 512, 33), (300, 700, 130)):
        x = torch.randn(m, d, device="cuda").half()
        rows = torch.randn(n, d, device="cuda")
        found[f"half m={m} n={n} d={d}"] = check_case(kernel, x, rows, DOT, False)
        found[f"both half m={m} n={n} d={d}"] = check_case(kernel, x, rows.half(), DOT, False)
    for m in (1, 40, 200):
        rows = unit(torch.randn(500, 64, device="cuda"))
        x = torch.randn(m, 64, device="cuda")
        x[m // 2, 3] = float("nan")
        run, out = kernel.prepare(x, Packed(kernel, rows))
        run()
        torch.cuda.synchronize()
        kept = out["indices"][m // 2] == 0 and bool(out["margin"][m // 2].isnan())
        in_range = bool(((out["indices"] >= 0) & (out["indices"] < 500)).all())
        found[f"NaN m={m}"] = int(not (kept and in_range and int(out["nonfinite"]) == 1))
    return found


def seconds_of(functions: list[Callable[[], object]], rounds: int = 7) -> float:
    """Median seconds of one call; the functions (one for each codebook copy) take turns."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for function in functions:
            function()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    repeats = max(1, 16 // len(functions))
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(repeats):
            for function in functions:
                function()
    graph.replay()
    torch.cuda.synchronize()
    times: list[float] = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / (repeats * len(functions)))
    return statistics.median(times)


def bandwidth() -> float:
    """Bytes a second of a large copy, read and written."""
    source = torch.empty(1 << 28, dtype=torch.float32, device="cuda").normal_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of([lambda: target.copy_(source)])


def scores_argmax(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return (x @ rows.T).argmax(dim=1)


def torch_times(
    x: torch.Tensor, codebooks: list[torch.Tensor], *, compiled: bool
) -> dict[str, float]:
    """Seconds of torch's ways; all but the first may name another row than float32 would."""
    times = {"torch fp32": seconds_of([partial(scores_argmax, x, c) for c in codebooks])}
    torch.backends.cuda.matmul.allow_tf32 = True
    times["torch TF32"] = seconds_of([partial(scores_argmax, x, c) for c in codebooks])
    torch.backends.cuda.matmul.allow_tf32 = False
    halves, narrow = [c.half() for c in codebooks], x.half()
    times["torch half"] = seconds_of([partial(scores_argmax, narrow, c) for c in halves])
    if compiled:
        best = torch.compile(scores_argmax, mode="max-autotune-no-cudagraphs")
        times["torch.compile"] = seconds_of([partial(best, x, c) for c in codebooks])
    return times


def time_all(kernel: Kernel, *, compiled: bool) -> dict[str, object]:
    """Ours and torch's, for sizes of the head and beyond."""
    torch.backends.cuda.matmul.allow_tf32 = False
    peak = bandwidth()
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    d = 2048
    lines: list[dict[str, object]] = []
    for n, counts in ((1000, (1, 8, 49, 392, 3136)), (10_000, (1, 49, 392)), (100_000, (1, 392))):
        copies = max(1, min(64, -(-3 * cache // (n * d * 2))))
        codebooks = [unit(torch.randn(n, d, device="cuda")) for _ in range(copies)]
        packed = [Packed(kernel, c) for c in codebooks]
        packing = seconds_of([p.pack for p in packed[:4]])
        for m in counts:
            x = torch.randn(m, d, device="cuda").abs()
            times = {
                "ours": seconds_of([kernel.prepare(x, p, margin=False)[0] for p in packed]),
                "ours, margin": seconds_of([kernel.prepare(x, p)[0] for p in packed]),
                **torch_times(x, codebooks, compiled=compiled),
            }
            lines.append(
                {"N": n, "M": m, **{key: round(s * 1e6, 1) for key, s in times.items()},
                 "packing": round(packing * 1e6, 1),
                 "packed bytes at a copy's speed": round(n * d * 2 / peak * 1e6, 1)}
            )  # fmt: skip
            print(json.dumps(lines[-1]), flush=True)
        del codebooks, packed
    return {"copy bandwidth GB/s": round(peak / 1e9, 1), "microseconds, D = 2048": lines}


def worst_inputs(n: int, m: int, d: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Codebooks and vectors that leave much to do, by name; the first is a typical pair."""
    x = torch.randn(m, d, device="cuda").abs()
    rows = unit(torch.randn(n, d, device="cuda"))
    collapsed = rows.clone()
    collapsed[torch.rand(n, device="cuda") < 0.9] = rows[0]
    spoiled = rows.clone()
    spoiled[n // 2, d // 3] = float("nan")
    close = unit(rows[:1] + 1e-6 * torch.randn(n, d, device="cuda"))
    groups = clustered(n, d, 1e-6)
    mixed = rows.clone()
    mixed[: n // 4] = close[: n // 4]
    return {
        "typical": (rows, x),
        "near a row": (rows, rows[torch.randint(n, (m,), device="cuda")] * 3 + 0.01 * x),
        "90% of the rows equal": (collapsed, x),
        "all rows equal": (rows[:1].repeat(n, 1), x),
        "all rows zero": (torch.zeros_like(rows), x),
        "NaN in one row": (spoiled, x),
        "a vector of zeros": (rows, torch.zeros_like(x)),
        "groups of 12 near-duplicates": (groups, groups[:1].repeat(m, 1) * 3),
        "all rows near-duplicates": (close, rows[:1].repeat(m, 1)),
        "a quarter near-duplicates": (mixed, rows[:1].repeat(m, 1)),
    }


def worst_all(kernel: Kernel) -> dict[str, object]:
    """Times of bad inputs over those of the typical one, and their wrong indices."""
    found: dict[str, object] = {}
    for n, m in ((1000, 1), (1000, 49), (1000, 392), (10_000, 1), (10_000, 49)):
        inputs = worst_inputs(n, m, 2048)
        typical = 0.0
        for name, (rows, x) in inputs.items():
            packed = Packed(kernel, rows)
            took = seconds_of([kernel.prepare(x, packed)[0]])
            typical = typical or took
            wrong = 0 if "NaN" in name else check_case(kernel, x, rows, DOT, exact=False)
            found[f"N={n} M={m} {name}"] = {
                "us": round(took * 1e6, 1), "times typical": round(took / typical, 2),
                "wrong indices": wrong,
            }  # fmt: skip
    return found


def drive_plugin(include: Path, folder: Path) -> str:
    """Builds the plugin and runs its `enqueue` from C++."""
    major, minor = torch.cuda.get_device_capability()
    subprocess.run(
        ["cmake", "-S", ROOT / "targets" / "tensorrt", "-B", folder, "-DEDGEKIT_TESTS=ON",
         f"-DTENSORRT_INCLUDE_DIR={include}", f"-DEDGEKIT_CUDA_ARCHITECTURES={major}{minor}"],
        check=True, stdout=sys.stderr,
    )  # fmt: skip
    subprocess.run(["cmake", "--build", folder], check=True, stdout=sys.stderr)
    done = subprocess.run(
        [folder / "drive_plugin", folder / "libedgekit_tensorrt.so"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"exit {done.returncode}: {' | '.join(done.stdout.split(chr(10))).strip(' |')}"


RTX = """
import sys, tensorrt_rtx_bindings as trt
log = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(log)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, log)
assert parser.parse(open(sys.argv[1], "rb").read()), parser.get_error(0).desc()
config, profile = builder.create_builder_config(), builder.create_optimization_profile()
shape = [1 if side < 0 else side for side in network.get_input(0).shape]
profile.set_shape(network.get_input(0).name, shape, shape, shape)
config.add_optimization_profile(profile)
engine = trt.Runtime(log).deserialize_cuda_engine(builder.build_serialized_network(network, config))
print("runs here" if engine is not None and engine.create_execution_context() else "does not run")
"""


def probe_rtx(path: Path) -> str:
    """Whether TensorRT-RTX, if it is installed, can run an engine on this GPU."""
    capability = torch.cuda.get_device_capability()
    if capability not in ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1)):
        return "skipped: TensorRT-RTX does not run on SM {}.{}".format(*capability)
    done = subprocess.run(
        [sys.executable, "-c", RTX, path], capture_output=True, text=True, check=False
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return f"exit {done.returncode}: {lines[-1] if lines else ''}"


def table(lines: list[dict[str, object]]) -> str:
    """Markdown of equal dictionaries."""
    head = [f"| {' | '.join(lines[0])} |", "|" + "---|" * len(lines[0])]
    return "\n".join(head + [f"| {' | '.join(map(str, line.values()))} |" for line in lines])


def wrong_indices(result: dict[str, object]) -> int:
    """How many there were in all that was tried."""
    total = 0
    for part in ("wrong indices", "worst cases"):
        cases = result.get(part, {})
        assert isinstance(cases, dict)
        total += sum(c["wrong indices"] if isinstance(c, dict) else c for c in cases.values())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parts = ("check", "worst", "time")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--compile", action="store_true", help="time torch.compile: takes minutes")
    parser.add_argument("--library", type=Path, help="a library compiled before, for this GPU")
    parser.add_argument("--tensorrt-include", type=Path)
    parser.add_argument("--rtx", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU that torch can use: nothing was measured")
    result: dict[str, object] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    with tempfile.TemporaryDirectory() as scratch:
        kernel = Kernel(options.library or compile_library(Path(scratch)))
        if "check" in options.only:
            found = check(kernel)
            result["wrong indices"] = found
            print(f"{sum(found.values())} wrong indices in {len(found)} cases", flush=True)
        if "time" in options.only:
            result["timing"] = timing = time_all(kernel, compiled=options.compile)
            lines = timing["microseconds, D = 2048"]
            assert isinstance(lines, list)
            print(table(lines))
        if "worst" in options.only:
            result["worst cases"] = worst = worst_all(kernel)
            for name, case in worst.items():
                print(name, json.dumps(case), flush=True)
        if options.tensorrt_include:
            result["enqueue"] = drive_plugin(options.tensorrt_include, Path(scratch) / "plugin")
            print(result["enqueue"])
        if options.rtx:
            result["TensorRT-RTX"] = probe_rtx(options.rtx)
            print(result["TensorRT-RTX"])
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if wrong := wrong_indices(result):
        sys.exit(f"{wrong} wrong indices")


if __name__ == "__main__":
    main()
