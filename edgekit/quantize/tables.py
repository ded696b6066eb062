"""Keeps a graph's large tables out of the copies that calibration makes.

NNCF copies and serializes a graph a dozen times. A codebook of 10,000 rows and the fold's tables
are 250 MB that nothing quantizes, so that would be gigabytes. ONNX can store a constant in a file
beside the graph, which runtimes map into memory; the copies then hold only a name.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx

from edgekit.graph.view import Graph, add_outputs, constants, copied, drop_unused_nodes
from edgekit.targets.operators import LOOKUP

_LARGE = 1 << 20  # bytes from which a table is worth a file
_FOLDER = "edgekit.tables"  # in the metadata of a graph whose tables are files: where they are
_OPEN: set[str] = set()  # the folders that exist; whatever else a graph names is a stranger's
_READERS = {"Gather", LOOKUP}  # they pick rows or compare with them: neither is ever quantized


@contextlib.contextmanager
def tables_in_files(model: onnx.ModelProto) -> Iterator[tuple[onnx.ModelProto, Path]]:
    """A copy of ``model`` whose tables are files in a folder that exists within the context.

    `restore_tables` puts them back into a model made from the copy. Whatever is made from it has
    its tables in the same folder, which this then gives again.
    """
    marks = [each.value for each in model.metadata_props if each.key == _FOLDER]
    if marks and marks[-1] in _OPEN:  # the last one is ours
        yield copied(model), Path(marks[-1])
        return
    names = _tables(model)
    with tempfile.TemporaryDirectory(prefix="edgekit-tables-") as folder:
        copy = without_constants(model)
        for number, tensor in enumerate(model.graph.initializer):
            stored = copy.graph.initializer.add()
            if tensor.name not in names:
                stored.CopyFrom(tensor)
                continue
            file = f"{number}.bin"
            (Path(folder) / file).write_bytes(tensor.raw_data)
            stored.name, stored.data_type = tensor.name, tensor.data_type
            stored.dims[:] = tensor.dims
            stored.data_location = onnx.TensorProto.EXTERNAL
            stored.external_data.add(key="location", value=file)
            stored.external_data.add(key="offset", value="0")
            stored.external_data.add(key="length", value=str(len(tensor.raw_data)))
        copy.metadata_props.add(key=_FOLDER, value=folder)
        _OPEN.add(folder)
        try:
            yield copy, Path(folder)
        finally:
            _OPEN.discard(folder)


def set_aside_again(model: onnx.ModelProto, light: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model``, which was made from ``light`` but has read its tables from the files."""
    copy = without_constants(model)
    outside = {
        tensor.name: tensor
        for tensor in light.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    copy.graph.initializer.extend(outside.get(t.name, t) for t in model.graph.initializer)
    return copy


def restore_tables(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Store in ``model``, in place, the tables of ``original`` that it only names."""
    tables = constants(original)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.CopyFrom(tables[tensor.name])
    for each in list(model.metadata_props):
        if each.key == _FOLDER:
            model.metadata_props.remove(each)


def without_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of everything but the stored tensors."""
    copy = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        opset_import=model.opset_import,
        functions=model.functions,
        metadata_props=model.metadata_props,
    )
    graph = model.graph
    copy.graph.name = graph.name
    copy.graph.node.extend(graph.node)
    copy.graph.input.extend(graph.input)
    copy.graph.output.extend(graph.output)
    copy.graph.value_info.extend(graph.value_info)
    return copy


def leading_to(
    model: onnx.ModelProto, names: list[str], added: onnx.GraphProto | None = None
) -> onnx.ModelProto:
    """A copy of the part of ``model`` that computes the float values ``names``, its outputs.

    Nodes and constants that are ``added`` may compute some of them from the model's values.
    """
    copy = without_constants(model)
    del copy.graph.output[:]
    add_outputs(copy, names)
    graphs = [model.graph] if added is None else [model.graph, added]
    if added is not None:
        copy.graph.node.extend(added.node)
    needed = drop_unused_nodes(copy)
    for graph in graphs:
        copy.graph.initializer.extend(t for t in graph.initializer if t.name in needed)
    return copy


def _tables(model: onnx.ModelProto) -> set[str]:
    """Large constants, stored as bytes, that only `_READERS` read."""
    graph = Graph(model)
    large = (name for name, tensor in graph.constants.items() if len(tensor.raw_data) >= _LARGE)
    return {
        name
        for name in large
        if name in graph.readers and {reader.op_type for reader in graph.readers[name]} <= _READERS
    }
