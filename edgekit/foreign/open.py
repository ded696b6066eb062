"""Opens anybody's classifier from what the user calls it: a file, or ``command:PROGRAM``."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.data.transforms import Preprocessing
from edgekit.foreign.classifier import ForeignClassifier
from edgekit.foreign.execution import Place, split_place
from edgekit.foreign.pixels import Asked, InputForm, read_preprocessing, settle
from edgekit.foreign.program import open_program
from edgekit.foreign.scores import choose_output
from edgekit.foreign.tensors import Engine
from edgekit.model.card import numbered_classes

COMMAND: Final = "command:"
_ENGINES = (".engine", ".plan", ".trt")
_SUFFIXES = (".onnx", ".xml", ".tflite", *_ENGINES)
_PREPROCESSING = "edgekit.preprocessing"


@dataclass(frozen=True)
class ForeignOptions:
    """What a file cannot say of itself."""

    preprocessing: str | None = None
    output: str | None = None  # the name of the output with the scores
    background: bool = False  # its first class is "none of these"
    labels: tuple[str, ...] | None = None
    extension: Path | None = None  # a library with OpenVINO operators
    allow_fallback: bool = False  # run elsewhere than the name says
    allow_weak: bool = False  # be a reference that knows nothing


def is_foreign(name: str) -> bool:
    """Whether ``name`` is a program, or a file of a format that anybody may have written."""
    return name.startswith(COMMAND) or Path(split_place(name)[0]).suffix in _SUFFIXES


def written_by_edgekit(name: str) -> bool:
    """Whether ``name`` is an ONNX file that says how its pixels are prepared."""
    return _PREPROCESSING in _metadata(Path(split_place(name)[0]))


def is_interchange(name: str) -> bool:
    """Whether edgekit wrote it to be compiled: it takes prepared pixels, and says how."""
    if not written_by_edgekit(name):
        return False
    from edgekit.foreign.onnx_file import takes_prepared_pixels

    return takes_prepared_pixels(Path(split_place(name)[0]))


def open_foreign(name: str, options: ForeignOptions) -> ForeignClassifier:
    """The classifier called ``name``, asked once whether it can be one."""
    return dataclasses.replace(_open(name, options), opener=partial(open_foreign, name, options))


def _open(name: str, options: ForeignOptions) -> ForeignClassifier:
    if name.startswith(COMMAND):
        return _program(name, options)
    file, place = split_place(name)
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"no classifier at {path}: give a bundle, an .onnx, .xml or .tflite file")
    if path.suffix in _ENGINES:
        raise _refused_engine(path)
    engine = _engine(path, place, options)
    called = path.name if place is None else f"{path.name}@{place}"
    engine.execution.check(called, allow_fallback=options.allow_fallback)
    told = _metadata(path) if options.preprocessing is None else {}
    if _PREPROCESSING in told:
        known = Preprocessing.from_dict(json.loads(told[_PREPROCESSING]))
        asked = Asked(known, known.size)
        if engine.input.dtype == np.uint8:  # compiled: the graph itself prepares the bytes
            asked = Asked(_unprepared(known), known.size, scale=1.0, zero_point=0)
        options = dataclasses.replace(
            options,
            labels=options.labels or tuple(json.loads(told["edgekit.labels"])),
            output=options.output or "logits",
        )
    else:
        asked = read_preprocessing(options.preprocessing, name)
    preprocessing, form = settle(asked, engine.input, name)
    return _classifier(called, engine, preprocessing, form, options)


def _refused_engine(path: Path) -> EdgekitError:
    """A plan says neither which GPU it is for nor how to feed it; its owner has a program."""
    how = (
        f"judge it where it runs, with command:'ssh DEVICE python3 PROGRAM {path.name}' "
        "(docs/foreign.md has the program), or a bundle with --device"
    )
    if importlib.util.find_spec("tensorrt") is None:
        return ToolchainMissing(
            f"{path} is a TensorRT engine, and this machine has no TensorRT: {how}"
        )
    return UsageError(
        f"{path} is a TensorRT engine outside a bundle, which edgekit does not run: {how}"
    )


def _metadata(path: Path) -> dict[str, str]:
    """What an ONNX file says of itself."""
    if path.suffix != ".onnx" or not path.is_file():
        return {}
    from edgekit.foreign.onnx_file import metadata

    return metadata(path)


def _engine(path: Path, place: Place | None, options: ForeignOptions) -> Engine:
    runtimes = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}.get(path.suffix, ())
    if place is not None and place.runtime not in runtimes:
        raise UsageError(f"{path} does not run in {place.runtime}: leave out '@{place}'")
    if path.suffix == ".xml" or (place is not None and place.runtime == "openvino"):
        from edgekit.foreign.openvino_file import open_openvino_file

        return open_openvino_file(
            path, options.extension, place, allow_fallback=options.allow_fallback
        )
    if path.suffix == ".onnx":
        from edgekit.foreign.onnx_file import open_onnx_file

        return open_onnx_file(path, place)
    from edgekit.foreign.tflite_file import open_tflite_file

    return open_tflite_file(path)


def _program(name: str, options: ForeignOptions) -> ForeignClassifier:
    # It gets the pixels themselves: what it does to their numbers is its own business.
    pixels = _unprepared(read_preprocessing(options.preprocessing, name).preprocessing)
    engine = open_program(name.removeprefix(COMMAND), pixels.size)
    form = InputForm("NHWC", engine.input.dtype, 1.0, 0)
    return _classifier(engine.execution.runtime, engine, pixels, form, options)


def _unprepared(preprocessing: Preprocessing) -> Preprocessing:
    """The same image, as its bytes."""
    return dataclasses.replace(preprocessing, mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="RGB")


def _classifier(
    name: str,
    engine: Engine,
    preprocessing: Preprocessing,
    form: InputForm,
    options: ForeignOptions,
) -> ForeignClassifier:
    scores = choose_output(engine.outputs, options.output, name, background=options.background)
    labels = options.labels or numbered_classes(scores.classes)
    if len(labels) != scores.classes:
        hint = "give as many lines as it has classes"
        if scores.classes == len(labels) + 1:
            hint = "if its first class means 'none of these', say so with --background"
        raise UsageError(
            f"{name} has {scores.classes} classes and there are {len(labels)} labels: {hint}"
        )
    return ForeignClassifier(name, preprocessing, labels, engine, form, scores)
