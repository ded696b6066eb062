"""Refuses an INT8 model whose answers differ from its float original's.

Always on, because parity can be skipped, and needs labels. The images are held out from
calibration, clean and corrupted; the model runs in its target's runtime, or in ONNX Runtime if that
is not available here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.core.step_cache import cached, find, versions_of
from edgekit.steps.artifacts import Exported, Quantized
from edgekit.steps.build_data import BuildData
from edgekit.steps.context import Context
from edgekit.targets.descriptor import Hint
from edgekit.targets.dialects import Dialect

if TYPE_CHECKING:
    import onnx

    from edgekit.quantize.probe import Probe
    from edgekit.quantize.results import Closeness
    from edgekit.runtime.answers import Answers

_WORST = 3  # layers that a refusal names
# Settings with which a user may run an OpenVINO bundle; all must compute the same.
_OTHER_SETTINGS: Final[tuple[tuple[Hint, int], ...]] = (
    ("latency", 1),
    ("throughput", 1),
    ("throughput", 2),
    ("throughput", 4),
)
_COMPARED = 8  # images for each of them
_SAME_CODES = 0.75  # of these images; one code in twenty is a tie within float32 rounding
_ROUNDING = 0.02  # of the logits' RMS, where the codes are the same
_HELD_OUT_FROM = ("validation", "train", "calibration")  # the first of them that has images


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Views not used for calibration, and the float model's answers to them."""

    probe: Probe
    answers: Answers


def hold_out(
    context: Context, exported: Exported, data: BuildData, *, again: bool = False
) -> HeldOut:
    """Images of the validation part, clean and corrupted, with the float model's answers.

    Several steps need them; ``again`` computes them even if they are cached.
    """
    from edgekit.data.corruptions.version import code_version
    from edgekit.quantize.guard import LEAST_VIEWS, VIEWS

    part = next(name for name in _HELD_OUT_FROM if len(getattr(data.splits, name)))
    dataset = data.splits.part(part, data.dataset)
    preprocessing = exported.card.preprocessing
    images = min(VIEWS // 2, len(dataset))
    # Every image clean and under one corruption; under more if there are few images.
    corrupted = max(1, -(-LEAST_VIEWS // images) - 1)

    def make(folder: Path) -> None:
        import numpy as np
        import onnx

        from edgekit.quantize.engine import answers
        from edgekit.quantize.probe import load_probe

        probe = load_probe(dataset, preprocessing, images=images, views=corrupted, seed=data.seed)
        original_answers = answers(onnx.load(exported.onnx), probe.flat(), preprocessing)
        arrays: dict[str, Any] = {
            "pixels": probe.pixels,
            "cells": probe.cells,
            **original_answers.arrays(),
        }
        np.savez(folder / "views.npz", **arrays)

    inputs = {
        "onnx": exported.report["sha256"],
        "split": data.splits.summary()["sha256"],
        "images": [part, images, corrupted],
        "seed": data.seed,
        "preprocessing": preprocessing.to_dict(),
        "corruptions": code_version().hex(),
        "tools": versions_of("edgekit", "openvino", "numpy"),
    }
    folder = None if again else find(context.cache, "views", inputs, context.console)
    folder = folder or cached(context.cache, "views", inputs, make, context.console, force=again)
    return _read(folder, preprocessing)


def _read(folder: Path, preprocessing: Any) -> HeldOut:
    import numpy as np

    from edgekit.data.corruptions import BENCHMARK15
    from edgekit.quantize.probe import Probe
    from edgekit.runtime.answers import Answers

    with np.load(folder / "views.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    # Unlabeled: parity checks whether answers are right.
    probe = Probe(arrays["pixels"], None, arrays["cells"], BENCHMARK15, preprocessing)
    return HeldOut(probe, Answers.of(arrays))


def guard_graph(
    context: Context, quantized: Quantized, legal: Path, data: BuildData, *, insist: bool
) -> Closeness:
    """Refuse a calibrated graph, ``legal`` in its dialect's form, that answers differently.

    Without ``insist``, only warn.
    """
    import onnx

    assert quantized.dialect is not None
    held_out = hold_out(context, quantized.exported, data)
    result = check_graph(onnx.load(legal), held_out, quantized.dialect)
    _enforce(context.console, result, quantized, held_out, insist=insist)
    return result


def guard_bundle(
    context: Context, quantized: Quantized, bundle: Path, data: BuildData, *, insist: bool
) -> Closeness:
    """Refuse a ``bundle`` that runs here and answers differently from the float model.

    Without ``insist``, only warn.
    """
    held_out = hold_out(context, quantized.exported, data)
    result = check_bundle(bundle, held_out)
    _enforce(context.console, result, quantized, held_out, insist=insist)
    return result


def _enforce(
    console: Console, result: Closeness, quantized: Quantized, held_out: HeldOut, *, insist: bool
) -> None:
    def worst() -> list[str]:
        import onnx

        if quantized.finetuned:
            return []
        graphs = onnx.load(quantized.onnx), onnx.load(quantized.exported.onnx)
        return worst_layers(*graphs, held_out, console)

    enforce(result, console, worst, insist=insist)


def check_graph(graph: onnx.ModelProto, held_out: HeldOut, dialect: Dialect) -> Closeness:
    """Compare the answers of a graph in its ``dialect``'s form with float's."""
    from edgekit.quantize.guard import closeness

    probe = held_out.probe
    return closeness(held_out.answers, _answers(graph, probe, dialect), clean=probe.clean)


def check_bundle(path: Path, held_out: HeldOut) -> Closeness:
    """Compare the bundle's answers with float's; an error if it disagrees with itself."""
    from edgekit.bundle.store import open_bundle
    from edgekit.quantize.guard import closeness
    from edgekit.runtime.runner import open_runner, run_settings

    pixels = held_out.probe.flat()
    bundle = open_bundle(path)
    default = run_settings(bundle.manifest.target)
    answers = open_runner(bundle, default, None).run(pixels)
    if bundle.manifest.target.backend == "openvino":
        for hint, streams in _OTHER_SETTINGS:
            settings = dataclasses.replace(default, hint=hint, streams=streams)
            other = open_runner(bundle, settings, None).run(pixels[:_COMPARED])
            _refuse_other_answers(answers, other, f"hint {hint} and {streams} stream(s)")
    return closeness(held_out.answers, answers, clean=held_out.probe.clean)


def _refuse_other_answers(usual: Answers, other: Answers, settings: str) -> None:
    """Refuse a runtime that compiles the same bundle to different functions."""
    import numpy as np

    from edgekit.quantize.guard import logits_rms

    count = len(other.logits)
    same = np.ones(count, np.bool_)
    if usual.code is not None and other.code is not None:  # ties may go either way
        same = (usual.code[:count] == other.code).reshape(count, -1).all(axis=1)
    off = logits_rms(usual.logits[:count][same], other.logits[same]) if same.any() else 1.0
    if same.mean() < _SAME_CODES or not off <= _ROUNDING:
        raise EdgekitError(
            f"the runtime answers differently with {settings} than with the target's own settings "
            f"({int(same.sum())} of {count} images with equal codes, logits off by {off:.2g} of "
            "their RMS): nothing was written; this is a fault of the runtime, please report it"
        )


def enforce(
    result: Closeness, console: Console, worst: Callable[[], list[str]], *, insist: bool
) -> None:
    """Report how close a model is; if not close enough, raise an error with the ``worst`` layers.

    ``worst`` is called only then. Without ``insist``, only warn.
    """
    if result.passed:
        console.info(f"guard: {result.describe()}")
        return
    message = f"INT8 answers differ from float's: {result.describe()}"
    if not insist:
        console.warn(f"{message}; written anyway because of --no-guard")
        return
    names = worst()
    layers = f"; most of it comes from {', '.join(names)}" if names else ""
    raise EdgekitError(
        f"{message}{layers}; nothing was written: keep these layers in float (ignored = [...] in "
        "the recipe), take recipe 'controlled', or insist with --no-guard"
    )


def _answers(graph: onnx.ModelProto, probe: Probe, dialect: Dialect) -> Answers:
    from edgekit.quantize.engine import answers
    from edgekit.quantize.guard import onnxruntime_answers

    if not dialect.name.startswith("openvino"):
        return onnxruntime_answers(graph, probe.flat(), probe.preprocessing)
    return answers(graph, probe.flat(), probe.preprocessing)


def worst_layers(
    calibrated: onnx.ModelProto, original: onnx.ModelProto, held_out: HeldOut, console: Console
) -> list[str]:
    """The layers whose INT8 form alone changes the answers most.

    ``calibrated`` is the graph in NNCF's form, ``original`` the float graph.
    """
    from edgekit.quantize.sensitivity import measure

    # A few images expose a broken model; all of them would take minutes.
    probe = dataclasses.replace(
        held_out.probe, pixels=held_out.probe.pixels[:16], cells=held_out.probe.cells[:16]
    )
    layers = measure(calibrated, original, probe, console).layers[:_WORST]
    return [layer.weights or layer.name for layer in layers]
