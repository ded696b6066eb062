"""A float ONNX classifier that edgekit did not make, as calibration takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgekit.core.errors import UsageError
from edgekit.core.files import file_sha256, write_bytes, write_text
from edgekit.core.step_cache import cached, versions_of
from edgekit.foreign.open import ForeignOptions, open_foreign, written_by_edgekit
from edgekit.model.card import ModelCard
from edgekit.steps.artifacts import Checkpoint, Exported
from edgekit.steps.context import Context

if TYPE_CHECKING:
    import onnx

    from edgekit.foreign.classifier import ForeignClassifier

_OLDEST_OPSET: Final = 13  # the first with one scale a channel
_QUANTIZED: Final = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger")


def is_onnx(source: str | None) -> bool:
    """Whether ``source`` is an ONNX file rather than a checkpoint."""
    return source is not None and Path(source).suffix == ".onnx"


def take_foreign(context: Context, path: Path, options: ForeignOptions) -> Exported:
    """The graph in ``path``, checked, in one file and with a name for every node."""
    import onnx

    if written_by_edgekit(str(path)):
        raise UsageError(f"{path} was exported by edgekit: calibrate the checkpoint it came from")
    opened = open_foreign(str(path), options)
    _check_ends(opened, path)
    model = onnx.load(path)
    _check_graph(model, path)

    def make(folder: Path) -> None:
        _tidy(model)
        write_bytes(folder / "model.onnx", model.SerializeToString(deterministic=True))
        document = {"sha256": file_sha256(folder / "model.onnx"), "fold": "as the file has it"}
        write_text(folder / "report.json", json.dumps(document))

    inputs = {"engine": opened.engine.key, "tools": versions_of("edgekit", "onnx")}
    folder = cached(context.cache, "foreign", inputs, make, context.console)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    # The width is that of a VQ-SA head's feature, and there is none.
    card = ModelCard(path.name, 0, opened.classes, opened.preprocessing, origin="foreign")
    context.console.info(opened.describe())
    return Exported(Checkpoint(path, file_sha256(path)), folder / "model.onnx", card, report)


def _check_ends(opened: ForeignClassifier, path: Path) -> None:
    """Calibration feeds float32 [batch, 3, height, width] and reads [batch, classes]."""
    tensor, output = opened.engine.input, opened.scores.tensor
    if opened.form.layout != "NCHW" or opened.form.dtype != "float32":
        raise UsageError(
            f"{path} takes {tensor.describe()}: calibration needs float32 channels first"
        )
    if tensor.shape[0] is not None:
        raise UsageError(
            f"{path} takes {tensor.shape[0]} image(s) at a time: export it with a free batch"
        )
    if output != opened.engine.outputs[0] or len(output.shape) != 2:
        listed = ", ".join(one.describe() for one in opened.engine.outputs)
        raise UsageError(
            f"{path} has the outputs {listed}: calibration needs one score a class first, as "
            "[batch, classes]"
        )


def _check_graph(model: onnx.ModelProto, path: Path) -> None:
    found = next((node.op_type for node in model.graph.node if node.op_type in _QUANTIZED), None)
    if found is not None:
        raise UsageError(f"{path} is quantized already (it has {found}): give its float original")
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        raise UsageError(f"{path} has opset {opset}: export it with opset {_OLDEST_OPSET} or later")


def _tidy(model: onnx.ModelProto) -> None:
    """Give every node a name, and make constants what the passes look for: initializers."""
    from onnx import numpy_helper

    from edgekit.graph.view import set_nodes

    kept = []
    for node in model.graph.node:
        value = next((one for one in node.attribute if one.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = numpy_helper.from_array(numpy_helper.to_array(value.t), node.output[0])
            model.graph.initializer.append(tensor)
        else:
            kept.append(node)
    seen: set[str] = set()
    for number, node in enumerate(kept):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{number}"
        seen.add(node.name)
    set_nodes(model.graph, kept)
    # Old files list weights among the inputs, and whoever counts inputs would count them.
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
