"""What stays float in an INT8 graph, and why: rules that look at the graph, never at names.

Of the VQ-SA head, everything but its large products. A codeword index is a discontinuity, and the
attention logits are differences of large numbers that go through a sigmoid: rounding them to 8
bits changes answers. The products with constant weights (the folded projection, the classifier)
account for nearly all of the head's cost and tolerate INT8. Of the backbone, only what loses much
and gains little: the first depthwise convolution, all of them beside squeeze-excite gates, softmax
attention, the gates themselves, sums that a layer norm reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx

from edgekit.graph.layers import find_layers
from edgekit.graph.lookup import is_lookup
from edgekit.graph.view import MATRIX_PRODUCTS, PRODUCTS, SHAPES, Graph, attributes, constants
from edgekit.quantize.recipes import Recipe, Rule

_POOLING = ("ReduceMean", "GlobalAveragePool")
# What may lie between the two products of an attention besides the softmax: scaling, a bias, a
# mask, their broadcasting.
_BETWEEN = (*SHAPES, "Add", "Sub", "Mul", "Div", "Where", "Cast", "Expand", "Clip", "Dropout")
# What turns a projection into queries and keys: scaling, or normalization to unit length.
_SCALING = (*_BETWEEN, "Slice", "Split", "Gather", "Concat", "Softmax", "Pow", "Sqrt", "Max",
            "ReduceL2", "ReduceSum", "ReduceSumSquare")  # fmt: skip
_POINTWISE = ("Erf", "Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Relu", "Clip", "HardSwish",
              "Add", "Sub", "Mul", "Div", "Pow", "Identity", "Cast")  # fmt: skip
# What may lie between a pooled map and the gates computed from it.
_GATING = (*_POINTWISE, *SHAPES, *PRODUCTS, "Expand", "BatchNormalization")
_NORMS = ("LayerNormalization", "RMSNormalization")
_LONGEST_FUNCTION = 12  # nodes of an activation: tanh-GELU, the longest in use, has eight


def float_scope(model: onnx.ModelProto, recipe: Recipe) -> dict[str, str]:
    """The names of the nodes that ``recipe`` leaves in float, each with the rule that does so."""
    rules: dict[str, Collection[str]] = {"head": head_nodes(model)}
    if recipe.ignored:
        rules["ignored"] = find_layers(model, recipe.ignored)
    if recipe.first_depthwise == "float":
        rules["first depthwise"] = first_depthwise(model)
    for name in recipe.keep:
        rules[name] = _RULES[name](model)
    scope: dict[str, str] = {}
    for rule, nodes in rules.items():
        for node in nodes:
            scope.setdefault(node, rule)
    return scope


def head_nodes(model: onnx.ModelProto) -> list[str]:
    """The head's nodes that must not be quantized; empty without a codebook."""
    graph = Graph(model)
    lookups = list(filter(is_lookup, graph.nodes))
    if not lookups:
        return []
    # The pooled feature (or the map's vectors) and everything computed from it; also the pooling
    # itself, which then reads the last convolution's output before it is rounded.
    starts = {graph.source(lookup.input[0], SHAPES) for lookup in lookups}
    sources = [graph.producer[name] for name in starts if name in graph.producer]
    for norm in [node for node in sources if node.op_type in _NORMS]:  # a ConvNeXt has one there
        sources += graph.back(norm.input[0], (*SHAPES, "Gather"), _POOLING)[1]
    head = [node for node in sources if node.op_type in _POOLING]
    return [
        node.name
        for node in (*head, *graph.depending_on(starts))
        if not (node.op_type in MATRIX_PRODUCTS and graph.is_constant(node.input[1]))
    ]


def first_depthwise(model: onnx.ModelProto) -> list[str]:
    """The name of the first depthwise convolution, if there is one.

    In mobile networks it reads the stem's output. Each of its outputs sums 9 of these values, so
    their rounding does not average out as it does in a product over many channels, and every later
    layer inherits it: a fifth of all that moves the lookup's margins, and more than half where
    zero-points must be 0 and a ReLU's output has seven bits. It is bound by memory rather than by
    arithmetic, and costs little in float.
    """
    return _depthwise(model)[:1]


def _depthwise(model: onnx.ModelProto) -> list[str]:
    stored = constants(model)
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in stored:
            continue
        channels, inputs_of_each = stored[node.input[1]].dims[:2]
        groups = attributes(node).get("group", 1)
        if inputs_of_each == 1 and groups == channels > 1:
            found.append(node.name)
    return found


def attention_products(model: onnx.ModelProto) -> list[str]:
    """Both products of each softmax attention, what lies between them, and what scales its inputs.

    Neither product has weights. A softmax yields many small numbers and a few large ones, and a
    single step loses the small ones, which together decide; the logits before it are in an
    exponent. Runtimes fuse the two products and the softmax into one float kernel, which a Q/DQ
    pair between them would break up.
    """
    flow = _Flow(model)
    scope: dict[str, None] = {}
    for softmax in model.graph.node:
        if softmax.op_type != "Softmax":
            continue
        before, logits = flow.back(softmax.input[0], _BETWEEN, MATRIX_PRODUCTS)
        after, sums = flow.ahead(softmax.output[0], (*SHAPES, "Cast", "Dropout"), MATRIX_PRODUCTS)
        if not logits or not sums:
            continue  # a classifier's softmax, or a gate
        scope.update((node.name, None) for node in (*logits, *before, softmax, *after, *sums))
        for product in (*logits, *sums):
            for name in product.input:
                scaling, _ = flow.back(name, _SCALING, (), stop=flow.adds_bias)
                scope.update((node.name, None) for node in scaling)
    return list(scope)


def squeeze_excite(model: onnx.ModelProto) -> list[str]:
    """Gates that are computed from the pooled map and scale its channels, with their product.

    A gate scales a whole channel, so its error does not average out over the positions. And the
    map's range is widest before the gates shut channels off: rounded there, the remaining channels
    get little of the 8 bits. The whole block is only a few operations.
    """
    flow = _Flow(model)
    scope: dict[str, None] = {}
    for product in model.graph.node:
        if product.op_type != "Mul":
            continue
        for gate, gated in (product.input, reversed(product.input)):
            between, pools = flow.back(gate, _GATING, _POOLING)
            if len(pools) == 1 and pools[0].input[0] == gated:
                scope.update((node.name, None) for node in (*pools, *between, product))
    return list(scope)


def gated_depthwise(model: onnx.ModelProto) -> list[str]:
    """All depthwise convolutions of a network with squeeze-excite gates.

    Such networks have activations without an upper bound (SiLU, hard-swish), and their channels'
    ranges differ widely before a depthwise convolution, which reads each of them alone: a single
    step for all is too coarse for most. Where a ReLU6 bounds them it is not. They have few of the
    network's operations.
    """
    return _depthwise(model) if squeeze_excite(model) else []


def activations(model: onnx.ModelProto) -> list[str]:
    """Activation functions written as a product of x and a function of x alone.

    GELU and SiLU look like this where the opset lacks them. Runtimes fuse each into one function;
    quantized piece by piece, the values in between are rounded twice more.
    """
    flow = _Flow(model)
    scope: dict[str, None] = {}
    for product in model.graph.node:
        if product.op_type != "Mul":
            continue
        for scale, value in (product.input, reversed(product.input)):
            between = flow.function_of(value, scale)
            if between:
                scope.update((node.name, None) for node in (*between, product))
    return list(scope)


def batch_norms(model: onnx.ModelProto) -> list[str]:
    """Batch norms that do not follow a convolution, which would have absorbed them.

    Each brings its channels to the scale that the next layer needs. Before it their ranges may
    differ widely, and a single step for all of them loses the small ones.
    """
    graph = Graph(model)
    return [
        node.name
        for node in graph.nodes
        if node.op_type == "BatchNormalization" and not graph.back(node.input[0], (), PRODUCTS)[1]
    ]


def normed_sums(model: onnx.ModelProto) -> list[str]:
    """The additions in a network with layer norms, except for the biases of products.

    They carry the residual stream, in which a few channels grow far beyond the others from block
    to block until a layer norm scales them back: a single step loses most of the others.
    Batch norm is folded away and leaves no such stream. An INT8 addition gains nothing here,
    because the layer norm after it reads float.
    """
    flow = _Flow(model)
    if not any(node.op_type in _NORMS for node in model.graph.node):
        return []
    return [
        node.name for node in model.graph.node if node.op_type == "Add" and not flow.adds_bias(node)
    ]


class _Flow(Graph):
    """A graph, with the queries that the rules need."""

    def adds_bias(self, node: onnx.NodeProto) -> bool:
        """Whether a node adds a constant to a product."""
        if node.op_type != "Add" or not any(self.is_constant(name) for name in node.input):
            return False
        sources = [self.producer[name] for name in node.input if name in self.producer]
        return any(source.op_type in PRODUCTS for source in sources)

    def function_of(self, value: str, name: str) -> list[onnx.NodeProto]:
        """The nodes from ``value`` to ``name`` if that is an elementwise function of it alone."""
        nodes: list[onnx.NodeProto] = []
        names = [name]
        while names:
            name = names.pop()
            if name == value or self.is_constant(name):
                continue
            node = self.producer.get(name)
            if node is None or node.op_type not in _POINTWISE or len(nodes) >= _LONGEST_FUNCTION:
                return []
            nodes.append(node)
            names.extend(name for name in node.input if name)
        return nodes


_RULES: dict[Rule, Callable[[onnx.ModelProto], list[str]]] = {
    "attention": attention_products,
    "squeeze-excite": squeeze_excite,
    "gated-depthwise": gated_depthwise,
    "activations": activations,
    "batch-norms": batch_norms,
    "normed-sums": normed_sums,
}
