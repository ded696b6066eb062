"""The table of docs/gallery.md: other people's classifiers, quantized by other tools' defaults.

    python benchmarks/gallery.py --work /tmp/gallery --data cifar10.npz
    python benchmarks/gallery.py --work /tmp/gallery --data cifar10.npz --only lcnet_050
    python benchmarks/gallery.py --work /tmp/gallery --table

timm's architectures, trained shortly on CIFAR-10 or with ImageNet weights from a package and a
fitted classifier; exported by PyTorch's exporter; quantized by each tool as it comes, on the same
300 training images, and by `edgekit calibrate`; judged by `edgekit parity` on CIFAR-10's test part.
What is finished in --work is not repeated. --work/rows.jsonl gets a line for each model and tool.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gallery_models import MODELS, SIDE, Model

_CORRUPTIONS = "gaussian_noise,defocus_blur,fog,contrast,jpeg_compression"
_SEVERITIES = "2,4"
_CLASSES = 10


def _onnxruntime(model: Model, images: Any, folder: Path) -> Path:
    """`onnxruntime.quantization.quantize_static` with all of its defaults."""
    from gallery_training import pixels
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc] # untyped
        def __init__(self) -> None:
            self.rest = iter(pixels(model, images))

        def get_next(self) -> Any:
            image = next(self.rest, None)
            return None if image is None else {"input": image[np.newaxis]}

    path = folder / "onnxruntime.onnx"
    quantize_static(folder / "float.onnx", path, Reader())
    return path


def _nncf(model: Model, images: Any, folder: Path) -> Path:
    """`nncf.quantize` with all of its defaults, of the model as OpenVINO converts it."""
    import nncf
    import openvino
    from gallery_training import pixels

    values = pixels(model, images)
    quantized = nncf.quantize(
        openvino.convert_model(folder / "float.onnx"),
        nncf.Dataset([image[np.newaxis] for image in values]),
    )
    path = folder / "nncf.xml"
    openvino.save_model(quantized, path)
    return path


def _edgekit(model: Model, images: Any, folder: Path) -> Path:
    """`edgekit calibrate` with all of its defaults, for ONNX Runtime; it chooses its own images."""
    path = folder / "edgekit.onnx"
    words = ["calibrate", str(folder / "float.onnx"), "--dialect", "onnxruntime"]
    words += ["--preprocessing", str(folder / "pixels.toml"), "--data", str(images)]
    code, _ = command([*words, "-o", str(path)])
    if code:
        raise SystemExit(f"edgekit calibrate ended with {code}")
    return path


def command(words: list[str]) -> tuple[object, str]:
    """The exit code and the standard output of an `edgekit` command."""
    from edgekit.cli.main import main as edgekit

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            edgekit(words)
        except SystemExit as end:
            return end.code, out.getvalue()
    return 0, out.getvalue()


TOOLS: dict[str, Callable[[Model, Any, Path], Path]] = {
    "onnxruntime": _onnxruntime,
    "nncf": _nncf,
    "edgekit": _edgekit,
}


def judge(folder: Path, candidate: Path, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What `edgekit parity` says."""
    words = ["parity", str(candidate), "--reference", str(folder / "float.onnx"), "--json"]
    words += ["--preprocessing", str(folder / "pixels.toml"), "--data", str(data)]
    words += ["--corruptions", _CORRUPTIONS, "--severities", _SEVERITIES]
    words += ["--images", str(options.images), "--tolerance", str(options.tolerance)]
    code, text = command(words)
    document: dict[str, Any] = json.loads(text)
    return {"exit": code, **document}


def run(model: Model, options: argparse.Namespace) -> None:
    """All that is not done yet for a model."""
    from gallery_training import export, train

    folder: Path = options.work / model.name
    folder.mkdir(exist_ok=True)
    if not (folder / "model.pth").exists():
        train(model, options.work, folder)
    if not (folder / "float.onnx").exists():
        export(model, _CLASSES, folder)
    images = np.load(options.work / "calibration.npy")
    for name in options.tools:
        result = folder / f"{name}.json"
        if result.exists():
            continue
        candidate = TOOLS[name](model, options.data if name == "edgekit" else images, folder)
        document = judge(folder, candidate, options.data, options)
        result.write_text(json.dumps({"model": model.name, "tool": name, **document}))
        print(f"{model.name} {name}: {document.get('verdict', document.get('error'))}", flush=True)


def rows(work: Path) -> Iterator[dict[str, Any]]:
    """What is finished."""
    for model in MODELS:
        for name in TOOLS:
            path = work / model.name / f"{name}.json"
            if path.exists():
                yield json.loads(path.read_text())


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line for each model and tool."""
    lines = [
        "| model | quantized by | clean error % | corruption error % | its change, points "
        "| same class, clean / corrupted % | scores off by | verdict | images |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        if "error" in row:
            lines.append(f"| {row['model']} | {row['tool']} | {row['error']} | | | | | | |")
            continue
        clean, error, close = row["clean_error"], row["corruption_error"], row["closeness"]
        same = close["same_class_clean"]["estimate"], row["top1_agreement"]["corrupted"]["estimate"]
        lines.append(
            f"| {row['model']} | {row['tool']} | {clean['reference']:.1f} → "
            f"{clean['candidate']:.1f} | {error['reference']:.1f} → {error['candidate']:.1f} "
            f"| {error['delta']:+.2f} [{error['lower']:+.2f}, {error['upper']:+.2f}] "
            f"| {100 * same[0]:.1f} / {100 * same[1]:.1f} "
            f"| {100 * close['scores_rms_clean']:.0f}% | {row['verdict']} | {row['images']} |"
        )
    return "\n".join(lines)


def surroundings() -> str:
    """The CPU and the versions behind the figures, in a line."""
    from importlib.metadata import version

    from edgekit.bench.conditions import cpu_model

    names = ("torch", "timm", "onnxruntime", "openvino", "nncf")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{cpu_model()}; Python {platform.python_version()}, {versions}; {SIDE} px"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for models and results")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as .npz (docs/data.md)")
    names = [model.name for model in MODELS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS), metavar="TOOL")
    parser.add_argument("--images", type=int, default=300, help="most test images of a comparison")
    parser.add_argument("--tolerance", type=float, default=2.0, help="points of corruption error")
    parser.add_argument("--table", action="store_true", help="print what is finished, run nothing")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.table:
        os.environ["EDGEKIT_CACHE"] = str(options.work / "cache")
        if not (options.work / "calibration.npy").exists():
            from gallery_training import prepare

            prepare(options.data, options.work)
        for model in MODELS:
            if model.name in options.only:
                run(model, options)
    found = list(rows(options.work))
    lines = [json.dumps(row) for row in found]
    (options.work / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    print(table(found))
    print(f"\n{surroundings()}")


if __name__ == "__main__":
    main()
