"""The codebook lookup against its peers, side by side in one run, one thread.

Every round times each contender in turn on the same vectors, so that a slow moment of the machine
hits all of them. Times are the medians of each round's best call; the ratio is the median (and
quartiles) over the rounds of the best peer's time over ours. The peers answer the same question in
float32 (a product and an argmax), without our guarantee. For a single vector the note tells how
close the lookup comes to reading the bytes that it needs, which is timed in the same rounds.

    python benchmarks/lookup.py                 # the table of docs/exact-lookup.md
    python benchmarks/lookup.py --widths 512 --rows 1000 --vectors 1,49
    python benchmarks/lookup.py --paths         # our own paths, for targets/codebook/dispatch.cpp

Needs edgekit with its [build] extra and the package faiss-cpu, best in a virtual environment of its
own; a peer that is missing is left out and named.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when the peers load their libraries

import numpy as np

from edgekit.native import codebook as native

Call = Callable[[], np.ndarray]
Contender = tuple[Call, Callable[[], None]]  # the call, and what frees its memory
Makers = dict[str, Callable[[np.ndarray, np.ndarray], Contender]]


def clustered(rows: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Normalized non-negative rows around rows / 20 centers, as trained codebooks look."""
    centers = np.maximum(rng.standard_normal((max(1, rows // 20), width), dtype=np.float32), 0)
    book = rng.standard_normal((rows, width), dtype=np.float32)
    book *= np.float32(0.5)
    book += centers[rng.integers(0, len(centers), rows)]
    np.maximum(book, 0, out=book)
    book /= np.linalg.norm(book, axis=1, keepdims=True)
    return book


def unrelated(rows: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Normalized ReLU of noise: no structure that an approximate score could use."""
    book = np.maximum(rng.standard_normal((rows, width), dtype=np.float32), 0)
    book /= np.linalg.norm(book, axis=1, keepdims=True)
    return book


def features(book: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Vectors near codebook rows: a row plus noise of half its length, ReLU, times 7."""
    noise = rng.standard_normal((count, book.shape[1]), dtype=np.float32)
    noise *= np.float32(0.5 / np.sqrt(book.shape[1]))
    near = book[rng.integers(0, len(book), count)] + noise
    return np.maximum(near, 0) * np.float32(7)


def own(book: np.ndarray, x: np.ndarray) -> Contender:
    codebook = native.Codebook(book)
    indices = np.empty(len(x), np.int64)
    lookup = native.load_library().edgekit_codebook_lookup
    handle, source, target = codebook._handle, x.ctypes.data, indices.ctypes.data

    def call() -> np.ndarray:
        if lookup(handle, source, len(x), target, None, None, 1) != 0:
            raise SystemExit("the lookup failed")
        return indices

    return call, codebook.close


def openvino_peer(reduction: str) -> Callable[[np.ndarray, np.ndarray], Contender]:
    import openvino as ov
    from openvino import opset13 as ops

    def build(book: np.ndarray, x: np.ndarray) -> Contender:
        source = ops.parameter(list(x.shape), np.float32)
        scores = ops.matmul(source, ops.constant(book), False, True)
        one = ops.constant(np.int64(1))
        top = ops.topk(scores, one, 1, "max", "none" if reduction == "topk" else "value", "i64")
        if reduction == "argmax":  # as the converter writes ONNX ArgMax
            top = ops.topk(scores, one, 1, "max", "value", "i64", stable=True)
        graph = ov.Model(
            [ops.squeeze(top.output(1), ops.constant(np.array([1], np.int64)))], [source]
        )
        options = {
            "INFERENCE_NUM_THREADS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
        }
        request = ov.Core().compile_model(graph, "CPU", options).create_infer_request()
        request.set_input_tensor(ov.Tensor(x, shared_memory=True))

        def call() -> np.ndarray:
            request.infer()
            return np.asarray(request.get_output_tensor().data)

        return call, lambda: None

    return build


def onnxruntime_peer() -> Callable[[np.ndarray, np.ndarray], Contender]:
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    def build(book: np.ndarray, x: np.ndarray) -> Contender:
        nodes = [
            helper.make_node("MatMul", ["x", "book"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
        ]
        graph = helper.make_graph(
            nodes,
            "lookup",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info("index", TensorProto.INT64, [len(x)])],
            [numpy_helper.from_array(np.ascontiguousarray(book.T), "book")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        with tempfile.TemporaryDirectory() as folder:  # larger than a protobuf string may be
            import onnx

            path = Path(folder) / "lookup.onnx"
            onnx.save(model, path, save_as_external_data=True, location="book.bin")
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"x": x})[0], lambda: None

    return build


def torch_peer() -> Callable[[np.ndarray, np.ndarray], Contender]:
    import torch

    torch.set_num_threads(1)

    def build(book: np.ndarray, x: np.ndarray) -> Contender:
        rows, vectors = torch.from_numpy(book), torch.from_numpy(x)

        def call() -> np.ndarray:
            with torch.inference_mode():
                return (vectors @ rows.T).argmax(1).numpy()

        return call, lambda: None

    return build


def faiss_peer() -> Callable[[np.ndarray, np.ndarray], Contender]:
    import faiss

    faiss.omp_set_num_threads(1)

    def build(book: np.ndarray, x: np.ndarray) -> Contender:
        index = faiss.IndexFlatIP(book.shape[1])
        index.add(book)
        return lambda: index.search(x, 1)[1][:, 0], index.reset

    return build


def peers() -> Makers:
    """The contenders that are installed, ours first."""
    makers: dict[str, Callable[[], Callable[[np.ndarray, np.ndarray], Contender]]] = {
        "OV ArgMax": lambda: openvino_peer("argmax"),
        "OV TopK": lambda: openvino_peer("topk"),
        "ORT": onnxruntime_peer,
        "torch": torch_peer,
        "faiss": faiss_peer,
    }
    found: Makers = {"edgekit": own}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"left out: {name} ({error})")
    return found


def best_call(call: Call, seconds: float) -> float:
    """Milliseconds of the fastest call within `seconds`, at least two calls."""
    best, end, calls = float("inf"), time.perf_counter() + seconds, 0
    while calls < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best * 1e3


def reader(size: int, folder: str) -> Call:
    """A call in which one thread reads `size` bytes, by a small library compiled in `folder`."""
    source = Path(__file__).with_name("read_bandwidth.cpp")
    target = Path(folder) / "read_bandwidth.so"
    flags = ["-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-Wno-psabi"]
    subprocess.run(["g++", *flags, source, "-o", target], check=True)
    read_all = ctypes.CDLL(str(target)).read_all
    read_all.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    data = np.ones(size + 64, np.uint8)
    start = data.ctypes.data + -data.ctypes.data % 64

    def call() -> np.ndarray:
        read_all(start, size)
        return data

    return call


def code_bytes(rows: int, width: int) -> int:
    """What a lookup of one vector has to read: the int8 codes and the bounds of every row."""
    padded_rows, padded_width = -(-rows // 64) * 64, -(-width // 64) * 64
    return padded_rows * (padded_width + 5 * ctypes.sizeof(ctypes.c_float))


def problem(rows: int, width: int, count: int, hard: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A codebook and feature vectors; the hard ones are as far from each row as from any other."""
    rng = np.random.default_rng([rows, width, count])
    if hard:
        return unrelated(rows, width, rng), unrelated(count, width, rng)
    book = clustered(rows, width, rng)
    return book, features(book, count, rng)


def compare(
    makers: Makers, size: tuple[int, int, int], hard: bool, rounds: int, seconds: float
) -> float:
    """Prints a row of the table; returns the ratio to the best peer."""
    rows, width, count = size
    book, x = problem(rows, width, count, hard)
    contenders = {name: make(book, x) for name, make in makers.items()}
    calls = {name: call for name, (call, _) in contenders.items()}
    expected = calls["edgekit"]().copy()
    differ = sum(int((call() != expected).sum()) for call in calls.values())
    size_read = code_bytes(rows, width)
    with tempfile.TemporaryDirectory() as folder:
        if count == 1:
            calls["read"] = reader(size_read, folder)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(best_call(call, seconds))
    for _, release in contenders.values():
        release()
    own_times = np.array(times["edgekit"])
    notes = [f"{differ} float32 answers differ"] if differ else []
    if count == 1:
        share = np.median(np.array(times.pop("read")) / own_times)
        speed = size_read / np.median(own_times) / 1e6
        notes.append(f"{size_read / 1e6:.1f} MB at {speed:.1f} GB/s, {share:.0%} of plain reading")
    others = [times[name] for name in times if name != "edgekit"]
    ratios = np.min(others, axis=0) / own_times if others else np.array([np.nan])
    cells = " | ".join(f"{np.median(series):.3f}" for series in times.values())
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    ratio = f"{middle:.2f} ({low:.2f}-{high:.2f})"
    print(f"| {rows}, {width}, {count} | {cells} | {ratio} | {'; '.join(notes)} |", flush=True)
    return float(middle)


def compare_paths(rows: int, width: int, count: int, seconds: float) -> None:
    """Prints the processor time of every path of this machine, in microseconds, fastest first."""
    book, x = problem(rows, width, count)
    indices = np.empty(count, np.int64)
    lookup = native.load_library().edgekit_codebook_lookup
    with native.Codebook(book) as codebook:
        paths = codebook.describe()["available"]
        chosen = codebook.describe()["path"]
    times = {}
    for path in paths:
        os.environ["EDGEKIT_LOOKUP_PATH"] = path
        with native.Codebook(book) as codebook:
            spent: list[float] = []
            end = time.thread_time() + seconds
            while len(spent) < 3 or time.thread_time() < end:
                start = time.thread_time()
                lookup(codebook._handle, x.ctypes.data, count, indices.ctypes.data, None, None, 1)
                spent.append(time.thread_time() - start)
        times[path] = min(spent) * 1e6
    del os.environ["EDGEKIT_LOOKUP_PATH"]
    order = sorted(times, key=lambda path: times[path])
    listed = ", ".join(f"{path} {times[path]:.1f}" for path in order)
    print(f"N={rows} D={width} M={count}: chosen {chosen}; {listed}", flush=True)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=numbers, default=[1000, 10_000, 100_000])
    parser.add_argument("--widths", type=numbers, default=[2048])
    parser.add_argument("--vectors", type=numbers, default=[1, 49, 392])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.1, help="for each contender in a round")
    parser.add_argument("--hard", action="store_true", help="rows and vectors without structure")
    parser.add_argument("--paths", action="store_true", help="compare our own paths instead")
    options = parser.parse_args()
    if options.paths:
        for width in options.widths:
            for rows in options.rows:
                for count in options.vectors:
                    compare_paths(rows, width, count, options.seconds)
        return
    makers = peers()
    names = " | ".join(f"{name} ms" for name in makers)
    print(f"| N, D, M | {names} | to best peer | note |")
    print("|" + "---|" * (len(makers) + 3))
    ratios = [
        compare(makers, (rows, width, count), options.hard, options.rounds, options.seconds)
        for width in options.widths
        for rows in options.rows
        for count in options.vectors
    ]
    print(f"ratio to the best peer: median {np.median(ratios):.2f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
