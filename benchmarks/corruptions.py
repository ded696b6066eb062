"""Times edgekit's corruptions beside imagecorruptions-imaug, side by side in one run.

    python benchmarks/corruptions.py [--venv DIR] [--repeats N] [--json FILE]

The peer gets a virtual environment of its own (it brings numba and OpenCV with windows), made
on the first run in the folder that is printed. Two worker processes, one for each package, are
pinned to the same core with one thread each and asked in turns, so that whatever else the
machine does meets both alike; CPU time counts, the least of the repeats.

The exit code is 0 if the 75 variants of a 224 px image take at most half of the peer's time and
no corruption takes longer than the peer's.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = ROOT / "tests" / "data" / "fixtures" / "corruptions-224.npz"
PEER = "imagecorruptions-imaug==1.1.5"
SIDES = ("ours", "peer")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


def main() -> int:
    options = arguments()
    if options.worker:
        work(options.worker)
        return 0
    python = peer_python(options.venv)
    ours = Worker(Path(sys.executable), "ours")
    peer = Worker(python, "peer")
    milliseconds = measure(ours, peer, options.repeats)
    report = summary(milliseconds)
    show(milliseconds, report)
    if options.json:
        document = {"peer": PEER, **report, "milliseconds": milliseconds}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if report["passed"] else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(tempfile.gettempdir()) / "edgekit-benchmark-imagecorruptions"
    parser.add_argument("--venv", type=Path, default=default, help="where the peer is installed")
    parser.add_argument("--repeats", type=int, default=15, help="measurements of each variant")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    parser.add_argument("--worker", choices=["ours", "peer"], help=argparse.SUPPRESS)
    return parser.parse_args()


def peer_python(venv: Path) -> Path:
    """The interpreter of the peer's environment, which is made if it is not there."""
    python = venv / "bin" / "python"
    print(f"peer's environment: {venv}")
    probe = [str(python), "-c", "import imagecorruptions"]
    if not python.exists() or subprocess.run(probe, capture_output=True).returncode != 0:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEER], check=True)
    return python


class Worker:
    """A process that times one variant for each line it is sent."""

    def __init__(self, python: Path, side: str) -> None:
        core = min(os.sched_getaffinity(0))
        self._process = subprocess.Popen(
            [str(python), __file__, "--worker", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )

    def seconds(self, corruption: str, severity: int) -> float:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{corruption} {severity}\n")
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("a worker died; its error is above")
        return float(answer)


def work(side: str) -> None:
    """Answers "corruption severity" lines with the CPU seconds one call took."""
    import cv2
    import numpy as np
    from PIL import Image

    cv2.setNumThreads(1)
    image = np.array(Image.open(io.BytesIO(np.load(FIXTURE)["clean"].tobytes())).convert("RGB"))
    for number, line in enumerate(sys.stdin):
        corruption, severity = line.split()
        if side == "ours":
            spent = time_ours(image, corruption, int(severity), number)
        else:
            spent = time_peer(image, corruption, int(severity))
        print(spent, flush=True)


def time_ours(image: NDArray[np.uint8], corruption: str, severity: int, number: int) -> float:
    from edgekit.data.corruptions import corrupt

    start = time.process_time()
    corrupt(image, corruption, severity, image_id=str(number))
    return time.process_time() - start


def time_peer(image: NDArray[np.uint8], corruption: str, severity: int) -> float:
    from imagecorruptions import corrupt

    start = time.process_time()
    corrupt(image, corruption_name=corruption, severity=severity)
    return time.process_time() - start


def measure(ours: Worker, peer: Worker, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Least CPU milliseconds for each corruption: "ours" and "peer", five severities each.

    The first turn builds tables and compiles the peer's loops; it does not count.
    """
    sys.path.insert(0, str(ROOT))
    from edgekit.data.corruptions import ALL19

    best: dict[str, dict[str, list[float]]] = {}
    for corruption in ALL19:
        best[corruption] = {"ours": [float("inf")] * 5, "peer": [float("inf")] * 5}
        for turn in range(repeats + 1):
            for severity in range(1, 6):
                for side, worker in (("ours", ours), ("peer", peer)):
                    spent = 1000 * worker.seconds(corruption, severity)
                    if turn:
                        fastest = best[corruption][side]
                        fastest[severity - 1] = min(fastest[severity - 1], spent)
    return best


def summary(milliseconds: dict[str, dict[str, list[float]]]) -> dict[str, object]:
    from edgekit.data.corruptions import BENCHMARK15

    total = {side: sum(sum(milliseconds[name][side]) for name in BENCHMARK15) for side in SIDES}
    share = {name: sum(row["ours"]) / sum(row["peer"]) for name, row in milliseconds.items()}
    slower = [name for name, ratio in share.items() if ratio > 1]
    return {
        "ours_75_ms": round(total["ours"], 2),
        "peer_75_ms": round(total["peer"], 2),
        "share_of_peer": round(total["ours"] / total["peer"], 4),
        "slower_than_peer": slower,
        "passed": total["ours"] <= total["peer"] / 2 and not slower,
    }


def show(milliseconds: dict[str, dict[str, list[float]]], report: dict[str, object]) -> None:
    print(f"{'CPU ms, severities 1 to 5 together':36}{'ours':>8}{'peer':>8}  share")
    for name, row in milliseconds.items():
        ours, peer = sum(row["ours"]), sum(row["peer"])
        print(f"{name:36}{ours:8.2f}{peer:8.2f}{ours / peer:7.2f}")
    print(
        f"75 benchmark variants: {report['ours_75_ms']} ms, "
        f"peer {report['peer_75_ms']} ms, share {report['share_of_peer']}"
    )
    print("passed" if report["passed"] else f"not passed; slower: {report['slower_than_peer']}")


if __name__ == "__main__":
    sys.exit(main())
