"""edgekit's accuracy control beside NNCF's `quantize_with_accuracy_control`, on the built-in model.

    python benchmarks/accuracy_control.py

Both calibrate alike (NNCF's default on 300 images, half of them corrupted), judge by the same
metric (equal codes) on the same validation images (200, each in 6 variants), run by the same
engine (OpenVINO, on all cores), and stop at the same limit. Then both graphs are judged on test
images that neither has seen. Minutes on two cores; seconds are of everything, calibration
included, one after the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekit.core.console import Console
from edgekit.core.step_cache import cache_root
from edgekit.data.loading import default_workers
from edgekit.graph.layers import quantized_layers, weight_names
from edgekit.metrics.codes import code_agreement
from edgekit.quantize.accuracy_control import control
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.calibration_images import choose_images, load_images
from edgekit.quantize.engine import answers
from edgekit.quantize.float_scope import head_nodes
from edgekit.quantize.probe import Probe, difference, load_probe
from edgekit.quantize.recipes import Recipe
from edgekit.quantize.results import interval_text
from edgekit.quantize.statistics import lean_statistics
from edgekit.steps.build_data import open_data
from edgekit.steps.calibration import probe_of
from edgekit.steps.context import Context
from edgekit.steps.float_model import export, obtain_checkpoint
from edgekit.steps.guard import hold_out
from edgekit.steps.options import DataOptions, SourceOptions
from edgekit.targets.dialects import find_dialect

RECIPE = Recipe(
    corrupted_share=0.5,
    corruptions="benchmark15",
    rounding="nearest",
    bias_correction="fast",
    first_depthwise="int8",
)
TEST_IMAGES = 500


@dataclasses.dataclass(frozen=True)
class Work:
    """What both are given."""

    original: onnx.ModelProto
    pixels: NDArray[np.uint8]  # [M, height, width, 3]: for calibration
    held_out: NDArray[np.uint8]  # alike: say which corrections of a calibration are kept
    probe: Probe
    max_drop: float  # points of equal codes


def ours(work: Work) -> onnx.ModelProto:
    """Calibrate, then `edgekit.quantize.accuracy_control`."""
    dialect, quiet = find_dialect("openvino"), Console(verbosity=-1)
    graph, _ = calibrate(
        work.original,
        work.pixels,
        work.held_out,
        work.probe.preprocessing,
        RECIPE,
        dialect,
        quiet,
    )
    controlled, _ = control(
        graph,
        work.original,
        work.probe,
        max_drop=work.max_drop,
        metric="code-agreement",
        dialect=dialect,
        console=quiet,
    )
    return controlled


def nncfs(work: Work) -> onnx.ModelProto:
    """NNCF's own, whose items are images in all their variants."""
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    name = work.original.graph.input[0].name
    normalize = work.probe.preprocessing.normalize
    codes = answers(work.original, work.probe.flat(), work.probe.preprocessing).code
    assert codes is not None
    variants = work.probe.pixels.shape[1]
    expected = codes.reshape(len(work.probe.pixels), variants, -1)

    def judge(model: onnx.ModelProto, items: Iterable[int]) -> tuple[float, list[float]]:
        if not model.functions:
            model.functions.extend(work.original.functions)
        chosen = list(items)
        pixels = work.probe.pixels[chosen]
        code = answers(model, pixels.reshape(-1, *pixels.shape[2:]), work.probe.preprocessing).code
        assert code is not None
        same = code_agreement(expected[chosen], code.reshape(len(chosen), variants, -1))
        found = same.reshape(len(chosen), -1).mean(axis=1)
        return float(found.mean()), found.tolist()

    images = nncf.Dataset([{name: normalize(image[np.newaxis])} for image in work.pixels])
    with lean_statistics():
        model: onnx.ModelProto = nncf.quantize_with_accuracy_control(
            work.original,
            images,
            nncf.Dataset(list(range(len(work.probe.pixels)))),
            judge,
            max_drop=work.max_drop / 100,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(work.pixels),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=head_nodes(work.original)),
            advanced_quantization_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.DISABLE
            ),
        )
    if work.original.functions and not model.functions:
        model.functions.extend(work.original.functions)
    return model


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", help="another model than the built-in one")
    parser.add_argument("--data", default="builtin:fashion-mnist")
    parser.add_argument("--max-drop", type=float, default=3.0, help="points of equal codes")
    arguments = parser.parse_args()
    context, source = Context(Console(), cache_root()), SourceOptions(arguments.checkpoint)
    exported = export(context, obtain_checkpoint(context, source), source)
    images = DataOptions(arguments.data, seed=0, skip_bad=False)
    data = open_data(images, exported.card.classes)
    preprocessing = exported.card.preprocessing
    chosen = choose_images(data.calibration(), RECIPE, 0)
    work = Work(
        onnx.load(exported.onnx),
        load_images(data.calibration(), chosen, preprocessing, 0, default_workers()),
        hold_out(context, exported, data).probe.flat(),
        probe_of(exported, data, RECIPE.control_images),
        arguments.max_drop,
    )
    test = load_probe(
        data.test(), preprocessing, images=TEST_IMAGES, views=5, workers=default_workers()
    )
    reference = answers(work.original, test.flat(), preprocessing)
    weights = weight_names(work.original)
    whole = None
    print("| | seconds | layers in float | codes equal on test images % | change, points |")
    print("|---|---|---|---|---|")
    for name, run in (("edgekit", ours), ("NNCF", nncfs)):
        start = time.monotonic()
        graph = run(work)
        seconds = time.monotonic() - start
        kept = set(quantized_layers(graph))
        if whole is None:
            plain, _ = calibrate(
                work.original,
                work.pixels,
                work.held_out,
                preprocessing,
                RECIPE,
                find_dialect("openvino"),
                Console(verbosity=-1),
            )
            whole = quantized_layers(plain)
        back = [weights.get(layer, layer) for layer in whole if layer not in kept]
        found = difference(test, reference, answers(graph, test.flat(), preprocessing))
        print(
            f"| {name} | {seconds:.0f} | {len(back)} of {len(whole)} "
            f"| {interval_text(found.code_all, 100).lstrip('+')} "
            f"| {interval_text(found.corruption_change)} |",
            flush=True,
        )
        print(f"  {name}: {', '.join(back)}", flush=True)


if __name__ == "__main__":
    main()
