"""Classifiers that load, run and are wrong, and what `edgekit parity` says of each.

    python -m tests.foreign.lies

prints the table of docs/foreign.md: a row a lie, after the honest INT8 graphs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.foreign import classifiers
from tests.foreign.test_program import GOOD
from tests.planted import edited, weight_scales

CELLS = ("--corruptions", "gaussian_noise,fog,jpeg_compression", "--severities", "1,3")
TOLERANCE = "3"
HONEST = "none: INT8, one scale a tensor"
BETTER = "none: INT8, one scale a channel"
SAME_FILE = ", against the INT8 file it was made from"
ELSEWHERE = f"none: OpenVINO{SAME_FILE}"


@dataclass(frozen=True)
class Told:
    """What a comparison came to."""

    code: int
    document: dict[str, Any]
    errors: str  # standard error

    @property
    def images(self) -> int | None:
        """How many it took; None if it ended before."""
        count = self.document.get("images")
        return count if isinstance(count, int) else None


def parity(candidate: Path | str, *words: str) -> Told:
    """Compare ``candidate`` with the float network, or as the words say, through the command."""
    from edgekit.cli.main import main

    arguments = ["parity", str(candidate), "--json"]
    if "--reference" not in words:
        arguments += ["--reference", str(classifiers.float_onnx())]
    arguments += ["--data", str(classifiers.data()), *CELLS, "--tolerance", TOLERANCE]
    arguments += ["--reference-preprocessing", str(classifiers.preprocessing())]
    if "--preprocessing" not in words:
        arguments += ["--preprocessing", str(classifiers.preprocessing())]
    out, errors = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main([*arguments, *words])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Told(code, json.loads(out.getvalue()), errors.getvalue())


def quantized(*, channels: bool = False) -> Path:
    """The float network as ONNX Runtime's own tool quantizes it, with its defaults otherwise."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc] # untyped
        def __init__(self) -> None:
            images, _ = classifiers.parts()["train"]
            self.batches = iter([{"input/pixels:0": classifiers.normalize(images[:64])}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    path = classifiers.folder() / f"int8-{'channels' if channels else 'tensor'}.onnx"
    if not path.exists():
        quantize_static(classifiers.float_onnx(), path, Reader(), per_channel=channels)
    return path


def classes_exchanged() -> Path:
    """The float network with two classes exchanged."""
    net = classifiers.network()
    order = np.arange(classifiers.CLASSES)
    order[[2, 7]] = 7, 2
    swapped = dataclasses.replace(net, weights=net.weights[:, order], bias=net.bias[order])
    return classifiers.saved(classifiers.graph(swapped), "swapped.onnx")


def _mean_off() -> list[str]:
    path = classifiers.folder() / "mean.toml"
    mean = classifiers.MEAN
    path.write_text(classifiers.PREPROCESSING.replace(f"{mean}", f"{1.05 * mean:g}"))
    return [str(classifiers.float_onnx()), "--preprocessing", str(path)]


def _colors_exchanged() -> list[str]:
    path = classifiers.folder() / "bgr.toml"
    path.write_text(f'{classifiers.PREPROCESSING}channel_order = "BGR"\n')
    return [str(classifiers.float_onnx()), "--preprocessing", str(path)]


def _scale_off() -> list[str]:
    model = onnx.load(quantized())
    first, *_ = weight_scales(model)
    wrong = edited(model, [first], lambda scale: (1.1 * scale).astype(scale.dtype))
    return [str(classifiers.saved(wrong, "scale.onnx"))]


def _half_repeated() -> list[str]:
    source = GOOD.replace("ROOT", repr(str(Path(__file__).parents[2]))).replace(
        "    write.write(b",
        "    logits[len(logits) // 2 :] = logits[: len(logits) - len(logits) // 2]\n"
        "    write.write(b",
        1,
    )
    assert "// 2 :]" in source
    return [classifiers.program(source, "half.py")]


def _in_openvino() -> list[str]:
    import openvino

    path = classifiers.folder() / "int8.xml"
    openvino.save_model(openvino.convert_model(quantized()), path, compress_to_fp16=False)
    return [str(path), "--reference", str(quantized())]


def _zeros() -> list[str]:
    net = classifiers.network()
    nothing = dataclasses.replace(net, weights=0 * net.weights, bias=0 * net.bias)
    return [str(classifiers.saved(classifiers.graph(nothing), "zeros.onnx"))]


# Each is the words of a command: the candidate, and options.
LIES: dict[str, Callable[[], Sequence[str]]] = {
    HONEST: lambda: [str(quantized())],
    BETTER: lambda: [str(quantized(channels=True))],
    ELSEWHERE: _in_openvino,
    "two classes exchanged": lambda: [str(classes_exchanged())],
    "BGR instead of RGB": _colors_exchanged,
    "nothing but zeros": _zeros,
    "half of each batch repeated": _half_repeated,
    "mean off by 5%": _mean_off,
    "a layer's scale off by 10%": _scale_off,
    f"a layer's scale off by 10%{SAME_FILE}": lambda: [
        *_scale_off(),
        "--reference",
        str(quantized()),
    ],
}


def tell(lie: str, *more: str) -> Told:
    """Compare the candidate that is this lie."""
    candidate, *words = LIES[lie]()
    return parity(candidate, *words, *more)


def table() -> str:
    """Markdown."""
    lines = [
        "| lie | exit | verdict | images | change of corruption error, points "
        "| same class, clean | corrupted | scores off by, clean | warned |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for lie in LIES:
        told = tell(lie)
        found = told.document
        if told.images is None:
            lines.append(f"| {lie} | {told.code} | {found['error']} | | | | | | |")
            continue
        error, close = found["corruption_error"], found["closeness"]
        clean, corrupted = close["same_class_clean"], found["top1_agreement"]["corrupted"]
        same = (
            f"{100 * one['estimate']:.1f}% [{100 * one['lower']:.1f}, {100 * one['upper']:.1f}]"
            for one in (clean, corrupted)
        )
        lines.append(
            f"| {lie} | {told.code} | {found['verdict']} | {told.images} "
            f"| {error['delta']:+.2f} [{error['lower']:+.2f}, {error['upper']:+.2f}] "
            f"| {' | '.join(same)} | {100 * close['scores_rms_clean']:.1f}% "
            f"| {'yes' if found['warnings'] else 'no'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EDGEKIT_CACHE"] = cache
        print(table())
