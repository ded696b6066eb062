"""How early a build's comparison stops: part of benchmarks/parity.py."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def stopping(options: argparse.Namespace) -> list[str]:
    """What verdicts cost on the built-in model, as rows of a table."""
    from edgekit.core.console import Console
    from edgekit.core.step_cache import cache_root
    from edgekit.steps.build_data import open_data
    from edgekit.steps.bundling import compile_bundle
    from edgekit.steps.calibration import (
        Calibration,
        calibrate,
        choose_calibration_images,
        leave_float,
    )
    from edgekit.steps.config import BuildConfig
    from edgekit.steps.context import Context
    from edgekit.steps.float_model import export, obtain_checkpoint
    from edgekit.targets.descriptor import load_descriptor
    from edgekit.targets.dialects import find_dialect
    from edgekit.workflows.parity import parity_of_build

    rows = []
    cases: tuple[tuple[str, Literal["int8", "fp32"], float], ...] = (
        ("float, tolerance 0.5", "fp32", 0.5),
        ("INT8, tolerance 2", "int8", 2.0),
        ("INT8, scales of a layer doubled, tolerance 0.5", "int8", 0.5),
    )
    for name, precision, tolerance in cases:
        out = options.folder / "built-in"
        config = BuildConfig(out=str(out), precision=precision, tolerance=tolerance)
        context, source = Context(Console(verbosity=-1), cache_root()), config.source()
        exported = export(context, obtain_checkpoint(context, source), source)
        data = open_data(config.data_options(), exported.card.classes)
        descriptor = load_descriptor("cpu")
        quantized = leave_float(exported)
        if precision == "int8":
            chosen = choose_calibration_images(context.console, data, config.calibration())
            dialect = find_dialect(descriptor.dialect)
            quantized = calibrate(context, Calibration(exported, data, chosen, dialect))
        if "doubled" in name:
            broken = doubled(quantized.onnx, options.folder / "doubled")
            quantized = dataclasses.replace(quantized, onnx=broken)
        written = config.bundle(descriptor, key=name)
        built = compile_bundle(context, quantized, descriptor, written)
        shutil.rmtree(cache_root() / "parity", ignore_errors=True)
        found = parity_of_build(context, built.path, exported, data, config.comparison())
        inferences = found.inferences
        everything = 2 * found.images_available * 76
        rows.append(
            f"| {name} | {found.verdict} | {found.images:,} | {inferences:,} | "
            f"{found.seconds:.0f} | {everything / inferences:.1f} x |"
        )
        print(rows[-1], flush=True)
    return rows


def doubled(calibrated: Path, folder: Path, layer: int = 20) -> Path:
    """The calibrated graph with the weight scales of one layer doubled: a damaged build."""
    import onnx

    from tests.planted import edited, weight_scales

    model = onnx.load(calibrated)
    model = edited(model, [weight_scales(model)[layer]], lambda scale: 2 * scale)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(calibrated.with_name("images.json"), folder)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"
