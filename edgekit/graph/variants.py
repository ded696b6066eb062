"""The three forms of a graph's codebook lookup.

function  the node edgekit::CodebookLookup with its body: any runtime runs it, ours run it faster
inline    the body's standard operators instead of the node: for runtimes without local functions
plugin    the node alone: only a runtime with our operator runs it (TensorRT before 10.7 prefers
          a function's body to a registered plugin)
"""

from __future__ import annotations

from typing import get_args

import onnx

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import nearest
from edgekit.graph.lookup import LookupSpec, is_lookup, lookup_function
from edgekit.graph.view import Graph, attributes, copied, opset, set_nodes
from edgekit.targets.operators import DOMAIN, LOOKUP, LOOKUP_NODE, Variant

VARIANTS: tuple[Variant, ...] = get_args(Variant)


def to_variant(model: onnx.ModelProto, vq: Variant) -> onnx.ModelProto:
    """A model in *function* form, converted to the form ``vq``."""
    if vq not in VARIANTS:
        raise UsageError(f"vq: unknown form '{vq}'{nearest(vq, list(VARIANTS))}")
    if vq == "function":
        return model
    if vq == "inline":
        return _inlined(model)
    plugin = copied(model)
    del plugin.functions[:]
    return plugin


def with_body(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that any runtime can run: a lookup in *plugin* form gets its body back."""
    node = lookup_node(model)
    if node is None or any((f.domain, f.name) == (DOMAIN, LOOKUP) for f in model.functions):
        return model
    whole, own = copied(model), attributes(node)
    rows = Graph(model).constants[node.input[1]].dims[0]
    version = opset(model)
    spec = LookupSpec(own["metric"].decode(), margin=bool(own["margin"]), rows=rows)
    whole.functions.append(lookup_function(spec, version))
    return whole


def lookup_node(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """The edgekit::CodebookLookup node, if the graph has one."""
    return next(filter(is_lookup, model.graph.node), None)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Standard operators only; the names of the new nodes and values start with `LOOKUP_NODE`.

    Our body takes no attributes and has no subgraphs, so renaming its values is enough. The names
    must not change between releases, because ignored scopes match them.
    """
    if lookup_node(model) is None:
        return model
    inlined = copied(model)
    node = lookup_node(inlined)
    assert node is not None
    body = next(f for f in inlined.functions if (f.domain, f.name) == (DOMAIN, LOOKUP))
    values = dict(zip(body.input, node.input, strict=True))
    values |= dict(zip(body.output, node.output, strict=True))
    expanded = []
    for step in body.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(step)
        copy.name = f"{LOOKUP_NODE}/{step.name}"
        copy.input[:] = [values.get(value, f"{LOOKUP_NODE}/{value}") for value in step.input]
        copy.output[:] = [values.get(value, f"{LOOKUP_NODE}/{value}") for value in step.output]
        expanded.append(copy)
    nodes = list(inlined.graph.node)
    at = nodes.index(node)
    set_nodes(inlined.graph, [*nodes[:at], *expanded, *nodes[at + 1 :]])
    del inlined.functions[:]
    standard = [entry for entry in inlined.opset_import if entry.domain != DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(standard)
    return inlined
