"""Resizing on the host beside resizing inside OpenVINO's graph, a call of each in turn.

    python benchmarks/resize.py

Says why bundles take images at the network's own size: OpenVINO offers Pillow's filters as a
preprocessing step, but on the CPU they are slower than Pillow, and they do not round between the
two axes, so some values come out one gray level off.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgekit.data.transforms import IMAGENET, LITE0, Preprocessing

FRAMES = ((480, 640), (1080, 1920))  # height, width
ROUNDS = 31


def in_graph(
    preprocessing: Preprocessing, height: int, width: int
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """OpenVINO's resize of uint8 frames of one size, cropped like `Preprocessing.fit`."""
    import openvino as ov
    from openvino import opset11 as ops
    from openvino.preprocess import PrePostProcessor, ResizeAlgorithm

    filters = {
        "bilinear": ResizeAlgorithm.RESIZE_BILINEAR_PILLOW,
        "bicubic": ResizeAlgorithm.RESIZE_BICUBIC_PILLOW,
    }
    full = preprocessing._cover(height, width)
    rows, columns = preprocessing.size
    top, left = round((full[0] - rows) / 2), round((full[1] - columns) / 2)
    image = ops.parameter([1, 3, *full], np.float32)
    crop = ops.slice(image, [top, left], [top + rows, left + columns], [1, 1], [2, 3])
    steps = PrePostProcessor(ov.Model([ops.result(crop)], [image]))
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().tensor().set_spatial_static_shape(height, width)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(ov.Type.f32)
    steps.input().preprocess().resize(filters[preprocessing.interpolation])
    compiled = ov.Core().compile_model(steps.build(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def run(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = request.infer({0: frame[np.newaxis]})[0]
        return np.moveaxis(found[0], 0, 2)

    return run


def main() -> None:
    """Print a Markdown table."""
    print("| frame | filter | Pillow, ms | in the graph, ms | slower | values that differ |")
    print("|---|---|---|---|---|---|")
    for height, width in FRAMES:
        frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        for preprocessing in (IMAGENET, LITE0):
            inside = in_graph(preprocessing, height, width)
            times: dict[str, list[float]] = {"host": [], "graph": []}
            for _ in range(ROUNDS):
                for name, run in (("host", preprocessing.fit), ("graph", inside)):
                    start = time.perf_counter()
                    run(frame)
                    times[name].append(1e3 * (time.perf_counter() - start))
            ratios = [b / a for a, b in zip(times["host"], times["graph"], strict=True)]
            exact = preprocessing.fit(frame)
            off = np.clip(np.round(inside(frame)), 0, 255) != exact
            print(
                f"| {width} x {height} | {preprocessing.interpolation} "
                f"| {statistics.median(times['host']):.1f} "
                f"| {statistics.median(times['graph']):.1f} "
                f"| {statistics.median(ratios):.1f} x | {100 * off.mean():.0f}% |"
            )


if __name__ == "__main__":
    main()
