"""The CUDA lookup against torch on the GPU at hand: are its answers exact, and is it fast?

    python benchmarks/cuda_lookup.py                    everything
    python benchmarks/cuda_lookup.py --only check       correctness alone
    python benchmarks/cuda_lookup.py --json result.json

Compiles the kernel for this GPU with nvcc, calls it through ctypes on torch tensors, and

* compares every index with torch in float64: ties, odd widths, half input, codebooks up to 100,000
  rows and up to 50,176 vectors, near-duplicate rows, and what NaN and infinity give;
* times it beside torch's matmul + argmax and torch.compile of the same, in CUDA graphs, as ratios
  and as a share of the memory bandwidth measured in the same run; codebooks rotate through
  memory, so that none is found in a cache;
* with --tensorrt-include, builds the plugin and drives its `enqueue`; with --rtx FILE, lets
  TensorRT-RTX build and run an ONNX file on this GPU.

Goal: never slower than torch's best, and at least 70% of the bandwidth for one vector.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "targets" / "codebook" / "cuda"
_DOT, _L2 = 0, 1


class Request(ctypes.Structure):
    """edgekit_codebook_cuda_request."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("codebook", ctypes.c_void_p),
        ("m", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("d", ctypes.c_int64),
        ("x_type", ctypes.c_int32),
        ("codebook_type", ctypes.c_int32),
        ("metric", ctypes.c_int32),
        ("margin_type", ctypes.c_int32),
        ("indices", ctypes.c_void_p),
        ("best", ctypes.c_void_p),
        ("margin", ctypes.c_void_p),
        ("nonfinite", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_size_t),
    )


class Kernel:
    """The compiled lookup."""

    def __init__(self, folder: Path) -> None:
        nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
        if nvcc is None:
            sys.exit("no nvcc: install the CUDA toolkit")
        major, minor = torch.cuda.get_device_capability()
        library = folder / "libedgekit_codebook_cuda.so"
        subprocess.run(
            [nvcc, "-std=c++17", "-O3", f"-arch=sm_{major}{minor}", "--ftz=false",
             "--prec-sqrt=true", "-Xcompiler", "-fPIC", "-shared", "-cudart", "static",
             "-o", library, SOURCES / "codebook_cuda.cu"],
            check=True,
        )  # fmt: skip
        self.library = ctypes.CDLL(str(library))
        self.library.edgekit_codebook_cuda_workspace.restype = ctypes.c_size_t
        self.library.edgekit_codebook_cuda_workspace.argtypes = [ctypes.c_int64, ctypes.c_int64]
        self.library.edgekit_codebook_cuda_status_text.restype = ctypes.c_char_p
        self.library.edgekit_codebook_cuda_lookup.argtypes = [
            ctypes.POINTER(Request), ctypes.c_void_p
        ]  # fmt: skip

    def prepare(
        self, x: torch.Tensor, codebook: torch.Tensor, metric: int = _DOT, *, margin: bool = True
    ) -> tuple[Callable[[], None], dict[str, torch.Tensor]]:
        """A function that enqueues the lookup on the current stream, and its outputs."""
        m, d = x.shape
        n = codebook.shape[0]
        size = self.library.edgekit_codebook_cuda_workspace(m, n)
        out = {
            "indices": torch.full((m,), -1, dtype=torch.int64, device="cuda"),
            "margin": torch.zeros(m, dtype=torch.float32, device="cuda"),
            "nonfinite": torch.zeros(1, dtype=torch.int32, device="cuda"),
            "workspace": torch.empty(max(size, 16), dtype=torch.uint8, device="cuda"),
        }
        request = Request(
            x.data_ptr(), codebook.data_ptr(), m, n, d,
            int(x.dtype == torch.float16), int(codebook.dtype == torch.float16), metric, 0,
            out["indices"].data_ptr(), None, out["margin"].data_ptr() if margin else None,
            out["nonfinite"].data_ptr(), out["workspace"].data_ptr(), size,
        )  # fmt: skip
        out["x"], out["codebook"] = x, codebook

        def run(_keep: dict[str, torch.Tensor] = out) -> None:  # the pointers' memory must stay
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            status = self.library.edgekit_codebook_cuda_lookup(ctypes.byref(request), stream)
            if status != 0:
                text = self.library.edgekit_codebook_cuda_status_text(status).decode()
                raise RuntimeError(text)

        return run, out


def unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def clustered(n: int, d: int, spread: float) -> torch.Tensor:
    centers = torch.randn(max(n // 12, 1), d, device="cuda")
    picked = centers[torch.randint(len(centers), (n,), device="cuda")]
    return unit(picked + spread * torch.randn(n, d, device="cuda"))


def check_case(
    kernel: Kernel, x: torch.Tensor, codebook: torch.Tensor, metric: int, exact: bool
) -> int:
    """Wrong indices; where float64 itself cannot decide (unless ``exact``), either is right."""
    run, out = kernel.prepare(x, codebook, metric)
    for _ in range(2):  # the second time the workspace holds what the first left
        run()
    torch.cuda.synchronize()
    wrong = 0
    rows = codebook.double()
    half = rows.square().sum(dim=1) / 2 if metric == _L2 else None
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
        for metric in (_DOT, _L2):
            x = torch.randn(m, d, device="cuda")
            rows = torch.randn(n, d, device="cuda")
            key = f"normal m={m} n={n} d={d} metric={'l2' if metric else 'dot'}"
            found[key] = check_case(kernel, x, rows, metric, exact=False)
        small = torch.randint(-1, 2, (m, d), device="cuda").float()
        rows = torch.randint(-1, 2, (n, d), device="cuda").float()
        found[f"ties m={m} n={n} d={d}"] = check_case(kernel, small, rows, _DOT, exact=True)
        near = clustered(n, d, 1e-6)
        x = near[torch.randint(n, (m,), device="cuda")] * 3
        found[f"near duplicates m={m} n={n} d={d}"] = check_case(kernel, x, near, _DOT, False)
    for m, n, d in ((1, 1000, 2048), (49, 512, 33), (300, 700, 130)):
        x = torch.randn(m, d, device="cuda").half()
        rows = torch.randn(n, d, device="cuda")
        found[f"half m={m} n={n} d={d}"] = check_case(kernel, x, rows, _DOT, False)
        found[f"both half m={m} n={n} d={d}"] = check_case(kernel, x, rows.half(), _DOT, False)
    for m in (1, 40, 200):
        rows = unit(torch.randn(500, 64, device="cuda"))
        x = torch.randn(m, 64, device="cuda")
        x[m // 2, 3] = float("nan")
        run, out = kernel.prepare(x, rows)
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
    times = []
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


def time_all(kernel: Kernel) -> dict[str, object]:
    """Ours, and torch's best, for sizes of the head and beyond."""
    torch.backends.cuda.matmul.allow_tf32 = False
    compiled = torch.compile(scores_argmax, mode="max-autotune-no-cudagraphs")
    peak = bandwidth()
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    rows_of: list[dict[str, object]] = []
    for n, d in ((1000, 1280), (1000, 2048), (10_000, 2048), (100_000, 2048)):
        for m in (1, 8, 49, 392, 3136):
            if n == 100_000 and m == 3136:
                continue
            size = n * d * 4
            copies = max(1, min(64, -(-3 * cache // size)))
            codebooks = [unit(torch.randn(n, d, device="cuda")) for _ in range(copies)]
            x = torch.randn(m, d, device="cuda").abs()
            times = {
                "ours": seconds_of([kernel.prepare(x, c, margin=False)[0] for c in codebooks]),
                "ours, with margin": seconds_of([kernel.prepare(x, c)[0] for c in codebooks]),
                "torch": seconds_of([lambda c=c, x=x: scores_argmax(x, c) for c in codebooks]),
                "torch.compile": seconds_of([lambda c=c, x=x: compiled(x, c) for c in codebooks]),
            }
            best = min(times["torch"], times["torch.compile"])
            entry = {
                "n": n, "d": d, "m": m,
                **{f"{name} us": round(value * 1e6, 2) for name, value in times.items()},
                "speed-up over torch's best": round(best / times["ours"], 3),
                "share of bandwidth": round(size / times["ours"] / peak, 3),
            }  # fmt: skip
            rows_of.append(entry)
            print(json.dumps(entry), flush=True)
    return {"copy bandwidth GB/s": round(peak / 1e9, 1), "cases": rows_of}


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
    done = subprocess.run(
        [sys.executable, "-c", RTX, path], capture_output=True, text=True, check=False
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return f"exit {done.returncode}: {lines[-1] if lines else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", choices=("check", "time"))
    parser.add_argument("--json", type=Path)
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
        kernel = Kernel(Path(scratch))
        if options.only != "time":
            found = check(kernel)
            result["wrong indices"] = found
            print(f"{sum(found.values())} wrong indices in {len(found)} cases", flush=True)
        if options.only != "check":
            result["timing"] = time_all(kernel)
        if options.tensorrt_include:
            result["enqueue"] = drive_plugin(options.tensorrt_include, Path(scratch) / "plugin")
        if options.rtx:
            result["TensorRT-RTX"] = probe_rtx(options.rtx)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    wrong = result.get("wrong indices")
    if isinstance(wrong, dict) and sum(wrong.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
