"""Opens anybody's classifier from what the user calls it: a file, or ``command:PROGRAM``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.core.errors import UsageError
from edgekit.data.transforms import Preprocessing
from edgekit.foreign.classifier import ForeignClassifier
from edgekit.foreign.pixels import InputForm, read_preprocessing, settle
from edgekit.foreign.program import open_program
from edgekit.foreign.scores import choose_output
from edgekit.foreign.tensors import Engine
from edgekit.model.card import numbered_classes

COMMAND: Final = "command:"
_SUFFIXES = (".onnx", ".xml", ".tflite")


@dataclass(frozen=True)
class ForeignOptions:
    """What a file cannot say of itself."""

    preprocessing: str | None = None
    output: str | None = None  # the name of the output with the scores
    background: bool = False  # its first class is "none of these"
    labels: tuple[str, ...] | None = None
    extension: Path | None = None  # a library with OpenVINO operators


def is_foreign(name: str) -> bool:
    """Whether ``name`` is a program, or a file of a format that anybody may have written."""
    return name.startswith(COMMAND) or Path(name).suffix in _SUFFIXES


def written_by_edgekit(name: str) -> bool:
    """Whether ``name`` is an ONNX file that says how its pixels are prepared."""
    path = Path(name)
    if path.suffix != ".onnx" or not path.is_file():
        return False
    from edgekit.foreign.onnx_file import metadata

    return "edgekit.preprocessing" in metadata(path)


def open_foreign(name: str, options: ForeignOptions) -> ForeignClassifier:
    """The classifier called ``name``, asked once whether it can be one."""
    if name.startswith(COMMAND):
        return _program(name, options)
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"no classifier at {path}: give a bundle, an .onnx, .xml or .tflite file")
    engine = _engine(path, options)
    asked = read_preprocessing(options.preprocessing, name)
    preprocessing, form = settle(asked, engine.input, name)
    return _classifier(path.name, engine, preprocessing, form, options)


def _engine(path: Path, options: ForeignOptions) -> Engine:
    if path.suffix == ".onnx":
        from edgekit.foreign.onnx_file import open_onnx_file

        return open_onnx_file(path)
    if path.suffix == ".xml":
        from edgekit.foreign.openvino_file import open_openvino_file

        return open_openvino_file(path, options.extension)
    from edgekit.foreign.tflite_file import open_tflite_file

    return open_tflite_file(path)


def _program(name: str, options: ForeignOptions) -> ForeignClassifier:
    asked = read_preprocessing(options.preprocessing, name)
    # It gets the pixels themselves: what it does to their numbers is its own business.
    pixels = dataclasses.replace(
        asked.preprocessing, mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="RGB"
    )
    engine = open_program(name.removeprefix(COMMAND), pixels.size)
    form = InputForm("NHWC", engine.input.dtype, 1.0, 0)
    return _classifier(engine.executed, engine, pixels, form, options)


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
        raise UsageError(
            f"{name} has {scores.classes} classes and the labels are {len(labels)}: "
            "with a first class for 'none of these', say so with --background"
        )
    return ForeignClassifier(name, preprocessing, labels, engine, form, scores)
