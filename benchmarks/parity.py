"""Times a full parity sweep beside the obvious loop, in turns, in one run.

    python benchmarks/parity.py [--model efficientnet-lite0|resnet50] [--images N] [--rounds N]

The obvious loop: for each image and each of the 75 cells, corrupt with imagecorruptions-imaug,
run the float model (ONNX Runtime with its default threads; --torch for PyTorch), run the bundle,
one image at a time. The models are run on edgekit's pixels, so that both must find the same
errors; the time of corrupting is the peer's. It has an environment of its own, made on the first
run in the folder that is printed.

Then edgekit alone: a second target, and what early stopping saves on the built-in model: on easy
passes (the float model compiled, and INT8 with a tolerance of 2 points) and on an easy fail (one
layer's scales doubled). It ends with Markdown tables.
The exit code is 0 if the answers are the same and the sweep is three times as fast.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from full_sweep import full_sweep
from parity_stopping import stopping

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PEER = "imagecorruptions-imaug==1.1.5"
CLASSES = 10


def main() -> int:
    options = arguments()
    if options.worker:
        work()
        return 0
    work_folder = options.folder / f"{options.model}-{options.size}"
    os.environ["EDGEKIT_CACHE"] = str(work_folder / "cache")
    peer = Peer(peer_python(options.venv))
    bundle, reference_onnx, checkpoint = prepare(options.model, options.size, work_folder)
    rounds, same = side_by_side(options, peer, bundle, reference_onnx, checkpoint)
    ratio = statistics.median(found.ratio for found in rounds)
    second = second_target(options, bundle, reference_onnx)
    rows = [] if options.no_stopping else stopping(options)
    print(f"\n{options.model}, {options.size} px, {cores()} cores; errors", end=" ")
    print("equal to the loop's" if same else "DIFFER")
    print("\n| per image, seconds | loop | edgekit | faster |\n|---|---|---|---|")
    loop = statistics.median(found.loop for found in rounds)
    swept = statistics.median(found.sweep for found in rounds)
    least, most = (pick(found.ratio for found in rounds) for pick in (min, max))
    print(
        f"| first target | {loop:.2f} | {swept:.2f} | {ratio:.1f} x ({least:.1f} to {most:.1f}) |"
    )
    print(f"| a second one | {loop:.2f} | {swept * second:.2f} | {ratio / second:.1f} x |")
    if rows:
        print("\n| stopping early | verdict | images | inferences | seconds | less than all |")
        print("|---|---|---|---|---|---|")
        print("\n".join(rows))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process {peak:,.0f} MB, loop and both models included")
    return 0 if same and ratio >= 3 else 1


class Round(NamedTuple):
    """Seconds an image."""

    loop: float
    sweep: float

    @property
    def ratio(self) -> float:
        return self.loop / self.sweep


def cores() -> int:
    return len(os.sched_getaffinity(0))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    temporary = Path(tempfile.gettempdir())
    venv = temporary / "edgekit-benchmark-imagecorruptions"
    parser.add_argument("--model", choices=["efficientnet-lite0", "resnet50"], default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--images", type=int, default=12, help="images a round of the sweep")
    parser.add_argument("--naive-images", type=int, default=3, help="images a round of the loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch", action="store_true", help="the loop's float model in PyTorch")
    parser.add_argument("--no-stopping", action="store_true", help="leave early stopping out")
    parser.add_argument("--venv", type=Path, default=venv, help="where the peer is installed")
    parser.add_argument("--folder", type=Path, default=temporary / "edgekit-benchmark-parity")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
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


class Peer:
    """A process that corrupts what it is sent and says how long that took."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), __file__, "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def seconds(self, image: Any, cells: list[tuple[str, int]]) -> list[float]:
        assert self._process.stdin
        assert self._process.stdout
        pickle.dump((image.tobytes(), image.shape, cells), self._process.stdin)
        self._process.stdin.flush()
        found: list[float] = pickle.load(self._process.stdout)
        return found


def work() -> None:
    import numpy as np
    from imagecorruptions import corrupt

    # The libraries chat on stdout, which is ours.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            data, shape, cells = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        image = np.frombuffer(data, np.uint8).reshape(shape)
        seconds = []
        for name, severity in cells:
            start = time.perf_counter()
            corrupt(image, corruption_name=name, severity=severity)
            seconds.append(time.perf_counter() - start)
        pickle.dump(seconds, out)
        out.flush()


def prepare(name: str, size: int, folder: Path) -> tuple[Path, Path, Path]:
    """A bundle for this CPU, its float ONNX file and checkpoint; kept for the next run."""
    import torch

    from edgekit.core.console import Console
    from edgekit.data.datasets import open_dataset
    from edgekit.data.transforms import IMAGENET
    from edgekit.model.backbones.registry import create_backbone
    from edgekit.model.card import ModelCard
    from edgekit.model.checkpoint import save_checkpoint
    from edgekit.model.config import VQSAConfig
    from edgekit.model.vqsa import VQSA
    from edgekit.steps.config import BuildConfig
    from edgekit.workflows.build import build

    checkpoint = folder / "model.safetensors"
    if not checkpoint.exists():
        torch.manual_seed(0)
        vqsa = VQSAConfig(codebook_size=1000)
        model = VQSA(create_backbone(name), CLASSES, vqsa).eval()
        classes = open_dataset("builtin:fashion-mnist").classes
        preprocessing = dataclasses.replace(IMAGENET, size=(size, size))
        card = ModelCard(name, model.head.width, classes, preprocessing, vqsa)
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(checkpoint, model, card)
    config = BuildConfig(
        checkpoint=str(checkpoint),
        out=str(folder / "build"),
        recipe="fast",
        bench=False,
        parity=False,
        watch=False,
    )
    bundle = build(config, Console(verbosity=-1))[0].path
    return bundle, next((folder / "cache/export").glob("*/model.onnx")), checkpoint


def side_by_side(
    options: argparse.Namespace, peer: Peer, bundle: Path, reference: Path, checkpoint: Path
) -> tuple[list[Round], bool]:
    """The loop's time an image and the sweep's in turns; and whether errors agree."""
    from edgekit.parity.tally import Tally

    rounds, same = [], True
    for turn in range(options.rounds + 1):  # the first warms up and does not count
        this = full_sweep(bundle, reference, options.images, turn, options.folder)
        tally = Tally(this.make.cells, labeled=True, codebook_size=0)
        times = []
        start = time.perf_counter()
        for place, pair in enumerate(this.pairs()):
            times.append(time.perf_counter())
            if place < options.naive_images:
                tally.add(pair)
        steady = (times[-1] - times[0]) / (len(times) - 1)
        naive, errors = obvious_loop(options, peer, this, bundle, checkpoint, reference)
        found = {who: tally.errors(who) for who in ("reference", "candidate")}
        same = same and errors == {
            who: [error for row in cells.values() for error in row.values()]
            for who, cells in found.items()
        }
        if turn:
            parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in naive.items())
            total = sum(naive.values())
            rounds.append(Round(total, steady))
            print(
                f"round {turn}: loop {total:.2f} s an image ({parts}); sweep {steady:.2f} s, "
                f"{times[0] - start:.1f} s to the first; {total / steady:.2f} x",
                flush=True,
            )
    return rounds, same


def obvious_loop(
    options: argparse.Namespace,
    peer: Peer,
    this: Any,
    bundle: Path,
    checkpoint: Path,
    reference: Path,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Seconds an image for corrupting and for either model; the error of every cell."""
    import numpy as np

    from edgekit.data.loading import epoch_order
    from edgekit.runtime.model import load

    float_model = torch_model(checkpoint) if options.torch else onnx_model(reference)
    deployed = load(bundle)
    spent = dict.fromkeys(("corrupting", "float model", "bundle"), 0.0)
    cells = this.make.cells
    wrong = {who: np.zeros(cells.count) for who in ("reference", "candidate")}
    count = options.naive_images
    for index in epoch_order(len(this.dataset), this.seed, 0)[:count].tolist():
        pixels = this.make(this.dataset, (index, tuple(range(1 + cells.count))))
        spent["corrupting"] += sum(peer.seconds(pixels[0], cells.pairs))
        label = this.dataset.label(index)
        for variant in range(1 + cells.count):
            image = pixels[variant : variant + 1]
            start = time.perf_counter()
            logits = float_model(this.make.preprocessing.normalize(image))
            middle = time.perf_counter()
            answer = deployed.run(image)
            end = time.perf_counter()
            spent["float model"] += middle - start
            spent["bundle"] += end - middle
            if variant:
                wrong["reference"][variant - 1] += logits.argmax() != label
                wrong["candidate"][variant - 1] += answer.logits.argmax() != label
    errors = {who: (found / count).tolist() for who, found in wrong.items()}
    return {name: seconds / count for name, seconds in spent.items()}, errors


def onnx_model(path: Path) -> Callable[[Any], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda prepared: session.run(["logits"], {"images": prepared})[0]


def torch_model(path: Path) -> Callable[[Any], Any]:
    import torch

    from edgekit.model.checkpoint import load_checkpoint

    model = load_checkpoint(path).model.eval()

    def run(prepared: Any) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(prepared)).logits.numpy()

    return run


def second_target(options: argparse.Namespace, bundle: Path, reference: Path) -> float:
    """The time of a second target's full sweep over that of the first."""
    from edgekit.core.console import Console
    from edgekit.parity.compare import run_comparison
    from edgekit.parity.options import Gates, ParityOptions

    quiet = Console(verbosity=-1)
    this = full_sweep(bundle, reference, options.images, 99, options.folder)
    asked = ParityOptions(gates=Gates(99), full=True)
    first = run_comparison(this, asked, quiet).document
    another = dataclasses.replace(
        this, candidate=dataclasses.replace(this.candidate, key="another")
    )
    second = run_comparison(another, asked, quiet).document
    third = run_comparison(this, asked, quiet).document
    print(
        f"{options.images} images: first target {first.seconds:.1f} s, a second "
        f"{second.seconds:.1f} s, again from the kept answers {third.seconds:.2f} s"
    )
    return float(second.seconds / first.seconds)


if __name__ == "__main__":
    sys.exit(main())
