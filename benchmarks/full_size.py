"""The paper's ResNet-50 at full size through INT8: how close each calibration stays to float.

1000 classes, 1000 codewords of which dozens are in use, random weights with the statistics of a
trained net (`tests/full_size.py`). Every calibration is judged on images that it never saw, clean
and corrupted, with OpenVINO and with ONNX Runtime, and as often as asked made again: the same
images must give the same bytes.

    python benchmarks/full_size.py --images 60 --again 10
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgekit.core.console import Console
from edgekit.data.corruptions import BENCHMARK15, corrupt
from edgekit.data.transforms import IMAGENET
from edgekit.export.exporter import export_onnx
from edgekit.graph.legalize import legalize
from edgekit.model.checkpoint import load_checkpoint
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.engine import answers
from edgekit.quantize.guard import closeness, onnxruntime_answers
from edgekit.quantize.recipes import Recipe
from edgekit.runtime.answers import Answers
from edgekit.targets.dialects import DIALECTS
from tests.full_size import lively_state, photographs
from tests.model.authors import authors_file

HELD_OUT = 64
RECIPES = {
    "plain rounding": Recipe(rounding="nearest", bias_correction="none"),
    "NNCF's bias correction": Recipe(rounding="nearest", bias_correction="fast"),
    "biases alone": Recipe(rounding="nearest"),
    "rounding alone": Recipe(bias_correction="none"),
    "default": Recipe(),
}


def half_corrupted(count: int, seed: int) -> NDArray[np.uint8]:
    """Photographs, every second one under some corruption."""
    images = photographs(count, seed)
    for place in range(1, count, 2):
        name, severity = BENCHMARK15[(place // 2 + seed) % 15], 1 + place * 7 // 2 % 5
        images[place] = corrupt(images[place], name, severity, image_id=str(place), seed=seed)
    return images


def float_graph(folder: Path) -> onnx.ModelProto:
    """The exported graph of a checkpoint in the authors' layout."""
    torch.save(authors_file(lively_state()), folder / "best.pth")
    loaded = load_checkpoint(folder / "best.pth")
    export_onnx(loaded.model, loaded.card, folder / "model.onnx")
    return onnx.load(folder / "model.onnx")


def main() -> int:
    """Print a table; exit 1 where the same images gave other bytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60, help="for calibration")
    parser.add_argument("--test-images", type=int, default=128)
    parser.add_argument("--again", type=int, default=0, help="times the default is made again")
    parser.add_argument("--recipes", nargs="*", choices=[*RECIPES], default=[*RECIPES])
    parser.add_argument("--kinds", nargs="*", choices=["clean", "half"], default=["clean", "half"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = float_graph(Path(folder))
    makers: dict[str, Callable[[int, int], NDArray[np.uint8]]] = {
        "clean": photographs,
        "half": half_corrupted,
    }
    held_out, test = half_corrupted(HELD_OUT, 22), half_corrupted(given.test_images, 23)
    reference = answers(model, test, IMAGENET)
    assert reference.code is not None
    used, shown = len(np.unique(reference.code)), len(np.unique(reference.logits.argmax(axis=1)))
    print(f"{len(test)} test views use {used} codes and {shown} classes", flush=True)
    different = 0
    for kind in given.kinds:
        images = makers[kind](given.images, 21)
        for name in given.recipes:
            digests = set()
            for number in range(1 + (given.again if name == "default" else 0)):
                start, cpu = time.monotonic(), time.process_time()
                graph, report = calibrate(
                    model, images, held_out, IMAGENET, RECIPES[name], DIALECTS["openvino"],
                    Console(verbosity=-1),
                )  # fmt: skip
                data = graph.SerializeToString(deterministic=True)
                digests.add(hashlib.sha256(data).hexdigest())
                if number == 0:
                    print(
                        f"{kind}, {name}: {time.monotonic() - start:.0f} s, "
                        f"{time.process_time() - cpu:.0f} CPU-s; {report.held_back}"
                    )
                    table(graph, test, reference)
            if given.again and name == "default":
                print(
                    f"    {1 + given.again} times the same images: {len(digests)} kind(s) of bytes"
                )
                different += len(digests) > 1
    return int(different > 0)


def table(graph: onnx.ModelProto, test: NDArray[np.uint8], reference: Answers) -> None:
    """A line for each runtime and half of the images."""
    judged = {
        "OpenVINO": answers(graph, test, IMAGENET),
        "ONNX Runtime": onnxruntime_answers(
            legalize(graph, DIALECTS["onnxruntime"]), test, IMAGENET
        ),
        "TensorRT's form, ONNX Runtime": onnxruntime_answers(
            legalize(graph, DIALECTS["tensorrt"]), test, IMAGENET
        ),
    }
    for runtime, found in judged.items():
        for half, part in (("clean", slice(0, None, 2)), ("corrupted", slice(1, None, 2))):
            near = closeness(reference.part(part), found.part(part))
            codes = "" if near.codes_equal is None else f", codes {near.codes_equal:.1%}"
            print(
                f"    {runtime}, {half}: RMS {near.logits_rms:.3f}, top-1 {near.top1_equal:.1%}"
                f"{codes}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
