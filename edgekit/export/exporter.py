"""Writes a trained model as a float ONNX file, and proves that the file computes the same.

The graph takes ``images`` float32 [batch, 3, H, W], normalized, and returns ``logits`` float32
[batch, classes], ``code`` int64 and ``margin`` float32 ([batch] pooled, [batch, P] spatial).
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import onnx

from edgekit import __version__
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import write_bytes
from edgekit.core.typed_toml import nearest
from edgekit.export.report import Batch, ExportReport
from edgekit.export.tracing import Prepared, prepare, trace, weight_bytes
from edgekit.export.verify import check_agreement, check_structure
from edgekit.graph.lookup import lookup_function
from edgekit.graph.two_of_four import two_of_four_layers
from edgekit.graph.variants import VARIANTS, lookup_node, to_variant
from edgekit.graph.zero_branches import drop_zero_branches
from edgekit.graph.zero_channels import remove_zero_channels
from edgekit.model.card import ModelCard
from edgekit.model.vqsa import VQSA
from edgekit.targets.operators import LOOKUP_NODE, Variant

OPSETS = range(18, 24)  # written by the exporter, and read by TensorRT, OpenVINO and ONNX Runtime
# Protobuf, and thus a one-file ONNX model, is limited to 2 GiB; the graph itself needs some room.
_MAX_BYTES = 2**31 - 2**24


def export_onnx(
    model: VQSA,
    card: ModelCard,
    path: Path,
    *,
    opset: int = 18,
    batch: Batch = "dynamic",
    vq: Variant = "function",
    tables: bool = True,
    margin: bool = True,
    folded: bool = True,
    source: str | None = None,
) -> ExportReport:
    """Export ``model`` to ``path``; nothing is written unless every check passes.

    ``batch`` is "dynamic" or the only batch size that the file will accept; ``vq`` is the form of
    the lookup (`edgekit.graph.variants`); ``tables`` is `fold`'s, ignored if they would not fit
    into the file. ``margin = False`` leaves out that output and its cost, ``folded = False``
    keeps the head's matrices as trained, for comparisons. ``source`` is the checkpoint's SHA-256,
    which is recorded in the file. The same input gives the same bytes.
    """
    start = time.monotonic()
    _check_options(opset, batch, vq)
    tables = _fitting_tables(model, tables)
    was_training = model.training
    model.eval()
    try:
        prepared = prepare(model, tables=tables, margin=margin, folded=folded)
        graph = trace(prepared, card.preprocessing.size, opset, batch)
        _finish(graph, prepared, opset)
        branches = drop_zero_branches(graph)
        outputs, message = prepared.model.outputs, prepared.fold.message
        channels = remove_zero_channels(graph)
        two_of_four = len(two_of_four_layers(graph))
        del prepared  # saves a copy of its tables, which are in the graph now
        _describe(graph, card, source)
        data = serialize(to_variant(graph, vq))
        # A bare plugin node does not run without the plugin, but its twin with the body does.
        runnable = serialize(graph) if vq == "plugin" else data
        del graph
        check_structure(data)
        agreement = check_agreement(runnable, model, card.preprocessing, batch)
    finally:
        model.train(was_training)
    write_bytes(path, data)
    return ExportReport(
        path=str(path),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        opset=opset,
        batch=batch,
        vq=vq,
        outputs=outputs,
        fold=message,
        zero_branches=branches,
        zero_channels=channels,
        two_of_four=two_of_four,
        agreement=agreement,
        seconds=time.monotonic() - start,
    )


def serialize(model: onnx.ModelProto) -> bytes:
    """Serialize deterministically, with sorted map entries."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _check_options(opset: int, batch: Batch, vq: Variant) -> None:
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} is out of range: use {OPSETS[0]} to {OPSETS[-1]}")
    if batch != "dynamic" and batch < 1:
        raise UsageError(f"batch must be 'dynamic' or at least 1, not {batch}")
    if vq not in VARIANTS:
        raise UsageError(f"vq: unknown form '{vq}'{nearest(vq, list(VARIANTS))}")


def _fitting_tables(model: VQSA, tables: bool) -> bool:
    """Whether to use tables, which are the only part of a file that can be left out."""
    if weight_bytes(model, tables=tables) <= _MAX_BYTES:
        return tables
    size = weight_bytes(model, tables=False)
    if size > _MAX_BYTES:
        raise EdgekitError(
            f"the model has {size / 1e9:.1f} GB of weights, but an ONNX file holds 2.1 GB at most: "
            f"use a smaller codebook (codebook_size is {model.config.codebook_size})"
        )
    return False


def _finish(graph: onnx.ModelProto, prepared: Prepared, opset: int) -> None:
    """Give the lookup its name and its body, and remove traces of the exporting machine."""
    node = lookup_node(graph)
    if node is not None and prepared.lookup is not None:
        node.name = LOOKUP_NODE
        graph.functions.append(lookup_function(prepared.lookup, opset))
    # The exporter stores stack traces, with paths, and its own bookkeeping in all of these.
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    graph.graph.ClearField("doc_string")
    graph.graph.ClearField("metadata_props")
    for parts in (
        graph.graph.node,
        graph.graph.input,
        graph.graph.output,
        graph.graph.value_info,
        graph.graph.initializer,
    ):
        for part in parts:
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
    graph.graph.name = "edgekit"


def _describe(graph: onnx.ModelProto, card: ModelCard, source: str | None) -> None:
    """Write the model card into the file's metadata, as plain text and JSON."""
    graph.producer_name = "edgekit"
    graph.producer_version = __version__
    entries = {
        "edgekit.version": __version__,
        "edgekit.backbone": card.backbone,
        "edgekit.labels": _json(card.classes),
        "edgekit.preprocessing": _json(card.preprocessing.to_dict()),
        "edgekit.training": card.training.describe_seen(),
        "edgekit.vqsa": _json(asdict(card.vqsa)),
    }
    if source is not None:
        entries["edgekit.source_sha256"] = source
    for key, value in sorted(entries.items()):
        graph.metadata_props.add(key=key, value=value)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
