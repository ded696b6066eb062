"""Random graphs with the head's operator: weights of any shape and type, odd attributes."""

from __future__ import annotations

import random
from typing import Any

PROGRAM = """
def sides(g):
    n, d, c = g["rows"], g["width"], g["classes"]
    return {"codebook": [n, d], "norm": [n, 1], "table": [n, 4 * d], "table_steps": [n, 2],
            "projection": [3 * d, d], "projection_steps": [3 * d], "classifier": [c, d],
            "classifier_steps": [c], "classifier_bias": [c]}

def rounded(values, step, zero, signed):
    low = -128 if signed else 0
    codes = np.clip(np.rint(values / np.float32(step)) + zero, low, low + 255)
    return (codes - zero) * np.float32(step)

def right_logits(g, a, x, code):
    "The formula in double, for the codes that came."
    at, d = g["attributes"], g["width"]
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    rest = x - a["codebook"][code] * a["norm"][code]
    coded = rounded(rest, at["rest_step"], at["rest_zero"], at["rest_signed"] == 1)
    u, p1, p2 = (coded @ part.T for part in np.split(
        a["projection"] * a["projection_steps"][:, None], 3))
    rows = np.ascontiguousarray(a["raw_table"]).view("<i2").reshape(-1, 2, d)[code].astype(float)
    key, base = (rows * a["table_steps"][code][:, :, None]).transpose(1, 0, 2)
    first, second = (rest * key).sum(1, keepdims=True), (rest * u).sum(1, keepdims=True)
    value = base + sigmoid(first) * p1 + sigmoid(first + second) * p2
    value = x + value if at["residual"] == 1 else np.maximum(value, 0)
    fused = rounded(value, at["fused_step"], at["fused_zero"], at["fused_signed"] == 1)
    weights = a["classifier"] * a["classifier_steps"][:, None]
    logits = fused @ weights.T + a["classifier_bias"]
    # A value halfway between two codes may go either way, and a few on the way to it.
    slack = 0.01 * np.abs(logits).max() + 3 * at["fused_step"] * np.abs(weights).max()
    return logits, slack

def one(g):
    random = np.random.default_rng(g["seed"])
    scale = {"norm": 1, "table_steps": 2e-5, "projection_steps": 1e-3, "classifier_steps": 5e-3}
    arrays, stored, inputs, nodes = {}, [], [], []
    for name, shape in sides(g).items():
        shape = g["shapes"].get(name, shape)
        if name in ("table", "projection", "classifier"):
            values = random.integers(-127, 128, shape).astype(np.int8)
        else:
            values = (random.uniform(0.5, 1.5, shape) * scale.get(name, 1)).astype(np.float32)
        if name in g["special"]:
            values = np.full(shape, g["special"][name]).astype(values.dtype)
        if name in g["open"]:
            kind = helper.np_dtype_to_tensor_dtype(values.dtype)
            inputs.append((helper.make_tensor_value_info(name, kind, shape), values))
        elif name in g["kinds"]:
            wanted = getattr(TensorProto, g["kinds"][name])
            tensor = helper.make_tensor(name + "_stored", wanted, shape,
                                        np.abs(values.ravel()) % 8)
            exact = numpy_helper.to_array(tensor)
            # As raw bytes: OpenVINO misreads bfloat16 in int32_data.
            stored.append(numpy_helper.from_array(exact, tensor.name))
            nodes.append(helper.make_node("Cast", [tensor.name], [name], to=g["casts"]
                         and helper.np_dtype_to_tensor_dtype(values.dtype) or wanted))
            values = exact.astype(values.dtype)
        else:
            stored.append(numpy_helper.from_array(values, name))
        arrays[name] = values
    names = (["features", *arrays, "features"])[: g["inputs"]]
    outputs = ["logits", "code", "margin"][: g["outputs"]]
    nodes.append(helper.make_node("VQSAHead", names, outputs, domain="edgekit", **g["attributes"]))
    kinds = {"code": TensorProto.INT64}
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, g["declared"])
    graph = helper.make_graph(
        nodes, "g", [features, *(info for info, _ in inputs)],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in outputs],
        stored)
    model = core.read_model(helper.make_model(graph, ir_version=10, opset_imports=[
        helper.make_opsetid("", 21), helper.make_opsetid("edgekit", 1)]).SerializeToString())
    x = (random.uniform(0, 2, g["given"])).astype(np.float32)
    if "features" in g["special"] and x.size:
        x.flat[random.integers(x.size)] = g["special"]["features"]
    found = core.compile_model(model, "CPU")([x, *(values for _, values in inputs)])
    logits = found[0]
    assert logits.shape == (len(x), g["classes"]), "another shape"
    if g["outputs"] == 1:  # without the code, nobody knows which logits are right
        return "right"
    code = found[1]
    assert code.shape == (len(x),), "another shape"
    assert ((code >= 0) & (code < g["rows"])).all(), "a code out of range"
    if len(x) == 0 or not all(np.isfinite(v).all() for v in (x, *arrays.values())):
        return "right"
    wide = {name: values.astype(float) for name, values in arrays.items()}
    scores = x.astype(float) @ wide["codebook"].T
    if g["attributes"].get("metric") == "l2":
        scores -= (wide["codebook"] ** 2).sum(1) / 2
    best = np.take_along_axis(scores, code[:, None], 1)[:, 0]
    assert (best >= scores.max(1) - 1e-9 * (1 + abs(scores).max(1))).all(), "another code"
    with np.errstate(over="ignore", invalid="ignore"):
        expected, slack = right_logits(g, {**wide, "raw_table": arrays["table"]}, x, code)
    if np.isfinite(expected).all() and np.abs(expected).max() < 1e30:
        off = np.abs(logits - expected).max()
        assert off <= slack, f"logits are off by {off}, more than {slack}"
    return "right"
"""
_WEIGHTS = (
    *("codebook", "norm", "table", "table_steps", "projection", "projection_steps"),
    *("classifier", "classifier_steps", "classifier_bias"),
)
_KINDS = ("FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT4", "UINT4", "INT32", "FLOAT")
_ODD = (0, -1, 2, 1 << 40, -(1 << 62), 1e-30, 1e30, -0.5, float("inf"), float("nan"), "", "cosine")
_NUMBERS = (0.0, -1.0, 1e30, 1e-40, float("inf"), float("nan"))


def head(chance: random.Random) -> dict[str, Any]:
    """The description of one graph; half of them are valid, or no case would get far."""
    rows, width = chance.choice((1, 2, 7, 65, 300)), chance.choice((1, 3, 8, 17, 64, 129))
    classes = chance.choice((1, 2, 5, 100))
    count = chance.choice((0, 1, 5, 33))
    margin = chance.random() < 0.5
    attributes: dict[str, int | float | str] = {
        "plugin_version": "1",
        "metric": chance.choice(("dot", "l2")),
        "margin": int(margin),
        "residual": chance.randrange(2),
        "rest_step": chance.uniform(0.005, 0.05),
        "rest_zero": chance.choice((0, 5, 128)),
        "rest_signed": 0,
        "fused_step": chance.uniform(0.01, 0.1),
        "fused_zero": chance.choice((0, 100)),
        "fused_signed": 0,
    }
    if chance.random() < 0.5:
        attributes |= {"rest_zero": -3, "rest_signed": 1, "fused_zero": 7, "fused_signed": 1}
    made: dict[str, Any] = {
        "seed": chance.randrange(1 << 30),
        "rows": rows,
        "width": width,
        "classes": classes,
        "attributes": attributes,
        "shapes": {},
        "kinds": {},
        "casts": chance.random() < 0.7,
        "open": [],
        "special": {},
        "inputs": 10,
        "outputs": 2 + margin,
        "given": [count, width],
        "declared": list(chance.choice(([count, width], ["A", width], ["A", "B"]))),
    }
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2))):
        _spoil(made, chance)
    return made


def _spoil(made: dict[str, Any], chance: random.Random) -> None:
    name = chance.choice(_WEIGHTS)
    rows, width, (count, _) = made["rows"], made["width"], made["given"][:2] or (1, 1)
    shapes: tuple[list[int], ...]
    match chance.randrange(8):
        case 0:
            shapes = (
                [],
                [0],
                [rows],
                [width, rows],
                [rows, width + 1],
                [1, rows, width],
                [0, 0],
            )
            made["shapes"][name] = chance.choice(shapes)
        case 1:
            made["kinds"][name] = chance.choice(_KINDS)
        case 2:
            made["open"] = [name]
        case 3:
            made["special"][chance.choice((name, "features"))] = chance.choice(_NUMBERS)
        case 4:
            made["inputs"] = chance.choice((1, 2, 9, 11))
        case 5:
            made["outputs"] = chance.choice((1, 2, 3))
        case 6:
            attribute = chance.choice((*made["attributes"], "other"))
            made["attributes"][attribute] = chance.choice(_ODD)
            if chance.random() < 0.2:
                del made["attributes"][attribute]
        case _:
            given: tuple[list[int], ...] = ([width], [count, width + 1], [], [count, 0])
            made["given"] = chance.choice((*given, [2, count, width]))
            made["declared"] = list("ABC"[: len(made["given"])])
