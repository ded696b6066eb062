"""Does `edgekit bench` measure what OpenVINO's own benchmark_app measures? In turns, on one model.

    python benchmarks/benchmark_app_agreement.py build/cpu
    python benchmarks/benchmark_app_agreement.py build/cpu --rounds 20 --threads 1 --batch 8

Both get the same IR and plugin, hint, precision, batch and threads, each in a process of its own
that runs for the same time: A B A B. Both start requests asynchronously and wait for them, for
latency one, for throughput as many as the runtime asks for. Prints the ratios
edgekit / benchmark_app with their 95% intervals, and ends with 0 only if those of latency and
throughput lie within 5% as a whole. benchmark_app's latency is that inside the runtime; what a
Python program waits for a call of a bundle is shown beside it, and judges nothing.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from edgekit.bench.interleaved import Ratio, ratio
from edgekit.bundle.store import open_bundle

AIM = 0.05
AS_PYTHON = "latency as Python sees it"
HINTS = ("latency", "throughput")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="a bundle for OpenVINO")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=5, help="of one run")
    parser.add_argument("--threads", type=int, default=0, help="0: the runtime's choice")
    parser.add_argument("--batch", type=int, default=1)
    chosen = parser.parse_args()
    if open_bundle(chosen.bundle).manifest.target.backend != "openvino":
        print(f"{chosen.bundle} is not for OpenVINO, benchmark_app cannot run it", file=sys.stderr)
        return 2
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        bundle = Path(folder) / "bundle"
        shutil.copytree(chosen.bundle, bundle)  # edgekit keeps its result in the bundle it measures
        for hint in HINTS:
            for name, found in _ratios(hint, bundle, chosen).items():
                verdict = _verdict(found)
                print(
                    f"{name}: edgekit / benchmark_app = {found.median:.3f} "
                    f"[{found.low:.3f}, {found.high:.3f}]: {verdict}"
                )
                if name != AS_PYTHON:
                    verdicts.append(verdict)
    return 0 if set(verdicts) == {"within 5%"} else 1


def _verdict(found: Ratio) -> str:
    if found.low >= 1 - AIM and found.high <= 1 + AIM:
        return "within 5%"
    return "beyond 5%" if found.low > 1 + AIM or found.high < 1 - AIM else "undecided"


def _ratios(hint: str, bundle: Path, chosen: argparse.Namespace) -> dict[str, Ratio]:
    """Of every figure that both give."""
    ours, theirs = [], []
    for number in range(chosen.rounds):
        ours.append(_edgekit(hint, bundle, chosen))
        theirs.append(_benchmark_app(hint, bundle, chosen))
        shown = (" ".join(f"{value:.3f}" for value in run[-1].values()) for run in (ours, theirs))
        print(f"  {number + 1}: {' and '.join(shown)} ms", file=sys.stderr)
    ratios = {}
    for name in ours[0]:
        left, right = [run[name] for run in ours], [run[name] for run in theirs]
        print(
            f"{name}: edgekit {statistics.median(left):.3f} ms, benchmark_app "
            f"{statistics.median(right):.3f} ms (medians of {chosen.rounds} runs); best runs "
            f"{min(left):.3f} and {min(right):.3f}, ratio {min(left) / min(right):.3f}"
        )
        ratios[name] = ratio(left, right)
    return ratios


def _edgekit(hint: str, bundle: Path, chosen: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of an inference, or of an image at full load."""
    command = [sys.executable, "-m", "edgekit", "bench", str(bundle), "--scenario", hint]
    command += ["--baseline", "none", "--seconds", str(chosen.seconds), "--json", "-q"]
    command += ["--batch", str(chosen.batch), "--threads", str(chosen.threads)]
    (document,) = json.loads(_run(command))["bundles"]
    found = document["scenarios"][hint]
    if hint == "latency":
        return {
            "latency": found["in_runtime_ms"]["bundle"],
            AS_PYTHON: found["latencies"]["bundle"]["median_ms"],
        }
    own = found["models"]["bundle"]
    return {"throughput": 1e3 / own["images_per_second"]}


def _benchmark_app(hint: str, bundle: Path, chosen: argparse.Namespace) -> dict[str, float]:
    """The same from benchmark_app's report; threads go into its settings file, as its -nthreads
    refuses to be combined with a hint."""
    manifest = open_bundle(bundle).manifest
    height, width = manifest.preprocessing.size
    settings = bundle.parent / "settings.json"
    threads = {"INFERENCE_NUM_THREADS": chosen.threads} if chosen.threads else {}
    settings.write_text(json.dumps({"CPU": threads}), encoding="utf-8")
    command = [str(Path(sysconfig.get_path("scripts")) / "benchmark_app"), "-d", "CPU"]
    command += ["-m", str(bundle / manifest.main), "-hint", hint]
    command += ["-api", "async", "-t", str(chosen.seconds)]
    command += ["-infer_precision", manifest.target.inference_precision]
    command += ["-shape", f"images[{chosen.batch},{height},{width},3]"]
    command += ["-load_config", str(settings)]
    if manifest.plugins:
        command += ["-extensions", ",".join(str(bundle / name) for name in manifest.plugins)]
    report = _run(command)
    if hint == "throughput":
        rate, _ = _figure(r"Throughput:\s+([\d.]+) (FPS)", report)
        return {"throughput": 1e3 / rate}
    median, unit = _figure(r"Median:\s+([\d.]+) (us|ms)", report)
    median *= {"us": 1e-3, "ms": 1.0}[unit]  # it depends on the size of the figure
    return {"latency": median, AS_PYTHON: median}


def _figure(pattern: str, report: str) -> tuple[float, str]:
    found = re.search(pattern, report)
    if found is None:
        raise SystemExit(f"benchmark_app gave no figure:\n{report[-2000:]}")
    return float(found[1]), found[2]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
